"""Codes one at a time, from cached layer inputs (§3.1).

A decoder layer of dilation d needs its input of d samples ago, and with more than two taps those of
2 d, 3 d, ... Those inputs live in one buffer of rows: layer l owns a ring of `(taps - 1) d`
consecutive rows and, at sample t, reads row `t mod ring` (the oldest) and every d-th after it, then
overwrites the first. All layers' past inputs are so one gather and one scatter per sample.

Many streams advance together, [B]; each belongs to a recording of its own, and any stream can be
restarted without the others noticing (`restart`).

An engine (`scan_engine`, `native_engine`, `pallas_engine`) advances streams by one latent frame.
All take and return the same cache, so a stream may continue with another engine at any frame.
"""

import functools
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import DTypeLike

from umt_jax.audio import mu_law
from umt_jax.config import ModelConfig
from umt_jax.core import packing
from umt_jax.generation.sampling import Nucleus
from umt_jax.model import layers
from umt_jax.shapes import Array, Float, Integer, Key, Latents, Leaf, Parameters, PyTree, UInt8


class Cache(struct.PyTreeNode):
    """The state that B streams of one decoder keep from sample to sample.

    Attributes:
        rows: Past layer inputs, [rows, B, C], where rows is the sum of all rings.
        inputs: The last scaled codes, as many as a convolution has taps, oldest first, [B, taps].
        clock: Samples since the cache began, modulo the largest ring.
        sample_index: Samples since each stream began; decides its random numbers, [B].
    """

    rows: Leaf
    inputs: Leaf
    clock: Leaf
    sample_index: Leaf


class Conditioning(struct.PyTreeNode):
    """The terms that latent frames add, with the biases of the layers that they are added to.

    Attributes:
        gates: To each layer's gate, [*B, L, 2 C].
        head: To the head, [*B, S].
    """

    gates: Leaf
    head: Leaf


class Frame(NamedTuple):
    """What the codes of a latent frame are drawn from, beside the past and the decoders.

    Attributes:
        conditioning: This latent frame's, with leading axes [K, B].
        noise: What is added to each sample's logits, [T, K, B, Q].
        nucleus: Codes outside it are not chosen; None for all codes.
    """

    conditioning: Conditioning
    noise: Float[Array, "T K B Q"]
    nucleus: Nucleus | None = None


class Guide(struct.PyTreeNode):
    """What decoders follow; see `guiding`.

    Attributes:
        codes: For each sample, [K, B, T].
        strength: As of `SamplingConfig`.
    """

    codes: Leaf
    strength: Leaf


@runtime_checkable
class Engine(Protocol):
    """A way of computing `generate`. Hashable: it is part of what is compiled."""

    def pack(self, decoders: Parameters, config: ModelConfig) -> PyTree:
        """Returns K stacked decoders in the form that `generate_frame` reads, leaves [K, ...]."""

    def generate_frame(
        self, packed: PyTree, caches: Cache, frame: Frame, config: ModelConfig
    ) -> tuple[Cache, UInt8[Array, "T K B"]]:
        """Chooses the T codes of a latent frame: each the argmax of its logits plus noise.

        Args:
            packed: From `pack`.
            caches: The streams' past, every leaf with a leading axis K.
            frame: The latent frame.
            config: Sizes.

        Returns:
            The caches after the last sample but for `sample_index`, and the codes.
        """


class Weights(struct.PyTreeNode):
    """K decoders, ready for one engine; every leaf [K, ...].

    Attributes:
        decoders: As trained; latent frames are projected by them.
        packed: In the form that the engine needs.
    """

    decoders: PyTree
    packed: PyTree


def pack(decoders: Parameters, config: ModelConfig, engine: Engine) -> Weights:
    """Makes K stacked decoders ready for an engine, once."""
    return Weights(decoders=decoders, packed=engine.pack(decoders, config))


