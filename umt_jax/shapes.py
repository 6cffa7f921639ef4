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
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int16, Integer, Key, Num, PyTree, UInt, UInt8

Array = jax.Array | np.ndarray

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

Parameters = PyTree
"""A module's trained arrays, or their shapes."""

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
