"""Commands that tests run, each in a process of its own.

Most of a short command's seconds go into importing JAX, Flax, TensorFlow Datasets and the like. So
one server for each worker of pytest imports them, once, and forks a process for each command, which
then imports this project, reads its flags and ends as `python -m` does. Where a test changes the
environment, on which an import may depend, a new interpreter is started instead.
"""

import atexit
import contextlib
import functools
import importlib
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from multiprocessing import connection, reduction

import numpy as np

# Of other people alone: what is tested is imported by each command anew.
_PRELOADED = (
    *("flax.linen", "fsspec", "grain.python", "jax", "jaxtyping", "librosa"),
    *("matplotlib.backends.backend_agg", "matplotlib.figure", "optax", "orbax.checkpoint"),
    *("scipy.signal", "soundfile", "soxr", "tensorboardX", "tensorflow_datasets"),
)
_OF_EACH_TEST = "PYTEST_CURRENT_TEST"


def run(module, *flags, warnings_are_errors=False, timeout=300):
    """Runs `python -m module flags`; returns its `subprocess.CompletedProcess`, with texts."""
    with (
        tempfile.TemporaryFile("w+") as stdout,
        tempfile.TemporaryFile("w+") as stderr,
        start(
            module, *flags, warnings_are_errors=warnings_are_errors, stdout=stdout, stderr=stderr
        ) as process,
    ):
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        texts = [file.seek(0) or file.read() for file in (stdout, stderr)]
        return subprocess.CompletedProcess(process.args, status, *texts)


def start(module, *flags, warnings_are_errors=False, stdin=subprocess.DEVNULL, **options):
    """Starts `python -m module flags`; returns a `subprocess.Popen`, or what is like it.

    Args:
        module: Name of a module.
        *flags: Its arguments.
        warnings_are_errors: As by `-W error`.
        stdin: As of `subprocess.Popen`, but for the default.
        **options: `stdout`, `stderr`, `text` and `bufsize`, of `subprocess.Popen`.
    """
    warn = ["-W", "error"] if warnings_are_errors else []
    flags = [os.fsdecode(flag) if isinstance(flag, bytes) else str(flag) for flag in flags]
    arguments = [sys.executable, *warn, "-m", module, *flags]
    server, environment = _server()
    if _environment() != environment:
        return subprocess.Popen(arguments, stdin=stdin, **options)
    return _Forked(server, arguments, (module, flags, warn[1:], os.getcwd()), stdin, **options)


class _Forked:
    """A process that the server forks, with the methods of `subprocess.Popen` that tests need."""

    def __init__(self, server, arguments, request, stdin, stdout=None, stderr=None, **options):
        self.args, self.returncode, self._server = arguments, None, server
        given = {0: stdin, 1: stdout, 2: stderr}
        ours, theirs = {}, {}
        for descriptor, end in given.items():
            if end == subprocess.PIPE:
                pipe = os.pipe()
                theirs[descriptor], ours[descriptor] = pipe if descriptor == 0 else pipe[::-1]
            elif end == subprocess.DEVNULL:
                theirs[descriptor] = os.open(os.devnull, os.O_RDWR)
            elif end is not None:
                theirs[descriptor] = os.dup(end if isinstance(end, int) else end.fileno())
        server.send((*request, list(theirs)))
        for end in theirs.values():
            reduction.send_handle(server, end, None)
            os.close(end)
        self.pid = server.recv()
        mode, buffering = ("", -1) if options.get("text") else ("b", options.get("bufsize", -1))
        self.stdin, self.stdout, self.stderr = (
            open(ours[descriptor], ("r" if descriptor else "w") + mode, buffering)
            if descriptor in ours
            else None
            for descriptor in given
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._close()
        self.wait()

    def _close(self):
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream and not stream.closed:
                stream.close()

    def poll(self):
        if self.returncode is None:
            self._server.send(self.pid)
            self.returncode = self._server.recv()
        return self.returncode

    def wait(self, timeout=float("inf")):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.005)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, input=None, timeout=float("inf")):
        """Writes to it, and returns what it says until it ends."""
        said = {}

        def read(stream):
            said[stream] = stream.read()

        streams = [stream for stream in (self.stdout, self.stderr) if stream]
        threads = [threading.Thread(target=read, args=(stream,), daemon=True) for stream in streams]
        for thread in threads:
            thread.start()
        with contextlib.suppress(BrokenPipeError):  # It has ended, or does not read.
            if input:
                self.stdin.write(input)
            if self.stdin:
                self.stdin.close()
        self.wait(timeout)
        for thread in threads:
            thread.join()
        self._close()
        return said.get(self.stdout), said.get(self.stderr)


def _environment():
    return {name: value for name, value in os.environ.items() if name != _OF_EACH_TEST}


@functools.cache
def _server():
    """Starts the server; returns the connection to it, and the environment that it has."""
    ours, theirs = connection.Pipe()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )

    def end():
        ours.close()
        process.wait()

    atexit.register(end)
    return ours, _environment()


def _serve(client):
    """Forks a process for each command; returns what it is to run in that process, else None.

    Of a command it is sent what `_become` takes, and answers with a process's number; of such a
    number it answers with the exit status, None while there is none.
    """
    for module in _PRELOADED:
        importlib.import_module(module)
    while True:
        try:
            request = client.recv()
        except EOFError:
            return None
        if isinstance(request, int):
            process_id, status = os.waitpid(request, os.WNOHANG)
            client.send(os.waitstatus_to_exitcode(status) if process_id else None)
            continue
        *command, descriptors = request
        files = {descriptor: reduction.recv_handle(client) for descriptor in descriptors}
        with warnings.catch_warnings():
            # From Python 3.12 on: threads, which are those of OpenBLAS, that expects forks.
            warnings.simplefilter("ignore", DeprecationWarning)
            process_id = os.fork()
        if process_id == 0:
            client.close()
            return *command, files
        client.send(process_id)
        for file in files.values():
            os.close(file)


def _become(module, flags, warn_options, folder, files):
    """Runs a module as `python -m` does."""
    for descriptor, file in files.items():
        os.dup2(file, descriptor)
        os.close(file)
    for option in warn_options:
        sys.warnoptions.append(option)
        warnings.simplefilter(option)
    tempfile.tempdir = None
    np.random.seed()
    os.chdir(folder)
    sys.path[0] = folder
    sys.argv[1:] = flags
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _request = _serve(connection.Connection(int(sys.argv[1])))
    if _request is not None:
        _become(*_request)
