"""Waveform <-> 8-bit mu-law codes, in NumPy or JAX, whichever the arrays are of (§3.1).

There are two conventions. This project's own is `rounded`; `truncated` is that of the authors'
release, which the weights trained with it need.
"""

from typing import Any

import numpy as np

from umt_jax.shapes import Array, Codes, Float, Integer, Waveform

MU = 255
NUM_LEVELS = 256
PUBLISHED_START = 128
"""The code that the authors' generator takes for the one before the first."""

# Levels on either side of silence, code 128, where codes are rounded. 127, not 128, so that both
# +1 and -1 have a level of their own and no amplitude is further than half a level from one.
_HALF_RANGE = 127
_CENTRE = 128


def encode(waveform: Waveform, convention: str) -> Integer[Array, "*B T"]:
    """Quantises a waveform to mu-law codes (§3.1).

    Args:
        waveform: Amplitudes in [-1, 1], [*B, T]; values outside are clipped.
        convention: `rounded` gives the nearest code, 1..255, and 128 for silence. `truncated`
            gives the next one below, 0..255, and 127 for silence.

    Returns:
        Codes, uint8, [*B, T].
    """
    return quantise(compress(waveform.clip(-1.0, 1.0)), convention)


def quantise(levels: Float[Array, "*B T"], convention: str) -> Integer[Array, "*B T"]:
    """Returns the codes, uint8, [*B, T], of compressed amplitudes in [-1, 1]; see `encode`."""
    if convention == "truncated":
        return ((levels + 1) / 2 * MU).astype(np.uint8)
    # Departs from the authors' release: rounds, since truncating and then decoding as they do moves
    # audio down by about one level.
    return ((_HALF_RANGE * levels).round() + _CENTRE).astype(np.uint8)


def decode(codes: Codes, convention: str) -> Any:
    """Returns amplitudes, float32 in [-1, 1], [*B, T], by the convention that made the codes.

    Like all in here: a NumPy array for a NumPy array, a JAX array for a JAX array.
    """
    return _namespace(codes).asarray(_AMPLITUDES[convention])[codes]


def silence(convention: str) -> int:
    """Returns the code of amplitude zero."""
    return int(encode(np.zeros(1, np.float32), convention)[0])


def compress(amplitudes: Float[Array, "*B T"]) -> Float[Array, "*B T"]:
    """Maps [-1, 1] onto itself, with fine steps near silence, in the type of the amplitudes."""
    xp = _namespace(amplitudes)
    # As the authors' release has it: not `log1p`, and no float64 for a float32 waveform.
    log_range = amplitudes.dtype.type(np.log(1 + MU))
    return xp.sign(amplitudes) * xp.log(1 + MU * xp.abs(amplitudes)) / log_range


def _namespace(array: Array) -> Any:
    return array.__array_namespace__()


def _expand(levels: np.ndarray) -> np.ndarray:
    """Inverse of `compress`."""
    return np.sign(levels) * np.expm1(np.abs(levels) * np.log1p(MU)) / MU


_LEVELS = np.arange(NUM_LEVELS) - _CENTRE
_AMPLITUDES = {
    "rounded": _expand(np.maximum(_LEVELS / _HALF_RANGE, -1.0)).astype(np.float32),
    "truncated": _expand(_LEVELS / _CENTRE).astype(np.float32),
}
"""Of each code. Rounded ones are decoded at their centre, code 0 as code 1."""