def init_cache(config: ModelConfig, num_streams: int) -> Cache:
    """Returns the cache of streams that have not begun."""
    num_rows = sum(rings(config))
    return Cache(
        rows=jnp.zeros((num_rows, num_streams, config.residual_channels)),
        inputs=jnp.broadcast_to(_first_inputs(config), (num_streams, config.decoder_taps)),
        clock=jnp.zeros((), jnp.int32),
        sample_index=jnp.zeros((num_streams,), jnp.uint32),
    )


def restart(cache: Cache, stream: int | Integer[Array, ""], config: ModelConfig) -> Cache:
    """Forgets one stream's past, [K, ...] caches included, so that another may begin there."""
    return cache.replace(
        rows=cache.rows.at[..., stream, :].set(0),
        inputs=cache.inputs.at[..., stream, :].set(_first_inputs(config)),
        sample_index=cache.sample_index.at[..., stream].set(0),
    )


def condition(parameters: Parameters, latents: Latents, config: ModelConfig) -> Conditioning:
    """Projects latent frames, [*B, Z], for one decoder's gates and head."""

    def project(condition, consumer):
        bias = condition["bias"] + consumer["bias"]
        return layers.affine(latents, condition["kernel"], bias)

    of_layers = parameters["layers"]
    gates = jax.vmap(project, out_axes=-2)(of_layers["condition"], of_layers["dilated"])
    head = project(parameters["condition"], parameters["head"])
    return Conditioning(gates=gates, head=head)


@functools.partial(jax.jit, static_argnames=("config", "engine"), donate_argnames="caches")
def generate(
    weights: Weights,
    caches: Cache,
    latents: Float[Array, "B F Z"],
    keys: Key[Array, "K B"],
    temperature: Float[Array, ""],
    top_p: Float[Array, ""] | None = None,
    guide: Guide | None = None,
    *,
    config: ModelConfig,
    engine: Engine,
) -> tuple[Cache, UInt8[Array, "K B T"]]:
    """Samples the next F x `pool_samples` codes of every stream, from every decoder (§3.1).

    Any way of cutting the same latents into calls gives the same codes.

    Args:
        weights: K decoders, from `pack` for this engine.
        caches: Their streams' past, every leaf with a leading axis K; consumed.
        latents: Each stream's next latent frames, shared by the decoders.
        keys: Decides each stream's random numbers, together with the sample's index.
        temperature: Scale of the randomness: 1 samples from the model, 0 takes the likeliest code.
        top_p: Probability of the nucleus that is drawn from (see `sampling`); None for all codes.
        guide: What the decoders follow; None where they are free.
        config: Sizes.
        engine: What computes it; all give the same codes, but for rounding.

    Returns:
        The caches after the last sample, and the codes.
    """
    nucleus = None if top_p is None else Nucleus(temperature=temperature, top_p=top_p)

    def condition_one(parameters):
        return condition(parameters, jnp.swapaxes(latents, 0, 1), config)

    def generate_frame(caches, inputs):
        conditioning, guide_codes = inputs
        # Equals sampling from softmax(logits / temperature), and is defined at 0.
        noise = temperature * gumbel_noise(keys, caches.sample_index, config.pool_samples)
        if guide is not None:
            levels = jax.lax.broadcasted_iota(noise.dtype, noise.shape, noise.ndim - 1)
            distances = levels - guide_codes[..., jnp.newaxis]
            noise += -0.5 * (guide.strength * distances) ** 2
        frame = Frame(conditioning, noise, nucleus)
        caches, codes = engine.generate_frame(weights.packed, caches, frame, config)
        index = caches.sample_index + jnp.uint32(config.pool_samples)
        return caches.replace(sample_index=index), codes

    conditionings = jax.vmap(condition_one, out_axes=1)(weights.decoders)
    guide_codes = None if guide is None else _by_frame(guide.codes, config.pool_samples)
    caches, codes = jax.lax.scan(generate_frame, caches, (conditionings, guide_codes))
    return caches, jnp.moveaxis(codes.reshape(-1, *codes.shape[2:]), 0, -1)


def _by_frame(codes, pool_samples):
    """Returns codes of each latent frame's samples, float32, [K, B, F * T] -> [F, T, K, B]."""
    num_domains, num_streams, _ = codes.shape
    frames = codes.reshape(num_domains, num_streams, -1, pool_samples).astype(jnp.float32)
    return jnp.transpose(frames, (2, 3, 0, 1))


