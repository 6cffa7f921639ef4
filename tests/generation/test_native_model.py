"""The model by the core against the same by JAX."""

import dataclasses
import itertools

import numpy as np
import pytest
from conftest import TINY_MODEL, mostly_thorough, random_parameters

from umt_jax.config import SamplingConfig
from umt_jax.core import frames, packing
from umt_jax.generation import jax_model, native_model, pieces
from umt_jax.generation.engines import native, scan
from umt_jax.model import networks

SIZES = [
    {},
    {"mu_law": "truncated", "encoder_activation": "tanh", "pool_samples": 7},
    {"encoder_preactivation": True, "pool_samples": 1, "latent_channels": 40},
    {"encoder_blocks": 1, "residual_channels": 70, "skip_channels": 3},
]


@pytest.fixture(params=mostly_thorough(SIZES), ids=["tiny", "truncated", "preactivation", "wide"])
def config(request, tiny_config):
    model = dataclasses.replace(TINY_MODEL, sample_rate_hz=1000, **request.param)
    training = dataclasses.replace(tiny_config.training, segment_samples=420)
    return dataclasses.replace(tiny_config, model=model, training=training)


@pytest.fixture
def arrays(config):
    by_name = networks.by_name(random_parameters(networks.Networks(config)))
    return {name: np.asarray(array) for name, array in by_name.items()}


def by_core(config, arrays, decoders=(0, 1, 2), weights="float32", threads=None):
    return native_model.NativeModel(config, arrays, decoders, weights=weights, threads=threads)


def encode(model, blocks):
    windows = list(model.encode(blocks))
    return np.concatenate([latents for latents, _ in windows], axis=-2), [n for _, n in windows]


@pytest.mark.parametrize("num_samples", [1, 419, 500, 501, 1037])
def test_windows_are_those_of_jax(rng, config, arrays, num_samples):
    waveforms = rng.uniform(-0.9, 0.9, size=(2, num_samples)).astype(np.float32)
    blocks = [waveforms[:, :250], waveforms[:, 250:250], waveforms[:, 250:]]
    latents, counts = encode(by_core(config, arrays), blocks)
    expected, expected_counts = encode(jax_model.JaxModel(config, arrays, (0, 1, 2)), blocks)
    np.testing.assert_allclose(latents, expected, rtol=1e-4, atol=1e-4)
    assert counts == expected_counts
    alone, _ = encode(by_core(config, arrays), [waveforms[1]])
    np.testing.assert_array_equal(alone, latents[1])  # Bit for bit.


def test_the_first_window_comes_with_the_sample_that_the_latency_says(config, arrays):
    model = by_core(config, arrays)
    read = itertools.count()
    next(model.encode(np.zeros(1, np.float32) for _ in read))
    assert 0 <= model.latency_samples - next(read) < 24  # Those of a hop.


def test_the_first_window_does_not_wait_for_a_long_block(config, arrays, monkeypatch):
    pushed = []
    push = frames.Recording.push
    monkeypatch.setattr(
        frames.Recording,
        "push",
        lambda self, codes: (pushed.append(len(codes)), push(self, codes))[1],
    )
    model = by_core(config, arrays)
    next(model.encode([np.zeros(20_000, np.float32)]))
    part = pieces.piece_frames(config.model) * config.model.pool_samples
    assert sum(pushed) < model.latency_samples + part


def test_samples_that_are_not_finite_are_refused(config, arrays):
    with pytest.raises(ValueError, match="not finite"):
        list(by_core(config, arrays).encode([np.array([0.0, np.nan], np.float32)]))
    assert list(by_core(config, arrays).encode([])) == []


def waveforms_of(model, latents, sampling, *, decoders=(0, 1, 2), indices=(0, 1, 2)):
    generator = model.streams(
        decoders, indices, num_streams=len(latents), sampling=SamplingConfig(**sampling)
    )
    for stream in range(len(latents)):
        generator.begin(stream, 7 + stream, first_sample=2**32 - 100 + stream)
    return generator


def whole(generator, latents):
    return np.concatenate(list(generator.advance(latents)), axis=-1)


def test_waveforms_are_those_of_jax(rng, config, arrays):
    latents = rng.normal(size=(2, 61, config.model.latent_channels)).astype(np.float32)
    sampling = {"temperature": 0.7, "top_p": 0.6}
    found, expected = (
        whole(waveforms_of(model, latents, sampling), latents)
        for model in (
            by_core(config, arrays),
            jax_model.JaxModel(config, arrays, (0, 1, 2), engine=scan.ScanEngine()),
        )
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("config", SIZES[:1], indirect=True)
@pytest.mark.parametrize("weights", packing.TYPES)
def test_each_type_of_weights_gives_the_waveforms_of_the_same_engine_by_jax(
    rng, config, arrays, weights
):
    latents = rng.normal(size=(1, 30, config.model.latent_channels)).astype(np.float32)
    found, expected = (
        whole(waveforms_of(model, latents, {}), latents)
        for model in (
            by_core(config, arrays, weights=weights),
            jax_model.JaxModel(config, arrays, (0, 1, 2), engine=native.NativeEngine(weights)),
        )
    )
    np.testing.assert_array_equal(found, expected)


def test_some_decoders_in_any_order_sound_as_among_all(rng, config, arrays):
    latents = rng.normal(size=(2, 20, config.model.latent_channels)).astype(np.float32)
    among_all = whole(waveforms_of(by_core(config, arrays), latents, {}), latents)
    kept = by_core(config, arrays, (2, 0))
    for decoders, indices in (((0, 1), (2, 0)), ((1, 0), (0, 2)), ((1,), (0,))):
        streams = waveforms_of(kept, latents, {}, decoders=decoders, indices=indices)
        np.testing.assert_array_equal(whole(streams, latents), among_all[list(indices)])


def test_threads_change_no_sample(rng, config, arrays):
    latents = rng.normal(size=(1, 10, config.model.latent_channels)).astype(np.float32)
    one, three = (
        whole(waveforms_of(by_core(config, arrays, threads=threads), latents, {}), latents)
        for threads in (1, 3)
    )
    np.testing.assert_array_equal(one, three)


def test_latents_of_64_bits_sound_as_those_of_32(rng, config, arrays):
    latents = rng.normal(size=(2, 5, config.model.latent_channels)).astype(np.float32)
    expected, found = (
        whole(waveforms_of(by_core(config, arrays), given, {}), given)
        for given in (latents, latents.astype(np.float64))
    )
    np.testing.assert_array_equal(found, expected)


def test_a_seed_of_more_than_32_bits_is_refused(config, arrays):
    generator = waveforms_of(by_core(config, arrays), np.zeros((1, 1, 1)), {})
    with pytest.raises(ValueError, match=r"seed=4294967296 must lie in 0\.\.4294967295"):
        generator.begin(0, 2**32)
