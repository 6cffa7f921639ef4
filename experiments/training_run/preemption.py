"""Stops a run on request, after the current step and with a checkpoint."""

import os
import signal
import socket
import threading

import jax
from absl import logging
from jax.experimental import multihost_utils

EXIT_STATUS = os.EX_TEMPFAIL
"""Status (75) of a run that saved and needs to be started again; errors have 1, success 0."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Handles SIGTERM and SIGINT: the first asks the run to stop, the second ends it at once.

    A thread receives them, since the main thread may be busy in a compiler or a device for long.

    With `jax.distributed` the processes have to agree on the last step. JAX does that once one of
    them gets a SIGTERM, which is also how preemption of a TPU is announced. Its handler replaces
    ours, so this class only forwards a SIGINT to it, and a second SIGTERM counts only after the
    agreement.
    """

    def __init__(self) -> None:
        """Signals are handled within the `with` block; enter it before `jax.distributed` starts."""
        self._heard = threading.Event()

    def reached(self, step: int) -> bool:
        """Says whether `step` is the last one; to be asked after every step, in every process."""
        if not jax.distributed.is_initialized():
            return self._heard.is_set()
        reached = multihost_utils.reached_preemption_sync_point(step)
        if reached:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return reached

    def __enter__(self) -> "StopRequest":
        """Installs the handlers."""
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._sender.fileno())
        self._before = {number: signal.signal(number, _leave_to_thread) for number in _SIGNALS}
        threading.Thread(target=self._listen, name="stop_request", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        """Restores the previous handlers."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(self._fd_before)
        self._sender.close()  # Which ends the thread.

    def _listen(self) -> None:
        with self._receiver:
            while numbers := self._receiver.recv(1):
                if numbers[0] in _SIGNALS:
                    self._hear(signal.Signals(numbers[0]))

    def _hear(self, number: signal.Signals) -> None:
        if self._heard.is_set():
            os._exit(128 + number)
        self._heard.set()
        logging.warning(
            "%s: stopping after this step, with a checkpoint. A second one ends at once.",
            number.name,
        )
        if jax.distributed.is_initialized():
            os.kill(os.getpid(), signal.SIGTERM)


def _leave_to_thread(number: int, frame: object) -> None:
    """Handles a signal for Python, which notifies the thread of every signal with a handler."""
