"""A folder in which numba, which librosa is compiled with, can keep what it compiled.

numba keeps it beside librosa or in the user's cache folder, and refuses to compile anything where
neither can be written: an installation that is read-only, for a user without a home.
"""

import atexit
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from umt_jax.processes import leftovers


def ensure() -> None:
    """Gives numba a temporary folder where it has no other, for this process and its children.

    To be called before librosa is used. It goes when this process ends.
    """
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
