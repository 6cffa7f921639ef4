"""C++ sources of this package, compiled by the system's compiler for this very machine.

That is done when a library is first needed, and kept in the user's cache folder.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

from umt_jax import storage
from umt_jax.processes import leftovers

_ROOT = Path(__file__).parents[2]
"""Sources include each other by their paths from here."""

_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-w", "-pthread")


def load(source: Path, *, includes: str = "", version: str = "") -> ctypes.CDLL:
    """Returns the library of a source file; compiles it where that was not done yet.

    Where it cannot be kept, it is compiled by every process.

    Args:
        source: File of C++, which may include what lies in this package.
        includes: Folder of headers from elsewhere that it includes; "" for none.
        version: Of those headers.

    Raises:
        OSError: There is no compiler, or it fails.
    """
    compiler = shutil.which(os.environ.get("CXX", "")) or shutil.which("g++")
    compiler = compiler or shutil.which("clang++")
    if compiler is None:
        raise OSError("there is no C++ compiler. Install g++ (Debian: apt install g++).")
    command = [compiler, *_FLAGS, f"-I{_ROOT}"]
    if includes:
        command.append(f"-I{includes}")
    path = storage.cache_folder() / f"{source.stem}-{_fingerprint(source, compiler, version)}.so"
    if not path.exists():
        try:
            _compile(command, source, path)
        except OSError as error:
            if error.errno is None:  # Of the compiler.
                raise
            logging.debug("The compiled %s is not kept: %s", source.stem, error)
            with leftovers.temporary_folder() as folder:
                _compile(command, source, Path(folder, path.name))
                return ctypes.CDLL(str(Path(folder, path.name)))  # Its file may go then.
    return ctypes.CDLL(str(path))


def functions(source: Path, *signatures: Sequence[Any]) -> ctypes.CDLL:
    """Returns the library of a source file, whose functions have their types.

    Args:
        source: As in `load`, which says what is raised.
        *signatures: Of each function its name without `umt_`, the type of its result, and then
            those of its arguments.
    """
    core = load(source)
    for name, result, *arguments in signatures:
        function = getattr(core, f"umt_{name}")  # Which keeps it; core[...] does not.
        function.restype, function.argtypes = result, arguments
    return core


def _fingerprint(source: Path, compiler: str, version: str) -> str:
    """Returns what decides the compiled code: sources, flags, compiler, headers and processor."""
    compiler_version = subprocess.run(
        [compiler, "--version"], capture_output=True, check=False
    ).stdout
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line for line in lines if line.startswith(("flags", "Feat"))), processor)
    headers = sorted(Path(__file__).parent.glob("*.h"))
    sources = [path.read_bytes() for path in (source, *headers)]
    parts = (sources, _FLAGS, compiler_version, version, processor)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _compile(command: list[str], source: Path, path: Path) -> None:
    """Compiles the source to `path`; other processes see it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage.whole_file(path) as unfinished:
        finished = subprocess.run(
            [*command, str(source), "-o", str(unfinished)],
            capture_output=True,
            text=True,
            check=False,
        )
        if finished.returncode:
            lines = [line for line in finished.stderr.splitlines() if "error" in line]
            reason = (lines or ["no reason given"])[0]
            raise OSError(f"{command[0]} cannot compile {source}: {reason}")
