"""The JSON files of a checkpoint, each with a checksum beside it.

A flipped bit in JSON mostly leaves JSON: a dilation of 8 becomes one of 0 or 9, a rate of 8000 Hz
one of 8001, and the model loads and plays something else.
"""

import hashlib

import orbax.checkpoint as ocp
from etils import epath

FILES = {"config": "metadata", "dataset": "metadata", "metrics": "metrics"}
"""Name of the file of JSON in each part of a checkpoint that is one."""

CHECKSUM = "sha256"
"""Name of the file beside it. Checkpoints of earlier versions have none."""


class ChangedError(ValueError):
    """A file of JSON is not the one that was written."""


class Handler(ocp.JsonCheckpointHandler):
    """Saves JSON, and its checksum; checkpoints load with Orbax's own handler as well."""

    def __init__(self, part: str) -> None:
        """Takes the part of a checkpoint that it saves."""
        self._part = part
        super().__init__(FILES[part])

    @classmethod
    def typestr(cls) -> str:
        """Returns the name in checkpoints, that of Orbax's handler."""
        base = ocp.JsonCheckpointHandler
        return f"{base.__module__}.{base.__qualname__}"

    def finalize(self, directory: epath.Path) -> None:
        """Writes the checksum, when everything else is written."""
        checksum = _sha256(directory / FILES[self._part])
        (directory / CHECKSUM).write_bytes(checksum + b"\n")


def register(handlers: ocp.handlers.DefaultCheckpointHandlerRegistry) -> None:
    """Has a `CheckpointManager` use `Handler` for all JSON of a checkpoint."""
    for part in FILES:
        handler = Handler(part)
        handlers.add(part, ocp.args.JsonSave, handler)
        handlers.add(part, ocp.args.JsonRestore, handler)


def check(checkpoint_folder: epath.Path, part: str) -> None:
    """Compares a file of JSON with its checksum, if it has one.

    Raises:
        ChangedError: They differ.
    """
    path = checkpoint_folder / part / FILES[part]
    checksum = checkpoint_folder / part / CHECKSUM
    if not checksum.exists():
        return
    expected = _sha256(path)
    with checksum.open("rb") as file:
        written = file.read(len(expected))  # No more, whatever is there.
    if written != expected:
        raise ChangedError(
            f"{path} is damaged: its checksum is another than the one beside it. Get the "
            "checkpoint again from where it came from; or, if the file was edited on purpose, "
            f"remove {checksum}."
        )


def _sha256(path: epath.Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).hexdigest().encode()
