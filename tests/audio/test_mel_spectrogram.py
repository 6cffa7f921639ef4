import numpy as np
import pytest
from tones import RATE_HZ, tone

from umt_jax.audio import mel_spectrogram


@pytest.mark.parametrize("frequency_hz", [250, 440, 1000, 3000, 6500])
def test_log_mel_of_a_sine_peaks_at_its_row(frequency_hz):
    picture = mel_spectrogram.log_mel(tone(1.0, frequency_hz=frequency_hz), RATE_HZ)
    centres_hz = mel_spectrogram.centres_hz(RATE_HZ)
    assert picture.shape == (mel_spectrogram.NUM_MELS, 1 + round(1 / 0.016))
    middle = picture[:, picture.shape[1] // 2]
    assert np.argmax(middle) == np.argmin(np.abs(centres_hz - frequency_hz))


def test_log_mel_is_in_decibels():
    loud = mel_spectrogram.log_mel(tone(1.0, frequency_hz=1000, amplitude=0.5), RATE_HZ)
    quiet = mel_spectrogram.log_mel(tone(1.0, frequency_hz=1000, amplitude=0.05), RATE_HZ)
    np.testing.assert_allclose(loud.max() - quiet.max(), 20.0, atol=1e-3)


def test_log_mel_of_silence_is_the_floor():
    silence = np.zeros(4000, np.float32)
    np.testing.assert_allclose(mel_spectrogram.log_mel(silence, RATE_HZ), -100, rtol=1e-5)


def test_log_mel_takes_sounds_shorter_than_its_window():
    assert np.isfinite(mel_spectrogram.log_mel(np.ones(10, np.float32), RATE_HZ)).all()
