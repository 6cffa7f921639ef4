import dataclasses
import itertools

import numpy as np
import pytest
import reference
from conftest import TINY_MODEL

from umt_jax.audio import mu_law
from umt_jax.config import SamplingConfig
from umt_jax.generation import generate, streams
from umt_jax.generation.engines import scan
from umt_jax.model import networks

# Windows of 50 latent frames of 10 samples; the encoder reaches 2 frames to either side.
MODEL = dataclasses.replace(TINY_MODEL, sample_rate_hz=1000)
WINDOW = 500
ENGINE = scan.ScanEngine()


@pytest.fixture(scope="module")
def encoder(tiny_config, tiny_parameters):
    nets = networks.Networks(dataclasses.replace(tiny_config, model=MODEL))
    return streams.WindowEncoder(nets, tiny_parameters.encoder)


@pytest.fixture(scope="module")
def make_streams(tiny_parameters):
    def make(domain_indices=(0, 1, 2), *, num_streams=2, **sampling):
        decoders = networks.select(tiny_parameters.decoders, domain_indices)
        return streams.Streams(
            MODEL,
            generate.pack(decoders, MODEL, ENGINE),
            domain_indices,
            engine=ENGINE,
            num_streams=num_streams,
            sampling=SamplingConfig(**sampling),
        )

    return make


def noise(rng, *shape):
    return rng.uniform(-0.9, 0.9, size=shape).astype(np.float32)


def encode(encoder, blocks):
    windows = list(encoder.encode(blocks))
    return np.concatenate([latents for latents, _ in windows], axis=-2), [n for _, n in windows]


def encode_whole(waveform, parameters):
    codes = mu_law.encode(waveform, "rounded")
    silence = np.full(-len(codes) % MODEL.pool_samples, mu_law.silence("rounded"))
    return reference.encoder(np.concatenate([codes, silence]), parameters, MODEL)


# Below, at and above a frame, a window less its reach, a window, two windows.
@pytest.mark.parametrize(
    "num_samples", [1, 9, 10, 11, 479, 480, 481, 499, 500, 501, 520, 521, 999, 1000, 1001]
)
def test_encoding_in_windows_equals_encoding_the_whole(rng, encoder, tiny_parameters, num_samples):
    waveform = noise(rng, num_samples)
    latents, counts = encode(encoder, [waveform])
    expected = encode_whole(waveform, tiny_parameters.encoder)
    np.testing.assert_allclose(latents, expected, rtol=1e-5, atol=1e-5)
    assert counts == [WINDOW] * (num_samples // WINDOW) + [num_samples % WINDOW] * (
        num_samples % WINDOW > 0
    )


@pytest.mark.parametrize("block_samples", [1, 7, 500, 1036])
def test_latents_do_not_depend_on_the_blocks_they_arrive_in(rng, encoder, block_samples):
    waveform = noise(rng, 1037)
    expected = encode(encoder, [waveform])
    starts = range(0, 1037, block_samples)
    latents, counts = encode(encoder, (waveform[s : s + block_samples] for s in starts))
    np.testing.assert_array_equal(latents, expected[0])
    assert counts == expected[1] == [500, 500, 37]


def test_empty_blocks_between_others_change_nothing(rng, encoder):
    waveform = noise(rng, 60)
    blocks = [waveform[:0], waveform[:25], waveform[:0], waveform[25:], waveform[:0]]
    np.testing.assert_array_equal(encode(encoder, blocks)[0], encode(encoder, [waveform])[0])
    assert list(encoder.encode([])) == list(encoder.encode([waveform[:0]])) == []


def test_a_batch_is_encoded_as_its_waveforms_are_alone(rng, encoder):
    waveforms = noise(rng, 2, 777)
    batch, _ = encode(encoder, [waveforms[:, :300], waveforms[:, 300:]])
    alone = [encode(encoder, [waveform])[0] for waveform in waveforms]
    np.testing.assert_allclose(batch, alone, rtol=1e-5, atol=1e-5)


