"""The engine for CPUs: one latent frame at a time by the decoder of `core`.

`native.cc` calls it through XLA's `jax.ffi`; `core.compiler` compiles it.
"""

import ctypes
import dataclasses
import functools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from flax import struct

from umt_jax.config import ModelConfig
from umt_jax.core import compiler
from umt_jax.generation import generate
from umt_jax.generation.generate import Cache, Conditioning
from umt_jax.generation.sampling import Nucleus
from umt_jax.model import networks
from umt_jax.shapes import Array, Float, Leaf, Parameters, UInt8

_SOURCE = Path(__file__).with_suffix(".cc")
_TARGET = "umt_generate_frame"
_ROWS_AT_ONCE = 32  # 16 and 32 were measured alike for one stream.


@functools.cache
def library() -> ctypes.CDLL:
    """Returns the compiled engine, registered with XLA; compiles it where that was not done yet.

    Raises:
        OSError: There is no compiler, or it fails.
    """
    loaded = compiler.load(
        _SOURCE, includes=jax.ffi.include_dir(), version=f"jaxlib {jaxlib.__version__}"
    )
    jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(loaded[_TARGET]), platform="cpu")
    return loaded


class PackedDecoder(struct.PyTreeNode):
    """One decoder as the C++ code reads it.

    Attributes:
        weights: All matrices, panel by panel, in the order of `Decoder` there.
        biases: Float32, likewise.
    """

    weights: Leaf
    biases: Leaf


@dataclasses.dataclass(frozen=True)
class NativeEngine:
    """C++ on the CPU.

    Attributes:
        weights: Type in which matrices are kept, `float32` or `bfloat16`; sums are float32. With
            bfloat16, where the processor multiplies it, what they are multiplied with is rounded
            for the product too, whatever the number of streams.
        block_samples: Up to so many samples, and as many as the dilation allows, share one product
            for a layer's past tap. None decides by the number of streams, of which many fill a
            product by themselves.
    """

    weights: str = "float32"
    block_samples: int | None = None

    def pack(self, decoders: Parameters, config: ModelConfig) -> PackedDecoder:
        """Lays out weights in the order in which they are read; leaves [K, ...]."""
        generate.check_two_taps(config, "native")
        # By NumPy: tracing so many small operations takes longer at every start than doing them.
        decoders = jax.tree.map(np.asarray, decoders)
        packed = [
            _pack_one(networks.select(decoders, index), config, jnp.dtype(self.weights))
            for index in range(len(decoders["logits"]["bias"]))
        ]
        packed = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *packed)
        memory = ctypes.c_void_p(packed.weights.unsafe_buffer_pointer())
        library().umt_prefer_huge_pages(memory, ctypes.c_uint64(packed.weights.nbytes))
        return packed

    def generate_frame(
        self,
        packed: PackedDecoder,
        caches: Cache,
        conditioning: Conditioning,
        noise: Float[Array, "T K B Q"],
        config: ModelConfig,
        nucleus: Nucleus | None = None,
    ) -> tuple[Cache, UInt8[Array, "T K B"]]:
        """Advances all streams by one latent frame; see `generate.Engine`."""
        library()
        num_samples, _, num_streams, _ = noise.shape
        block = self.block_samples or max(1, _ROWS_AT_ONCE // num_streams)
        inputs = (caches.rows, caches.inputs)
        # With `top_p` 1 the C++ code draws from all.
        nucleus = nucleus or Nucleus(temperature=jnp.float32(1), top_p=jnp.float32(1))
        codes, rows, newest = jax.ffi.ffi_call(
            _TARGET,
            (
                jax.ShapeDtypeStruct(noise.shape[:-1], jnp.uint8),
                *(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in inputs),
            ),
            input_output_aliases={5: 1, 6: 2},
        )(
            packed.weights,
            packed.biases,
            _gate_columns(conditioning.gates),
            _pad_columns(conditioning.head),
            noise,
            *inputs,
            caches.clock,
            jnp.stack([nucleus.temperature, nucleus.top_p]),
            blocks=np.int64(config.decoder_blocks),
            layers=np.int64(config.decoder_layers),
            skips=np.int64(config.skip_channels),
            block_samples=np.int64(block),
            threads=np.int64(len(os.sched_getaffinity(0))),
        )
        clock = generate.tick(caches.clock, config, num_samples)
        return caches.replace(rows=rows, inputs=newest, clock=clock), codes


def _pack_one(decoder, config, dtype):
    channels = config.residual_channels
    weights, biases = [], []

    def add(kernel):
        weights.append(_panels(kernel, dtype))

    def beside(residual, skip):
        """Returns what is summed into the residual stream and the skip sum, beside each other."""
        return _pad_columns(np.concatenate([residual, skip], axis=-1))

    first = decoder["first"]
    biases.append(np.concatenate([first["kernel"][:, 0].reshape(-1), first["bias"]]))
    decoder_layers = generate.layers_of(decoder, config)
    skips = [decoder["skip"], *(layer["skip"] for layer in decoder_layers)]
    biases.append(beside(np.zeros(channels, np.float32), sum(skip["bias"] for skip in skips)))
    for layer in decoder_layers:
        add(_gate_columns(layer["dilated"]["kernel"][0]))
    add(beside(np.zeros((channels, channels), np.float32), decoder["skip"]["kernel"]))
    no_skip = np.zeros(config.skip_channels, np.float32)
    for layer in decoder_layers:
        add(_gate_columns(layer["dilated"]["kernel"][1]))
        add(beside(layer["residual"]["kernel"], layer["skip"]["kernel"]))
        # The skips' biases are there from the beginning.
        biases.append(beside(layer["residual"]["bias"], no_skip))
    add(_pad_columns(decoder["head"]["kernel"]))
    add(decoder["logits"]["kernel"])
    biases.append(decoder["logits"]["bias"])
    return PackedDecoder(weights=np.concatenate(weights), biases=np.concatenate(biases))


def _panels(kernel, dtype):
    """Returns a matrix cut into panels of columns, each stored row by row, as one vector."""
    panel, width = library().umt_panel_columns(), library().umt_register_columns()
    together = library().umt_bfloat16_depth() if dtype == jnp.bfloat16 else 1
    kernel = np.pad(kernel, [(0, -len(kernel) % together), (0, 0)])
    depth, columns = kernel.shape
    panels = np.swapaxes(kernel.reshape(depth, columns // panel, panel), 0, 1).astype(dtype)
    if together > 1:
        # Of two rows that are multiplied at once, so that each 32-bit word holds one of either.
        panels = np.swapaxes(panels.reshape(-1, together, panel), 1, 2)
    elif dtype == jnp.bfloat16:
        # Two registers' columns alternate, so that each 32-bit word holds one of either.
        panels = np.swapaxes(panels.reshape(-1, 2, width), 1, 2)
    return panels.reshape(-1)


def _gate_columns(array):
    """Puts the sigmoid's and the tanh's columns of the same channels into the same panel."""
    xp = array.__array_namespace__()
    half = library().umt_panel_columns() // 2
    *batch, columns = array.shape
    halves = array.reshape(*batch, 2, columns // 2)
    padding = [(0, 0)] * (halves.ndim - 1) + [(0, -(columns // 2) % half)]
    panels = xp.pad(halves, padding).reshape(*batch, 2, -1, half)
    return xp.swapaxes(panels, -3, -2).reshape(*batch, -1)


def _pad_columns(array):
    """Fills the last panel of columns up with zeros."""
    missing = -array.shape[-1] % library().umt_panel_columns()
    return array.__array_namespace__().pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)])
