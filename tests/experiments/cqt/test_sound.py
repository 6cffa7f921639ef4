"""Constant-Q frames back to sound, and what is measured of the difference."""

import dataclasses

import numpy as np
import pytest

from data_prep import midi
from experiments.cqt import resolution, sound
from umt_jax.config import ModelConfig
from umt_jax.model import cqt

RATE_HZ = 4000
CONFIG = resolution.transform(
    sample_rate_hz=RATE_HZ, hop_samples=40, bins_per_octave=24, lowest_hz=130.0
)


def sine(frequency_hz, seconds=1.5, amplitude=0.3):
    times_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (amplitude * np.sin(2 * np.pi * frequency_hz * times_s)).astype(np.float32)


def peak_hz(waveform):
    """Returns the frequency of the highest peak of a spectrum, between its bins."""
    spectrum = np.log(np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)))))
    place = int(spectrum.argmax())
    left, middle, right = spectrum[place - 1 : place + 2]
    place += 0.5 * (left - right) / (left - 2 * middle + right)
    return place * RATE_HZ / len(waveform)


def test_sines_come_back_within_ten_cents_and_half_a_decibel():
    """A fifth of a bin; of each its middle second, at pitches between bins too."""
    frequencies_hz = (220.0, 453.7, 930.0)
    sines = [sine(frequency_hz) for frequency_hz in frequencies_hz]
    frames = [np.asarray(cqt.scaled(cqt.amplitudes(one, CONFIG))) for one in sines]
    for frequency_hz, waveform in zip(
        frequencies_hz, sound.griffin_lim(frames, CONFIG), strict=True
    ):
        assert waveform.shape == (6000,)
        middle = waveform[1000:5000]
        assert abs(1200 * np.log2(peak_hz(middle) / frequency_hz)) < 10
        level_db = 20 * np.log10(middle.std() / (0.3 / np.sqrt(2)))
        assert abs(level_db) < 0.5


def test_the_transform_has_as_many_bins_as_there_is_room_for():
    assert CONFIG.latent_channels == CONFIG.cqt_most_bins
    highest_hz = cqt.frequencies_hz(CONFIG)[-1]
    assert highest_hz < 2000 < highest_hz * 2 ** (2 / 24)
    with pytest.raises(ValueError, match="there is room for"):
        dataclasses.replace(CONFIG, latent_channels=CONFIG.latent_channels + 1)
    with pytest.raises(ValueError, match="leaves no bin"):
        ModelConfig(encoder_kind="cqt", sample_rate_hz=200, cqt_lowest_hz=130.0)


def test_a_rise_is_timed_between_the_least_and_the_loudest_before_it():
    """An envelope that grows evenly from 1.00 s to 1.05 s, under a fast oscillation."""
    times_s = np.arange(2 * RATE_HZ) / RATE_HZ
    envelope = np.clip((times_s - 1) / 0.05, 0, 1)
    waveform = envelope * np.sin(2 * np.pi * 1500 * times_s)
    (found,) = resolution.rises(waveform, RATE_HZ, [1.01])
    np.testing.assert_allclose(found, [1.01, 1.025, 1.04], atol=0.002)
    assert np.isnan(resolution.rises(waveform, RATE_HZ, [0.5, 1.7])).all()


def test_a_sound_that_comes_later_and_more_slowly_is_measured_so():
    times_s = np.arange(2 * RATE_HZ) / RATE_HZ

    def played(start_s, rise_s):
        envelope = np.clip((times_s - start_s) / rise_s, 0, 1)
        return envelope * np.sin(2 * np.pi * 1500 * times_s)

    lost = resolution.lost_in_time([played(1.0, 0.02)], [played(1.005, 0.05)], [[1.01]], RATE_HZ)
    np.testing.assert_allclose(lost, (20.0, 18.0), atol=2.5)


def test_onsets_are_those_that_no_other_is_near_to():
    notes = [midi.Note(onset, onset + 0.1, 60, 80) for onset in (0.5, 1.0, 1.1, 1.6, 1.6, 2.5)]
    assert resolution.apart(notes) == [0.5, 1.6, 2.5]


def test_a_vibrato_goes_up_and_down_by_thirty_cents():
    waveform = resolution.with_vibrato(sine(440.0, seconds=3), RATE_HZ)
    phases = np.unwrap(np.angle(_analytic(waveform)))
    cents = 1200 * np.log2(np.diff(phases) * RATE_HZ / (2 * np.pi) / 440)[2000:-2000]
    assert np.percentile(cents, 99.5) == pytest.approx(30, abs=1.5)
    assert np.percentile(cents, 0.5) == pytest.approx(-30, abs=1.5)


def _analytic(waveform):
    spectrum = np.fft.fft(waveform)
    spectrum[len(spectrum) // 2 :] = 0
    return np.fft.ifft(spectrum)
