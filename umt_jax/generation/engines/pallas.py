"""The engine for TPUs: one persistent Pallas kernel for each latent frame.

It has not been run on a TPU: only in Pallas's interpret mode on CPUs, where its numbers are tested.
On machines without a TPU it has been lowered for one, and compiled by libtpu 0.0.42 for v5e and
v6e. Nothing is known of its speed.

A plain `lax.scan` reads all weights from HBM for every sample. Here they are copied to VMEM once
for a latent frame, the past layer inputs too, and a loop over time within the kernel does the rest.
The grid is (domains, blocks of samples); noise comes and codes go block by block.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from umt_jax.audio import mu_law
from umt_jax.config import ModelConfig
from umt_jax.generation import generate, pieces, sampling
from umt_jax.generation.generate import Cache, Frame
from umt_jax.generation.sampling import Nucleus
from umt_jax.model import layers
from umt_jax.shapes import Array, Leaf, Parameters, UInt8

VMEM_BYTES = 96 * 2**20
"""What the kernel's arrays may take of the 128 MiB that v5e and v6e have; the rest is left to the
compiler, for what does not fit registers. On chips with less, such as v5p, it may refuse."""


class PackedDecoder(struct.PyTreeNode):
    """One decoder's weights: kernels in the engine's type, the first one and all biases float32.

    Attributes:
        first: The first convolution's two taps, then its bias, [3, C].
        past: Of the taps `dilation` samples ago, [L, C, 2 C].
        present: Of the newest taps, [L, C, 2 C].
        mix: Residual and skip kernels side by side, [L, C, C + S].
        residual_bias: [L, C].
        skip: Of the first convolution's output, [C, S].
        skip_bias: Sum over all layers, [1, S].
        head: Kernel, [S, S]; its bias is part of the conditioning.
        logits: Kernel, [S, Q].
        logits_bias: [1, Q].
    """

    first: Leaf
    past: Leaf
    present: Leaf
    mix: Leaf
    residual_bias: Leaf
    skip: Leaf
    skip_bias: Leaf
    head: Leaf
    logits: Leaf
    logits_bias: Leaf


@dataclasses.dataclass(frozen=True)
class PallasEngine:
    """A kernel that keeps weights and past inputs in VMEM.

    Attributes:
        weights: Type in which the kernels are kept there, float32 or bfloat16. Activations, cache
            and logits are float32 either way.
        interpret: Runs on any device, slowly, for tests.
        block_samples: So many samples' noise (or that of the next smaller divisor of a latent
            frame) is in VMEM at once, and as much on its way there.
    """

    weights: str = "float32"
    interpret: bool = False
    block_samples: int = 128

    def pack(self, decoders: Parameters, config: ModelConfig) -> PackedDecoder:
        """Stacks the layers; leaves [K, ...]."""
        generate.check_two_taps(config, "pallas")
        dtype = jnp.dtype(self.weights)
        return jax.jit(jax.vmap(lambda decoder: _pack_one(decoder, config, dtype)))(decoders)

    def generate_frame(
        self, packed: PackedDecoder, caches: Cache, frame: Frame, config: ModelConfig
    ) -> tuple[Cache, UInt8[Array, "T K B"]]:
        """See `generate.Engine`; raises `ValueError` if so many streams do not fit VMEM."""
        conditioning, noise, nucleus = frame
        num_samples, num_domains, num_streams, _ = noise.shape
        limit = min(self.block_samples, num_samples)
        block = pieces.largest_divisor(num_samples, limit)
        needed = _check_fits(packed, config, num_streams, block)

        gates = jnp.swapaxes(conditioning.gates, 1, 2)  # [K, L, B, 2 C]
        # As [K, rows, 1, C], one stream's rows would each take the room of eight.
        rows = caches.rows.reshape(num_domains, -1, config.residual_channels)
        kept = [caches.inputs, packed, gates, conditioning.head]
        temperature_and_top_p = jnp.ones((2,))
        if nucleus is not None:
            temperature_and_top_p = jnp.stack([nucleus.temperature, nucleus.top_p])
        codes_shape = (num_domains, num_samples // block, num_streams, block)
        in_hbm, in_smem = (pl.BlockSpec(memory_space=space) for space in (pl.ANY, pltpu.SMEM))
        noise_block = pl.BlockSpec((block, None, *noise.shape[2:]), lambda k, t: (t, k, 0, 0))
        codes_block = pl.BlockSpec((None, None, num_streams, block), lambda k, t: (k, t, 0, 0))
        rows, inputs, codes = pl.pallas_call(
            functools.partial(
                _kernel, dilations=config.decoder_dilations, draws_from_all=nucleus is None
            ),
            grid=(num_domains, num_samples // block),
            in_specs=[in_smem, in_smem, in_hbm, *jax.tree.map(_whole, kept), noise_block],
            out_specs=[in_hbm, _whole(caches.inputs), codes_block],
            out_shape=[rows, caches.inputs, jax.ShapeDtypeStruct(codes_shape, jnp.int32)],
            scratch_shapes=[pltpu.VMEM(rows.shape[1:], rows.dtype)],
            input_output_aliases={2: 0},
            # 16 MiB are what the compiler may take besides.
            compiler_params=pltpu.CompilerParams(vmem_limit_bytes=needed + 16 * 2**20),
            interpret=self.interpret,
        )(caches.clock, temperature_and_top_p, rows, *kept, noise)
        rows = rows.reshape(caches.rows.shape)
        clock = generate.tick(caches.clock, config, num_samples)
        codes = jnp.transpose(codes, (1, 3, 0, 2)).reshape(num_samples, num_domains, num_streams)
        return caches.replace(rows=rows, inputs=inputs, clock=clock), codes.astype(jnp.uint8)


def _kernel(*refs, dilations, draws_from_all):
    """Generates one block of one decoder's samples."""
    clock_ref, nucleus_ref, rows_in_ref, inputs_in_ref, weights, gates_ref, head_ref, *rest = refs
    noise_ref, rows_out_ref, inputs_ref, codes_ref, rows_ref = rest
    nucleus = None
    if not draws_from_all:
        nucleus = Nucleus(temperature=nucleus_ref[0], top_p=nucleus_ref[1])
    domain, block = pl.program_id(0), pl.program_id(1)
    block_samples, num_streams, _ = noise_ref.shape
    starts = np.cumsum(dilations) - dilations
    samples = jax.lax.broadcasted_iota(jnp.int32, codes_ref.shape, 1)

    @pl.when(block == 0)
    def begin():
        pltpu.sync_copy(rows_in_ref.at[domain], rows_ref)
        inputs_ref[...] = inputs_in_ref[...]

    def generate_sample(sample, inputs):
        clock = clock_ref[domain] + block * block_samples + sample
        # Dilations are powers of two.
        places = [
            pl.ds((start + (clock & (dilation - 1))) * num_streams, num_streams)
            for start, dilation in zip(starts.tolist(), dilations, strict=True)
        ]
        # None of them needs this sample's layers: the compiler may compute them in between.
        past = [
            _product(rows_ref[place, :], weights.past[layer]) + gates_ref[layer]
            for layer, place in enumerate(places)
        ]
        logits = _next_logits(weights, inputs, past, head_ref[...], rows_ref, places)
        code = sampling.draw(logits, noise_ref[sample], nucleus, _highest)
        codes_ref[...] = jnp.where(samples == sample, code, codes_ref[...])
        return inputs[1], layers.scale(code)

    inputs = (inputs_ref[:, 0:1], inputs_ref[:, 1:2])
    inputs = jax.lax.fori_loop(0, block_samples, generate_sample, inputs)
    inputs_ref[:, 0:1], inputs_ref[:, 1:2] = inputs

    @pl.when(block == pl.num_programs(1) - 1)
    def end():
        pltpu.sync_copy(rows_ref, rows_out_ref.at[domain])


