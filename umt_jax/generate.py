"""Codes one at a time, from cached layer inputs (§3.1).

A decoder layer of dilation d needs its input of d samples ago. Those inputs live in one buffer of
rows: layer l owns `dilation` consecutive rows and, at sample t, reads row `t mod dilation`, then
overwrites it. All layers' past inputs are so one gather and one scatter per sample.

Many streams advance together, [B]; each belongs to a recording of its own, and any stream can be
restarted without the others noticing (`restart`).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from umt_jax import layers, mu_law
from umt_jax.config import ModelConfig
from umt_jax.shapes import (
    Array,
    CodeLogits,
    Float,
    Integer,
    Key,
    Latents,
    Leaf,
    Parameters,
    UInt8,
)


class Cache(struct.PyTreeNode):
    """What B streams of one decoder remember from sample to sample.

    Attributes:
        rows: Past layer inputs, [rows, B, C], where rows is the sum of all dilations.
        inputs: The last two scaled codes, oldest first, [B, 2].
        clock: Samples since the cache began, modulo the largest dilation.
        sample_index: Samples since each stream began; decides its random numbers, [B].
    """

    rows: Leaf
    inputs: Leaf
    clock: Leaf
    sample_index: Leaf


def init_cache(config: ModelConfig, num_streams: int) -> Cache:
    """Returns the cache of streams that have not begun."""
    num_rows = sum(_dilations(config))
    return Cache(
        rows=jnp.zeros((num_rows, num_streams, config.residual_channels)),
        inputs=jnp.broadcast_to(_first_inputs(config), (num_streams, 2)),
        clock=jnp.zeros((), jnp.int32),
        sample_index=jnp.zeros((num_streams,), jnp.uint32),
    )


def restart(cache: Cache, stream: int, config: ModelConfig) -> Cache:
    """Forgets one stream's past, [K, ...] caches included, so that another may begin there."""
    return cache.replace(
        rows=cache.rows.at[..., stream, :].set(0),
        inputs=cache.inputs.at[..., stream, :].set(_first_inputs(config)),
        sample_index=cache.sample_index.at[..., stream].set(0),
    )


def conditioning(
    parameters: Parameters, latents: Latents, config: ModelConfig
) -> tuple[Float[Array, "*B F L D"], Float[Array, "*B F S"]]:
    """Projects latent frames for every layer's gate, and for the head, biases included."""

    def project(condition, consumer):
        bias = condition["bias"] + consumer["bias"]
        return layers.affine(latents, condition["kernel"], bias)

    gates = [project(layer["condition"], layer["dilated"]) for layer in _layers(parameters, config)]
    return jnp.stack(gates, axis=-2), project(parameters["condition"], parameters["head"])


def next_logits(
    parameters: Parameters,
    cache: Cache,
    gate_conditioning: Float[Array, "B L D"],
    head_conditioning: Float[Array, "B S"],
    config: ModelConfig,
) -> tuple[CodeLogits, Cache]:
    """Scores each stream's next code, and caches the layer inputs that led to it.

    Args:
        parameters: One decoder.
        cache: The streams' past.
        gate_conditioning: This latent frame's, from `conditioning`.
        head_conditioning: Likewise.
        config: Sizes.

    Returns:
        Logits, [B, Q], and the cache, to be given the chosen codes by `append`.
    """
    dilations = np.asarray(_dilations(config), np.int32)
    starts = np.cumsum(dilations, dtype=np.int32) - dilations
    positions = starts + jnp.mod(cache.clock, dilations)
    past = cache.rows[positions]

    first = parameters["first"]
    x = layers.affine(cache.inputs, first["kernel"][:, 0, :], first["bias"])
    skip_inputs, layer_inputs = [x], []
    for index, layer in enumerate(_layers(parameters, config)):
        layer_inputs.append(x)
        # Both taps as one matrix product.
        taps = layer["dilated"]["kernel"].reshape(-1, 2 * config.residual_channels)
        h = jnp.concatenate([past[index], x], axis=-1) @ taps + gate_conditioning[:, index]
        gated = layers.gate(h)
        skip_inputs.append(gated)
        x = x + layers.affine(gated, **layer["residual"])

    # All layers' skips, and their sum, as one matrix product.
    skips = [parameters["skip"], *(layer["skip"] for layer in _layers(parameters, config))]
    skip_kernel = jnp.concatenate([skip["kernel"] for skip in skips])
    skip_bias = sum(skip["bias"] for skip in skips)
    skip_sum = layers.affine(jnp.concatenate(skip_inputs, axis=-1), skip_kernel, skip_bias)
    y = jax.nn.relu(jax.nn.relu(skip_sum) @ parameters["head"]["kernel"] + head_conditioning)
    logits = layers.affine(y, **parameters["logits"])
    rows = cache.rows.at[positions].set(
        jnp.stack(layer_inputs),
        indices_are_sorted=True,
        unique_indices=True,
        mode="promise_in_bounds",
    )
    return logits, cache.replace(rows=rows)


