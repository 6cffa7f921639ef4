"""What evaluators have heard in a sound, kept from one evaluation to the next.

Most of an evaluation is spent on listening to decoys, oracles and the judge's training music, which
are the same whatever model is evaluated. With `keep_in`, joblib keeps what was heard in a folder,
by the samples of the sound; an evaluation that was stopped so goes on where it was, too.
"""

import functools
import hashlib
import importlib.metadata
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import joblib

_LISTENERS = ("basic-pitch", "jax", "librosa", "numpy", "onnxruntime", "scipy", "soxr", "swift-f0")
_MOST_BYTES = 500_000_000

_P = ParamSpec("_P")
_T = TypeVar("_T")

_listeners: dict[str, Callable[..., Any]] = {}
_kept: Callable[..., Any] | None = None  # `_listen`, where what it returns is kept.


def keep_in(folder: Path | None) -> None:
    """Keeps from now on what `recalled` functions return in a folder; None keeps nothing.

    A folder that cannot be made or written keeps nothing either. Of what is there, what was not
    asked for the longest goes, as far as it is more than 500 MB.
    """
    global _kept
    _kept = None
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        memory = joblib.Memory(folder, verbose=0)
        memory.reduce_size(bytes_limit=_MOST_BYTES)
        _kept = memory.cache(_listen)


def recalled(listen: Callable[_P, _T]) -> Callable[_P, _T]:
    """Returns a function that listens to each sound once, and then recalls what it returned.

    It listens again where the source of its module, or a package that listens, is another.

    Args:
        listen: Depends on its arguments alone, which can be pickled as well as what it returns.
    """
    name = f"{listen.__module__}.{listen.__qualname__}"
    _listeners[name] = listen

    @functools.wraps(listen)
    def recall(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if _kept is None:
            return listen(*args, **kwargs)
        heard: _T = _kept(name, _version(listen.__module__), args, kwargs)
        return heard

    return recall


def _listen(name, version, args, kwargs):  # joblib files what it returns by all of these.
    return _listeners[name](*args, **kwargs)


@functools.cache
def _version(module: str) -> str:
    """Returns what changes with the source of a module and with the packages that listen."""
    source = inspect.getsource(sys.modules[module])
    return hashlib.sha256("\n".join([source, *_versions()]).encode()).hexdigest()[:16]


def _versions() -> Iterator[str]:
    for name in _LISTENERS:
        try:
            yield f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"no {name}"
