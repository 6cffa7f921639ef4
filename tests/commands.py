"""Commands that tests run to their end, each in a process of its own.

Most of a short command's seconds go into importing JAX, Flax, TensorFlow Datasets and the like. So
one server for each worker of pytest imports them, once, and forks a process for each command, which
then imports this project, reads its flags and ends as `python -m` does. Where a test changes the
environment, on which an import may depend, `run` starts a new interpreter instead.
"""

import atexit
import functools
import importlib
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from multiprocessing import connection
from pathlib import Path

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
    options = ["-W", "error"] if warnings_are_errors else []
    arguments = [sys.executable, *options, "-m", module, *map(str, flags)]
    server, environment = _server()
    if _environment() != environment:
        return subprocess.run(arguments, capture_output=True, text=True, timeout=timeout)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("stdout", "stderr")]
        server.send((module, arguments[len(options) + 3 :], options[1:], os.getcwd(), paths))
        process_id = server.recv()
        if not server.poll(timeout):
            os.kill(process_id, 9)
            server.recv()
            raise subprocess.TimeoutExpired(arguments, timeout)
        status = server.recv()
        return subprocess.CompletedProcess(arguments, status, *(path.read_text() for path in paths))


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
    """Forks a process for each command; returns what it is to run in that process, else None."""
    for module in _PRELOADED:
        importlib.import_module(module)
    while True:
        try:
            request = client.recv()
        except EOFError:
            return None
        with warnings.catch_warnings():
            # From Python 3.12 on: threads, which are those of OpenBLAS, that expects forks.
            warnings.simplefilter("ignore", DeprecationWarning)
            process_id = os.fork()
        if process_id == 0:
            client.close()
            return request
        client.send(process_id)
        client.send(os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1]))


def _become(module, flags, warn_options, folder, paths):
    """Runs a module as `python -m` does."""
    for descriptor, path in enumerate(paths, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
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
