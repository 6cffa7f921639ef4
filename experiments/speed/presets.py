"""The presets in experiments/configs as configurations, for benchmarks."""

import dataclasses
from typing import TypeVar

from absl import flags

from experiments import configs
from umt_jax import config_flags
from umt_jax.config import ModelConfig, TrainingConfig

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
    values = flags.FlagValues()
    config_flags.define(section, leave_out=("rms_dbfs",), flag_values=values)
    values(["", f"--flagfile={flagfile(name)}"], known_only=True)
    return dataclasses.replace(section, **values.flag_values_dict())
