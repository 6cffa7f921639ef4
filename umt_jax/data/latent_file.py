"""Latents of one recording as a NumPy .npz file, with what has to be known to use them."""

import contextlib
import dataclasses
import json
import math
import os
import reprlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from etils import epath

from umt_jax import storage
from umt_jax.config import ModelConfig, model_from_json
from umt_jax.shapes import Array, Float

EXTENSION = ".npz"

_ARRAYS = ("latents", "num_samples", "source", "encoder", "preset", "model")
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

# Latents are nearly random, and so not compressed by much, but for silence. An hour of the paper's
# takes 18 MB.
_MOST_TIMES = 100
_SMALL_BYTES = 2**26
_MOST_TEXT_BYTES = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentFile:
    """Contents of a file of latents.

    Attributes:
        latents: Latents, float32, [F, Z].
        num_samples: Samples of the recording at the model's rate; it may end inside the last latent
            frame.
        source: Name of the recording.
        encoder: Fingerprint of the encoder that made them (`encoder_fingerprint.fingerprint`).
        preset: Name of the recipe that encoder is from; "" for none.
        model: Sizes of that encoder's model.
    """

    latents: Float[Array, "F Z"]
    num_samples: int
    source: str
    encoder: str
    preset: str
    model: ModelConfig


def is_latent_file(name: str | os.PathLike[str]) -> bool:
    """Whether a file's name ends as those of latents do."""
    return Path(name).suffix.lower() == EXTENSION


def write(path: str | os.PathLike[str], file: LatentFile) -> None:
    """Writes a file, which appears when it is complete.

    `numpy.load` shows `latents`, `frame_rate_hz`, `num_samples`, `source`, `encoder`, `preset`, and
    `model`, which is the model's sizes in JSON.

    Raises:
        ValueError: The name does not end in .npz.
        OSError: It could not be written.
    """
    if not is_latent_file(path):
        raise ValueError(f"{path}: latents are written as .npz. End the name in it.")
    with storage.whole_file(epath.Path(path)) as incomplete, incomplete.open("wb") as handle:
        np.savez(
            handle,
            latents=np.asarray(file.latents, np.float32),
            frame_rate_hz=file.model.sample_rate_hz / file.model.pool_samples,
            num_samples=file.num_samples,
            source=file.source,
            encoder=file.encoder,
            preset=file.preset,
            model=json.dumps(dataclasses.asdict(file.model)),
        )


