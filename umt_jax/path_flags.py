"""Flags that are paths: their `~`, which shells leave as it is in --name=~/x, is expanded."""

import os
from typing import cast

from absl import flags

# Otherwise absl would count these flags as this module's, not as those of its caller.
flags.disclaim_key_flags()


class _PathParser(flags.ArgumentParser[str]):
    def parse(self, argument: str) -> str:
        """Returns the path, its `~` expanded."""
        return os.path.expanduser(argument)

    def flag_type(self) -> str:
        """Returns what --help calls it."""
        return "path"


class _PathListParser(flags.ListParser):
    def parse(self, argument: str | list[str]) -> list[str]:
        """Returns the paths, `~` expanded; what exists under the whole name is one."""
        if isinstance(argument, str) and os.path.exists(whole := os.path.expanduser(argument)):
            return [whole]
        return [os.path.expanduser(path) for path in super().parse(argument)]

    def flag_type(self) -> str:
        """Returns what --help calls it."""
        return "comma separated list of paths"


class _RepeatableFlag(flags.Flag[list[str]]):
    """A flag whose values are joined where it is given more than once."""

    def parse(self, argument: str | list[str]) -> None:
        """Adds values."""
        before = list(self.value or ()) if self.present else []
        super().parse(argument)
        self.value = before + list(self.value or ())


def define(
    name: str,
    default: str | None,
    help: str,
    *,
    required: bool = False,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> flags.FlagHolder[str]:
    """Declares a flag that is one path."""
    return flags.DEFINE(
        _PathParser(),
        name,
        default,
        help,
        flag_values,
        flags.ArgumentSerializer(),
        required=required,
    )


def define_output_folder() -> None:
    """Declares --output of a command that writes several files."""
    define("output", None, "Folder to write to, made if need be.", required=True)


def define_list(
    name: str,
    default: list[str] | None,
    help: str,
    *,
    required: bool = False,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> flags.FlagHolder[list[str]]:
    """Declares a flag that is paths separated by commas, and may be repeated."""
    flag = _RepeatableFlag(
        _PathListParser(), flags.CsvListSerializer(","), name, default, help, allow_overwrite=True
    )
    holder = flags.DEFINE_flag(flag, flag_values, required=required)
    return cast("flags.FlagHolder[list[str]]", holder)
