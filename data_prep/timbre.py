"""Changes the timbre of a segment and leaves its pitch (augmentation beyond §3.2).

The encoder hears one note in many timbres and the decoder must always give back the domain's own,
so that latents place a note where it belongs whichever instrument plays it. Domain confusion alone
does not see to that: two instruments' notes may lie a semitone apart and yet be spread alike.
"""

import functools

import numpy as np
from scipy import fft, signal

from data_prep import augment
from umt_jax.shapes import Waveform

MIN_DRIVE, MAX_DRIVE = 0.05, 8.0
MAX_BIAS = 0.4
MAX_GAIN_DB = 14.0
MAX_TILT_DB = 6.0
MAX_LEVEL_DB = 3.0
NOISE_DB = (-70.0, -30.0)

_NUM_BANDS = 9
_LOWEST_HZ = 60.0
SILENCE_RMS = 1e-4
"""Below it a waveform is silent, and is not changed."""

_OVERSAMPLING = 4


def change_timbre(
    segment: Waveform, *, sample_rate_hz: int, generator: np.random.Generator
) -> Waveform:
    """Plays a segment through a random waveshaper and a random equalizer, and adds noise.

    The waveshaper makes harmonics where a flute has none; the equalizer takes them from a violin.

    Args:
        segment: Amplitudes, [T].
        sample_rate_hz: Rate of `segment`.
        generator: Draws drive, bias, gains, tilt, level and noise, in this order.

    Returns:
        A new segment, float32, [T]: the same notes, within `MAX_LEVEL_DB` of the same level and
        within full scale. Silence stays as it is.
    """
    x = np.array(segment, np.float32)
    own_rms = augment.rms(x)
    if own_rms < SILENCE_RMS:
        return x
    drive = MIN_DRIVE + MAX_DRIVE * generator.uniform() ** 2
    bias = generator.uniform(-MAX_BIAS, MAX_BIAS)
    shaped = shape_wave(x / np.abs(x).max(), drive=drive, bias=bias)
    gains_db = generator.uniform(-MAX_GAIN_DB, MAX_GAIN_DB, _NUM_BANDS)
    tilt_db = generator.uniform(-MAX_TILT_DB, MAX_TILT_DB) * np.linspace(-3.5, 3.5, _NUM_BANDS)
    changed = equalize(shaped, gains_db + tilt_db, sample_rate_hz=sample_rate_hz)
    level = own_rms * 10 ** (generator.uniform(-MAX_LEVEL_DB, MAX_LEVEL_DB) / 20)
    changed *= level / max(augment.rms(changed), SILENCE_RMS)
    noise_db = generator.uniform(*NOISE_DB)
    noise = generator.standard_normal(len(x), np.float32) * level * 10 ** (noise_db / 20)
    return np.clip(changed + noise, -1, 1).astype(np.float32)


def shape_wave(waveform: Waveform, *, drive: float, bias: float) -> Waveform:
    """Bends amplitudes by a hyperbolic tangent, which adds harmonics to every tone.

    Args:
        waveform: Amplitudes in [-1, 1], [T].
        drive: How far they are bent; near 0 hardly at all.
        bias: Off the centre the curve is uneven, and so adds even harmonics as well as odd ones.

    Returns:
        Amplitudes without the offset that the bias makes, [T].
    """
    # At a higher rate: harmonics beyond half of the rate would come back as other pitches.
    finer = signal.resample_poly(waveform, _OVERSAMPLING, 1)
    shaped = signal.resample_poly(np.tanh(drive * (finer + bias)), 1, _OVERSAMPLING)
    return shaped - shaped.mean()


def equalize(waveform: Waveform, gains_db: Waveform, *, sample_rate_hz: int) -> Waveform:
    """Filters by gains at bands that are evenly spaced in octaves, without delay.

    Args:
        waveform: Amplitudes, [T].
        gains_db: Gain of each band in decibels, linear in between; the first at 60 Hz and below,
            the last at half the sample rate.
        sample_rate_hz: Rate of `waveform`.
    """
    # Twice as long, so that the end does not ring into the beginning.
    num_samples = fft.next_fast_len(2 * len(waveform), real=True)
    spectrum = fft.rfft(waveform, num_samples)
    octaves = _octaves(len(spectrum), sample_rate_hz)
    bands = np.linspace(0, octaves[-1], len(gains_db))
    gains = 10 ** (np.interp(octaves, bands, gains_db) / 20)
    return fft.irfft(spectrum * gains.astype(waveform.dtype), num_samples)[: len(waveform)]


@functools.cache
def _octaves(num_bins, sample_rate_hz):
    """Returns how far above the lowest band each bin of a spectrum lies, in octaves, from 0."""
    hz = np.linspace(0, sample_rate_hz / 2, num_bins)
    return np.log2(np.maximum(hz, _LOWEST_HZ) / _LOWEST_HZ)
