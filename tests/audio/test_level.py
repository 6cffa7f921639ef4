"""The level of recordings, in the model's convention and out of it."""

import dataclasses
import math

import numpy as np
import pytest
import soundfile
from conftest import TINY_MODEL

from umt_jax import translator
from umt_jax.audio import level, sound_files
from umt_jax.config import Config, ModelConfig

RATE_HZ = 1000
HOP = round(level.FOLLOWING_SECONDS * RATE_HZ)


@pytest.fixture(scope="module")
def model(tiny_config, tiny_parameters):
    sizes = dataclasses.replace(TINY_MODEL, sample_rate_hz=RATE_HZ, rms_dbfs=-20.0)
    return translator.Translator(dataclasses.replace(tiny_config, model=sizes), tiny_parameters)


@pytest.fixture
def waveform(rng):
    """A sound that swells, 2.3 s."""
    return (np.linspace(0.02, 0.2, 2300) * rng.normal(size=2300)).astype(np.float32)


def dbfs(waveform):
    return 20 * np.log10(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def cut(waveform, size):
    return [waveform[start : start + size] for start in range(0, len(waveform), size)]


def test_each_recording_is_brought_to_the_level_and_silence_is_left_alone(waveform):
    hum = np.full(2300, 0.9 * level.SILENCE_PEAK, np.float32)
    levelled = level.bring_to(np.stack([waveform, 0.01 * waveform, hum]), -20.0)
    assert dbfs(levelled[0]) == pytest.approx(-20, abs=1e-4)
    np.testing.assert_allclose(levelled[1], levelled[0], rtol=1e-5)
    np.testing.assert_array_equal(levelled[2], hum)
    np.testing.assert_array_equal(level.bring_to(waveform, None), waveform)


# Halves and quarters change no bit of a mantissa; others round.
@pytest.mark.parametrize(("gain", "tolerance"), [(0.25, 0.0), (2.0, 0.0), (0.37, 1e-2)])
def test_a_recording_at_another_gain_gives_the_same_latents_and_translation(
    model, waveform, gain, tolerance
):
    louder = np.float32(gain) * waveform
    np.testing.assert_allclose(
        model.encode(louder, RATE_HZ), model.encode(waveform, RATE_HZ), atol=tolerance
    )
    if not tolerance:
        np.testing.assert_array_equal(
            *(model.translate(w, RATE_HZ, domain="Piano", seed=3) for w in (louder, waveform))
        )


@pytest.mark.parametrize("as_it_comes", [False, True])
def test_blocks_at_another_gain_give_the_same_latents(model, waveform, as_it_comes):
    def encoded(sound):
        blocks = cut(sound, 170)
        windows = model.encode_blocks(iter(blocks) if as_it_comes else blocks)
        return np.concatenate([latents for latents, _ in windows])

    np.testing.assert_array_equal(encoded(np.float32(0.25) * waveform), encoded(waveform))
    is_same = np.array_equal(encoded(waveform), model.encode(waveform, RATE_HZ))
    assert is_same != as_it_comes  # What is not known to its end has another level on the way.


def test_a_file_is_measured_to_its_end_before_it_is_encoded(model, waveform, tmp_path):
    soundfile.write(tmp_path / "a.wav", waveform, RATE_HZ, subtype="FLOAT")
    windows = model.encode_blocks(sound_files.SoundFileBlocks(tmp_path / "a.wav", RATE_HZ))
    encoded = np.concatenate([latents for latents, _ in windows])
    np.testing.assert_array_equal(encoded, model.encode(waveform, RATE_HZ))


def followed_by_definition(waveform, rms_dbfs):
    """Sample by sample: the gain of each half second's end is by all half seconds before it."""
    target, hops = 10 ** (rms_dbfs / 20), cut(waveform.astype(np.float64), HOP)
    gains = [1.0]
    for last in range(len(hops)):
        loud = [hop for hop in hops[: last + 1] if np.abs(hop).max() >= level.SILENCE_PEAK]
        gains.append(target / np.sqrt(np.mean(np.concatenate(loud) ** 2)) if loud else 1.0)
    made = []
    for t, sample in enumerate(waveform):
        hop, within = divmod(t, HOP)
        start, end = gains[max(1, hop - 1)], gains[max(1, hop)]
        made.append(sample * (start + (end - start) * within / (HOP - 1)))
    return np.array(made)


@pytest.mark.parametrize("silence_seconds", [0.0, 0.7, 1.2])
def test_a_sound_without_an_end_is_followed_however_it_is_cut(waveform, silence_seconds):
    sound = np.concatenate([np.zeros(round(silence_seconds * RATE_HZ), np.float32), waveform])
    expected = followed_by_definition(sound, -20.0)
    made = [
        np.concatenate(list(level.follow(cut(sound, size), -20.0, sample_rate_hz=RATE_HZ)))
        for size in (1, 77, HOP, 5000)
    ]
    np.testing.assert_allclose(made[0], expected, rtol=1e-4, atol=1e-6)
    for other in made[1:]:
        np.testing.assert_array_equal(other, made[0])
    np.testing.assert_allclose(
        list(level.follow([waveform[:100]], -20.0, sample_rate_hz=RATE_HZ))[0],
        level.bring_to(waveform[:100], -20.0),
        rtol=1e-6,
    )


def test_what_was_followed_for_half_a_second_is_passed_on_without_delay(waveform):
    arrived = 0

    def source():
        nonlocal arrived
        for block in cut(waveform, 10):
            arrived += len(block)
            yield block

    passed_on = 0
    for block in level.follow(source(), -20.0, sample_rate_hz=RATE_HZ):
        passed_on += len(block)
        assert passed_on == arrived >= HOP
    assert passed_on == len(waveform)


def test_a_configuration_keeps_the_level_and_older_ones_have_none():
    config = Config(domains=("A", "B"), model=ModelConfig(rms_dbfs=-23.0))
    fields = config.to_json()
    assert Config.from_json(fields) == config
    del fields["model"]["rms_dbfs"]
    assert Config.from_json(fields).model.rms_dbfs is None
    with pytest.raises(ValueError, match="rms_dbfs=3 must lie between -60 and 0"):
        ModelConfig(rms_dbfs=3.0)


def test_the_root_mean_square_is_that_of_all_samples_in_double_precision(rng):
    waveform = rng.normal(size=1000).astype(np.float32)
    expected = math.sqrt(math.fsum(float(x) ** 2 for x in waveform) / 1000)
    assert level.rms(waveform) == pytest.approx(expected, rel=1e-12)
    assert level.rms(np.full(2, 1e-25, np.float32)) == pytest.approx(1e-25)  # No underflow.
    assert level.rms(waveform[:0]) == 0
