import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umt_jax.audio import mu_law
from umt_jax.config import Config, ModelConfig, TrainingConfig
from umt_jax.data.dataset import Batch
from umt_jax.training import detuning

RATE_HZ, T = 8000, 4000
LEVEL = 0.4


def config(**training):
    model = ModelConfig(sample_rate_hz=RATE_HZ, pool_samples=200, latent_channels=3)
    return Config(
        domains=("Cello", "Piano"),
        model=model,
        training=TrainingConfig(segment_samples=T, domain_batch=4, **training),
    )


DETUNED = config(past_detune_semitones=2.5, past_detune_share=1.0)


def tone(frequency_hz):
    return (LEVEL * np.sin(2 * np.pi * frequency_hz * np.arange(T) / RATE_HZ)).astype(np.float32)


def batch_of(waveform, config=DETUNED):
    shape = (len(config.domains), config.training.domain_batch, T)
    codes = np.broadcast_to(mu_law.encode(waveform, "rounded"), shape)
    return Batch(codes=codes, augmented=codes[:, :, ::-1])


@functools.cache
def _compiled(config, first_segment):
    return jax.jit(
        lambda batch, step: detuning.make_lesson(
            batch, config, step=step, first_segment=first_segment
        )
    )


def lesson_of(batch, config, *, step=3, first_segment=0):
    return _compiled(config, first_segment)(batch, step)


def decoded(codes):
    return mu_law.decode(np.asarray(codes), "rounded").reshape(-1, T)


def test_without_options_the_lesson_is_the_batch():
    batch = batch_of(tone(440.0))
    lesson = detuning.make_lesson(batch, config(), step=3)
    assert lesson.past is batch.codes and lesson.targets is batch.codes
    assert lesson.augmented is batch.augmented
    assert lesson.counted is lesson.latent_noise is lesson.frames is None


def test_the_past_of_a_tone_wanders_and_its_target_is_one_true_sample_later():
    frequency_hz = 440.0
    lesson = lesson_of(batch_of(tone(frequency_hz)), DETUNED)
    past, targets = decoded(lesson.past), decoded(lesson.targets)
    turn = 2 * np.pi * frequency_hz / RATE_HZ
    # Of a sine only the quadrature is not known from one sample: either sign of it.
    quadrature = np.sqrt(np.maximum(LEVEL**2 - past**2, 0))[:, :-1] * np.sin(turn)
    either = [past[:, :-1] * np.cos(turn) + sign * quadrature for sign in (1, -1)]
    errors = np.min([np.abs(targets[:, 1:] - target) for target in either], axis=0)
    counted = np.asarray(lesson.counted).reshape(-1, T)[:, 1:]
    # Half a level of each of the two codes at this amplitude, and where the sine turns more.
    assert np.median(errors[counted]) < 0.01 and np.mean(errors[counted] < 0.04) > 0.98

    rises = (past[:, :-1] < 0) & (past[:, 1:] >= 0)
    rates = rises[:, :3500].reshape(len(past), 7, 500).sum(axis=-1) * RATE_HZ / 500
    semitones = 12 * np.log2(rates / frequency_hz)
    assert semitones.max() > 0.8 and semitones.min() < -0.8
    # One crossing more or less in a sixteenth of a second is 0.6 semitones.
    assert np.abs(semitones).max() < 2.5 + 0.7


def rates_of(num_draws, *, semitones, hold_samples):
    keys = jax.random.split(jax.random.key(0), num_draws)
    draw = jax.vmap(
        lambda key: detuning.wandering_positions(
            key, T, semitones=semitones, hold_samples=hold_samples
        )
    )
    positions = np.asarray(draw(keys), np.float64)
    assert np.all(positions[:, 0] == 0)
    return np.diff(positions)


def test_the_past_is_out_of_tune_by_all_the_semitones_alike_and_never_turns_back():
    detunings = 12 * np.log2(rates_of(400, semitones=4.0, hold_samples=750))
    # Positions are float32, a thousandth of a sample near the end: 0.02 semitones.
    assert -4.02 < detunings.min() < -3.8 and 3.8 < detunings.max() < 4.02
    # Of evenly drawn values as they are held; glides from one to the next are more often near 0.
    inner, outer = (
        np.mean((np.abs(detunings) >= low) & (np.abs(detunings) < low + 1)) for low in (0, 3)
    )
    assert 1 < inner / outer < 2.2


def test_a_detuning_is_held_or_glides():
    moves = np.abs(np.diff(rates_of(100, semitones=4.0, hold_samples=750), axis=1)) > 5e-3
    shares = moves.mean(axis=1)
    assert shares.min() < 0.01 < shares.max()


def test_reading_between_samples_is_within_a_hundredth_below_a_quarter_of_the_rate(rng):
    positions = jnp.asarray(np.sort(rng.uniform(10, T - 20, size=T)).astype(np.float32))
    for frequency_hz in (100.0, 440.0, 1900.0):
        waveform = jnp.asarray(tone(frequency_hz))
        offsets = (0, 1, 7)
        read = detuning.read(waveform, positions, offsets)
        for ahead, found in zip(offsets, read, strict=True):
            turn = 2 * np.pi * frequency_hz / RATE_HZ
            expected = LEVEL * np.sin(turn * (np.asarray(positions, np.float64) + ahead))
            np.testing.assert_allclose(found, expected, rtol=0, atol=0.01 * LEVEL)


