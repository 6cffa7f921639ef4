"""Checkpoints that cannot be loaded: finds them, names them in the log and sets them aside.

Orbax renames a checkpoint when it is whole. So a run that was killed while it saved leaves a
*half-written* one, which its name gives away. A *damaged* one has the name of a finished one, but a
file in it is missing, cut off or garbled.
"""

import contextlib
import json
from typing import Any

import jax
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from umt_jax.checkpoints import checkpoint, orbax_handlers, reading, stored_arrays, stored_json
from umt_jax.config import Config, NewerVersionError

# TensorStore's words for files that may well be whole, but could not be read today.
_UNREACHABLE = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "UNAUTHENTICATED")


def set_aside(workdir: str) -> None:
    """Leaves only checkpoints that can be loaded, and says what is wrong with the others.

    To be called before training opens them. Process 0 reads them all; the other ones wait for it.
    Half-written ones are removed. One whose arrays were only never merged is repaired. Damaged ones
    are renamed to `<step>.damaged` and kept.

    Args:
        workdir: Folder of a run; need not exist yet.

    Raises:
        ValueError: There are checkpoints, and all of them are damaged. They keep their names. Or
            the folder's name is one in which checkpoints cannot be written.
        OSError: They cannot be reached.
    """
    if jax.process_index() == 0:
        _set_aside(reading.folder_of(workdir))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("set_aside")


def _set_aside(folder: epath.Path) -> None:
    if not folder.is_dir():
        return
    checkpoint.remove_half_written(folder)
    checkpoint.remove_empty(folder)
    steps = reading.steps(folder)
    reasons = {step: _damage(folder / str(step)) for step in steps}
    damaged = {step: reason for step, reason in reasons.items() if reason}
    if damaged and len(damaged) == len(steps):
        named = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
        raise ValueError(
            f"No checkpoint in {folder} can be loaded ({named}). Bring one back from a backup, or "
            "start anew in another workdir."
        )
    for step, reason in damaged.items():
        kept = folder / f"{step}.damaged"
        logging.warning("Leaving out %s, which is damaged: %s", folder / str(step), reason)
        if kept.exists():
            kept.rmtree()
        (folder / str(step)).rename(kept)


def _damage(checkpoint_folder: epath.Path) -> str | None:
    """Returns why a checkpoint cannot be loaded; None if it can."""
    if (checkpoint_folder / "parameters").is_dir() and not (
        checkpoint_folder / "optimizers"
    ).is_dir():
        return "weights alone, as umt_jax.export writes them; give them as init_from"
    try:
        reading.check_files(checkpoint_folder)
        for part in checkpoint.ARRAYS:
            stored_arrays.repair(checkpoint_folder / part)
            _read_arrays(checkpoint_folder / part)
        for part, filename in stored_json.FILES.items():
            content = _read_json(checkpoint_folder / part / filename)
            stored_json.check(checkpoint_folder, part)
            if part == "config":
                with contextlib.suppress(NewerVersionError):  # Which is told when it is restored.
                    Config.from_json(content)
    except (ValueError, RecursionError, FileNotFoundError) as error:
        reason = " ".join(str(error).split())[:200]
        if any(word in reason for word in _UNREACHABLE):
            raise OSError(f"{checkpoint_folder} cannot be reached: {reason}") from error
        return reason
    return None


def _read_arrays(folder: epath.Path) -> None:
    """Reads the bytes of every array, and what describes them."""
    stored_arrays.check(folder)
    orbax_handlers.check_descriptions(folder)


def _read_json(path: epath.Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