def append(inputs: Float[Array, "*B P"], codes: Integer[Array, "*B"]) -> Float[Array, "*B P"]:
    """Returns the last scaled codes after one more."""
    return jnp.concatenate([inputs[..., 1:], layers.scale(codes)[..., None]], axis=-1)


def tick(clock: Integer[Array, "*K"], config: ModelConfig, samples: int) -> Integer[Array, "*K"]:
    """Moves time on; row indices repeat after the largest ring, a multiple of the others."""
    return jnp.mod(clock + samples, max(rings(config)))


def gumbel_noise(
    keys: Key[Array, "K B"], sample_index: Integer[Array, "K B"], num_samples: int
) -> Float[Array, "T K B Q"]:
    """Returns the noise of each stream's next samples: by its key and the sample's index alone."""

    def stream_noise(key, start):
        indices = start + jnp.arange(num_samples, dtype=jnp.uint32)
        sample_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)
        return jax.vmap(lambda key: jax.random.gumbel(key, (mu_law.NUM_LEVELS,)))(sample_keys)

    return jax.vmap(jax.vmap(stream_noise, out_axes=1), out_axes=1)(keys, sample_index)


def round_kernels(decoders: Parameters, dtype: DTypeLike) -> Parameters:
    """Returns decoders as an engine computes them that keeps its weights in `dtype`.

    That are the kernels of what happens at every sample: not the conditioning, the first
    convolution or any bias. In int8 every output channel has its own scale, and the logits' kernel
    stays as it is.
    """
    exact = {"first", "condition"} | ({"logits"} if jnp.dtype(dtype) == jnp.int8 else set())

    def rounded(path, leaf):
        names = {key.key for key in path}
        if "kernel" not in names or names & exact:
            return leaf
        return rounded_to(leaf, dtype, axis=-2)

    return jax.tree_util.tree_map_with_path(rounded, decoders)


def rounded_to(array: Array, dtype: DTypeLike, *, axis: int) -> Array:
    """Returns float32 numbers as they are in `dtype`; in int8 those along an axis share a scale."""
    if jnp.dtype(dtype) == jnp.int8:
        whole, scale = packing.to_int8(jnp.asarray(array), axis)
        return whole.astype(scale.dtype) * scale
    return jnp.asarray(array, dtype).astype(array.dtype)


def rings(config: ModelConfig) -> tuple[int, ...]:
    """Returns how many rows each of the decoder's layers has, layer by layer."""
    return tuple((config.decoder_taps - 1) * dilation for dilation in config.decoder_dilations)


def check_two_taps(config: ModelConfig, engine: str) -> None:
    """Raises `ValueError` if a decoder's convolutions have more taps than most engines know."""
    if config.decoder_taps != 2:
        raise ValueError(
            f"engine={engine} plays models whose convolutions have two taps; this one's have "
            f"{config.decoder_taps} (decoder_taps). Use engine=scan."
        )


def first_rows(config: ModelConfig) -> np.ndarray:
    """Returns where each layer's rows begin, int32 [L]."""
    sizes = np.asarray(rings(config), np.int32)
    return np.cumsum(sizes, dtype=np.int32) - sizes


def layers_of(parameters: Parameters, config: ModelConfig) -> list[Parameters]:
    """Returns the parameters of one decoder's layers, in order."""

    def layer(index):
        return jax.tree.map(lambda leaf: leaf[index], parameters["layers"])

    return [layer(index) for index in range(len(config.decoder_dilations))]


def _first_inputs(config):
    """Returns what stands for the scaled codes before the first, [taps]."""
    padding = jnp.zeros((1,))  # As in training.
    # The authors' generator departs here from their training, and what it gives is to be repeated.
    start = layers.scale(np.array([mu_law.PUBLISHED_START]))
    newest = start if config.mu_law == "truncated" else padding
    return jnp.concatenate([*[padding] * (config.decoder_taps - 1), newest])
