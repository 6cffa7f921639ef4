"""Decoders in the form that the C++ code reads, `Decoder` in `decoder.h`, by NumPy."""

import ctypes
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from umt_jax.config import ModelConfig
from umt_jax.shapes import Array, Leaf

TYPES = ("float32", "bfloat16")
"""Types in which weights can be kept, in the order of `WeightType` in `generate.h`."""

Arrays = dict[str, Any]
"""Arrays of one network by name: nested dictionaries."""

_CACHE_LINE = 64  # Bytes.


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a library, compiled for one processor, reads matrices.

    Attributes:
        panel: Columns of a panel.
        width: Columns of a register.
        depth: Rows of a matrix of bfloat16 that are multiplied at once.
    """

    panel: int
    width: int
    depth: int


class Packed(NamedTuple):
    """K decoders.

    Attributes:
        weights: All matrices, panel by panel, in the order of `Decoder`, [K, any].
        biases: Likewise, float32.
    """

    weights: Leaf
    biases: Leaf


def layout_of(library: ctypes.CDLL) -> Layout:
    """Returns the layout of a library that includes `packing.h`."""
    return Layout(
        library.umt_panel_columns(), library.umt_register_columns(), library.umt_bfloat16_depth()
    )


def pack(decoders: Arrays, config: ModelConfig, *, type_: str, library: ctypes.CDLL) -> Packed:
    """Lays K decoders, leaves [K, ...], out in the order in which they are read.

    Args:
        decoders: NumPy arrays.
        config: Sizes.
        type_: One of `TYPES`.
        library: What reads them.
    """
    layout, dtype = layout_of(library), _dtype(type_)
    packed = [
        _pack_one(_part(decoders, index), config, layout, dtype)
        for index in range(len(decoders["logits"]["bias"]))
    ]
    weights = aligned((len(packed), len(packed[0][0])), dtype)
    for row, (of_decoder, _) in zip(weights, packed, strict=True):
        row[:] = of_decoder
    return Packed(weights, np.stack([biases for _, biases in packed]))


def prefer_huge_pages(library: ctypes.CDLL, address: int, num_bytes: int) -> None:
    """Asks the system to keep memory in huge pages; see `packing.h`."""
    library.umt_prefer_huge_pages(ctypes.c_void_p(address), ctypes.c_uint64(num_bytes))


def select(packed: Packed, decoders: Sequence[int]) -> Packed:
    """Returns some of the decoders, in the order given: views where they follow one another."""
    first = decoders[0]
    if list(decoders) == list(range(first, first + len(decoders))):
        return Packed(*(array[first : first + len(decoders)] for array in packed))
    weights = aligned((len(decoders), packed.weights.shape[1]), packed.weights.dtype)
    weights[:] = packed.weights[list(decoders)]
    return Packed(weights, packed.biases[list(decoders)])


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns an array that starts with a cache line; what it holds is undefined."""
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(num_bytes + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + num_bytes].view(dtype).reshape(shape)


def gate_columns(array: Array, layout: Layout) -> Any:
    """Puts the sigmoid's and the tanh's columns of the same channels into the same panel."""
    xp = array.__array_namespace__()
    half = layout.panel // 2
    *batch, columns = array.shape
    halves = array.reshape(*batch, 2, columns // 2)
    padding = [(0, 0)] * (halves.ndim - 1) + [(0, -(columns // 2) % half)]
    panels = xp.pad(halves, padding).reshape(*batch, 2, -1, half)
    return xp.swapaxes(panels, -3, -2).reshape(*batch, -1)


def pad_columns(array: Array, layout: Layout) -> Any:
    """Fills the last panel of columns up with zeros."""
    missing = -array.shape[-1] % layout.panel
    return array.__array_namespace__().pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)])


def _dtype(type_: str) -> np.dtype:
    if type_ == "float32":
        return np.dtype(np.float32)
    import ml_dtypes  # NumPy itself has no such types.

    return np.dtype(getattr(ml_dtypes, type_))


def _part(arrays: Arrays, index: int) -> Arrays:
    """Returns a tree's arrays at one place of their first axis."""
    return {
        name: _part(array, index) if isinstance(array, dict) else array[index]
        for name, array in arrays.items()
    }


def _pack_one(decoder, config, layout, dtype):
    channels = config.residual_channels
    weights, biases = [], []

    def add(kernel):
        weights.append(_panels(kernel, layout, dtype))

    def beside(residual, skip):
        """Returns what is summed into the residual stream and the skip sum, beside each other."""
        return pad_columns(np.concatenate([residual, skip], axis=-1), layout)

    first = decoder["first"]
    biases.append(np.concatenate([first["kernel"][:, 0].reshape(-1), first["bias"]]))
    layers = [_part(decoder["layers"], index) for index in range(len(config.decoder_dilations))]
    skips = [decoder["skip"], *(layer["skip"] for layer in layers)]
    biases.append(beside(np.zeros(channels, np.float32), sum(skip["bias"] for skip in skips)))
    for layer in layers:
        add(gate_columns(layer["dilated"]["kernel"][0], layout))
    add(beside(np.zeros((channels, channels), np.float32), decoder["skip"]["kernel"]))
    no_skip = np.zeros(config.skip_channels, np.float32)
    for layer in layers:
        add(gate_columns(layer["dilated"]["kernel"][1], layout))
        add(beside(layer["residual"]["kernel"], layer["skip"]["kernel"]))
        # The skips' biases are there from the beginning.
        biases.append(beside(layer["residual"]["bias"], no_skip))
    add(pad_columns(decoder["head"]["kernel"], layout))
    add(decoder["logits"]["kernel"])
    biases.append(decoder["logits"]["bias"])
    return np.concatenate(weights), np.concatenate(biases)


def _panels(kernel, layout, dtype):
    """Returns a matrix cut into panels of columns, each stored row by row, as one vector."""
    panel, is_bfloat16 = layout.panel, dtype.itemsize == 2
    together = layout.depth if is_bfloat16 else 1
    kernel = np.pad(kernel, [(0, -len(kernel) % together), (0, 0)])
    depth, columns = kernel.shape
    panels = np.swapaxes(kernel.reshape(depth, columns // panel, panel), 0, 1).astype(dtype)
    if together > 1:
        # Of two rows that are multiplied at once, so that each 32-bit word holds one of either.
        panels = np.swapaxes(panels.reshape(-1, together, panel), 1, 2)
    elif is_bfloat16:
        # Two registers' columns alternate, so that each 32-bit word holds one of either.
        panels = np.swapaxes(panels.reshape(-1, 2, layout.width), 1, 2)
    return panels.reshape(-1)
