"""Decoders in the form that the C++ code reads, `Decoder` in `decoder.h`, by NumPy."""

import ctypes
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from umt_jax.config import ModelConfig
from umt_jax.shapes import Array, Leaf

TYPES = ("float32", "bfloat16", "int8")
"""Types in which weights can be kept, in the order of `WeightType` in `generate.h`."""

Arrays = dict[str, Any]
"""Arrays of one network by name: nested dictionaries."""

_CACHE_LINE = 64  # Bytes.
_INT8_DEPTH = 4  # `Int8::kDepth`.
_INT8_MOVED = 128  # `kMoved` where inputs are moved.


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
        _pack_one(_part(decoders, index), config, layout, type_)
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


def panels(kernel: Array, layout: Layout, type_: str) -> np.ndarray:
    """Lays a matrix, [rows, columns] in whole panels, out in one of `TYPES`, as one vector."""
    return _PANELS[type_](kernel, layout)


def to_int8(array: Array, axis: int) -> tuple[Any, Any]:
    """Rounds to whole numbers from -127 to 127, with a scale for all that lie along an axis.

    Args:
        array: Weights or what they are multiplied with, of NumPy or JAX.
        axis: Along which the largest is 127.

    Returns:
        Whole numbers, int8, and the scales that give the array back, with length 1 along the axis.
    """
    xp = array.__array_namespace__()
    largest = xp.max(xp.abs(array), axis=axis, keepdims=True)
    scale = xp.where(largest > 0, largest, np.float32(1)) / np.float32(127)
    return xp.round(array / scale).astype(np.int8), scale


def first_part(channels: int) -> int:
    """Returns how many channels the first of two parts has; see `Sizes::FirstPart`."""
    return channels if channels < 64 else channels // 64 * 32


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
    if type_ != "bfloat16":
        return np.dtype(type_)
    import ml_dtypes  # NumPy itself has no such type.

    return np.dtype(ml_dtypes.bfloat16)


def _part(arrays: Arrays, index: int) -> Arrays:
    """Returns a tree's arrays at one place of their first axis."""
    return {
        name: _part(array, index) if isinstance(array, dict) else array[index]
        for name, array in arrays.items()
    }


def _pack_one(decoder, config, layout, type_):
    channels = config.residual_channels
    weights, biases = [], []

    def add(kernel):
        weights.append(panels(kernel, layout, type_))

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
        out = beside(layer["residual"]["kernel"], layer["skip"]["kernel"])
        for part in np.split(out, [first_part(channels)]):
            if len(part):
                add(part)
        # The skips' biases are there from the beginning.
        biases.append(beside(layer["residual"]["bias"], no_skip))
    add(pad_columns(decoder["head"]["kernel"], layout))
    # In 8 bits, the logits' kernel would change what is drawn more than all others: `MostlyInt8`.
    last = panels(decoder["logits"]["kernel"], layout, "float32" if type_ == "int8" else type_)
    weights.append(last.view(weights[0].dtype))
    biases.append(decoder["logits"]["bias"])
    return np.concatenate(weights), np.concatenate(biases)


def _cut(kernel, layout, depth=1):
    """Returns a matrix cut into panels of columns, [panels, rows, columns]; rows are filled up."""
    kernel = np.pad(kernel, [(0, -len(kernel) % depth), (0, 0)])
    return np.swapaxes(kernel.reshape(len(kernel), -1, layout.panel), 0, 1)


def _together(rows, depth):
    """Puts those numbers of a column beside each other that are multiplied at once."""
    num_panels, _, columns = rows.shape
    return np.swapaxes(rows.reshape(num_panels, -1, depth, columns), 2, 3)


def _float32_panels(kernel, layout):
    return _cut(kernel, layout).reshape(-1)


def _bfloat16_panels(kernel, layout):
    rows = _cut(kernel, layout, layout.depth).astype(_dtype("bfloat16"))
    if layout.depth > 1:
        return _together(rows, layout.depth).reshape(-1)
    # Two registers' columns alternate, so that each 32-bit word holds one of either.
    return np.swapaxes(rows.reshape(-1, 2, layout.width), 1, 2).reshape(-1)


def _int8_panels(kernel, layout):
    whole, scale = to_int8(kernel, axis=0)
    moved = -_INT8_MOVED * whole.sum(axis=0, keepdims=True, dtype=np.int32)
    words = _together(_cut(whole, layout, _INT8_DEPTH), _INT8_DEPTH)
    rows = [words.reshape(*words.shape[:2], -1)]
    rows += [_cut(row, layout).view(np.int8) for row in (scale, moved)]
    return np.concatenate(rows, axis=1).reshape(-1)


_PANELS = dict(zip(TYPES, (_float32_panels, _bfloat16_panels, _int8_panels), strict=True))