def test_at_whole_positions_the_samples_themselves_are_read(rng):
    waveform = jnp.asarray(rng.normal(size=T).astype(np.float32))
    here, later = detuning.read(waveform, jnp.arange(T, dtype=jnp.float32), (0, 1))
    # The taps beside the middle are zeros of the sinc but for rounding.
    np.testing.assert_allclose(here, waveform, rtol=0, atol=1e-6)
    np.testing.assert_allclose(later[:-1], waveform[1:], rtol=0, atol=1e-6)


def test_what_comes_later_in_the_recording_is_not_in_the_past(rng):
    """Past and targets up to t hold nothing of what follows the place where t stands."""
    batch = batch_of(tone(440.0))
    changed = batch.codes.copy()
    changed[..., 2500:] = rng.integers(1, 256, size=changed[..., 2500:].shape)
    lessons = [lesson_of(Batch(c, batch.augmented), DETUNED) for c in (batch.codes, changed)]
    # The past runs at most so much faster or slower; the interpolation sees four samples further.
    fastest = 2 ** (2.5 / 12)
    unchanged, changed_from = int(2500 / fastest) - 5, int(2500 * fastest) + 5
    for leaf in ("past", "targets"):
        before, after = (np.asarray(getattr(lesson, leaf)) for lesson in lessons)
        np.testing.assert_array_equal(before[..., :unchanged], after[..., :unchanged])
        assert np.any(before[..., changed_from:] != after[..., changed_from:])


def test_the_latents_that_decoders_read_are_those_of_where_the_past_stands():
    """Each latent frame of this recording has a level of its own."""
    pool = DETUNED.model.pool_samples
    levels = np.linspace(-0.9, 0.9, T // pool).astype(np.float32)
    lesson = lesson_of(batch_of(np.repeat(levels, pool)), DETUNED)
    middles = decoded(lesson.past)[:, pool // 2 :: pool]
    heard = np.argmin(np.abs(middles[..., None] - levels), axis=-1)
    frames = np.asarray(lesson.frames).reshape(heard.shape)
    assert np.abs(frames - heard).max() <= 1  # Next to a border the interpolation sees both.
    assert np.mean(frames == heard) > 0.95
    assert np.any(frames != np.arange(T // pool))


def test_what_lies_beyond_the_segment_does_not_count():
    lesson = lesson_of(batch_of(tone(440.0)), DETUNED)
    counted = np.asarray(lesson.counted).reshape(-1, T)
    assert counted[:, 0].all() and not counted.all()
    # Once it has run past the end it does not come back.
    assert np.all(np.diff(counted.astype(int), axis=1) <= 0)
    assert counted.mean() > 0.9


def test_a_share_of_the_segments_wanders_and_the_others_are_the_true_ones():
    batch = batch_of(tone(440.0))
    some = config(past_detune_semitones=2.5, past_detune_share=0.5)
    wandered = []
    for step in range(20):
        lesson = lesson_of(batch, some, step=step)
        true = np.all(np.asarray(lesson.past) == batch.codes, axis=-1)
        wandered += list(~true.ravel())
        np.testing.assert_array_equal(np.asarray(lesson.targets)[true], batch.codes[true])
        assert np.asarray(lesson.counted)[true].all()
    assert np.mean(wandered) == pytest.approx(0.5, abs=0.16)  # Four standard errors of 160 draws.


def test_devices_with_parts_of_the_batch_draw_what_one_device_draws(rng):
    everything = config(past_detune_semitones=2.5, past_noise=0.03, latent_noise=0.1)
    codes = rng.integers(1, 256, size=(2, 4, T)).astype(np.uint8)
    whole = lesson_of(Batch(codes, codes), everything)
    part = lesson_of(Batch(codes[:, 2:], codes[:, 2:]), everything, first_segment=2)
    for name, leaf in dataclasses.asdict(part).items():
        difference = np.abs(
            np.asarray(getattr(whole, name), float)[:, 2:] - np.asarray(leaf, float)
        )
        # Programs of other sizes round otherwise, and so may codes that lie between two.
        assert np.mean(difference > 1e-5) < 1e-3 and np.nanmax(difference) <= 1
    other_step = lesson_of(Batch(codes, codes), everything, step=4)
    assert np.any(np.asarray(whole.past) != np.asarray(other_step.past))
    first, second = np.asarray(whole.latent_noise)[0, :2]
    assert np.abs(first - second).max() > 0.01


def test_noise_on_the_past_is_between_a_thirtieth_and_the_whole_of_what_was_asked():
    noisy = config(past_noise=0.1)
    silence = batch_of(np.zeros(T, np.float32))
    spreads = []
    for step in range(5):
        lesson = lesson_of(silence, noisy, step=step)
        np.testing.assert_array_equal(lesson.targets, silence.codes)
        levels = (np.asarray(lesson.past, float) - 128) / 127
        spreads += list(levels.std(axis=-1).ravel())
    # Rounding adds a twelfth of a squared level.
    assert 0.1 / 30 < np.sqrt(np.square(min(spreads)) + 1e-9) and max(spreads) < 0.103
    assert min(spreads) < 0.02 and max(spreads) > 0.05


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"past_detune_semitones": 13.0}, "past_detune_semitones=13.0 must lie in 0..12"),
        ({"past_detune_semitones": 1.0, "past_detune_samples": T + 1}, "at most segment_samples"),
        ({"past_detune_share": 1.5}, "past_detune_share=1.5 must lie in 0..1"),
        ({"past_noise": 2.0}, "past_noise=2.0 must lie in 0..1"),
        ({"ema_decay": 1.0}, "ema_decay=1.0 must be 0 or more, and below 1"),
    ],
)
def test_values_that_make_no_sense_are_refused_in_a_sentence(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(segment_samples=T, **fields)
