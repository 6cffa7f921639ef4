import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_MODEL

from umt_jax import generate, networks

# Twice around the largest ring (dilation 8), and over several latent frames.
NUM_FRAMES = 6


@pytest.fixture
def latents(rng):
    return rng.normal(size=(2, NUM_FRAMES, TINY_MODEL.latent_channels)).astype(np.float32)


def _caches(num_domains, num_streams):
    cache = generate.init_cache(TINY_MODEL, num_streams)
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * num_domains), cache)


def _keys(num_domains, num_streams):
    return jax.random.split(jax.random.key(7), (num_domains, num_streams))


def _generate(parameters, latents, *, caches=None, keys=None, temperature=1.0):
    streams = len(latents)
    return generate.generate(
        parameters.decoders,
        _caches(3, streams) if caches is None else caches,
        latents,
        _keys(3, streams) if keys is None else keys,
        jnp.float32(temperature),
        config=TINY_MODEL,
    )


def test_cached_logits_equal_the_teacher_forced_pass(rng, tiny_networks, tiny_parameters, latents):
    num_samples = NUM_FRAMES * TINY_MODEL.pool_samples
    codes = rng.integers(256, size=(2, num_samples)).astype(np.int32)
    parameters = networks.select(tiny_parameters.decoders, 1)
    expected = tiny_networks.decode_one(parameters, codes, latents)
    gates, heads = generate.conditioning(parameters, latents, TINY_MODEL)

    @jax.jit
    def step(cache, codes, gate, head):
        logits, cache = generate.next_logits(parameters, cache, gate, head, TINY_MODEL)
        return logits, generate.append(cache, codes, TINY_MODEL)

    cache = generate.init_cache(TINY_MODEL, 2)
    for t in range(num_samples):
        frame = t // TINY_MODEL.pool_samples
        logits, cache = step(cache, codes[:, t], gates[:, frame], heads[:, frame])
        np.testing.assert_allclose(logits, expected[:, t], rtol=1e-4, atol=1e-4)


def test_greedy_codes_are_the_likeliest_of_the_teacher_forced_pass(
    tiny_networks, tiny_parameters, latents
):
    _, codes = _generate(tiny_parameters, latents, temperature=0.0)
    logits = tiny_networks.decode(
        tiny_parameters.decoders, codes, np.broadcast_to(latents, (3, *latents.shape))
    )
    chosen = jnp.take_along_axis(logits, codes[..., None].astype(jnp.int32), axis=-1)[..., 0]
    np.testing.assert_allclose(chosen, logits.max(axis=-1), rtol=1e-4, atol=1e-4)
    assert len(np.unique(codes)) > 3


@pytest.mark.parametrize("chunks", [(1, 5), (2, 2, 2), (5, 1)])
def test_chunks_give_the_codes_of_the_whole(tiny_parameters, latents, chunks):
    _, whole = _generate(tiny_parameters, latents)
    caches, parts, start = None, [], 0
    for frames in chunks:
        caches, codes = _generate(
            tiny_parameters, latents[:, start : start + frames], caches=caches
        )
        parts.append(codes)
        start += frames
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), whole)


def test_a_stream_in_a_batch_gives_the_codes_it_gives_alone(tiny_parameters, latents):
    _, batch = _generate(tiny_parameters, latents)
    _, alone = _generate(tiny_parameters, latents[1:], keys=_keys(3, 2)[:, 1:])
    np.testing.assert_array_equal(batch[:, 1:], alone)


def test_a_restarted_stream_begins_anew_and_leaves_the_others_alone(tiny_parameters, latents):
    _, whole = _generate(tiny_parameters, latents)
    # A number of frames after which no ring stands at its beginning.
    caches, _ = _generate(tiny_parameters, latents[:, :1])
    caches = jax.tree.map(jnp.copy, generate.restart(caches, 0, TINY_MODEL))
    continued = np.stack([latents[0, :5], latents[1, 1:]])
    _, codes = _generate(tiny_parameters, continued, caches=caches)
    np.testing.assert_array_equal(codes[:, 0], whole[:, 0, :50])
    np.testing.assert_array_equal(codes[:, 1], whole[:, 1, 10:])


def test_sampled_codes_follow_the_models_distribution(tiny_networks, tiny_parameters):
    # The first code of many streams, which differ in their keys alone.
    latents = np.ones((4000, 1, TINY_MODEL.latent_channels), np.float32)
    _, codes = _generate(tiny_parameters, latents, temperature=0.5)
    logits = tiny_networks.decode_one(
        networks.select(tiny_parameters.decoders, 0), np.zeros((1, 10), np.int32), latents[:1]
    )
    expected = jax.nn.softmax(logits[0, 0] / 0.5)
    drawn = np.bincount(np.asarray(codes)[0, :, 0], minlength=256) / 4000
    # Expected distance for 4,000 draws is sqrt(2 p / (pi n)) / 2 summed over codes, under 0.1.
    assert 0.5 * np.abs(drawn - expected).sum() < 0.12
