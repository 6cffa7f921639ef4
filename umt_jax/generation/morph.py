"""Generation by two decoders at once, whose distributions of the next code are mixed.

Each sample is drawn once, from the mixture, and heard by both. Whatever engine a Translator has,
this is computed as `scan_engine` computes a sample, one after the other.
"""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from umt_jax.audio import mu_law
from umt_jax.config import ModelConfig, SamplingConfig
from umt_jax.generation import generate, pieces, sampling
from umt_jax.generation.engines import scan
from umt_jax.model import networks
from umt_jax.shapes import Array, Float, Float32, Parameters


def mix_logits(
    first: Float[Array, "*B Q"], second: Float[Array, "*B Q"], weight: Float[Array, ""]
) -> Float[jax.Array, "*B Q"]:
    """Returns the logarithm of (1 - weight) softmax(first) + weight softmax(second)."""
    return jnp.logaddexp(
        jnp.log1p(-weight) + jax.nn.log_softmax(first), jnp.log(weight) + jax.nn.log_softmax(second)
    )


def morph(
    decoders: Parameters,
    latents: Float[Array, "F Z"],
    weights: Float[Array, "F"],
    *,
    config: ModelConfig,
    domain_indices: Sequence[int],
    sampled: SamplingConfig,
    seed: int,
) -> Iterator[Float32[np.ndarray, "T"]]:
    """Yields the waveform of latents piece by piece, from one decoder's sound to another's.

    A sample has the random numbers that the decoder of larger weight would draw alone, so that
    weights of 0 or 1 throughout give that decoder's own waveform.

    Args:
        decoders: Two, every leaf [2, ...].
        latents: Latents, [F, Z].
        weights: Of the second decoder at each latent frame, in [0, 1].
        config: Sizes.
        domain_indices: Of both, among all the domains of the model; decide the random numbers.
        sampled: How codes are drawn from the mixture.
        seed: Decides the random numbers.
    """
    fold_in = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    keys = fold_in(jax.random.key(seed), np.asarray(domain_indices, np.uint32))
    packed = scan.ScanEngine().pack(decoders, config)
    both = [[networks.select(tree, index) for index in range(2)] for tree in (decoders, packed)]
    caches = [generate.init_cache(config, 1)] * 2
    piece = pieces.piece_frames(config)
    for start in range(0, len(latents), piece):
        frames = np.asarray(latents[start : start + piece], np.float32)
        # Always a whole piece, so that one compiled program serves any length.
        missing = piece - len(frames)
        caches, codes = _generate(
            *both,
            caches,
            np.pad(frames, [(0, missing), (0, 0)]),
            np.pad(np.asarray(weights[start : start + piece], np.float32), (0, missing)),
            keys,
            np.float32(sampled.temperature),
            np.float32(sampled.top_p) if sampled.is_cut else None,
            config=config,
        )
        num_samples = len(frames) * config.pool_samples
        yield mu_law.decode(np.asarray(codes)[:num_samples], config.mu_law)


@functools.partial(jax.jit, static_argnames="config")
def _generate(decoders, packed, caches, latents, weights, keys, temperature, top_p, *, config):
    """Samples the next codes, [T]; the rest as in `generate.generate`, for one stream.

    What there is of both decoders is in lists, not stacked: under `vmap` XLA would copy the weights
    for every sample on CPU.
    """
    nucleus = None if top_p is None else sampling.Nucleus(temperature=temperature, top_p=top_p)

    def generate_frame(caches, inputs):
        conditionings, weight = inputs
        sample_index = jnp.stack([cache.sample_index for cache in caches])
        noise = generate.gumbel_noise(keys[:, None], sample_index, config.pool_samples)
        noise = jnp.where(weight < 0.5, noise[:, 0], noise[:, 1])

        def generate_sample(caches, noise):
            (first, second), caches = zip(
                *map(scan.score_next, packed, caches, conditionings, [config] * 2),
                strict=True,
            )
            scores = mix_logits(first, second, weight)
            codes = sampling.draw(scores, temperature * noise, nucleus)[:, 0]
            heard = [cache.replace(inputs=generate.append(cache.inputs, codes)) for cache in caches]
            return heard, codes

        caches, codes = jax.lax.scan(generate_sample, caches, noise)
        step = jnp.uint32(config.pool_samples)
        caches = [cache.replace(sample_index=cache.sample_index + step) for cache in caches]
        return caches, codes

    conditionings = [generate.condition(one, latents[:, None], config) for one in decoders]
    caches, codes = jax.lax.scan(generate_frame, caches, (conditionings, weights))
    return caches, codes.reshape(-1)
