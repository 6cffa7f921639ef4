"""Training on several hosts: how their processes start and end together, and which of them writes.

Each host runs one process, started with the same command.
"""

import atexit
import contextlib
import hashlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from umt_jax import command_line
from umt_jax.checkpoints import folder_lock, reading
from umt_jax.shapes import PyTree

START_TIMEOUT_SECONDS = 300
"""How long a process waits for the others to start."""

HEARTBEAT_TIMEOUT_SECONDS = 60
"""How long a process may be silent before JAX ends the others."""

_ADVICE = "give --coordinator_address=HOST:PORT, --num_processes=N and --process_id=0 to N-1"

_LINE_BYTES = 1024

_LAST_WORDS_SECONDS = 3
"""How long process 0, which the others notice at once, lets them say what is wrong with them."""


@contextlib.contextmanager
def joined(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> Iterator[None]:
    """Makes this process one of those that train together; to be entered before any device is used.

    After an error it leaves them at once. JAX would have it wait for them when Python exits, and
    them for it in the next step.

    None of the arguments is needed on Cloud TPU, Slurm, Kubernetes and Open MPI.

    Args:
        coordinator_address: HOST:PORT of process 0.
        num_processes: How many there are.
        process_id: Which of them this is.

    Raises:
        ValueError: The arguments are needed here, or make no sense.
        ConnectionError: One of the others was lost. (If they do not come, this process ends.)
    """
    _check(coordinator_address, num_processes, process_id)
    others = "the" if num_processes is None else f"the {num_processes}"
    # JAX would end the process from C++, with a page of addresses.
    in_vain = threading.Timer(
        START_TIMEOUT_SECONDS,
        _give_up,
        [
            f"Not all of {others} processes came within {START_TIMEOUT_SECONDS} s. Start the same "
            "command on every host, each with its own --process_id where that is given, and see "
            "that they reach process 0."
        ],
    )
    in_vain.daemon = True
    in_vain.start()
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            initialization_timeout=2 * START_TIMEOUT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS,
        )
    except ValueError as error:
        raise ValueError(
            "--distributed finds the other processes by itself only on Cloud TPU, Slurm, "
            f"Kubernetes and Open MPI ({str(error).rstrip('.')}). Elsewhere {_ADVICE}."
        ) from error
    finally:
        in_vain.cancel()
    if not writes():
        logging.set_verbosity(logging.WARNING)
    try:
        yield
    except Exception as error:
        # What is registered last is called first, so before JAX's own.
        atexit.register(_leave, _LAST_WORDS_SECONDS if writes() else 0)
        is_of_jax = isinstance(error, jax.errors.JaxRuntimeError)
        if is_of_jax and "RESOURCE_EXHAUSTED" not in str(error):
            raise ConnectionError(
                f"Process {jax.process_index()} of {jax.process_count()} lost the others "
                f"({_first_line(error)}). One of them ended: see what it said. Start all of them "
                "again to go on from the newest checkpoint."
            ) from error
        raise


def _check(coordinator_address, num_processes, process_id):
    given = [argument is not None for argument in (coordinator_address, num_processes, process_id)]
    if not any(given):
        return
    if not all(given):
        raise ValueError(f"--distributed needs all of three flags, or none: {_ADVICE}.")
    if process_id >= num_processes:
        raise ValueError(
            f"--process_id={process_id} must be below --num_processes={num_processes}."
        )
    if not re.fullmatch(r".+:\d+", coordinator_address):
        raise ValueError(
            f"--coordinator_address={coordinator_address} has no port. Write HOST:PORT, as "
            f"{coordinator_address}:12345, with any port that is free on the host of process 0."
        )


def writes() -> bool:
    """Says whether this is the process that logs and writes metrics and translations."""
    return jax.process_index() == 0


@contextlib.contextmanager
def alone_in(workdir: str) -> Iterator[Callable[[], None]]:
    """Keeps other runs out of a folder; process 0 does so for all. All must enter it together.

    Yields:
        To be called before anything is saved: raises if another run has taken the folder over.

    Raises:
        OSError: Another run has it, or it cannot be written. Every process says so.
        ValueError: Checkpoints cannot be written in a folder of this name.
    """
    reading.folder_of(workdir)  # Says what is wrong with its name.
    with contextlib.ExitStack() as stack:
        refusal, check = "", _nothing
        if writes():
            try:
                check = stack.enter_context(folder_lock.held(workdir, purpose="training")).check
            except OSError as error:
                if jax.process_count() == 1:
                    raise
                refusal = str(error)
        if jax.process_count() > 1:
            refusal = _from_process_0(refusal)
        if refusal:
            raise OSError(refusal)
        yield check


def gather(tree: PyTree) -> PyTree:
    """Returns arrays whole in this process's memory. All processes must call it together."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def check_agreement(facts: dict[str, Any]) -> None:
    """Raises `ValueError` on every process if one has other facts than process 0.

    All processes must call it together, with the same names. Without it the first thing that only
    some of them do would leave them waiting for one another.
    """
    if jax.process_count() == 1:
        return
    digests = np.stack(
        [
            np.frombuffer(hashlib.sha256(repr(fact).encode()).digest(), np.uint8)
            for fact in facts.values()
        ]
    )
    of_all = multihost_utils.process_allgather(digests)
    for process, theirs in enumerate(of_all):
        differ = [name for name, a, b in zip(facts, theirs, of_all[0], strict=True) if any(a != b)]
        if differ:
            raise ValueError(
                f"Process {process} differs from process 0 in {' and '.join(differ)}. Start the "
                "same command on every host, with a --workdir and --data_dir that all of them see."
            )


def _nothing() -> None:
    """Stands for the check of those that process 0 makes it for."""


def _from_process_0(text: str) -> str:
    """Returns what process 0 gave, its first kilobyte, in every process."""
    encoded = np.frombuffer(text.encode()[:_LINE_BYTES].ljust(_LINE_BYTES, b"\0"), np.uint8)
    sent = np.asarray(multihost_utils.broadcast_one_to_all(encoded), np.uint8)
    return sent.tobytes().rstrip(b"\0").decode(errors="replace")


def _give_up(message: str) -> None:
    command_line.say(f"error: {message}", error=True)
    _leave()


def _leave(after_seconds: float = 0.0) -> None:
    """Exits without waiting for the others; Python has printed the error by now."""
    time.sleep(after_seconds)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
