"""Lists the prepared datasets in a --data_dir.

A dataset is the folder `segments/<domain>/<version>`, and complete when its `dataset_info.json`,
which is written last, is there.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from etils import epath

from umt_jax import storage
from umt_jax.config import DATASET_NAME, domain_name

_LAST_WRITTEN = "dataset_info.json"


def find(data_dir: epath.Path) -> dict[str, epath.Path]:
    """Returns the folder of each domain's newest complete dataset, domains sorted by name."""
    root = data_dir / DATASET_NAME
    folders = {}
    for domain in sorted(root.iterdir()) if root.is_dir() else ():
        if domain.is_dir() and (complete := versions(domain)):
            folders[domain_name(domain.name)] = complete[-1]
    return folders


def versions(domain: epath.Path) -> list[epath.Path]:
    """Returns the complete datasets in a domain's folder, the oldest first."""
    if not domain.is_dir():
        return []
    complete = [folder for folder in domain.iterdir() if (folder / _LAST_WRITTEN).exists()]
    return sorted(complete, key=version)


def version(dataset: epath.Path) -> tuple[int, ...]:
    """Returns a dataset's version, which the name of its folder is."""
    return tuple(int(part) for part in dataset.name.split("."))


def read_metadata(dataset: epath.Path) -> dict[str, Any]:
    """Returns what `data_prep.build` recorded: settings, tracks, files left out.

    Raises:
        ValueError: It is damaged.
    """
    path = dataset / "metadata.json"
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Remove {dataset}.") from error


def rms_dbfs(metadata: dict[str, Any]) -> float | None:
    """Returns the level that tracks were brought to, if any, whichever version recorded it."""
    return metadata.get("rms_dbfs", metadata.get("loudness_dbfs"))


def remove(dataset: epath.Path) -> None:
    """Removes a dataset, first the file that makes it complete."""
    (dataset / _LAST_WRITTEN).unlink()
    dataset.rmtree()


def local_copy(dataset: epath.Path) -> Path:
    """Returns a local folder with a dataset's files, since shards are read from local disks only.

    A dataset elsewhere is copied to the cache folder once and stays there for the next start.

    Raises:
        OSError: It could not be copied, for want of space perhaps.
    """
    if storage.is_local(dataset):
        return Path(dataset)
    # Metadata hold a hash of every track and all settings, from which every shard follows. Not by a
    # glob pattern, which would begin with the path.
    described = sorted(path for path in dataset.iterdir() if path.name.endswith(".json"))
    identity = [os.fspath(dataset), *(path.read_text() for path in described)]
    digest = hashlib.sha256(repr(identity).encode()).hexdigest()
    folder = storage.cache_folder() / "data" / digest[:32]
    storage.copy_files([path for path in dataset.iterdir() if not path.is_dir()], folder)
    return folder