def _highest(scores):
    """Returns the first of the highest scores' codes, [B, 1]."""
    levels = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1).astype(jnp.float32)
    best = jnp.max(scores, axis=-1, keepdims=True)
    first = jnp.min(jnp.where(scores == best, levels, scores.shape[1]), axis=-1, keepdims=True)
    return first.astype(jnp.int32)


def _next_logits(weights, inputs, past, head, rows_ref, places):
    """Scores each stream's next code, [B, Q], and writes each layer's input to its place."""
    channels = weights.first.shape[-1]
    x = inputs[0] * weights.first[0:1] + inputs[1] * weights.first[1:2] + weights.first[2:3]
    skips = _product(x, weights.skip[...]) + weights.skip_bias[...]
    for layer, place in enumerate(places):
        rows_ref[place, :] = x
        gated = layers.gate(past[layer] + _product(x, weights.present[layer]))
        mixed = _product(gated, weights.mix[layer])
        x = x + mixed[:, :channels] + weights.residual_bias[layer : layer + 1]
        skips = skips + mixed[:, channels:]
    y = jax.nn.relu(_product(jax.nn.relu(skips), weights.head[...]) + head)
    return _product(y, weights.logits[...]) + weights.logits_bias[...]


def _product(x, kernel):
    """Returns `x @ kernel` with `x` in float32, whatever the kernel is in."""
    if kernel.dtype == jnp.float32:
        return jnp.dot(x, kernel, precision=jax.lax.Precision.HIGHEST)
    # A bfloat16 has the upper half of a float32's bits. What it leaves of x is another, beside it:
    # the TPU is as fast with twice the streams, and all but 16 bits of x are exact.
    bits = jax.lax.bitcast_convert_type(x, jnp.int32) & jnp.int32(-(2**16))
    upper = jax.lax.bitcast_convert_type(bits, jnp.float32)
    halves = jnp.concatenate([upper, x - upper]).astype(kernel.dtype)
    y = jnp.dot(halves, kernel, preferred_element_type=jnp.float32)
    return y[: len(x)] + y[len(x) :]


