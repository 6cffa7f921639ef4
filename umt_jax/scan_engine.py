"""The engine that runs everywhere: a `lax.scan` over samples, for CPU, GPU and TPU."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from umt_jax import generate, layers
from umt_jax.config import ModelConfig
from umt_jax.generate import Cache, Conditioning
from umt_jax.shapes import Array, CodeLogits, Float, Leaf, Parameters, PyTree, UInt8

_BLOCK_SAMPLES = 40
_MAX_STREAMS_FOR_BLOCKS = 4


class PackedLayer(struct.PyTreeNode):
    """One layer's kernels.

    Attributes:
        taps: Of the tap `dilation` samples ago, and below it of the newest, [2 C, 2 C].
        residual: Kernel and bias.
    """

    taps: Leaf
    residual: PyTree


class PackedDecoder(struct.PyTreeNode):
    """One decoder's weights.

    Attributes:
        layers: Tuple of `PackedLayer`. Not stacked: XLA would copy each out, every sample.
        skip: One kernel for the first convolution's output and all layers', [(1 + L) C, S], and
            the sum of their biases, [S].
        first: Kernel and bias.
        head: Kernel; its bias is part of the conditioning.
        logits: Kernel and bias.
    """

    layers: PyTree
    skip: PyTree
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
        self,
        packed: PackedDecoder,
        caches: Cache,
        conditioning: Conditioning,
        noise: Float[Array, "T K B Q"],
        config: ModelConfig,
    ) -> tuple[Cache, UInt8[Array, "T K B"]]:
        """Advances all streams by one latent frame; see `generate.Engine`."""
        num_samples, _, num_streams, _ = noise.shape
        default = _BLOCK_SAMPLES if num_streams <= _MAX_STREAMS_FOR_BLOCKS else 1
        block = generate.largest_divisor(num_samples, self.block_samples or default)

        def generate_domain(packed, cache, conditioning, noise):
            def generate_block(cache, noise):
                return _generate_block(packed, cache, conditioning, noise, config)

            blocks = noise.reshape(-1, block, *noise.shape[1:])
            cache, codes = jax.lax.scan(generate_block, cache, blocks)
            return cache, codes.reshape(-1, codes.shape[-1])

        return jax.vmap(generate_domain, in_axes=(0, 0, 0, 1), out_axes=(0, 1))(
            packed, caches, conditioning, noise
        )


def _generate_block(packed, cache, conditioning, noise, config):
    """Generates consecutive samples, [T, B]."""
    num_samples = len(noise)
    dilations = np.asarray(generate.dilations(config), np.int32)
    starts = generate.first_rows(config)
    # None of the block's samples is the past of another one in a far layer, so that all their past
    # taps are there when it begins.
    is_far = (dilations >= num_samples) & (num_samples > 1)
    near, far = np.flatnonzero(~is_far), np.flatnonzero(is_far)
    clocks = generate.tick(cache.clock + jnp.arange(num_samples), config, 0)

    def positions(clock, which):
        return starts[which] + jnp.mod(clock, dilations[which])

    far_positions = jax.vmap(lambda clock: positions(clock, far))(clocks)
    far_rows = cache.rows[far_positions]  # [T, far, B, C]
    channels = far_rows.shape[-1]
    far_products = [
        far_rows[:, slot] @ packed.layers[index].taps[:channels] for slot, index in enumerate(far)
    ]

    def generate_sample(cache, inputs):
        clock, noise, far_products = inputs
        near_rows = cache.rows[positions(clock, near)]
        rows = {index: near_rows[slot] for slot, index in enumerate(near)}
        products = dict(zip(far, far_products, strict=True))
        logits, layer_inputs = _next_logits(packed, cache.inputs, rows, products, conditioning)
        codes = jnp.argmax(logits + noise, axis=-1)
        cache = cache.replace(
            rows=_write(cache.rows, positions(clock, near), [layer_inputs[i] for i in near]),
            inputs=generate.append(cache.inputs, codes),
        )
        return cache, (codes.astype(jnp.uint8), [layer_inputs[i] for i in far])

    cache, (codes, far_inputs) = jax.lax.scan(generate_sample, cache, (clocks, noise, far_products))
    return cache.replace(
        rows=_write(cache.rows, far_positions, far_inputs, axis=1),
        clock=generate.tick(cache.clock, config, num_samples),
    ), codes


def _next_logits(packed, inputs, rows, products, conditioning) -> tuple[CodeLogits, list]:
    """Scores each stream's next code, [B, Q]; returns as well each layer's input, [B, C].

    Args:
        packed: One decoder.
        inputs: The last two scaled codes, [B, 2].
        rows: By layer, the input that its past tap reads, [B, C].
        products: By layer, for the others, what the past tap gives, [B, 2 C].
        conditioning: This latent frame's.
    """
    x = layers.affine(inputs, packed.first["kernel"][:, 0, :], packed.first["bias"])
    skip_inputs, layer_inputs = [x], []
    for index, layer in enumerate(packed.layers):
        layer_inputs.append(x)
        if index in rows:
            h = jnp.concatenate([rows[index], x], axis=-1) @ layer.taps
        else:
            h = products[index] + x @ layer.taps[x.shape[-1] :]
        gated = layers.gate(h + conditioning.gates[:, index])
        skip_inputs.append(gated)
        x = x + layers.affine(gated, **layer.residual)
    # All layers' skips, and their sum, as one matrix product.
    skips = layers.affine(jnp.concatenate(skip_inputs, axis=-1), **packed.skip)
    y = jax.nn.relu(jax.nn.relu(skips) @ packed.head + conditioning.head)
    return layers.affine(y, **packed.logits), layer_inputs


def _write(rows, positions, values, axis=0):
    """Overwrites rows with `values`, one array for each layer along `axis`."""
    if not values:
        return rows
    values = jnp.stack(values, axis=axis)
    return rows.at[positions].set(values, unique_indices=True, mode="promise_in_bounds")


def _pack_one(decoder, config):
    decoder_layers = generate.layers_of(decoder, config)
    skips = [decoder["skip"], *(layer["skip"] for layer in decoder_layers)]
    return PackedDecoder(
        layers=tuple(
            PackedLayer(
                taps=jnp.concatenate(list(layer["dilated"]["kernel"])),
                residual=layer["residual"],
            )
            for layer in decoder_layers
        ),
        skip={
            "kernel": jnp.concatenate([skip["kernel"] for skip in skips]),
            "bias": sum(skip["bias"] for skip in skips),
        },
        first=decoder["first"],
        head=decoder["head"]["kernel"],
        logits=decoder["logits"],
    )
