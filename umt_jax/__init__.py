"""umt_jax: plays a recording back as another instrument (arXiv:1805.07848), in JAX.

The public API: `load` gives a `Translator`, of the model that ships with this package where no
other is named; `Config` describes a model and its training.
Importing this package starts no device and defines no flag.
"""

import importlib
from typing import TYPE_CHECKING, Any

from umt_jax import numba_cache

if TYPE_CHECKING:
    from umt_jax.config import Config as Config
    from umt_jax.translator import Translator as Translator
    from umt_jax.translator import load as load

__all__ = ["Config", "Translator", "load"]
__version__ = "0.1.0"

_HOMES = {
    "Config": "umt_jax.config",
    "Translator": "umt_jax.translator",
    "load": "umt_jax.translator",
}

numba_cache.ensure()  # Here, as any module may be the first to use librosa.


def __getattr__(name: str) -> Any:
    # Imported on first use, so that data preparation, which needs only the lowest modules, loads
    # neither Flax nor Orbax in each of its worker processes.
    if name not in _HOMES:
        raise AttributeError(f"module 'umt_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
