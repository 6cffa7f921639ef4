"""How Orbax saves a checkpoint: arrays, which it then reads back, and JSON with a checksum."""

import glob
import json

import orbax.checkpoint as ocp
from etils import epath

from umt_jax.checkpoints import stored_arrays, stored_json

_TREE = "_METADATA"
_PROCESSES = "array_metadatas"


class ArraysHandler(ocp.StandardCheckpointHandler):
    """Saves arrays in any folder, and reads them back before the checkpoint counts as written.

    Checkpoints look and load as those of Orbax's own handler. The reading is part of saving in the
    background; where it fails, saving does, and Orbax keeps the older checkpoints.
    """

    @classmethod
    def typestr(cls) -> str:
        """Returns the name in checkpoints, that of Orbax's handler, which can read them."""
        return ocp.StandardCheckpointHandler.typestr()

    def finalize(self, directory: epath.Path) -> None:
        """Merges what the processes wrote, and reads it.

        Raises:
            ValueError: It cannot be read.
        """
        if glob.escape(str(directory)) == str(directory):
            super().finalize(directory)
        else:
            stored_arrays.merge(directory)
        stored_arrays.check(directory)
        stored_arrays.check_complete(directory)


class JsonHandler(ocp.JsonCheckpointHandler):
    """Saves JSON, and its checksum; checkpoints load with Orbax's own handler as well."""

    def __init__(self, part: str) -> None:
        """Takes the part of a checkpoint that it saves."""
        self._part = part
        super().__init__(stored_json.FILES[part])

    @classmethod
    def typestr(cls) -> str:
        """Returns the name in checkpoints, that of Orbax's handler."""
        base = ocp.JsonCheckpointHandler
        return f"{base.__module__}.{base.__qualname__}"

    def finalize(self, directory: epath.Path) -> None:
        """Writes the checksum, when everything else is written."""
        checksum = stored_json.checksum_of(directory / stored_json.FILES[self._part])
        (directory / stored_json.CHECKSUM).write_bytes(checksum + b"\n")


def registry(arrays: tuple[str, ...]) -> ocp.handlers.DefaultCheckpointHandlerRegistry:
    """Returns what makes a `CheckpointManager` save and restore the parts of a checkpoint so.

    Args:
        arrays: The parts that are trees of arrays, beside those of JSON.
    """
    handlers = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for part in arrays:
        arrays_handler = ArraysHandler()
        handlers.add(part, ocp.args.StandardSave, arrays_handler)
        handlers.add(part, ocp.args.StandardRestore, arrays_handler)
    for part in stored_json.FILES:
        json_handler = JsonHandler(part)
        handlers.add(part, ocp.args.JsonSave, json_handler)
        handlers.add(part, ocp.args.JsonRestore, json_handler)
    return handlers


def check_descriptions(folder: epath.Path) -> None:
    """Compares the files that describe the arrays, which Orbax reads first, with the arrays.

    Raises:
        ValueError: They are damaged.
        FileNotFoundError: A file is missing.
    """
    stored = set(stored_arrays.described(folder))
    try:
        described = set(
            ocp.tree.to_flat_dict(ocp.StandardCheckpointHandler().metadata(folder).tree, sep=".")
        )
    # What it raises for JSON of another form.
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(f"{folder / _TREE} is damaged ({error!r})") from error
    if described != stored:
        raise ValueError(
            f"{folder / _TREE} is damaged: {min(described ^ stored)} is in it or among the arrays, "
            "not in both"
        )
    processes = folder / _PROCESSES
    for path in sorted(processes.iterdir()) if processes.is_dir() else ():
        try:
            entries = [
                entry["array_metadata"] for entry in json.loads(path.read_text())["array_metadatas"]
            ]
            is_whole = all(
                entry.keys() == entries[0].keys() and entry["param_name"] in stored
                for entry in entries
            )
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error!r})") from error
        if not is_whole:
            raise ValueError(f"{path} is damaged: it describes arrays that are not there")
