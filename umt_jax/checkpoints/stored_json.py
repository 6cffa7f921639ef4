"""The JSON files of a checkpoint, each with a checksum beside it.

A flipped bit in JSON mostly leaves JSON: a dilation of 8 becomes one of 0 or 9, a rate of 8000 Hz
one of 8001, and the model loads and plays something else.
"""

import hashlib

from etils import epath

FILES = {"config": "metadata", "dataset": "metadata", "metrics": "metrics"}
"""Name of the file of JSON in each part of a checkpoint that is one."""

CHECKSUM = "sha256"
"""Name of the file beside it. Checkpoints of earlier versions have none."""


class ChangedError(ValueError):
    """A file of JSON is not the one that was written."""


def check(checkpoint_folder: epath.Path, part: str) -> None:
    """Compares a file of JSON with its checksum, if it has one.

    Raises:
        ChangedError: They differ.
    """
    path = checkpoint_folder / part / FILES[part]
    checksum = checkpoint_folder / part / CHECKSUM
    if not checksum.exists():
        return
    expected = checksum_of(path)
    with checksum.open("rb") as file:
        written = file.read(len(expected))  # No more, whatever is there.
    if written != expected:
        raise ChangedError(
            f"{path} is damaged: its checksum is another than the one beside it. Get the "
            "checkpoint again from where it came from; or, if the file was edited on purpose, "
            f"remove {checksum}."
        )


def checksum_of(path: epath.Path) -> bytes:
    """Returns what the file beside a file of JSON holds: its SHA-256, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest().encode()
