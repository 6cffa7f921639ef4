"""Changes how a recording's loudness moves and leaves its notes (augmentation beyond §3.2).

A struck string dies away, a bowed one does not. What is to learn this of its own instrument must
hear notes that say nothing of it.
"""

import numpy as np
from scipy import ndimage

from data_prep import timbre
from umt_jax.audio import level
from umt_jax.shapes import Waveform

COMPRESSION = (0.4, 1.0)
"""Least and most of the loudness that is evened out, as a power; 1 leaves none."""

MAX_SWELL_DB = 4.0
"""Largest standard deviation of the swells that are added."""

_SMOOTHING_S = 0.03, 0.05
"""Two moving averages of the power, one behind the other."""

_QUIETEST = 0.03
"""Of a recording's level; what is quieter is not made louder than what has this level."""

_SWELLS_HZ = 2


def change_dynamics(
    waveform: Waveform, *, sample_rate_hz: int, generator: np.random.Generator
) -> Waveform:
    """Evens out a recording's loudness, by a random degree, and adds random swells.

    Args:
        waveform: Amplitudes, [T].
        sample_rate_hz: Rate of `waveform`.
        generator: Draws the degree, the size of the swells and the swells, in this order.

    Returns:
        A new waveform, float32, [T]: at the same level, within full scale. Silence stays as it is.
    """
    x = np.asarray(waveform, np.float32)
    if not x.size or (own := level.rms(x)) < timbre.SILENCE_RMS:
        return x.copy()
    degree = generator.uniform(*COMPRESSION)
    deviation_db = generator.uniform(0, MAX_SWELL_DB)
    seconds = np.arange(len(x)) / sample_rate_hz
    knots_db = deviation_db * generator.standard_normal(int(seconds[-1] * _SWELLS_HZ) + 2)
    swells_db = np.interp(seconds, np.arange(len(knots_db)) / _SWELLS_HZ, knots_db)
    gains = evening_gains(x, degree, sample_rate_hz=sample_rate_hz) * 10 ** (swells_db / 20)
    changed = x * gains
    changed *= own / level.rms(changed)
    return np.clip(changed, -1, 1).astype(np.float32)


def evening_gains(waveform: Waveform, degree: float, *, sample_rate_hz: int) -> np.ndarray:
    """Returns the gain at each sample, [T], that takes `degree` of the loudness's movement away.

    Args:
        waveform: Amplitudes, not silent, [T].
        degree: 0 takes nothing; with 1 all becomes equally loud that is louder than
            `_QUIETEST`.
        sample_rate_hz: Rate of `waveform`.
    """
    power = np.square(waveform, dtype=np.float64)
    for seconds in _SMOOTHING_S:
        power = ndimage.uniform_filter1d(power, max(1, round(seconds * sample_rate_hz)))
    # Running sums of floats may end just below 0.
    envelope = np.sqrt(np.maximum(power, 0))
    return np.maximum(envelope / level.rms(waveform), _QUIETEST) ** -degree
