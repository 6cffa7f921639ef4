"""Several recordings at once, to several domains, and recordings in parallel segments."""

import itertools
import tracemalloc

import jax
import numpy as np
import pytest
from small_translator import PIECES, WINDOW, collect, noise
from small_translator import config as config  # Fixtures, this one and the next.
from small_translator import model as model

from umt_jax import translator
from umt_jax.config import SamplingConfig


def test_a_domain_sounds_the_same_whatever_is_translated_beside_it(
    rng, model, config, tiny_parameters
):
    waveform = noise(rng, 640)
    pieces = model.translate_recordings([[waveform]], seed=3, num_streams=2)
    together = collect(pieces)[0][0]
    lone = translator.Translator(config, tiny_parameters, domains=["Piano"])
    assert lone.domains == ("Piano",)
    for k, domain in enumerate(model.domains):
        expected = model.translate(waveform, 1000, domain=domain, seed=3)
        np.testing.assert_array_equal(together[k], expected)
    np.testing.assert_array_equal(
        together[2], lone.translate(waveform, 1000, domain="Piano", seed=3)
    )


def test_recordings_of_any_length_are_translated_as_each_is_alone(rng, model):
    recordings = [noise(rng, length) for length in (640, 1, 1500, 500, 77)]
    blocks = ([part[:333], part[333:]] for part in recordings)
    waveforms, errors = collect(model.translate_recordings(blocks, seed=3, num_streams=2))
    assert not errors and list(waveforms) == [0, 1, 2, 3, 4]
    for index, recording in enumerate(recordings):
        assert waveforms[index].shape == (3, len(recording))
        expected = model.translate(recording, 1000, domain="Flute", seed=3)
        np.testing.assert_array_equal(waveforms[index][1], expected)


def test_many_recordings_at_once_are_each_by_domain_what_they_are_alone(rng, model):
    recordings = [noise(rng, length) for length in (640, 77, 1500)]
    options = {"domains": ["Piano", "Cello", "Flute"], "seed": 3, "num_streams": 2}
    together = model.translate_many(recordings, **options)
    for recording, by_domain in zip(recordings, together, strict=True):
        assert list(by_domain) == options["domains"]
        expected = model.translate(recording, 1000, domain="Flute", seed=3)
        np.testing.assert_array_equal(by_domain["Flute"], expected)
    assert model.translate_many([]) == []
    with pytest.raises(ValueError, match="not finite"):
        model.translate_many([recordings[0], np.full(9, np.nan, np.float32)], **options)


def test_wanted_domains_come_in_the_wanted_order(rng, model):
    waveform = noise(rng, 30)
    (piece, last) = model.translate_recordings([[waveform]], domains=["Piano"], seed=1)
    assert (piece.is_last, last.is_last, last.waveforms.shape) == (False, True, (1, 0))
    expected = model.translate(waveform, 1000, domain="Piano", seed=1)
    np.testing.assert_array_equal(piece.waveforms[0], expected)


@pytest.mark.parametrize("error", [ValueError("is damaged"), OSError("is gone")])
def test_a_recording_that_cannot_be_read_on_ends_alone(rng, model, error):
    good = noise(rng, 1100)

    def broken():
        yield good[:600]
        raise error

    def unreadable():
        raise error
        yield

    recordings = [broken(), unreadable(), [good], [np.full(9, np.nan, np.float32)], [good]]
    waveforms, errors = collect(model.translate_recordings(recordings, seed=3, num_streams=2))
    assert errors.keys() == {0, 1, 3}
    assert errors[0] is errors[1] is error
    assert "not finite" in str(errors[3])
    assert [waveforms[index].shape[1] for index in range(5)] == [500, 0, 1100, 0, 1100]
    np.testing.assert_array_equal(waveforms[2], waveforms[4])


def test_no_recordings_give_no_pieces(model):
    assert list(model.translate_recordings([])) == []


def test_memory_does_not_grow_with_the_length_of_a_recording(model):
    read = itertools.count()
    endless = [(np.zeros(WINDOW, np.float32) for _ in read) for _ in range(2)]
    pieces = model.translate_recordings(endless, num_streams=2)
    for _ in itertools.islice(pieces, 8 * PIECES):
        pass
    tracemalloc.start()
    for _ in itertools.islice(pieces, 40 * PIECES):
        pass
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 24 windows of 2 recordings, and one each that is read ahead.
    assert next(read) == 24 * 2 + 2
    # All the windows, as float32 of three domains, would take 288 kB without their latents.
    assert peak_bytes < 200_000


def without_past(parameters):
    """Returns parameters whose decoders do not hear what they played."""
    first = jax.tree.map(np.zeros_like, parameters.decoders["first"])
    return parameters.replace(decoders={**parameters.decoders, "first": first})


def test_segments_of_decoders_that_need_no_past_join_to_the_whole_bit_by_bit(
    rng, config, tiny_parameters
):
    model = translator.Translator(config, without_past(tiny_parameters))
    recordings = [noise(rng, length) for length in (3333, 700, 2000)]
    waveforms = {
        count: collect(
            model.translate_recordings(
                ([recording] for recording in recordings),
                seed=3,
                num_streams=3,
                parallel_segments=count,
            )
        )[0]
        for count in (1, 2, 4)
    }
    for count, index in itertools.product((2, 4), range(3)):
        assert waveforms[1][index].shape == (3, len(recordings[index]))
        np.testing.assert_array_equal(waveforms[count][index], waveforms[1][index])


def test_a_segment_is_what_its_own_latents_give_after_the_warm_up(rng, model, tiny_parameters):
    recording = noise(rng, 2005)  # 201 frames: segments begin at 0, 67 and 134.
    pieces = model.translate_recordings(
        [[recording]], domains=["Flute"], seed=5, num_streams=3, parallel_segments=3
    )
    joined = collect(pieces)[0][0][0]
    assert joined.shape == recording.shape
    latents = model.encode(recording, 1000)
    warm_up = 4  # The decoder hears 32 samples.
    for start, end in ((0, 67), (67, 134), (134, 201)):
        first = max(0, start - warm_up)
        generator = model._streams(["Flute"], 1, SamplingConfig())
        generator.begin(0, 5, first_sample=first * 10)
        parts = [piece[0, 0] for piece in generator.advance(latents[None, first:end])]
        alone = np.concatenate(parts)[(start - first) * 10 :]
        stop = min(end * 10, 2005) - (20 if end < 201 else 0)  # Then it fades out.
        np.testing.assert_array_equal(joined[start * 10 : stop], alone[: stop - start * 10])


def test_segments_of_an_unreadable_recording_are_its_error_alone(rng, model):
    good = noise(rng, 1100)

    def broken():
        yield good
        raise OSError("is gone")

    recordings = [[good], broken(), [], [good]]
    pieces = model.translate_recordings(recordings, num_streams=2, parallel_segments=2)
    waveforms, errors = collect(pieces)
    assert [waveforms[index].shape[1] for index in range(4)] == [1100, 0, 0, 1100]
    assert errors.keys() == {1}
