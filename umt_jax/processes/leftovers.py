"""Files and folders that are not finished yet, and those that a killed process left behind.

Their names say which process makes them. Whoever makes one in a folder first removes what it finds
there of processes that no longer run.
"""

import contextlib
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from umt_jax.processes import owner

_PREFIX = ".umt"
_NAME = re.compile(r"\.umt\.(?P<system>[0-9a-f]{8})\.(?P<process>\d+)\.(?P<started>\d+)\..+")

AGE_SECONDS = 7 * 24 * 3600
"""Age from which what another machine left behind is removed: nobody here knows its processes.

A machine that was started anew counts as another one.
"""

_looked_through: set[str] = set()


@contextlib.contextmanager
def hidden_file(target: Path) -> Iterator[Path]:
    """Yields a hidden name next to `target`; its file is removed at the end unless it was renamed.

    The name is short, however long the target's is.

    Raises:
        OSError: What the system raised of the hidden file; it names `target`.
    """
    remove_from(target.parent)
    path = target.with_name(f"{_own_prefix()}{uuid.uuid4().hex[:8]}")
    try:
        yield path
    except OSError as error:
        if error.filename is None or os.fspath(error.filename) != os.fspath(path):
            raise
        raise OSError(error.errno, error.strerror, os.fspath(target)) from error
    finally:
        path.unlink(missing_ok=True)


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Returns a new folder among the system's temporary ones, to be used as a context manager."""
    remove_from(Path(tempfile.gettempdir()))
    return tempfile.TemporaryDirectory(prefix=_own_prefix())


def remove_from(folder: Path) -> None:
    """Removes what processes that no longer run have left in a folder, once in each process.

    Of processes of another machine, what was not written to for `AGE_SECONDS`.
    """
    where = os.path.abspath(folder)
    if where in _looked_through:
        return
    _looked_through.add(where)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        with os.scandir(where) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                if match and _is_ours(entry) and _is_left_behind(entry, match):
                    _remove(Path(entry.path), process=match["process"])


def _own_prefix() -> str:
    mine = owner.this_process()
    return f"{_PREFIX}.{mine.system}.{mine.process}.{mine.started}."


def _is_ours(entry: os.DirEntry[str]) -> bool:
    """Whether it is this user's. In /tmp anybody may make what has such a name."""
    try:
        return entry.stat(follow_symlinks=False).st_uid == os.geteuid()
    except FileNotFoundError:  # Its owner has just finished it.
        return False


def _is_left_behind(entry: os.DirEntry[str], match: re.Match[str]) -> bool:
    maker = owner.Owner("", match["system"], int(match["process"]), int(match["started"]))
    is_running = maker.is_running()
    if is_running is None:
        return time.time() - _last_written(Path(entry.path)) > AGE_SECONDS
    return not is_running


def _last_written(path: Path) -> float:
    """Returns when a file, or a folder or anything directly in it, was last changed."""
    with contextlib.suppress(FileNotFoundError):
        children = path.iterdir() if path.is_dir() and not path.is_symlink() else ()
        return max(entry.lstat().st_mtime for entry in (path, *children))
    return time.time()


def _remove(path: Path, *, process: str) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return  # Another process was faster.
    except OSError as error:
        logging.warning(
            "%s, which process %s left behind, stays: %s", path, process, error.strerror
        )
        return
    logging.warning("Removed %s, which process %s left behind when it ended.", path, process)
