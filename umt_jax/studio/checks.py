"""Checks of what programs send to the studio: wrong types get a sentence, and reach nothing."""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_SHOWN = 60  # Characters of a wrong value that are shown.
_MAX_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Input:
    """An input, and what is allowed for it.

    Attributes:
        label: What the page calls it.
        wanted: What a message says that it may be.
        is_right: Decides.
    """

    label: str
    wanted: str
    is_right: Callable[[Any], bool]


def sound(label: str, folder: str) -> Input:
    """Returns a sound that was uploaded to `folder`, or none yet."""

    def is_right(value: Any) -> bool:
        if value is None:
            return True
        path = value.get("path") if isinstance(value, dict) else None
        if not isinstance(path, str) or "\0" in path:
            return False
        # Gradio would fetch what is an address.
        root = os.path.realpath(folder)
        return Path(os.path.realpath(path)).is_relative_to(root) and os.path.isabs(path)

    return Input(
        label, "a file that was uploaded here, as gradio_client's handle_file does", is_right
    )


def number(label: str, low: float, high: float) -> Input:
    """Returns a number in a range."""

    def is_right(value: Any) -> bool:
        return _is_number(value) and low <= value <= high

    return Input(label, f"a number from {low:g} to {high:g}", is_right)


def seed(label: str) -> Input:
    """Returns a whole number that random numbers can start from."""

    def is_right(value: Any) -> bool:
        return _is_number(value) and 0 <= value <= _MAX_SEED and value == int(value)

    return Input(label, f"a whole number from 0 to {_MAX_SEED}, 0 for example", is_right)


def one_of(label: str, choices: Sequence[str]) -> Input:
    """Returns one of some names."""
    return Input(
        label,
        f"one of {', '.join(choices)}",
        lambda value: isinstance(value, str) and value in choices,
    )


def some_of(label: str, choices: Sequence[str]) -> Input:
    """Returns a list of any of some names."""
    return Input(
        label,
        f"a list of some of {', '.join(choices)}",
        lambda value: (
            isinstance(value, list)
            and all(isinstance(name, str) and name in choices for name in value)
        ),
    )


def check(inputs: Sequence[Input], values: Any) -> None:
    """Checks values as they came, before anything is done with them.

    Raises:
        ValueError: They are too few or too many, or one is wrong.
    """
    names = ", ".join(entry.label for entry in inputs)
    if not isinstance(values, list) or len(values) != len(inputs):
        given = f"{len(values)} values" if isinstance(values, list) else _shown(values)
        raise ValueError(f"The {len(inputs)} values {names} are needed. Given: {given}.")
    for entry, value in zip(inputs, values, strict=True):
        if not entry.is_right(value):
            raise ValueError(f"{entry.label}: {_shown(value)} is not {entry.wanted}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
