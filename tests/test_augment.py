import numpy as np
import pytest

from data_prep import augment

RATE_HZ = 16_000


def frequency(waveform):
    """Frequency of a tone, by the phase that its analytic signal advances per sample."""
    middle = waveform[len(waveform) // 4 : -len(waveform) // 4]
    spectrum = np.fft.fft(middle * np.hanning(len(middle)))
    spectrum[len(middle) // 2 :] = 0
    analytic = np.fft.ifft(spectrum)[len(middle) // 4 : -len(middle) // 4]
    return np.median(np.diff(np.unwrap(np.angle(analytic)))) * RATE_HZ / (2 * np.pi)


def sine(frequency_hz, num_samples=RATE_HZ):
    return (0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(num_samples) / RATE_HZ)).astype("f4")


@pytest.mark.parametrize("shift_semitones", [-0.5, -0.2, 0.0, 0.3, 0.5])
@pytest.mark.parametrize("frequency_hz", [220.0, 1000.0])
def test_the_slice_moves_by_the_shift_and_the_rest_not_at_all(frequency_hz, shift_semitones):
    tone = sine(frequency_hz)
    shifted = augment.shift_slice(
        tone, start=3000, length=6000, shift_semitones=shift_semitones, sample_rate_hz=RATE_HZ
    )
    assert shifted.dtype == np.float32 and shifted.shape == tone.shape
    ratio = frequency(shifted[3000:9000]) / frequency(tone[3000:9000])
    # 2 cents, the fifth of what a trained ear notices; the shift of a tone is not exact to more.
    assert 12 * np.log2(ratio) == pytest.approx(shift_semitones, abs=0.02)
    np.testing.assert_array_equal(shifted[:3000], tone[:3000])
    np.testing.assert_array_equal(shifted[9000:], tone[9000:])


@pytest.mark.parametrize("num_samples", [1024, 12_000, 16_000])
def test_slices_are_a_quarter_to_a_half_long_and_start_in_the_first_half(rng, num_samples):
    segment = rng.uniform(-0.5, 0.5, size=num_samples).astype(np.float32)
    starts, lengths = [], []
    for seed in range(40):
        modulated = augment.modulate_pitch(
            segment, sample_rate_hz=RATE_HZ, generator=np.random.default_rng(seed)
        )
        changed = np.flatnonzero(modulated != segment)
        starts.append(changed[0] / num_samples)
        lengths.append((changed[-1] + 1 - changed[0]) / num_samples)
    # Noise may by chance keep a sample at either end of the slice.
    assert 0 <= min(starts) < 0.1 and 0.4 < max(starts) <= 0.5 + 0.01
    assert 0.25 - 0.01 <= min(lengths) < 0.3 and 0.45 < max(lengths) <= 0.5


def test_shifts_are_uniform_within_half_a_semitone(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        augment.effects, "pitch_shift", lambda y, *, n_steps, **_: drawn.append(n_steps) or y
    )
    generator = np.random.default_rng(0)
    for _ in range(2000):
        augment.modulate_pitch(sine(440, 1024), sample_rate_hz=RATE_HZ, generator=generator)
    assert -0.5 <= min(drawn) < -0.49 and 0.49 < max(drawn) <= 0.5
    # Four standard errors of a uniform distribution's mean and of its mean square.
    assert np.mean(drawn) == pytest.approx(0, abs=0.026)
    assert np.mean(np.square(drawn)) == pytest.approx(1 / 12, abs=0.007)


def test_the_segment_itself_is_not_changed():
    tone = sine(440)
    augment.modulate_pitch(tone, sample_rate_hz=RATE_HZ, generator=np.random.default_rng(0))
    np.testing.assert_array_equal(tone, sine(440))


def test_the_same_generator_gives_the_same_segment():
    first, second = (
        augment.modulate_pitch(
            sine(440), sample_rate_hz=RATE_HZ, generator=np.random.default_rng(7)
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
