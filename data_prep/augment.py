"""Pitch modulation of a random slice of a segment (§3.2).

The encoder hears slices that are slightly out of tune and the decoder must give them back in tune,
so that latents hold the melody and not the tuning by which a domain could be recognised.
"""

import numpy as np
from librosa import effects

from umt_jax.shapes import Waveform

MAX_SHIFT_SEMITONES = 0.5

_FFT_SAMPLES = 2048


def modulate_pitch(
    segment: Waveform, *, sample_rate_hz: int, generator: np.random.Generator
) -> Waveform:
    """Shifts the pitch of one random slice of a segment.

    The slice is a quarter to a half of the segment long (0.25 to 0.5 s of the paper's second) and
    starts in its first half; its shift is uniform within half a semitone.

    Args:
        segment: Amplitudes, [T].
        sample_rate_hz: Rate of `segment`.
        generator: Draws length, start and shift, in this order.

    Returns:
        A new segment, float32, [T].
    """
    T = len(segment)
    length = int(generator.integers(T // 4, T // 2, endpoint=True))
    start = int(generator.integers(0, T // 2, endpoint=True))
    shift_semitones = generator.uniform(-MAX_SHIFT_SEMITONES, MAX_SHIFT_SEMITONES)
    return shift_slice(
        segment,
        start=start,
        length=length,
        shift_semitones=shift_semitones,
        sample_rate_hz=sample_rate_hz,
    )


def shift_slice(
    segment: Waveform, *, start: int, length: int, shift_semitones: float, sample_rate_hz: int
) -> Waveform:
    """Returns a copy of a segment [T] with samples `start` to `start + length` shifted in pitch.

    The slice keeps its length and every sample outside it its value; its ends may click.
    """
    shifted = np.array(segment, np.float32)
    # librosa warns of windows longer than the sound: slices of short segments get shorter ones.
    fft_samples = min(_FFT_SAMPLES, 2 ** (length.bit_length() - 1))
    shifted[start : start + length] = effects.pitch_shift(
        shifted[start : start + length],
        sr=sample_rate_hz,
        n_steps=shift_semitones,
        n_fft=fft_samples,
    )
    return shifted


def compile_effects() -> None:
    """Makes librosa compile what `shift_slice` needs: up to a minute, once in an installation."""
    effects.pitch_shift(np.zeros(_FFT_SAMPLES, np.float32), sr=16_000, n_steps=0.25)
