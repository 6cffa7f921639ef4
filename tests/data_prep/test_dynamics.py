import numpy as np
import pytest

from data_prep import dynamics

RATE_HZ = 8000
SECONDS = np.arange(4 * RATE_HZ) / RATE_HZ


@pytest.fixture
def struck():
    """Four notes that die away by 30 dB a second, and a rest."""
    within = SECONDS % 1
    notes = 0.5 * 10 ** (-1.5 * within) * np.sin(2 * np.pi * 440 * SECONDS)
    return np.where(SECONDS < 3, notes, 0).astype(np.float32)


def levels(waveform, start_s, stop_s):
    frames = waveform[int(start_s * RATE_HZ) : int(stop_s * RATE_HZ)].reshape(-1, 400)
    return 20 * np.log10(np.sqrt(np.square(frames, dtype=np.float64).mean(axis=1)))


@pytest.mark.parametrize("degree", [0.0, 0.5, 1.0])
def test_so_much_of_the_decay_goes(struck, degree):
    found = struck * dynamics.evening_gains(struck, degree, sample_rate_hz=RATE_HZ)
    inside = levels(found, 1.1, 1.9)
    slope_db = np.polyfit(np.arange(len(inside)) * 0.05, inside, 1)[0]
    assert slope_db == pytest.approx(-30 * (1 - degree), abs=0.5)
    if degree == 1:
        assert np.ptp(levels(found, 0.1, 0.9)) < 0.5


def test_pitch_level_and_rests_stay(struck):
    degrees = []
    for seed in range(10):
        generator = np.random.default_rng(seed)
        found = dynamics.change_dynamics(struck, sample_rate_hz=RATE_HZ, generator=generator)
        assert found.dtype == np.float32 and found.shape == struck.shape
        assert np.sqrt(np.square(found).mean()) == pytest.approx(
            np.sqrt(np.square(struck).mean()), rel=0.02
        )
        assert np.abs(found).max() <= 1 and not found[SECONDS >= 3].any()
        spectrum = np.abs(np.fft.rfft(found[RATE_HZ : 2 * RATE_HZ]))
        assert np.argmax(spectrum) == 440
        degrees.append(levels(found, 1.05, 1.95).std())
    assert max(degrees) - min(degrees) > 2 and min(degrees) < 0.7 * levels(struck, 1.05, 1.95).std()


def test_silence_and_nothing_stay_as_they_are():
    for silence in (np.zeros(800, np.float32), np.zeros(0, np.float32)):
        generator = np.random.default_rng(0)
        found = dynamics.change_dynamics(silence, sample_rate_hz=RATE_HZ, generator=generator)
        np.testing.assert_array_equal(found, silence)
