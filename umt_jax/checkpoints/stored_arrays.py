"""The files of a tree of arrays in a checkpoint: merged, read back, repaired, described.

Each process writes its arrays to a key-value store of its own, `ocdbt.process_<number>`; then one
of them merges these stores, which writes an index of all, `manifest.ocdbt`. Without it nothing can
be loaded, although every byte is there. Orbax 0.12 looks for the stores with a glob pattern that
starts with the path, so in a folder named `v2 [final]` it finds none, and reports success all the
same.
"""

import json
import math
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorstore as ts
from absl import logging
from etils import epath

from umt_jax import storage

_INDEX = "manifest.ocdbt"
_STORE = "ocdbt.process_"
_DESCRIPTION = b"/.zarray"

# Trained arrays are nearly random, and compressed by a tenth; zeros can be compressed by more. Much
# more than this is what no file holds.
_MOST_TIMES = 100
_SMALL_BYTES = 2**26

# Orbax's own: small values, which describe arrays, in the index itself.
_CONFIG = {
    "max_inline_value_bytes": 1024,
    "max_decoded_node_bytes": 100_000_000,
    "manifest_kind": "single",
}


def merge(folder: epath.Path) -> None:
    """Writes the index of what all processes have stored in a folder.

    Raises:
        ValueError: They stored nothing, or it cannot be read.
    """
    context = ts.Context()  # Stores of different contexts cannot be merged.
    merged = _open(folder, context, config=_CONFIG)
    transaction = ts.Transaction(atomic=True)
    stores = [_open(path, context) for path in _stores(folder)]
    if not stores or not all(store.list().result() for store in stores):
        raise ValueError(f"{folder} holds no arrays")
    for store in stores:
        store.experimental_copy_range_to(merged.with_transaction(transaction)).result()
    transaction.commit_sync()


def repair(folder: epath.Path) -> bool:
    """Merges the stores of a folder whose index is missing; returns whether it had to.

    Raises:
        ValueError: It cannot be merged.
    """
    if (folder / _INDEX).exists() or not folder.is_dir() or not _stores(folder):
        return False
    merge(folder)
    logging.warning("Repaired %s: its arrays were there, but the index of them was not.", folder)
    return True


def check(folder: epath.Path) -> None:
    """Reads the bytes of every array, and what describes them.

    Raises:
        ValueError: They cannot be read.
        FileNotFoundError: A file is missing.
    """
    store = _open(folder)
    keys = store.list().result()
    # No array and no description of one is empty; what was in a file that is gone reads so.
    if not keys or not all(store.read(key).result().value for key in keys):
        raise FileNotFoundError(f"a file of arrays in {folder} is missing")


def check_complete(folder: epath.Path) -> None:
    """Raises `ValueError` unless the index knows all that the processes have stored."""
    known = set(_open(folder).list().result())
    written = {key for path in _stores(folder) for key in _open(path).list().result()}
    if not written <= known:
        raise ValueError(f"the index of {folder} lacks {len(written - known)} of its entries")


def check_size(folder: epath.Path) -> None:
    """Compares how large arrays say they are with the files that hold them, before they are read.

    Raises:
        ValueError: They say more than the files can hold.
    """
    declared = sum(math.prod(shape) * dtype.itemsize for shape, dtype in described(folder).values())
    there = sum(path.stat().length for path in storage.files_below(folder))
    if declared > _SMALL_BYTES + _MOST_TIMES * there:
        raise ValueError(
            f"{folder} tells of {declared / 1e9:.3g} GB of arrays, but its files have {there} bytes"
        )


def differences(
    folder: epath.Path,
    needed: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    *,
    rounded: bool = False,
) -> list[str]:
    """Says how the stored arrays differ from those of a model.

    Orbax itself converts any type into any other without a word.

    Args:
        folder: Holds a tree of arrays.
        needed: Shape and type of each of the model's arrays by its name.
        rounded: Allows float16 in place of float32, as in exports.

    Returns:
        A clause for each array that is missing, too many, or of another shape or type.
    """
    stored = described(folder)
    clauses = [f"{name} is missing" for name in needed if name not in stored]
    clauses += [f"{name} is too many" for name in stored if name not in needed]
    for name in needed:
        if name in stored and stored[name] != needed[name]:
            (shape, dtype), (needed_shape, needed_dtype) = stored[name], needed[name]
            if rounded and shape == needed_shape and (dtype, needed_dtype) == _ROUNDED:
                continue
            clauses.append(
                f"{name} is {dtype} {list(shape)}, not {needed_dtype} {list(needed_shape)}"
            )
    return clauses


_ROUNDED = np.dtype(np.float16), np.dtype(np.float32)


def read(folder: epath.Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns stored arrays by name, in float32.

    Raises:
        ValueError: An array is missing, or cannot be read.
    """
    base, context = _spec(folder), ts.Context()
    opened = {
        name: ts.open({"driver": "zarr", "kvstore": {**base, "path": f"{name}/"}}, context=context)
        for name in names
    }
    under_way = {name: array.result().read() for name, array in opened.items()}
    return {
        name: np.asarray(array.result()).astype(np.float32, copy=False)
        for name, array in under_way.items()
    }


def described(folder: epath.Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Returns shape and type of each stored array by its name."""
    store = _open(folder)
    descriptions = {
        key.removesuffix(_DESCRIPTION).decode(): json.loads(store.read(key).result().value)
        for key in store.list().result()
        if key.endswith(_DESCRIPTION)
    }
    return {
        name: (tuple(about["shape"]), np.dtype(about["dtype"]))
        for name, about in descriptions.items()
    }


def _stores(folder: epath.Path) -> list[epath.Path]:
    return sorted(path for path in folder.iterdir() if path.name.startswith(_STORE))


def _open(folder: epath.Path, context: ts.Context | None = None, **options: Any) -> ts.KvStore:
    return ts.KvStore.open(_spec(folder) | options, context=context or ts.Context()).result()


def _spec(folder: epath.Path) -> dict[str, Any]:
    # Not as a URL, where `#`, `%` and `?` mean something else.
    base: Any = {"driver": "file", "path": f"{folder}/"}
    if not storage.is_local(folder):
        base = f"{urllib.parse.quote(str(folder), safe=':/')}/"
    return {"driver": "ocdbt", "base": base}