def _whole(array):
    """Returns the block that is all of one domain's array, in VMEM once."""
    shape, rest = (None, *array.shape[1:]), [0] * (array.ndim - 1)
    return pl.BlockSpec(shape, lambda k, t: (k, *rest), pipeline_mode=pl.Buffered(1))


def _check_fits(packed, config, num_streams, block_samples):
    """Returns how many bytes of VMEM the kernel's arrays take; raises if there are too few."""
    kept = sum(_vmem_bytes(leaf.shape[1:], leaf.dtype.itemsize) for leaf in jax.tree.leaves(packed))

    def needed(num_streams):
        C, S, L = config.residual_channels, config.skip_channels, len(config.decoder_dilations)
        num_rows = sum(config.decoder_dilations)
        once = [(num_rows * num_streams, C), (L, num_streams, 2 * C), (num_streams, S)]
        # Inputs come and go; noise and codes are copied while the kernel works on others.
        noise, codes = (block_samples, num_streams, mu_law.NUM_LEVELS), (num_streams, block_samples)
        twice = [(num_streams, 2), noise, codes]
        return kept + sum(map(_vmem_bytes, once)) + 2 * sum(map(_vmem_bytes, twice))

    if needed(num_streams) <= VMEM_BYTES:
        return needed(num_streams)
    fitting = max((n for n in range(num_streams) if needed(n) <= VMEM_BYTES), default=0)
    advice = f"Use {fitting} streams or fewer, or" if fitting else "Not even one fits. Use"
    raise ValueError(
        f"engine=pallas keeps weights and streams in VMEM: with {num_streams} streams "
        f"{needed(num_streams) / 2**20:.0f} MiB, of which {kept / 2**20:.0f} MiB are weights, "
        f"where {VMEM_BYTES // 2**20} MiB fit. {advice} engine=scan."
    )


def _vmem_bytes(shape, itemsize=4):
    """Returns what an array takes in VMEM, where its last two axes fill tiles of 4 KiB."""
    *batch, rows, columns = shape
    return 4096 * math.prod(batch) * -(-rows * itemsize // 32) * -(-columns // 128)


def _pack_one(decoder, config, dtype):
    decoder_layers = generate.layers_of(decoder, config)

    def stack(module, name):
        return jnp.stack([layer[module][name] for layer in decoder_layers])

    dilated = stack("dilated", "kernel").astype(dtype)
    mix = jnp.concatenate([stack("residual", "kernel"), stack("skip", "kernel")], axis=-1)
    return PackedDecoder(
        first=jnp.concatenate([decoder["first"]["kernel"][:, 0], decoder["first"]["bias"][None]]),
        past=dilated[:, 0],
        present=dilated[:, 1],
        mix=mix.astype(dtype),
        residual_bias=stack("residual", "bias"),
        skip=decoder["skip"]["kernel"].astype(dtype),
        skip_bias=(decoder["skip"]["bias"] + stack("skip", "bias").sum(axis=0))[None],
        head=decoder["head"]["kernel"].astype(dtype),
        logits=decoder["logits"]["kernel"].astype(dtype),
        logits_bias=decoder["logits"]["bias"][None],
    )
