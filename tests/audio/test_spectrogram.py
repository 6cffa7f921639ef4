"""Spectrograms, and sound that is made of them bit by bit."""

import librosa
import numpy as np
import pytest

from umt_jax.audio import spectrogram

SIZES = {"window_samples": 512, "hop_samples": 100}
RATE_HZ = 8000


def tones(seconds=2.0):
    """Two notes, one behind the other, with partials that decay."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    sound = np.zeros(len(t))
    for start, frequency_hz in ((0.0, 262.0), (0.9, 392.0)):
        age = np.maximum(t - start, 0)
        for partial in (1, 2, 3):
            tone = np.sin(2 * np.pi * partial * frequency_hz * age) / partial
            sound += np.where(t >= start, tone * np.exp(-3 * age), 0)
    return (0.2 * sound).astype(np.float32)


def sound_of(magnitudes, windows, num_waveforms=1):
    """Returns the sound of log-magnitudes, [K, N, M], asked for in windows of so many frames."""
    waveforms = spectrogram.Waveforms(num_waveforms, **SIZES)
    ahead = waveforms.ahead_frames
    padded = np.pad(magnitudes, [(0, 0), (0, ahead), (0, 0)], constant_values=spectrogram.SILENCE)
    ends = np.cumsum(windows)
    stretches = zip([0, *ends[:-1]], ends, strict=True)
    return np.concatenate(
        [waveforms.extend(padded[:, start : end + ahead]) for start, end in stretches], axis=1
    )


def disagreement(waveform, magnitudes):
    """Returns by how much the magnitudes of a sound differ, as a share of those it is made of."""
    found = np.exp(spectrogram.log_magnitudes(waveform, **SIZES))
    wanted = np.exp(magnitudes)
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("num_samples", [512, 600, 1234])
def test_magnitudes_are_those_of_librosa(rng, num_samples):
    waveform = rng.normal(size=(2, num_samples)).astype(np.float32)
    transform = librosa.stft(waveform, n_fft=512, hop_length=100, center=True, pad_mode="constant")
    frames = -(-num_samples // 100)
    expected = np.log(np.abs(transform) + 1e-3)[..., :frames].swapaxes(1, 2)
    found = spectrogram.log_magnitudes(waveform, **SIZES)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert spectrogram.SILENCE == spectrogram.log_magnitudes(np.zeros(100), **SIZES).min()


@pytest.mark.parametrize("windows", [[160], [40] * 4, [7, 33, 1, 79, 40], [1] * 160])
def test_sound_has_the_magnitudes_as_nearly_as_that_of_librosa(windows):
    magnitudes = spectrogram.log_magnitudes(tones(), **SIZES)
    whole = librosa.griffinlim(np.exp(magnitudes.T), n_iter=16, hop_length=100, n_fft=512)
    whole = np.pad(whole, (0, 16_000 - len(whole)))
    sound = sound_of(magnitudes[np.newaxis], windows)[0]
    assert sound.shape == (16_000,)
    assert disagreement(sound, magnitudes) < min(0.03, disagreement(whole, magnitudes))


def test_a_seam_cannot_be_heard_and_the_pitch_is_kept():
    t = np.arange(16_000) / RATE_HZ
    tone = (0.3 * np.sin(2 * np.pi * 330 * t)).astype(np.float32)
    magnitudes = spectrogram.log_magnitudes(tone, **SIZES)
    sound = sound_of(magnitudes[np.newaxis], [40] * 4)[0][1000:-1000]
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    assert abs(np.argmax(spectrum) * RATE_HZ / len(sound) - 330) < 0.6  # A bin.
    # The second difference of a sine is bounded by its frequency; a seam would be a jump.
    bound = 0.3 * (2 * np.pi * 330 / RATE_HZ) ** 2
    assert np.abs(np.diff(sound, 2)).max() < 1.6 * bound


def test_each_waveform_is_what_it_is_alone(rng):
    magnitudes = rng.normal(size=(3, 60, 257)).astype(np.float32)
    together = sound_of(magnitudes, [20, 40], num_waveforms=3)
    for index in range(3):
        alone = sound_of(magnitudes[index : index + 1], [20, 40])
        np.testing.assert_allclose(together[index], alone[0], atol=1e-5)


def test_silence_stays_silent():
    nothing = np.full((1, 30, 257), spectrogram.SILENCE, np.float32)
    np.testing.assert_array_equal(sound_of(nothing, [10, 20]), 0)
