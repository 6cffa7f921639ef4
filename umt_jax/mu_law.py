"""Waveform <-> 8-bit mu-law codes, on the host (§3.1)."""

import numpy as np

from umt_jax.shapes import Codes, Float32, UInt8, Waveform

MU = 255
NUM_LEVELS = 256
SILENCE = 128
"""The code of amplitude zero."""

# Levels on either side of silence. 127, not 128, so that both +1 and -1 have a level of their own
# and no amplitude is further than half a level from one. Code 0 is never written.
_HALF_RANGE = 127


def encode(waveform: Waveform) -> UInt8[np.ndarray, "*B T"]:
    """Quantises a waveform to mu-law codes (§3.1).

    Args:
        waveform: Amplitudes in [-1, 1], [*B, T]; values outside are clipped.

    Returns:
        Codes in [1, 255], uint8, [*B, T]. Silence is code 128.
    """
    clipped = np.clip(waveform, -1.0, 1.0)
    # Rounds to the nearest code: truncating, as the authors' release does, moves decoded audio
    # down by one level on average.
    levels = np.rint(_HALF_RANGE * _compress(clipped))
    return (levels + SILENCE).astype(np.uint8)


def decode(codes: Codes) -> Float32[np.ndarray, "*B T"]:
    """Returns the amplitude at the centre of each code, float32 in [-1, 1], [*B, T]."""
    return _AMPLITUDES[codes]


def _compress(amplitudes: np.ndarray) -> np.ndarray:
    """Maps [-1, 1] onto itself, with fine steps near silence."""
    return np.sign(amplitudes) * np.log1p(MU * np.abs(amplitudes)) / np.log1p(MU)


def _expand(levels: np.ndarray) -> np.ndarray:
    """Inverse of `_compress`."""
    return np.sign(levels) * np.expm1(np.abs(levels) * np.log1p(MU)) / MU


_AMPLITUDES = _expand(np.maximum((np.arange(NUM_LEVELS) - SILENCE) / _HALF_RANGE, -1.0)).astype(
    np.float32
)
