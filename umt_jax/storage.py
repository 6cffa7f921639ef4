"""Files that may lie on another machine, for libraries that open local ones only.

Paths are those of `etils.epath`: local ones, gs://, s3://, az:// and hf://.
"""

import contextlib
import errno
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import fsspec
import platformdirs
from absl import logging
from etils import epath

from umt_jax.processes import leftovers

_DRIVERS = {
    "gs": ("gcs", "gcsfs"),
    "s3": ("s3", "s3fs"),
    "az": ("az", "adlfs"),
    "hf": ("hf", "huggingface_hub"),
}
"""Name of each kind of storage in fsspec, and the package that provides it."""

_BLOCK_BYTES = 2**20


def path(text: str) -> epath.Path:
    """Returns the path that a flag gives.

    Raises:
        ValueError: It is on a file system that is not known here, or not installed.
        OSError: That file system does not let us in.
    """
    scheme, separator, _ = text.partition("://")
    if separator:
        if scheme not in _DRIVERS:
            known = ", ".join(f"{scheme}://" for scheme in _DRIVERS)
            raise ValueError(f"{text} is neither a local folder nor begins with one of {known}.")
        protocol, package = _DRIVERS[scheme]
        try:
            fsspec.get_filesystem_class(protocol)
        except ImportError as error:
            raise ValueError(f"{text} needs a package: pip install {package}") from error
        _check_reachable(text)
    return epath.Path(text)


@functools.cache
def _check_reachable(url: str) -> None:
    """Requests a path, so that a missing network or key is reported here, in one line."""
    try:
        epath.Path(url).stat()
    except FileNotFoundError:
        pass  # It may be made yet.
    except Exception as error:  # Of any kind: each storage's library has its own.
        raise OSError(
            f"{url} cannot be reached: {error or type(error).__name__}. Check the network and the "
            "credentials of this kind of storage."
        ) from error


def is_local(place: str | os.PathLike[str]) -> bool:
    """Whether a path is on a file system of this machine, a mounted one perhaps."""
    return "://" not in os.fspath(place)


def files_below(folder: str | os.PathLike[str]) -> Iterator[epath.Path]:
    """Yields the files in a folder and its subfolders, hidden ones left out, in any order.

    Links are followed, each folder once. Pipes, devices and links to nothing are no files.
    """
    return (path for path in entries_below(folder) if not is_local(path) or os.path.isfile(path))


def files_and_closed_below(
    folder: str | os.PathLike[str],
) -> tuple[list[epath.Path], list[epath.Path]]:
    """Returns `files_below`, and the folders below a local one that cannot be entered, each sorted.

    Raises:
        OSError: `folder` itself cannot be entered.
    """
    files, closed = [], []
    for path in entries_below(folder):
        if not is_local(path) or os.path.isfile(path):
            files.append(path)
        elif os.path.isdir(path):
            closed.append(path)
    return sorted(files), sorted(closed)


def check_can_be_entered(folder: str | os.PathLike[str]) -> None:
    """Raises `OSError` if what lies in a local folder cannot be listed, or not be looked at."""
    with os.scandir(folder):
        pass
    if not os.access(folder, os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(folder))


def entries_below(folder: str | os.PathLike[str]) -> Iterator[epath.Path]:
    """Yields what `files_below` does, and what lies there and is neither a file nor a folder.

    Folders that cannot be entered come as well.

    Raises:
        OSError: `folder` itself cannot be entered.
    """
    if is_local(folder):
        check_can_be_entered(folder)
        known: set[str] = set()
        closed: list[OSError] = []
        for parent, subfolders, names in os.walk(folder, onerror=closed.append, followlinks=True):
            # Of one that can be listed alone nothing else can be known.
            if not os.access(parent, os.X_OK):
                subfolders.clear()
                yield epath.Path(parent)
                continue
            here = os.path.realpath(parent)
            if here in known:
                subfolders.clear()
                continue
            known.add(here)
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            yield from (epath.Path(parent, name) for name in names if not name.startswith("."))
        for error in closed:
            if not isinstance(error, FileNotFoundError):  # It was removed meanwhile.
                yield epath.Path(os.fspath(error.filename))
        return
    for entry in epath.Path(folder).iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from entries_below(entry)
        else:
            yield entry


def is_of_full_disk(error: OSError) -> bool:
    """Whether an error says that nothing more can be stored, and not that one file is at fault."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_full(folder: Path) -> bool:
    """Whether nothing more can be stored in a local folder: tries to."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_BLOCK_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return is_of_full_disk(error)
    return False


@contextlib.contextmanager
def local_copy(original: epath.Path) -> Iterator[Path]:
    """Gives a local file of the same content: the file itself, or a copy that goes at the end."""
    if is_local(original):
        yield Path(original)
        return
    with leftovers.temporary_folder() as folder:
        copy = Path(folder, original.name)
        _copy(original, copy)
        yield copy


@contextlib.contextmanager
def whole_file(target: epath.Path | Path) -> Iterator[Path]:
    """Gives the name of a local file to write; at the end it appears at `target`, as a whole."""
    if is_local(target):
        with leftovers.hidden_file(Path(target)) as incomplete:
            yield incomplete
            os.replace(incomplete, target)
        return
    with leftovers.temporary_folder() as folder:
        written = Path(folder, target.name)
        yield written
        # Object stores show an object when its last byte has arrived.
        _copy(written, target)


def copy_files(originals: Sequence[epath.Path], folder: Path) -> None:
    """Copies files to a local folder, those that it does not have yet; each appears as a whole.

    Raises:
        OSError: The disk has too little space, or a file could not be copied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [original for original in originals if not (folder / original.name).exists()]
    num_bytes = sum(original.stat().length for original in wanted)
    free_bytes = shutil.disk_usage(folder).free
    if num_bytes > free_bytes:
        raise OSError(
            f"{folder} has room for {free_bytes / 1e9:.1f} GB, but the copy needs "
            f"{num_bytes / 1e9:.1f} GB. Set XDG_CACHE_HOME to a folder on a larger disk."
        )
    if wanted:
        logging.info("Copying %.3f GB to %s.", num_bytes / 1e9, folder)
    for original in wanted:
        with whole_file(folder / original.name) as incomplete:
            _copy(original, incomplete)


def cache_folder() -> Path:
    """Returns where copies and compiled programs are kept; on Linux ~/.cache/umt_jax.

    For a user who has no home, not even by name, it is one that cannot be made.
    """
    try:
        folder = platformdirs.user_cache_path("umt_jax", appauthor=False)
    except RuntimeError:  # Earlier versions of platformdirs give a folder named `~`.
        return Path(os.devnull, "umt_jax")
    return folder if folder.is_absolute() else Path(os.devnull, "umt_jax")


def _copy(original: epath.Path | Path, copy: epath.Path | Path) -> None:
    try:
        with original.open("rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, _BLOCK_BYTES)
    except OSError as error:
        raise OSError(f"{original} could not be copied to {copy}: {error}") from error