def test_windows_come_before_the_recording_is_read_to_its_end(encoder):
    read = itertools.count()
    endless = (np.zeros(100, np.float32) for _ in read)
    for latents, num_samples in itertools.islice(encoder.encode(endless), 30):
        assert (len(latents), num_samples) == (50, WINDOW)
    # As far as the encoder reaches, 20 samples, is read ahead.
    assert next(read) == 30 * WINDOW // 100 + 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused_when_they_come(encoder, bad):
    blocks = [np.zeros(600, np.float32), np.array([0.0, bad], np.float32)]
    windows = encoder.encode(blocks)
    assert next(windows)[1] == WINDOW
    with pytest.raises(ValueError, match="not finite"):
        next(windows)


def advance(generator, latents):
    return np.concatenate(list(generator.advance(latents)), axis=-1)


def _latents(rng, frames):
    return rng.normal(size=(2, frames, MODEL.latent_channels)).astype(np.float32)


def test_every_stream_and_decoder_has_random_numbers_of_its_own(rng, make_streams):
    generator = make_streams()
    latents = np.stack([_latents(rng, 50)[0]] * 2)
    generator.begin(0, seed=0)
    generator.begin(1, seed=1)
    first = advance(generator, latents)
    assert first.shape == (3, 2, WINDOW)
    # What differs is the seed alone for streams.
    assert np.mean(first[0, 0] != first[0, 1]) > 0.9
    generator.begin(0, seed=1)
    generator.begin(1, seed=1)
    np.testing.assert_array_equal(*np.moveaxis(advance(generator, latents), 1, 0))


def test_a_stream_begun_again_repeats_itself_and_leaves_the_other_alone(rng, make_streams):
    latents = [_latents(rng, 50), _latents(rng, 50)]

    def waveforms(begin_again):
        generator = make_streams()
        generator.begin(0, seed=3)
        generator.begin(1, seed=4)
        parts = [advance(generator, latents[0])]
        if begin_again:
            generator.begin(0, seed=3)
            latents[1][0] = latents[0][0]
        return [*parts, advance(generator, latents[1])]

    never, again = waveforms(False), waveforms(True)
    np.testing.assert_array_equal(again[1][:, 0], again[0][:, 0])
    np.testing.assert_array_equal(again[1][:, 1], never[1][:, 1])
    assert np.mean(never[1][:, 0] != never[0][:, 0]) > 0.9


def test_sound_comes_in_pieces_before_the_window_is_complete(rng, make_streams):
    pieces = make_streams().advance(_latents(rng, 50))
    # 0.1 s each at this rate of 1,000 samples a second.
    assert [piece.shape for piece in pieces] == [(3, 2, 100)] * 5


def test_a_short_last_window_is_cut(rng, make_streams):
    latents = _latents(rng, 50)
    whole, short = (advance(make_streams(), part) for part in (latents, latents[:, :13]))
    np.testing.assert_array_equal(short, whole[..., :130])


def test_windows_of_a_nucleus_give_the_waveform_of_the_whole(rng, make_streams):
    latents = _latents(rng, 100)
    whole, parts = make_streams(top_p=0.5), make_streams(top_p=0.5)
    expected = advance(whole, latents)
    given = [advance(parts, latents[:, :50]), advance(parts, latents[:, 50:])]
    np.testing.assert_array_equal(np.concatenate(given, axis=-1), expected)
    assert np.mean(advance(make_streams(), latents) != expected) > 0.5


@pytest.mark.parametrize(
    "sampling, same",
    [({"top_p": 1.0}, {}), ({"temperature": 0.0, "top_p": 0.5}, {"temperature": 0.0})],
)
def test_a_nucleus_that_leaves_nothing_out_changes_nothing(rng, make_streams, sampling, same):
    latents = _latents(rng, 13)
    given, expected = (advance(make_streams(**each), latents) for each in (sampling, same))
    np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_beyond_32_bits_are_refused(make_streams, seed):
    with pytest.raises(ValueError, match=rf"seed={seed} must lie in 0..4294967295"):
        make_streams().begin(0, seed)
