"""Sources of C++ that XLA calls: compiled, and registered through `jax.ffi`."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import jax
import jaxlib

from umt_jax.core import compiler


def library(source: Path, targets: Sequence[str]) -> ctypes.CDLL:
    """Returns a compiled source, whose handlers XLA knows by their names from then on.

    Args:
        source: File of C++, which may include XLA's headers.
        targets: Handlers that it defines.

    Raises:
        OSError: There is no compiler, or it fails.
    """
    loaded = compiler.load(
        source, includes=jax.ffi.include_dir(), version=f"jaxlib {jaxlib.__version__}"
    )
    for target in targets:
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(loaded[target]), platform="cpu")
    return loaded
