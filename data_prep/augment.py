"""Pitch modulation of a random slice of a segment (§3.2).

The encoder hears slices that are slightly out of tune and the decoder must give them back in tune,
so that latents hold the melody and not the tuning by which a domain could be recognised.
"""

import warnings
from typing import Any

import librosa
import numpy as np
from scipy import signal

from umt_jax.shapes import Waveform

MAX_SHIFT_SEMITONES = 0.5

VERSION = 2
"""Grows when the same recipe gives other variants, so that older datasets are not up to date."""

_FFT_SAMPLES = 2048
_SILENCE_RMS = 1e-6


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

    The slice keeps its length and level, and every sample outside it its value; its ends may click.
    """
    shifted = np.array(segment, np.float32)
    # librosa warns of windows longer than the sound: slices of short segments get shorter ones.
    fft_samples = min(_FFT_SAMPLES, 2 ** (length.bit_length() - 1))
    # A model must not hear the sign of a shift. librosa 0.11 fades out the end of every upward
    # shift, so the slice is shifted together with one window of what surrounds it, and then cut
    # out; and upward shifts lose 0.8 dB of a tone, 2.8 dB of noise, so the level is restored.
    surrounded = _extended(shifted, fft_samples)[start : start + length + 2 * fft_samples]
    moved = _pitch_shift(
        surrounded,
        shift_semitones=shift_semitones,
        sample_rate_hz=sample_rate_hz,
        fft_samples=fft_samples,
    )[fft_samples : fft_samples + length]
    moved *= rms(shifted[start : start + length]) / max(rms(moved), _SILENCE_RMS)
    shifted[start : start + length] = moved
    return shifted


def _pitch_shift(waveform, *, shift_semitones, sample_rate_hz, fft_samples):
    with warnings.catch_warnings():
        # librosa 1.0 calls its own phase vocoder with arguments that it has deprecated, and a
        # function of its that numba compiles leaves a flag behind that is not about its results.
        warnings.filterwarnings("ignore", "The `(hop_length|n_fft)` parameter", FutureWarning)
        warnings.filterwarnings("ignore", "invalid value encountered in cast", RuntimeWarning)
        return librosa.effects.pitch_shift(
            waveform, sr=sample_rate_hz, n_steps=shift_semitones, n_fft=fft_samples
        )


def _extended(segment, num_samples):
    """Returns a segment continued by `num_samples` on either side as it might have gone on."""
    before = _continuation(segment[::-1], num_samples)[::-1]
    return np.concatenate([before, segment, _continuation(segment, num_samples)])


def _continuation(segment, num_samples):
    """Returns what follows the place in a segment that is most like the segment's end."""
    template = segment[-num_samples // 2 :]
    candidates = segment[:-num_samples]
    likeness = signal.correlate(candidates, template, mode="valid", method="fft")
    energy = np.convolve(candidates**2, np.ones(len(template), np.float32), mode="valid")
    best = int(np.argmax(likeness / np.sqrt(energy + _SILENCE_RMS**2 * len(template))))
    end = best + len(template)
    # At the end's level: of a tone that dies away, the place most like its end may be far louder.
    gain = rms(template) / max(rms(candidates[best:end]), _SILENCE_RMS)
    return gain * segment[end : end + num_samples]


def rms(waveform: Waveform) -> Any:
    """Returns the root mean square in the waveform's own type, which decides bytes of datasets.

    In float64, `umt_jax.audio.level.rms`, they would be others: another `VERSION`.
    """
    return np.sqrt(np.mean(np.square(waveform)))


def compile_effects() -> None:
    """Makes librosa compile what `shift_slice` needs: up to a minute, once in an installation."""
    _pitch_shift(
        np.zeros(_FFT_SAMPLES, np.float32),
        shift_semitones=0.25,
        sample_rate_hz=16_000,
        fft_samples=_FFT_SAMPLES,
    )
