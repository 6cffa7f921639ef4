"""Presets: one flagfile each, which `python -m experiments.train --preset=NAME` loads."""

import os
from collections.abc import Sequence
from pathlib import Path

_FOLDER = Path(__file__).parent

NAMES = tuple(sorted(path.stem for path in _FOLDER.glob("*.flags")))


def flagfile(name: str) -> Path:
    """Returns where a preset is."""
    return _FOLDER / f"{name}.flags"


def chosen(argv: Sequence[str]) -> str:
    """Returns the value of --preset on a command line, or "" where it is not given."""
    return (_values(argv, "preset") or [""])[-1]


def with_preset(argv: Sequence[str], known: str = "") -> list[str]:
    """Returns a command line in which --preset=NAME has become the flags of that preset.

    They come first, so that every flag that is given overrides them, wherever it stands. In a
    flagfile, --preset is a name alone, which checkpoints record.

    Args:
        argv: The command and its arguments.
        known: A name that needs no preset: that of the run that is resumed.

    Raises:
        ValueError: There is no preset of that name.
    """
    name = chosen(argv)
    if not name:
        return list(argv)
    if name in NAMES:
        return [argv[0], f"--flagfile={flagfile(name)}", *argv[1:]]
    if name == known:
        return list(argv)
    raise ValueError(
        f"There is no preset {name!r}. There are: {', '.join(NAMES)}. One of your own is a file of "
        "flags, which --flagfile reads; --preset in it gives it a name."
    )


def check_flagfiles(argv: Sequence[str]) -> None:
    """Raises `ValueError` if there is no file where --flagfile says, and says where presets are."""
    for given in _values(argv, "flagfile"):
        if given and not os.path.exists(os.path.expanduser(given)):
            name = Path(given).stem
            hint = f"--preset={name}" if name in NAMES else "--preset=NAME"
            raise ValueError(
                f"--flagfile={given} is not there. The presets of this package are chosen by name, "
                f"from any folder: {hint}. There are: {', '.join(NAMES)}, in {_FOLDER}."
            )


def _values(argv: Sequence[str], flag: str) -> list[str]:
    """Returns the values of a flag on a command line, written as absl reads it."""
    values = []
    for position, argument in enumerate(argv[1:], start=1):
        if argument == "--":
            break
        name, equals, value = argument.partition("=")
        if name not in (f"--{flag}", f"-{flag}"):
            continue
        if not equals:
            value = argv[position + 1] if position + 1 < len(argv) else ""
        values.append(value)
    return values