def append(cache: Cache, codes: Integer[Array, "B"], config: ModelConfig) -> Cache:
    """Makes the codes each stream's newest, and moves time on by one sample."""
    return cache.replace(
        inputs=jnp.stack([cache.inputs[:, 1], layers.scale(codes)], axis=-1),
        # Every row index repeats after the largest dilation, a multiple of all the others.
        clock=jnp.mod(cache.clock + 1, max(_dilations(config))),
        sample_index=cache.sample_index + 1,
    )


@functools.partial(jax.jit, static_argnames="config", donate_argnames="caches")
def generate(
    decoders: Parameters,
    caches: Cache,
    latents: Float[Array, "B F Z"],
    keys: Key[Array, "K B"],
    temperature: Float[Array, ""],
    *,
    config: ModelConfig,
) -> tuple[Cache, UInt8[Array, "K B T"]]:
    """Samples the next F x `pool_samples` codes of every stream, from every decoder (§3.1).

    Any way of cutting the same latents into calls gives the same codes.

    Args:
        decoders: K stacked decoders.
        caches: Their streams' past, every leaf with a leading axis K; consumed.
        latents: Each stream's next latent frames, shared by the decoders.
        keys: Decides each stream's random numbers, together with the sample's index.
        temperature: Scale of the randomness: 1 samples from the model, 0 takes the likeliest code.
        config: Sizes.

    Returns:
        The caches after the last sample, and the codes.
    """

    def generate_domain(parameters, cache, keys):
        conditionings = conditioning(parameters, jnp.swapaxes(latents, 0, 1), config)

        def generate_frame(cache, frame_conditioning):
            gate_conditioning, head_conditioning = frame_conditioning
            noise = _gumbel_noise(keys, cache.sample_index, config.pool_samples)

            def generate_sample(cache, sample_noise):
                logits, cache = next_logits(
                    parameters, cache, gate_conditioning, head_conditioning, config
                )
                # Equals sampling from softmax(logits / temperature), and is defined at 0.
                codes = jnp.argmax(logits + temperature * sample_noise, axis=-1)
                return append(cache, codes, config), codes.astype(jnp.uint8)

            return jax.lax.scan(generate_sample, cache, noise)

        cache, codes = jax.lax.scan(generate_frame, cache, conditionings)
        return cache, jnp.moveaxis(codes, -1, 0).reshape(len(latents), -1)

    return jax.vmap(generate_domain)(decoders, caches, keys)


def _first_inputs(config):
    """Returns what stands for the two scaled codes before the first, [2]."""
    padding = jnp.zeros((1,))  # As in training.
    # The authors' generator departs here from their training, and what it gives is to be repeated.
    start = layers.scale(np.array([mu_law.PUBLISHED_START]))
    return jnp.concatenate([padding, start if config.mu_law == "truncated" else padding])


def _gumbel_noise(keys, sample_index, num_samples):
    """Returns the noise of each stream's next samples, [num_samples, B, Q]."""

    def stream_noise(key, start):
        indices = start + jnp.arange(num_samples, dtype=jnp.uint32)
        sample_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)
        return jax.vmap(lambda key: jax.random.gumbel(key, (mu_law.NUM_LEVELS,)))(sample_keys)

    return jax.vmap(stream_noise, out_axes=1)(keys, sample_index)


def _dilations(config):
    return layers.dilations(config.decoder_blocks, config.decoder_layers)


def _layers(parameters, config):
    return [parameters[f"layer_{index:02d}"] for index in range(len(_dilations(config)))]
