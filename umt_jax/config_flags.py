"""Flags that are fields of a configuration: named, explained and preset as the dataclass says."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from absl import flags

from umt_jax import path_flags

flags.disclaim_key_flags()  # They are flags of the command, whose --help lists them.

_DEFINE: dict[type, Callable[..., flags.FlagHolder]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    type(None): flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def define(
    section: Any,
    *,
    leave_out: Collection[str] = (),
    paths: Collection[str] = (),
    flag_values: flags.FlagValues = flags.FLAGS,
) -> dict[str, flags.FlagHolder]:
    """Declares one flag for each field of a dataclass, with the instance's value as the default.

    Args:
        section: The instance. A field that is None is a number.
        leave_out: Fields that get no flag.
        paths: Fields that are paths.
        flag_values: Where to declare them.
    """
    helps = help_by_field(type(section))
    values = {field.name: getattr(section, field.name) for field in dataclasses.fields(section)}
    return {
        name: (path_flags.define if name in paths else _DEFINE[type(default)])(
            name, default, helps[name], flag_values=flag_values
        )
        for name, default in values.items()
        if name not in leave_out
    }


def help_by_field(kind: type) -> Mapping[str, str]:
    """Returns what the docstring of a dataclass says of each field, other fields as flags."""
    _, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    names = [name for name, _ in entries]

    def as_flag(quoted: re.Match[str]) -> str:
        return f"--{quoted[1]}" if quoted[1] in names else quoted[1]

    return {name: re.sub("`([^`]*)`", as_flag, " ".join(text.split())) for name, text in entries}
