"""The datasets in a data folder: which are up to date, and how a new one gets there.

On a local disk a dataset is made in a hidden folder and moved to `segments/<domain>/1.0.0` as a
whole. Object stores (gs://, s3://) move no folder at once, so there it is made where it stays, in a
folder of a version of its own, and the file that makes it complete is written last; what is older
goes then. Either way a dataset is complete or not there, and a rebuilt one replaces the older when
it is complete itself.
"""

import contextlib
import dataclasses
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from data_prep import augment
from data_prep.settings import Recipe
from data_prep.tracks import SoundFile
from umt_jax import storage
from umt_jax.audio import decoding
from umt_jax.config import DATASET_NAME
from umt_jax.data import catalog

Metadata = dict[str, Any]
"""What `tfds_files.describe` returned when a domain was built."""

_VERSION = "1.0.0"
_STAGING = ".incomplete"


def read_metadata(data_dir: epath.Path) -> dict[str, Metadata]:
    """Returns the metadata of each complete domain.

    Raises:
        ValueError: A domain's metadata are damaged.
    """
    return {name: catalog.read_metadata(folder) for name, folder in catalog.find(data_dir).items()}


def check_settings(
    existing: Mapping[str, Metadata], recipe: Recipe, *, rebuilt: Collection[str]
) -> None:
    """Checks that all domains will have the same settings, and the same pitch modulation.

    Raises:
        ValueError: One that is not among `rebuilt` has others.
    """
    for name, metadata in existing.items():
        if name in rebuilt:
            continue
        if _augmentation_version(metadata) != augment.VERSION:
            raise ValueError(
                f"Domain {name} was built by another version of data_prep.build, which modulates "
                "pitch in another way. Use another --data_dir, or --overwrite to rebuild the "
                "domains that --audio_dir has."
            )
        for flag, value in dataclasses.asdict(recipe).items():
            before = _setting(metadata, flag)
            if before != value:
                raise ValueError(
                    f"--{flag}={_shown(value)}, but domain {name} was built with {_shown(before)}. "
                    "Use that value, another --data_dir, or --overwrite to rebuild the domains "
                    "that --audio_dir has."
                )


def is_up_to_date(metadata: Metadata | None, files: Sequence[SoundFile], recipe: Recipe) -> bool:
    """Whether a domain was built with this recipe, out of files of the same names and content."""
    if metadata is None or _augmentation_version(metadata) != augment.VERSION:
        return False
    if any(_setting(metadata, flag) != value for flag, value in dataclasses.asdict(recipe).items()):
        return False
    built_from = [*metadata["tracks"], *metadata["left_out"]]
    if {file["name"]: file["sha256"] for file in built_from} != {
        file.name: file.sha256 for file in files
    }:
        return False
    # PyAV may have been installed since, because the last build said so.
    return not any(
        decoding.is_cured(file.get("needs", ""), file["reason"]) for file in metadata["left_out"]
    )


def _setting(metadata: Metadata, name: str) -> Any:
    """Returns a setting as in `Recipe`; what an earlier version did not record is the default."""
    if name == "rms_dbfs":
        return catalog.rms_dbfs(metadata)
    value = metadata.get(name, getattr(Recipe, name))
    return tuple(value) if isinstance(value, list) else value


def _shown(value: Any) -> str:
    """Returns a setting as a command line has it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _augmentation_version(metadata: Metadata) -> int:
    return metadata.get("augmentation_version", 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Staging:
    """Where a build works.

    Attributes:
        scratch: A folder of its own in the data folder, removed at its end.
        datasets: Folder in which the datasets are made, each in `<domain>/<version>`.
        version: Version of the datasets that it makes.
        final: Folder in which readers look for them.
    """

    scratch: epath.Path
    datasets: epath.Path
    version: str
    final: epath.Path

    def folder(self, domain: str) -> epath.Path:
        """Returns where to make a domain's dataset."""
        return self.datasets / domain / self.version

    def install(self, domain: str) -> None:
        """Puts a domain's complete dataset in the place of older ones."""
        built, target = self.folder(domain), self.final / domain / self.version
        if built != target:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                os.rename(target, built.with_name("replaced"))
            os.rename(built, target)
        for other in catalog.versions(target.parent):
            # A newer one is that of a build that began later and ended earlier.
            is_older = catalog.version(other) < catalog.version(target)
            if other != target and (is_older or built != target):
                catalog.remove(other)


@contextlib.contextmanager
def staging(data_dir: epath.Path) -> Iterator[Staging]:
    """Gives a place for unfinished work in `data_dir`.

    On a local disk, what an earlier build left behind because it was killed is removed first.
    Elsewhere nothing tells it from a build that is running, so it stays.

    Raises:
        OSError: `data_dir` cannot be written, or another build of this machine is writing to it.
    """
    scratch, final = data_dir / _STAGING, data_dir / DATASET_NAME
    if storage.is_local(data_dir):
        with _locked(Path(scratch)):
            datasets = scratch / DATASET_NAME
            yield Staging(scratch=scratch, datasets=datasets, version=_VERSION, final=final)
        return
    scratch = scratch / uuid.uuid4().hex
    try:
        yield Staging(scratch=scratch, datasets=final, version=_next_version(data_dir), final=final)
    finally:
        scratch.rmtree(missing_ok=True)


def _next_version(data_dir: epath.Path) -> str:
    """Returns a version that no other build takes, and newer than all there are."""
    there = catalog.find(data_dir).values()
    newest = max((catalog.version(folder) for folder in there), default=(0,))
    return f"1.0.{max(time.time_ns() // 1000, newest[-1] + 1)}"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Makes an empty folder that no other process has until the end, when it is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(
                f"Another build is writing to {folder.parent}. Wait for its end."
            ) from error
        try:
            for leftover in folder.iterdir():
                if leftover.is_dir():
                    shutil.rmtree(leftover)
                elif leftover.name != "lock":
                    leftover.unlink()
            yield
        finally:
            shutil.rmtree(folder)
