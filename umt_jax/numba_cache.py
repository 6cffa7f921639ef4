"""A folder in which numba, which librosa is compiled with, can keep what it compiled.

numba keeps it beside librosa or in the user's cache folder, and refuses to compile anything where
neither can be written: an installation that is read-only, for a user without a home.

Of two processes that keep functions of one name at the same time, numba (0.68.1) may write one's
machine code under the other's entry of its index. Whoever reads that entry calls a function with
arguments of other types, and crashes, today and ever after. So here they take turns.
"""

import atexit
import contextlib
import fcntl
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from umt_jax.processes import leftovers

_CACHING = "numba.core.caching"
_LOCK = ".umt_jax.lock"


def ensure() -> None:
    """Gives numba a temporary folder where it has no other, for this process and its children.

    To be called before librosa is used. The folder goes when this process ends. In any other one
    processes take turns.
    """
    if _CACHING in sys.modules:
        _take_turns(sys.modules[_CACHING])
    elif not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())
    if os.environ.get("NUMBA_CACHE_DIR") or _can_be_written(_of_user()):
        return
    librosa = list(_folders_of_librosa())
    if all(_can_be_written(folder / "__pycache__") for folder in librosa):
        return
    try:
        temporary = leftovers.temporary_folder()
    except OSError:  # There is no disk to write to at all, as numba will say.
        return
    atexit.register(temporary.cleanup)
    os.environ["NUMBA_CACHE_DIR"] = folder = temporary.name
    if "numba" in sys.modules:  # It has read the environment.
        sys.modules["numba"].config.CACHE_DIR = folder


class _Watch(importlib.abc.MetaPathFinder):
    """Has processes take turns as soon as numba's module is imported, which takes a while."""

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Finds that module alone, and once."""
        if fullname != _CACHING:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _take_turns(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _take_turns(caching: ModuleType) -> None:
    """Lets one process at a time read or write a folder of numba's."""
    files = getattr(caching, "IndexDataCacheFile", None)
    for name in ("save", "load"):
        method = getattr(files, name, None)
        if method is not None and not hasattr(method, "__wrapped__"):
            setattr(files, name, _in_turn(method))


def _in_turn(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def alone(self: Any, *arguments: Any) -> Any:
        with _turn(getattr(self, "_cache_path", None)):
            return method(self, *arguments)

    return alone


@contextlib.contextmanager
def _turn(folder: str | None) -> Iterator[None]:
    """Waits until nobody else has a turn in a folder; at once where no lock can be made there."""
    try:
        file = open(os.path.join(folder or "", _LOCK), "a") if folder else None
    except OSError:  # A folder that can be read alone: nobody writes there.
        file = None
    with file or contextlib.nullcontext():
        if file:
            with contextlib.suppress(OSError):  # A file system without locks.
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _of_user() -> Path:
    """Returns where numba keeps files of this user, as appdirs, which it asks, would."""
    if sys.platform == "darwin":
        return Path(os.path.expanduser("~/Library/Caches"), "numba")
    return Path(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "numba")


def _folders_of_librosa() -> Iterator[Path]:
    """Yields the folders of librosa's modules."""
    spec = importlib.util.find_spec("librosa")
    for root in (spec and spec.submodule_search_locations) or ():
        yield from (Path(folder) for folder, _, names in os.walk(root) if "__init__.py" in names)


def _can_be_written(folder: Path) -> bool:
    """Whether files can be written to a folder, which is made for them if need be."""
    if not folder.is_absolute():  # There is no home, and this would be a folder named `~`.
        return False
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
