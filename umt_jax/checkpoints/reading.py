"""Reads the checkpoints of a run by TensorStore and NumPy alone; `checkpoint` writes them.

A run's folder, `workdir`, holds `checkpoints/<step>/`, each with four parts: parameters,
optimizers, configuration and description of the dataset. Inference reads the first and third, for
which neither Orbax nor JAX is imported: that took half of the time to the first sound.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from umt_jax import storage
from umt_jax.checkpoints import model_file, stored_arrays, stored_json
from umt_jax.config import Config
from umt_jax.model import array_shapes

# What is larger was written by nobody: a configuration has a few kilobytes, and the description of
# a dataset a few hundred bytes for each recording.
_MOST_JSON_BYTES = {"config": 2**20, "dataset": 2**28, "metrics": 2**26}

METRIC = "reconstruction"
"""The metric of a checkpoint that decides which one is the best, the lowest: nats per sample."""

COMMITTED = "commit_success.txt"
"""Name of the file that Orbax writes last: in Google's stores, whose folders it does not rename."""


def folder_of(workdir: str) -> epath.Path:
    """Returns where a run keeps its checkpoints, each in a folder named after its step.

    Raises:
        ValueError: Its name holds what TensorStore cannot write.
    """
    if storage.is_local(workdir):
        workdir = os.path.abspath(workdir)  # Orbax asks for it.
        if not _is_text(workdir):
            raise ValueError(
                f"{os.fsencode(workdir)!r} is not the name of a folder for a run: it is no UTF-8, "
                "in which checkpoints name their files. Rename the folder, or take another."
            )
        if os.sep != "\\" and "\\" in workdir:  # TensorStore would write below `a/b` for `a\b`.
            raise ValueError(
                f"{workdir} is not the name of a folder for a run: checkpoints cannot be written "
                "below a name with a backslash. Rename the folder, or take another."
            )
    return storage.path(workdir) / "checkpoints"


def steps(folder: epath.Path) -> list[int]:
    """Returns the steps of the finished checkpoints, sorted; an empty folder is none of them."""
    if not folder.is_dir():
        return []
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if path.name.isdecimal()
        and path.name == str(int(path.name))
        and path.is_dir()
        and any(path.iterdir())
        and (not _is_written_in_place(path) or (path / COMMITTED).exists())
    )


def _is_written_in_place(path: epath.Path) -> bool:
    return os.fspath(path).startswith("gs://")


def check_files(folder: epath.Path) -> None:
    """Looks at a checkpoint's files before they are opened.

    Raises:
        ValueError: One is a pipe or a device, whose reading may never end, or far too large.
    """
    for path in storage.entries_below(folder) if storage.is_local(folder) else ():
        if not os.path.isfile(path):
            raise ValueError(f"{path} is not a file")
    for part, name in stored_json.FILES.items():
        path = folder / part / name
        if path.exists() and (num_bytes := path.stat().length) > _MOST_JSON_BYTES[part]:
            raise ValueError(f"{path} has {num_bytes} bytes, more than {_MOST_JSON_BYTES[part]}")


def has_checkpoint(workdir: str) -> bool:
    """Says whether a run has saved anything yet."""
    return bool(steps(folder_of(workdir)))


def newest_step(workdir: str) -> int | None:
    """Returns the step of a run's newest checkpoint; None if it has none."""
    return max(steps(folder_of(workdir)), default=None)


def read_config(workdir: str, step: int | None = None) -> Config:
    """Returns the configuration that a run was trained with.

    Args:
        workdir: Folder of the run, or a model file.
        step: Which checkpoint; None for the best.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: What is there was not written by this project.
    """
    if model_file.is_model_file(workdir):
        _check_no_step(workdir, step)
        return model_file.read_config(workdir)
    return _config(workdir, _checkpoint(workdir, step))


def read_dataset(workdir: str, step: int | None = None) -> dict[str, Any]:
    """Returns what the data builder recorded of each domain that a run was trained on.

    Args and errors as `read_config`.
    """
    return _read_json(_checkpoint(workdir, step), "dataset")


