"""Names of array shapes, used in every signature.

One letter, one meaning:

    B  segments or streams (`*B`: any batch axes, so that [K, B, T] fits too)
    T  audio samples
    F  latent frames
    C  residual channels
    S  skip channels
    Z  latent channels
    Q  256 mu-law levels
    K  domains

The aliases are checked on every call in tests (`--jaxtyping-packages=umt_jax,beartype.beartype`)
and never in production.

JAX is not imported for their sake: what plays a model without it has the same signatures.
"""

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int16, Integer, Key, Num, UInt, UInt8

if TYPE_CHECKING:
    import jax
    from jaxtyping import PyTree

    Array = jax.Array | np.ndarray
    Parameters = PyTree
else:

    class _JaxOrNumpy(type):
        def __instancecheck__(cls, value):
            # Nobody has an array of JAX who has not imported it.
            jax = sys.modules.get("jax")
            return isinstance(value, np.ndarray) or (jax and isinstance(value, jax.Array)) or False

    class Array(metaclass=_JaxOrNumpy):
        """An array of JAX or NumPy."""

    def __getattr__(name):
        # jaxtyping imports JAX for it.
        if name in ("PyTree", "Parameters"):
            from jaxtyping import PyTree

            return PyTree
        raise AttributeError(f"module 'umt_jax.shapes' has no attribute {name!r}")


Waveform = Float[Array, "*B T"]
"""Amplitudes in [-1, 1]."""

Codes = Integer[Array, "*B T"]
"""8-bit mu-law codes, 0..255."""

Features = Float[Array, "*B T C"]
"""Activations at audio rate."""

Stream = Float[Array, "C *B T"]
"""Activations at audio rate, channels-first, as in residual layers."""

Latents = Float[Array, "*B F Z"]
"""Latent frames, one every `pool_samples` samples."""

CodeLogits = Float[Array, "*B T Q"]
"""Unnormalised log-probabilities of each sample's code."""

DomainLogits = Float[Array, "*B K"]
"""Unnormalised log-probabilities of each segment's domain."""

Leaf = Any
"""An array in a tree, or what stands for it: a shape, a sharding, a batch of such arrays."""

__all__ = [
    "Array",
    "Bool",
    "CodeLogits",
    "Codes",
    "DomainLogits",
    "Features",
    "Float",
    "Float32",
    "Int",
    "Int16",
    "Integer",
    "Key",
    "Latents",
    "Leaf",
    "Num",
    "Parameters",
    "PyTree",
    "Stream",
    "UInt",
    "UInt8",
    "Waveform",
]
