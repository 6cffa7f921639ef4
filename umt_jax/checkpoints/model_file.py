"""A model in one file, for programs that never heard of JAX: the format safetensors.

That is the length of a header, 8 bytes, little-endian; the header, JSON: of each array its type,
shape and place; and the arrays one after the other (https://github.com/huggingface/safetensors).
It is so little that it is written and read here, without the package of that name; tests read
files of ours with that package.

The header's metadata, texts by name, hold the sizes of the networks under their names in
`ModelConfig`, the domains, one a line, how the model is played, its licence and source, and the
whole configuration as JSON. `umt_jax/core/model_file.h` reads the same file.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from umt_jax import storage
from umt_jax.config import Config
from umt_jax.model import array_shapes
from umt_jax.shapes import Leaf

SUFFIX = ".safetensors"
_FORMAT, _VERSION = "umt_jax", "1"
_MOST_HEADER_BYTES = 2**20
_TYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}


def is_model_file(path: str | os.PathLike[str]) -> bool:
    """Whether a path is named as a model file, rather than as a folder of a run."""
    return os.fspath(path).endswith(SUFFIX)


def write(
    path: str | os.PathLike[str],
    config: Config,
    arrays: Mapping[str, Leaf],
    *,
    licence: str = "",
    source: str = "",
) -> None:
    """Writes `pack` to a file; it appears when it is whole."""
    file = pack(config, arrays, licence=licence, source=source)
    with storage.whole_file(storage.path(os.fspath(path))) as unfinished:
        unfinished.write_bytes(file)


def pack(
    config: Config, arrays: Mapping[str, Leaf], *, licence: str = "", source: str = ""
) -> bytes:
    """Returns a model as the bytes of one file.

    Args:
        config: Sizes, domains, and how it is played.
        arrays: Float16 or float32 arrays by the names of `array_shapes`; they keep their type.
        licence: Of the weights.
        source: Who made them, and of what.

    Raises:
        ValueError: An array is of another type, a domain's name has several lines, or the encoder
            is no network.
    """
    if config.model.encoder_kind == "cqt":
        raise ValueError(
            "encoder_kind=cqt: programs that read one file, and what plays note by note, have no "
            "constant-Q transform. Keep such a model as a folder."
        )
    if any("\n" in domain for domain in config.domains):
        raise ValueError("A name of a domain has more than one line.")
    start, parts = 0, []
    header: dict[str, Any] = {"__metadata__": _metadata(config, licence, source)}
    names = {dtype: name for name, dtype in _TYPES.items()}
    for name, leaf in arrays.items():
        array = np.asarray(leaf)
        if array.dtype not in names:
            raise ValueError(f"{name} is {array.dtype}, and must be float16 or float32.")
        parts.append(array)
        end = start + array.nbytes
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # So that arrays begin at a multiple of 8.
    return b"".join([len(text).to_bytes(8, "little"), text, *(part.tobytes() for part in parts)])


def read_config(path: str | os.PathLike[str]) -> Config:
    """Returns the configuration of a model file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, of another program, or of a newer version.
    """
    header, _ = _read_header(path)
    try:
        return Config.from_json(json.loads(header["__metadata__"]["config"]))
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"The configuration in {path} does not fit: {error}") from error


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Returns the arrays of a model file, in float32, by the names of `array_shapes`.

    Nothing is read before the file's length and its arrays' shapes are found to fit.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, of another program, or its arrays do not fit its configuration.
    """
    header, start = _read_header(path)
    shapes = array_shapes.shapes(read_config(path))
    num_bytes = os.path.getsize(path) - start
    for name, shape in shapes.items():
        _check_array(path, name, header.get(name), shape, num_bytes)
    data = np.memmap(path, np.uint8, "r", offset=start) if num_bytes else np.zeros(0, np.uint8)

    def read(name, shape):
        first, end = header[name]["data_offsets"]
        array = np.frombuffer(data[first:end].tobytes(), _TYPES[header[name]["dtype"]])
        if not np.isfinite(array).all():
            raise ValueError(f"{path} is damaged: {name} holds numbers that are not finite.")
        return array.astype(np.float32).reshape(shape)

    return {name: read(name, shape) for name, shape in shapes.items()}


def _read_header(path: str | os.PathLike[str]) -> tuple[dict[str, Any], int]:
    """Returns the header of a file of this program, and where the arrays begin."""
    if not Path(path).exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if not Path(path).is_file():
        raise ValueError(f"{path} is named as a model file, but is no file.")
    with Path(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: Any = None
        if length <= min(_MOST_HEADER_BYTES, os.path.getsize(path) - 8):
            try:
                header = json.loads(file.read(length))
            except (ValueError, RecursionError):
                pass
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ValueError(f"{path} is damaged, or no model in the format safetensors.")
    if metadata.get("format") != _FORMAT:
        raise ValueError(
            f"{path} holds arrays of another program. Write a model with "
            "python -m umt_jax.export --format=safetensors."
        )
    if metadata.get("format_version") != _VERSION:
        raise ValueError(f"{path} is of a newer version of umt_jax. Update umt_jax.")
    return header, 8 + length


def _check_array(path, name, entry, shape, num_bytes):
    """Raises `ValueError` where an array of the header is not the one that is wanted."""
    fits = isinstance(entry, dict) and entry.get("dtype") in _TYPES
    fits = fits and entry.get("shape") == list(shape)
    if fits:
        size = math.prod(shape) * _TYPES[entry["dtype"]].itemsize
        offsets = entry.get("data_offsets")
        fits = isinstance(offsets, list) and len(offsets) == 2
        fits = fits and all(isinstance(offset, int) and offset >= 0 for offset in offsets)
        fits = fits and offsets[1] - offsets[0] == size and offsets[1] <= num_bytes
    if not fits:
        raise ValueError(
            f"{path} is damaged, or was cut off: its array {name} is missing, does not fit the "
            "sizes in its header, or ends behind the file."
        )


def _metadata(config: Config, licence: str, source: str) -> dict[str, str]:
    sizes = {
        name: "" if value is None else value if isinstance(value, str) else json.dumps(value)
        for name, value in dataclasses.asdict(config.model).items()
    }
    return {
        "format": _FORMAT,
        "format_version": _VERSION,
        **sizes,
        "domains": "\n".join(config.domains),
        "temperature": json.dumps(config.sampling.temperature),
        "top_p": json.dumps(config.sampling.top_p),
        "guide_strength": json.dumps(config.sampling.guide_strength),
        "licence": licence,
        "source": source,
        "config": json.dumps(config.to_json()),
    }
