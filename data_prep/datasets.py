"""The datasets in a data folder: which are there, which are up to date, and how one gets there.

A dataset is complete when `segments/<domain>/1.0.0` exists, since it is moved there as a whole.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.builder import VERSION
from data_prep.recipe import Recipe
from data_prep.tracks import SoundFile
from umt_jax import sound_file
from umt_jax.config import DATASET_NAME

Metadata = dict[str, Any]
"""What `builder.describe` returned when a domain was built."""

_STAGING = ".incomplete"


def read_metadata(data_dir: Path) -> dict[str, Metadata]:
    """Returns the metadata of each complete domain.

    Raises:
        ValueError: A domain's metadata are damaged.
    """
    metadata = {}
    for path in sorted(data_dir.glob(f"{DATASET_NAME}/*/{VERSION}/metadata.json")):
        try:
            metadata[path.parent.parent.name] = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}). Remove {path.parent}.") from error
    return metadata


def check_settings(
    existing: Mapping[str, Metadata], recipe: Recipe, *, rebuilt: Collection[str]
) -> None:
    """Checks that all domains will have the same settings.

    Raises:
        ValueError: One that is not among `rebuilt` has others.
    """
    for name, metadata in existing.items():
        if name in rebuilt:
            continue
        for flag, value in dataclasses.asdict(recipe).items():
            if metadata.get(flag) != value:
                raise ValueError(
                    f"--{flag}={value}, but domain {name} was built with {metadata.get(flag)}. Use "
                    f"that value, another --data_dir, or --overwrite to rebuild the domains that "
                    "--audio_dir has."
                )


def is_up_to_date(metadata: Metadata | None, files: Sequence[SoundFile], recipe: Recipe) -> bool:
    """Whether a domain was built with this recipe, out of files of the same names and content."""
    if metadata is None:
        return False
    if any(metadata.get(flag) != value for flag, value in dataclasses.asdict(recipe).items()):
        return False
    built_from = [*metadata["tracks"], *metadata["left_out"]]
    if {file["name"]: file["sha256"] for file in built_from} != {
        file.name: file.sha256 for file in files
    }:
        return False
    # PyAV may have been installed since, because the last build said so.
    reasons = {file["reason"] for file in metadata["left_out"]}
    return not (sound_file.NEEDS_PYAV in reasons and sound_file.has_pyav())


@contextlib.contextmanager
def staging(data_dir: Path) -> Iterator[Path]:
    """Gives a folder for unfinished work in `data_dir`, which is removed at the end.

    One that an earlier build left behind because it was killed is removed first.

    Raises:
        OSError: `data_dir` cannot be written, or another build is writing to it.
    """
    folder = data_dir / _STAGING
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(f"Another build is writing to {data_dir}. Wait for its end.") from error
        try:
            for leftover in folder.iterdir():
                if leftover.is_dir():
                    shutil.rmtree(leftover)
                elif leftover.name != "lock":
                    leftover.unlink()
            yield folder
        finally:
            shutil.rmtree(folder)


def install(built: Path, data_dir: Path, *, staging: Path) -> None:
    """Moves a complete dataset from `staging` to where readers look, in place of an older one."""
    # TFDS wants the same folders in staging, so that the relative path is the same.
    target = data_dir / built.relative_to(staging)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        os.rename(target, built.with_name("replaced"))
    os.rename(built, target)
