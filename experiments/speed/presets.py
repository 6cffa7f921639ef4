"""The presets in experiments/configs as configurations, for benchmarks."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from experiments import configs
from umt_jax.config import ModelConfig, TrainingConfig

_PARSERS: dict[type, Callable[[str], Any]] = {
    int: int,
    float: float,
    str: str,
    bool: lambda text: text == "true",
}
_Section = TypeVar("_Section", ModelConfig, TrainingConfig)

NAMES = configs.NAMES
flagfile = configs.flagfile


def model(name: str) -> ModelConfig:
    """Returns the sizes that a flagfile asks for."""
    return _with_flags_of(name, ModelConfig())


def training(name: str) -> TrainingConfig:
    """Returns the training that a flagfile asks for."""
    return _with_flags_of(name, TrainingConfig())


def _with_flags_of(name: str, section: _Section) -> _Section:
    lines = flagfile(name).read_text().splitlines()
    given = dict(line[2:].partition("=")[::2] for line in lines if line.startswith("--"))
    changes: dict[str, Any] = {}
    for field, default in dataclasses.asdict(section).items():
        if field in given:
            # A flag without a value, as in --encoder_preactivation, is true.
            changes[field] = _PARSERS[type(default)](given[field] or "true")
    return dataclasses.replace(section, **changes)