def read_arrays(workdir: str, step: int | None = None) -> dict[str, np.ndarray]:
    """Returns the trained arrays as NumPy's, float32, by the names of `array_shapes`.

    Args and errors as `read_config`.
    """
    if model_file.is_model_file(workdir):
        _check_no_step(workdir, step)
        return model_file.read_arrays(workdir)
    folder = _checkpoint(workdir, step)
    shapes = array_shapes.shapes(_config(workdir, folder))
    needed = {name: (shape, np.dtype(np.float32)) for name, shape in shapes.items()}
    try:
        stored_arrays.repair(folder / "parameters")
        differences = stored_arrays.differences(folder / "parameters", needed, rounded=True)
        stored_arrays.check_size(folder / "parameters")
        if not differences:
            return stored_arrays.read(folder / "parameters", shapes)
    except (KeyError, ValueError, TypeError, RecursionError, OSError) as error:
        raise _damaged(folder, "parameters") from error
    raise ValueError(
        f"{folder} does not hold the parameters that its configuration describes: "
        f"{first(differences)}. Get it again from where it came from."
    )


def _check_no_step(path: str, step: int | None) -> None:
    if step is not None:
        raise ValueError(
            f"step={step} names a checkpoint of a run, and {path} is one model's file."
        )


def best_step(workdir: str) -> int:
    """Returns the step of the checkpoint that inference takes if none is named.

    Errors as `read_config`.
    """
    folder = _existing(workdir)
    step = None
    try:
        losses = {}
        for step in steps(folder):
            if not (folder / str(step) / "metrics").exists():
                continue  # Written by another program, as what is wrong with it will be told.
            stored_json.check(folder / str(step), "metrics")
            losses[step] = float(_content(folder / str(step), "metrics")[METRIC])
    except (stored_json.ChangedError, PermissionError):
        raise
    except _DAMAGES as error:
        raise _damaged(folder / str(step), "metrics") from error
    if not losses:
        return max(steps(folder))
    return min(losses, key=lambda step: (losses[step], -step))  # Of equals the newest.


# What files raise whose bytes are not what was written: the last two JSON that is nested without
# end, or holds text for a number.
_DAMAGES = (KeyError, ValueError, OSError, RecursionError, TypeError)


def loss(workdir: str, step: int) -> float:
    """Returns a checkpoint's validation loss in nats per sample, infinite where it is not known."""
    return float(_read_json(_checkpoint(workdir, step), "metrics")[METRIC])


def _config(workdir: str, folder: epath.Path) -> Config:
    """Returns the configuration of a checkpoint, given its folder."""
    fields = _read_json(folder, "config")
    try:
        return Config.from_json(fields)
    except ValueError as error:
        raise ValueError(f"The checkpoint in {workdir} does not fit: {error}") from error


def _read_json(folder: epath.Path, part: str) -> Any:
    """Returns the content of one part of a checkpoint, given its folder."""
    try:
        stored_json.check(folder, part)
        return _content(folder, part)
    except (stored_json.ChangedError, PermissionError):
        raise
    except _DAMAGES as error:
        raise _damaged(folder, part) from error


def _content(folder: epath.Path, part: str) -> Any:
    return json.loads((folder / part / stored_json.FILES[part]).read_text())


def _checkpoint(workdir: str, step: int | None) -> epath.Path:
    """Returns the folder of a step, or of the best for None, once its files were looked at."""
    folder = _existing(workdir)
    if step is None:
        step = best_step(workdir)
    available = steps(folder)
    if step not in available:
        raise FileNotFoundError(
            f"{workdir} has no step {step}. There are: {', '.join(map(str, available))}."
        )
    return folder / str(step)


def _existing(workdir: str) -> epath.Path:
    """Returns the folder of a run's checkpoints, of which there is at least one.

    Raises:
        FileNotFoundError: There is none.
        ValueError: A file of one cannot be read.
    """
    folder = folder_of(workdir)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{workdir} is not the folder of a training run: it has no folder "
            "'checkpoints'. Give the folder that training wrote, its workdir."
        )
    available = steps(folder)
    if not available:
        raise FileNotFoundError(f"{workdir} holds no finished checkpoint yet.")
    for step in available:
        try:
            check_files(folder / str(step))
        except PermissionError:
            raise
        except (ValueError, OSError) as error:
            raise _damaged(folder / str(step), "files") from error
    return folder


def _damaged(folder: epath.Path, part: str) -> ValueError:
    return ValueError(
        f"{folder} is damaged, or holds a checkpoint of another program: its {part} cannot be read."
    )


def first(differences: Sequence[str]) -> str:
    """Returns the first of some clauses, and how many there are more."""
    more = f", and {len(differences) - 1} more" if len(differences) > 1 else ""
    return f"{differences[0]}{more}"


def _is_text(path: str) -> bool:
    """Says whether a path is valid UTF-8; Python keeps other bytes as lone surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
