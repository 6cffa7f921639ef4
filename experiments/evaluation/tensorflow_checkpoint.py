"""Reads the arrays of a TensorFlow checkpoint without TensorFlow.

The index is an SSTable as LevelDB writes them: blocks of sorted entries, each with what its key
shares with the one before left out. Its values are protocol buffers, `BundleEntryProto`, which say
where in the data file an array lies.
"""

import pathlib
import struct
from collections.abc import Iterator

import numpy as np

_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57
_FLOAT32 = 1  # tensorflow.DataType.DT_FLOAT
_FIXED = {1: 8, 5: 4}  # Bytes of the kinds of field that do not say their size.


def read(prefix: str) -> dict[str, np.ndarray]:
    """Returns the float32 arrays of a checkpoint by name; those of other types are left out.

    Args:
        prefix: Path of its files without `.index` and `.data-00000-of-00001`.

    Raises:
        FileNotFoundError: One of the two files is missing.
        ValueError: They are not a checkpoint of one shard without compression.
    """
    index = pathlib.Path(f"{prefix}.index").read_bytes()
    data = pathlib.Path(f"{prefix}.data-00000-of-00001").read_bytes()
    try:
        return dict(_arrays(index, data))
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"{prefix}.index is damaged, or no TensorFlow checkpoint.") from error


def _arrays(index: bytes, data: bytes) -> Iterator[tuple[str, np.ndarray]]:
    footer = index[-_FOOTER_BYTES:]
    if struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise ValueError("The index does not end as an SSTable does.")
    _, place = _handle(footer, 0)  # Of the meta index, which holds nothing of ours.
    blocks, _ = _handle(footer, place)
    for _, handle in _entries(index, blocks):
        for key, value in _entries(index, _handle(handle, 0)[0]):
            if not key:
                continue  # The header: how many shards there are, and byte order.
            numbers, messages = _fields(value)
            if numbers.get(1) != _FLOAT32:
                continue
            # What is 0 is left out of the encoding.
            sizes = [_fields(size)[0] for size in _fields(messages[2][0])[1].get(2, [])]
            shape = [size.get(1, 0) for size in sizes]
            first, size = numbers.get(4, 0), numbers[5]
            yield key.decode(), np.frombuffer(data[first : first + size], "<f4").reshape(shape)


def _varint(block: bytes, place: int) -> tuple[int, int]:
    """Returns the number that begins at a place, and the place after it."""
    number, shift = 0, 0
    while True:
        byte = block[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place


def _handle(block: bytes, place: int) -> tuple[tuple[int, int], int]:
    """Returns a block's first byte and size, and the place after them."""
    first, place = _varint(block, place)
    size, place = _varint(block, place)
    return (first, size), place


def _entries(index: bytes, handle: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys and values of a block."""
    first, size = handle
    if index[first + size] != 0:
        raise ValueError("The index is compressed, which this reader does not know.")
    block = index[first : first + size]
    (num_restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 - 4 * num_restarts
    key, place = b"", 0
    while place < end:
        shared, place = _varint(block, place)
        num_new, place = _varint(block, place)
        num_value, place = _varint(block, place)
        key = key[:shared] + block[place : place + num_new]
        place += num_new
        yield key, block[place : place + num_value]
        place += num_value


def _fields(message: bytes) -> tuple[dict[int, int], dict[int, list[bytes]]]:
    """Returns the fields of a protocol buffer by number: integers, and all others as bytes."""
    numbers: dict[int, int] = {}
    messages: dict[int, list[bytes]] = {}
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        field, kind = tag >> 3, tag & 7
        if kind == 0:
            numbers[field], place = _varint(message, place)
        else:
            size, place = (_FIXED[kind], place) if kind in _FIXED else _varint(message, place)
            messages.setdefault(field, []).append(message[place : place + size])
            place += size
    return numbers, messages
