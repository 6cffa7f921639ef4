"""The engine that runs everywhere: a `lax.scan` over samples, for CPU, GPU and TPU."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from umt_jax.config import ModelConfig
from umt_jax.generation import generate, pieces, sampling
from umt_jax.generation.generate import Cache, Conditioning, Frame
from umt_jax.model import layers
from umt_jax.shapes import Array, CodeLogits, Float, Leaf, Parameters, PyTree, UInt8

_MAX_STREAMS_FOR_BLOCKS = 4


class PackedLayer(struct.PyTreeNode):
    """One layer's kernels.

    Attributes:
        newest: Of the tap that reads the newest sample, [C, 2 C].
        residual: Kernel and bias.
    """

    newest: Leaf
    residual: PyTree


class PastTaps(struct.PyTreeNode):
    """Kernels of the taps that read the past, by tap, the oldest first, each [_, C, 2 C].

    Attributes:
        near: Of layers whose dilation is shorter than a block of samples.
        far: Of the others.
    """

    near: PyTree
    far: PyTree


class PackedDecoder(struct.PyTreeNode):
    """One decoder's weights.

    Attributes:
        past: Of all layers' taps that read the past, by tap, the oldest first, each [L, C, 2 C].
        layers: Tuple of `PackedLayer`. Not stacked: XLA would copy each out, every sample.
        skip: One kernel for the first convolution's output and all layers', [(1 + L) C, S], and
            the sum of their biases, [S].
        skip_of_one: That kernel transposed, [S, (1 + L) C]. For a single stream XLA on CPU reads it
            faster, the other way round for many.
        first: Kernel and bias.
        head: Kernel; its bias is part of the conditioning.
        logits: Kernel and bias.
    """

    past: PyTree
    layers: PyTree
    skip: PyTree
    skip_of_one: Leaf
    first: PyTree
    head: Leaf
    logits: PyTree


@dataclasses.dataclass(frozen=True)
class ScanEngine:
    """Pure XLA.

    Attributes:
        block_samples: So many samples (or the next smaller divisor of a latent frame) share one
            product for the past taps of the layers whose dilation reaches beyond them. None
            decides by the number of streams, of which many fill a product by themselves.
    """

    block_samples: int | None = None

    def pack(self, decoders: Parameters, config: ModelConfig) -> PackedDecoder:
        """Joins what is used at once; leaves [K, ...]."""
        return jax.jit(jax.vmap(lambda decoder: _pack_one(decoder, config)))(decoders)

    def generate_frame(
        self, packed: PackedDecoder, caches: Cache, frame: Frame, config: ModelConfig
    ) -> tuple[Cache, UInt8[Array, "T K B"]]:
        """Advances all streams by one latent frame; see `generate.Engine`."""
        conditioning, noise, nucleus = frame
        num_samples, num_domains, num_streams, _ = noise.shape
        block = self.block_samples or _block_samples(num_streams)
        block = pieces.largest_divisor(num_samples, block)

        def generate_domain(packed, cache, conditioning, noise):
            # Once a frame: within the loops it would be copied for every sample.
            near, far = _near_and_far(block, config)
            past_taps = PastTaps(
                near=tuple(kernels[near] for kernels in packed.past),
                far=tuple(kernels[far] for kernels in packed.past),
            )
            blocks = noise.reshape(-1, block, *noise.shape[1:])
            cache, codes = jax.lax.scan(
                lambda cache, noise: _generate_block(
                    packed, past_taps, cache, conditioning, noise, config, nucleus
                ),
                cache,
                blocks,
            )
            return cache, codes.reshape(-1, codes.shape[-1])

        # Without vmap for a single domain: XLA on CPU would copy what enters batched products.
        if num_domains == 1:
            packed, caches, conditioning = jax.tree.map(
                lambda leaf: leaf[0], (packed, caches, conditioning)
            )
            cache, codes = generate_domain(packed, caches, conditioning, noise[:, 0])
            return jax.tree.map(lambda leaf: leaf[None], cache), codes[:, None]
        return jax.vmap(generate_domain, in_axes=(0, 0, 0, 1), out_axes=(0, 1))(
            packed, caches, conditioning, noise
        )


def score_next(
    packed: PackedDecoder, cache: Cache, conditioning: Conditioning, config: ModelConfig
) -> tuple[Float[Array, "B Q"], Cache]:
    """Scores each stream's next code, for whoever chooses it in another way than an engine.

    Args:
        packed: One decoder.
        cache: Its streams' past.
        conditioning: That of the latent frame, with a leading axis B.
        config: Sizes.

    Returns:
        The logits, and the cache after that sample but for `inputs`, which lack the code, and
        `sample_index`.
    """
    positions = _positions(cache.clock, slice(None), config)
    products = _sum_of_products("lbc,lcd->lbd", cache.rows, positions, packed.past)
    logits, layer_inputs = _next_logits(packed, cache.inputs, products, conditioning)
    return logits, cache.replace(
        rows=_write(cache.rows, positions[0], jnp.stack(layer_inputs)),
        clock=generate.tick(cache.clock, config, 1),
    )


def _generate_block(packed, past_taps, cache, conditioning, noise, config, nucleus):
    """Generates consecutive samples, [T, B]; `past_taps` are those of near and of far layers."""
    num_samples = len(noise)
    near, far = _near_and_far(num_samples, config)
    clocks = generate.tick(cache.clock + jnp.arange(num_samples), config, 0)

    far_positions = jax.vmap(lambda clock: _positions(clock, far, config), out_axes=2)(clocks)
    # Layers first, as XLA multiplies them: it would copy what is asked for in another order.
    far_products = _sum_of_products("ltbc,lcd->ltbd", cache.rows, far_positions, past_taps.far)

    def generate_sample(cache, inputs):
        sample, clock, noise = inputs
        near_positions = _positions(clock, near, config)
        near_products = _sum_of_products("lbc,lcd->lbd", cache.rows, near_positions, past_taps.near)
        products = dict(zip(near, near_products, strict=True)) | dict(
            zip(far, far_products[:, sample], strict=True)
        )
        logits, layer_inputs = _next_logits(packed, cache.inputs, products, conditioning)
        codes = sampling.draw(logits, noise, nucleus)[:, 0]
        cache = cache.replace(
            rows=_write(cache.rows, near_positions[0], _stack(layer_inputs, near)),
            inputs=generate.append(cache.inputs, codes),
        )
        return cache, (codes.astype(jnp.uint8), _stack(layer_inputs, far))

    samples = jnp.arange(num_samples), clocks, noise
    cache, (codes, far_inputs) = jax.lax.scan(generate_sample, cache, samples)
    return cache.replace(
        rows=_write(cache.rows, far_positions[0].T, far_inputs),
        clock=generate.tick(cache.clock, config, num_samples),
    ), codes


def _next_logits(packed, inputs, products, conditioning) -> tuple[CodeLogits, list]:
    """Scores each stream's next code, [B, Q]; returns as well each layer's input, [B, C].

    Args:
        packed: One decoder.
        inputs: The last scaled codes, [B, taps].
        products: By layer, what the past taps give, [B, 2 C].
        conditioning: This latent frame's.
    """
    x = layers.affine(inputs, packed.first["kernel"][:, 0, :], packed.first["bias"])
    skip_inputs, layer_inputs = [x], []
    for index, layer in enumerate(packed.layers):
        layer_inputs.append(x)
        h = x @ layer.newest + products[index] + conditioning.gates[:, index]
        gated = layers.gate(h)
        skip_inputs.append(gated)
        x = x + layers.affine(gated, **layer.residual)
    # All layers' skips, and their sum, as one matrix product.
    joined = jnp.concatenate(skip_inputs, axis=-1)
    if len(inputs) == 1:
        skips = jnp.einsum("bk,sk->bs", joined, packed.skip_of_one) + packed.skip["bias"][None]
    else:
        skips = layers.affine(joined, **packed.skip)
    y = jax.nn.relu(jax.nn.relu(skips) @ packed.head + conditioning.head)
    return layers.affine(y, **packed.logits), layer_inputs


def _positions(clock, which, config):
    """Returns the rows that the taps of some layers read at a time, [taps - 1, which].

    The oldest come first: they are overwritten then.
    """
    starts, rings, dilations = (
        np.asarray(of_layers, np.int32)[which]
        for of_layers in (
            generate.first_rows(config),
            generate.rings(config),
            config.decoder_dilations,
        )
    )
    taps = range(config.decoder_taps - 1)
    return jnp.stack([starts + jnp.mod(clock + tap * dilations, rings) for tap in taps])


def _sum_of_products(subscripts, rows, positions, kernels):
    """Returns what the past taps of some layers give together."""
    products = [
        jnp.einsum(subscripts, rows[of_tap], kernel)
        for of_tap, kernel in zip(positions, kernels, strict=True)
    ]
    return functools.reduce(jnp.add, products)


def _block_samples(num_streams):
    """Returns the block of samples that was measured to be the fastest on CPU.

    The longer, the fewer kernels of far layers are read a sample, but the more of near ones.
    """
    if num_streams == 1:
        return 16
    return 40 if num_streams <= _MAX_STREAMS_FOR_BLOCKS else 1


def _near_and_far(block, config):
    """Returns the indices of layers whose past may, and may not, lie in one block of samples."""
    dilations = np.asarray(config.decoder_dilations)
    is_far = (dilations >= block) & (block > 1)
    return np.flatnonzero(~is_far), np.flatnonzero(is_far)


def _stack(layer_inputs, which):
    """Returns the inputs of some layers, [which, B, C]."""
    empty = jnp.zeros((0, *layer_inputs[0].shape))
    return jnp.concatenate([empty, *(layer_inputs[index][None] for index in which)])


def _write(rows, positions, values):
    return rows.at[positions].set(values, unique_indices=True, mode="promise_in_bounds")


def _pack_one(decoder, config):
    decoder_layers = generate.layers_of(decoder, config)
    skips = [decoder["skip"], *(layer["skip"] for layer in decoder_layers)]
    skip_kernel = jnp.concatenate([skip["kernel"] for skip in skips])
    return PackedDecoder(
        past=tuple(
            jnp.stack([layer["dilated"]["kernel"][tap] for layer in decoder_layers])
            for tap in range(config.decoder_taps - 1)
        ),
        layers=tuple(
            PackedLayer(
                newest=layer["dilated"]["kernel"][-1],
                residual=layer["residual"],
            )
            for layer in decoder_layers
        ),
        skip={
            "kernel": skip_kernel,
            "bias": sum(skip["bias"] for skip in skips),
        },
        skip_of_one=skip_kernel.T,
        first=decoder["first"],
        head=decoder["head"]["kernel"],
        logits=decoder["logits"],
    )
