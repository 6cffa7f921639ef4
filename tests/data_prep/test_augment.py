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
        augment.librosa.effects,
        "pitch_shift",
        lambda y, *, n_steps, **_: drawn.append(n_steps) or y,
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


def harmonics(generator, frequency_hz):
    seconds = np.arange(RATE_HZ) / RATE_HZ
    return sum(
        np.sin(2 * np.pi * (harmonic * frequency_hz * seconds + generator.uniform())) / harmonic
        for harmonic in range(1, 6)
    )


SOUNDS = {
    "tones": lambda generator: harmonics(generator, generator.uniform(150, 900)),
    "tones that die away": lambda generator: (
        harmonics(generator, generator.uniform(150, 900))
        * np.exp(-3 * np.arange(RATE_HZ) / RATE_HZ)
    ),
    "chords": lambda generator: sum(
        harmonics(generator, frequency_hz) for frequency_hz in generator.uniform(130, 700, size=3)
    ),
    "noise": lambda generator: generator.normal(size=RATE_HZ),
}


def level_changes_db(make_sound, *, start, length, shift_semitones, part):
    """Returns by how much a part of the slice is louder when shifted, for each of 24 sounds."""
    changes_db = []
    for seed in range(24):
        segment = (0.1 * make_sound(np.random.default_rng(seed))).astype(np.float32)
        place = {"start": start, "length": length}
        shifted = augment.shift_slice(
            segment, **place, shift_semitones=shift_semitones, sample_rate_hz=RATE_HZ
        )
        before, after = (
            np.mean(np.square(x[start : start + length][part], dtype=np.float64))
            for x in (segment, shifted)
        )
        changes_db.append(10 * np.log10(after / before))
    return np.array(changes_db)


@pytest.mark.thorough
@pytest.mark.parametrize("shift_semitones", [-0.5, 0.5])
@pytest.mark.parametrize("start, length", [(4000, 6000), (8000, 8000)])
@pytest.mark.parametrize("kind", SOUNDS)
def test_the_sign_of_a_shift_is_not_heard_in_levels(kind, start, length, shift_semitones):
    slice_and_shift = {"start": start, "length": length, "shift_semitones": shift_semitones}
    whole = level_changes_db(SOUNDS[kind], part=slice(None), **slice_and_shift)
    np.testing.assert_allclose(whole, 0, atol=0.01)
    last_10_ms = level_changes_db(
        SOUNDS[kind], part=slice(-RATE_HZ // 100, None), **slice_and_shift
    )
    # On the average: partials of chords and of noise beat, and each shift moves their beats.
    assert np.mean(last_10_ms) == pytest.approx(0, abs=0.5)
    if kind.startswith("tones"):
        np.testing.assert_allclose(last_10_ms, 0, atol=1.0)


@pytest.mark.parametrize("shift_semitones", [-0.5, -0.1, 0.1, 0.5])
@pytest.mark.parametrize("start, length", [(4000, 6000), (8000, 8000)])
def test_no_part_of_a_pure_tone_gets_louder_or_quieter(start, length, shift_semitones):
    num_parts = length // 160  # 10 ms each; whole periods, so that phases do not matter.
    for frequency_hz in (300, 700, 1500):
        shifted = augment.shift_slice(
            sine(frequency_hz),
            start=start,
            length=length,
            shift_semitones=shift_semitones,
            sample_rate_hz=RATE_HZ,
        )
        parts = np.split(shifted[start : start + num_parts * 160], num_parts)
        levels_db = 10 * np.log10(np.mean(np.square(parts), axis=1) / np.mean(sine(1000) ** 2))
        np.testing.assert_allclose(levels_db, 0, atol=0.5)


def test_silence_stays_silent():
    silence = np.zeros(RATE_HZ, np.float32)
    shifted = augment.shift_slice(
        silence, start=8000, length=8000, shift_semitones=0.5, sample_rate_hz=RATE_HZ
    )
    np.testing.assert_array_equal(shifted, silence)
