"""Latents of one recording as a NumPy .npz file, with what has to be known to use them."""

import dataclasses
import json
import os
import zipfile
from pathlib import Path

import numpy as np
from etils import epath

from umt_jax import storage
from umt_jax.config import ModelConfig
from umt_jax.shapes import Array, Float

EXTENSION = ".npz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentFile:
    """What a file holds.

    Attributes:
        latents: Latents, float32, [F, Z].
        num_samples: Samples of the recording at the model's rate; it may end inside the last latent
            frame.
        source: Name of the recording.
        encoder: Fingerprint of the encoder that made them (`encoder.fingerprint`).
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


def find(folder: str | os.PathLike[str]) -> list[Path]:
    """Returns the files of latents in a folder and its subfolders, sorted, hidden ones left out."""
    files = (Path(path) for path in storage.files_below(folder))
    return sorted(path for path in files if is_latent_file(path))


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


def read(path: str | os.PathLike[str], *, encoder: str) -> LatentFile:
    """Reads latents for the decoders that belong to an encoder.

    Args:
        path: The file.
        encoder: That encoder's fingerprint.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, is damaged, or its latents are another encoder's.
    """
    file = _read(path)
    if file.encoder != encoder:
        raise ValueError(
            f"{path} holds latents of another encoder: its fingerprint is {file.encoder}, this "
            f"checkpoint's is {encoder}. Encode the recording, {file.source!r}, with this one."
        )
    frames, channels = file.latents.shape
    if channels != file.model.latent_channels or not 0 < file.num_samples:
        raise _damaged(path, f"{channels} channels and {file.num_samples} samples do not fit it")
    if -(-file.num_samples // file.model.pool_samples) != frames:
        raise _damaged(path, f"{file.num_samples} samples are not {frames} latent frames")
    if not np.isfinite(file.latents).all():
        raise _damaged(path, "some latents are not finite numbers")
    return file


def num_samples(path: str | os.PathLike[str]) -> int:
    """Returns how many samples a file says that it stands for; 0 if it does not say."""
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            return int(arrays["num_samples"])
    except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile):
        return 0


def _read(path: str | os.PathLike[str]) -> LatentFile:
    try:
        # Opened here: of a file that it cannot read NumPy would leave the handle open.
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            latents = arrays["latents"]
            if latents.dtype != np.float32 or latents.ndim != 2:
                raise ValueError(f"its latents are {latents.dtype}, {latents.shape}")
            return LatentFile(
                latents=latents,
                num_samples=int(arrays["num_samples"]),
                source=str(arrays["source"]),
                encoder=str(arrays["encoder"]),
                preset=str(arrays["preset"]),
                model=ModelConfig(**json.loads(str(arrays["model"]))),
            )
    # What NumPy raises for what is none of its files, or a damaged one.
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: object, reason: str) -> ValueError:
    return ValueError(
        f"{path} is not a whole file of latents ({reason}). They are made with "
        "python -m umt_jax.infer --save_latents=DIR."
    )
