import numpy as np
import pytest

from data_prep import timbre

RATE_HZ, T = 8000, 16_000


def tone(frequency_hz, level=0.1):
    return (level * np.sin(2 * np.pi * frequency_hz * np.arange(T) / RATE_HZ)).astype(np.float32)


def partials(waveform, frequency_hz, number):
    """Amplitudes of the first partials of a tone whose frequency is a whole number of hertz."""
    spectrum = np.abs(np.fft.rfft(waveform)) * 2 / T
    return spectrum[(frequency_hz * np.arange(1, number + 1) * T // RATE_HZ)]


def changed(waveform, seed=0):
    return timbre.change_timbre(
        waveform, sample_rate_hz=RATE_HZ, generator=np.random.default_rng(seed)
    )


@pytest.mark.parametrize("frequency_hz", [220, 440, 880])
def test_pitch_and_level_stay_and_the_partials_do_not(frequency_hz):
    shares = []
    for seed in range(20):
        found = changed(tone(frequency_hz), seed)
        assert found.dtype == np.float32 and found.shape == (T,) and np.abs(found).max() <= 1
        level_db = 20 * np.log10(found.std() / tone(frequency_hz).std())
        assert abs(level_db) < timbre.MAX_LEVEL_DB + 0.1
        # All that is not noise lies on multiples of the frequency.
        middle = (
            np.abs(np.fft.rfft(found[T // 4 : -T // 4])) ** 2
        )  # Where no filter starts or ends.
        on = middle[:: frequency_hz * T // 2 // RATE_HZ][1:].sum()
        assert on / middle.sum() > 0.99
        amplitudes = partials(found, frequency_hz, 3)
        shares.append(amplitudes[1:] / np.linalg.norm(amplitudes))
    shares = np.array(shares)
    assert shares.min() < 0.02 and shares[:, 0].max() > 0.2 and shares[:, 1].max() > 0.1


def test_an_equalizer_gives_each_partial_its_gain():
    frequencies = np.array([60, 120, 240, 480, 960, 1920])
    waveform = sum(tone(frequency) for frequency in frequencies)
    gains_db = np.array([6.0, -6.0, 3.0, 0.0, -12.0, 9.0, 9.0])
    found = timbre.equalize(waveform, gains_db, sample_rate_hz=2 * 3840)
    # Bands at 60, 120, ..., 3,840 Hz; the waveform's own rate only names the bins.
    names = frequencies * 2 * 3840 / RATE_HZ
    octaves = np.log2(np.maximum(names, 60) / 60)
    expected = 0.1 * 10 ** (np.interp(octaves, np.arange(7), gains_db) / 20)
    middle = slice(T // 4, T // 4 + T // 2)
    spectrum = np.abs(np.fft.rfft(found[middle])) * 2 / (T // 2)
    np.testing.assert_allclose(spectrum[frequencies * (T // 2) // RATE_HZ], expected, rtol=0.02)


def test_a_bent_wave_is_the_tangent_without_its_offset():
    waveform = tone(200, level=0.8)
    bent = timbre.shape_wave(waveform, drive=1.0, bias=0.2)
    expected = np.tanh(1.0 * (waveform + 0.2))
    middle = slice(100, -100)  # The ends ring: what lies beyond them is silence.
    expected = expected - expected.mean()
    np.testing.assert_allclose(bent[middle], expected[middle], rtol=0, atol=2e-3)


def test_harmonics_beyond_half_of_the_rate_do_not_come_back_as_other_pitches():
    frequency_hz = 880  # Its fifth partial, 4,400 Hz, would come back at 3,600.
    bent = timbre.shape_wave(tone(frequency_hz, level=1.0), drive=8.0, bias=0.3)
    spectrum = np.abs(np.fft.rfft(bent[T // 4 : T // 4 + T // 2])) ** 2
    on = spectrum[:: frequency_hz * T // 2 // RATE_HZ].sum()
    assert on / spectrum.sum() > 0.999
    plain = np.tanh(8 * (tone(frequency_hz, level=1.0) + 0.3))
    spectrum = np.abs(np.fft.rfft((plain - plain.mean())[T // 4 : T // 4 + T // 2])) ** 2
    assert spectrum[:: frequency_hz * T // 2 // RATE_HZ].sum() / spectrum.sum() < 0.99


def test_silence_stays_silence_and_the_segment_itself_is_not_changed():
    silence = np.zeros(T, np.float32)
    np.testing.assert_array_equal(changed(silence), silence)
    segment = tone(440)
    changed(segment)
    np.testing.assert_array_equal(segment, tone(440))


def test_the_same_generator_gives_the_same_timbre_and_another_one_another():
    np.testing.assert_array_equal(changed(tone(440), 1), changed(tone(440), 1))
    assert np.any(changed(tone(440), 1) != changed(tone(440), 2))