def read(path: str | os.PathLike[str], *, encoder: str, model: ModelConfig) -> LatentFile:
    """Reads latents for the decoders that belong to an encoder.

    What a file says of its sizes is compared with the file and the model before the latents are
    read: a file from elsewhere cannot ask for more memory than its own size explains.

    Args:
        path: The file.
        encoder: That encoder's fingerprint.
        model: Sizes of that encoder's model.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, is damaged, or its latents are another encoder's.
    """
    with _opened(path) as entries:
        num_samples = _count(entries["num_samples"])
        texts = {name: _text(entries[name]) for name in ("source", "encoder", "preset")}
        if texts["encoder"] != encoder:
            raise _OtherEncoderError(
                f"{path} holds latents of another encoder: its fingerprint is "
                f"{texts['encoder'][:64]}, this checkpoint's is {encoder}. Encode the recording, "
                f"{reprlib.repr(texts['source'])}, with this one."
            )
        sizes = model_from_json(json.loads(_text(entries["model"])))
        for name in ("sample_rate_hz", "pool_samples", "latent_channels"):
            if getattr(sizes, name) != getattr(model, name):
                raise ValueError(f"its {name} is not the model's, {getattr(model, name)}")
        needed = -(-num_samples // model.pool_samples), model.latent_channels
        entry = entries["latents"]
        if entry.dtype != np.float32 or entry.shape != needed:
            raise ValueError(
                f"its latents are {entry.dtype} {list(entry.shape)}, and {num_samples} samples "
                f"need float32 {list(needed)}"
            )
        latents = entry.read()
        if not np.isfinite(latents).all():
            raise ValueError("some latents are not finite numbers")
    return LatentFile(latents=latents, num_samples=num_samples, model=sizes, **texts)


def num_samples(path: str | os.PathLike[str]) -> int:
    """Returns how many samples a file says that it stands for; 0 if it does not say."""
    try:
        with _opened(path) as entries:
            return _count(entries["num_samples"])
    except (ValueError, OSError):
        return 0


class _OtherEncoderError(ValueError):
    """The file is whole, but not for this model."""


@dataclasses.dataclass(frozen=True)
class _Entry:
    """An array in a file, of which only the header has been read."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo
    header_bytes: int
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype

    def read(self) -> np.ndarray:
        """Returns the array; its size was compared with the file's when it was opened."""
        with self.archive.open(self.info) as stream:
            content = stream.read(self.info.file_size + 1)
        if len(content) != self.info.file_size:
            raise ValueError(f"{self.info.filename} is cut off")
        order: Literal["C", "F"] = "F" if self.is_fortran else "C"
        return np.ndarray(
            self.shape, self.dtype, content, offset=self.header_bytes, order=order
        ).copy()


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[dict[str, _Entry]]:
    """Gives the arrays of a file by name, each with its header alone.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is none of ours, or damaged; so are errors of this kind while it is open.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError("it is not a file")
        with open(path, "rb") as handle, zipfile.ZipFile(handle) as archive:
            num_bytes = os.fstat(handle.fileno()).st_size
            yield {name: _entry(archive, f"{name}.npy", num_bytes) for name in _ARRAYS}
    except _OtherEncoderError:
        raise
    # What NumPy, zipfile and json raise for what is none of these files, or a damaged one.
    except (
        *(KeyError, ValueError, TypeError, EOFError, OverflowError, RecursionError),
        *(NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error),
        *(SyntaxError, tokenize.TokenError),
    ) as error:
        raise _damaged(path, str(error)[:200]) from error


def _entry(archive: zipfile.ZipFile, name: str, num_bytes: int) -> _Entry:
    """Weighs an array: by its own header, by the archive's, and by the size of the file."""
    info = archive.getinfo(name)
    if info.flag_bits & _ENCRYPTED or info.compress_type not in _COMPRESSIONS:
        raise ValueError(f"{name} is encrypted, or compressed in a way that NumPy does not know")
    if info.compress_size > num_bytes or info.file_size > _SMALL_BYTES + _MOST_TIMES * num_bytes:
        raise ValueError(
            f"{name} claims {info.file_size} bytes, more than a file of {num_bytes} can hold"
        )
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"{name} has version {version} of NumPy's format")
        shape, is_fortran, dtype = _HEADERS[version](stream)
        header_bytes = stream.tell()
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != info.file_size - header_bytes:
        raise ValueError(f"{name} claims {dtype} {list(shape)}, which is not what it holds")
    return _Entry(archive, info, header_bytes, shape, is_fortran, dtype)


def _count(entry: _Entry) -> int:
    if entry.dtype.kind not in "iu" or entry.shape != ():
        raise ValueError(f"its num_samples is {entry.dtype} {list(entry.shape)}, no whole number")
    if (count := int(entry.read())) < 1:
        raise ValueError(f"its num_samples is {count}")
    return count


def _text(entry: _Entry) -> str:
    if entry.dtype.kind != "U" or entry.shape != () or entry.info.file_size > _MOST_TEXT_BYTES:
        raise ValueError(f"{entry.info.filename} is {entry.dtype} {list(entry.shape)}, no text")
    return str(entry.read())


def _damaged(path: object, reason: str) -> ValueError:
    return ValueError(
        f"{path} is not a whole file of latents ({reason}). They are made with "
        "python -m umt_jax.infer --save_latents=DIR."
    )
