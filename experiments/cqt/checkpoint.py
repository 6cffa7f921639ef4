"""The folder of a CycleGAN's run: its settings and its state, each in one file.

`gan.json` holds the settings; `gan.msgpack` the newest state, or, in an export, networks alone in
float16. Runs of `experiments.train` have other files, and neither is taken for the other.
"""

import dataclasses
import functools
import json
from typing import Any

import jax
import numpy as np
from flax import serialization

from experiments.cqt import step
from experiments.cqt.settings import GanConfig
from experiments.cqt.step import Both, GanState
from umt_jax import storage

SETTINGS, STATE = "gan.json", "gan.msgpack"
_NETWORKS = ("generators", "discriminators", "average")


def exists(workdir: str) -> bool:
    """Says whether a folder holds the run of a CycleGAN that has saved anything yet."""
    return all((storage.path(workdir) / name).exists() for name in (SETTINGS, STATE))


def save(workdir: str, config: GanConfig, state: GanState) -> None:
    """Writes settings and state; each file appears when it is whole."""
    _write(workdir, config, serialization.to_state_dict(jax.device_get(state)))


def export(workdir: str, output: str) -> int:
    """Copies a run's networks to another folder, in float16, without its optimizers.

    Returns:
        The step they are of.

    Raises:
        FileNotFoundError: There is no such run.
        FileExistsError: The output holds one.
    """
    if exists(output):
        raise FileExistsError(f"output={output} holds a CycleGAN already. Name another folder.")
    stored = _read(workdir)
    halves = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float16), {name: stored[name] for name in _NETWORKS}
    )
    _write(output, read_config(workdir), {"step": stored["step"], **halves})
    return int(stored["step"])


def read_config(workdir: str) -> GanConfig:
    """Returns the settings of a run.

    Raises:
        FileNotFoundError: The folder holds no CycleGAN.
        ValueError: They are damaged.
    """
    _check_exists(workdir)
    path = storage.path(workdir) / SETTINGS
    try:
        return GanConfig.from_json(json.loads(path.read_text()))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or of another version: {error}") from error


def restore(workdir: str, target: GanState) -> GanState:
    """Returns the state of a run, with the shapes of `target`.

    Raises:
        FileNotFoundError: The folder holds no CycleGAN.
        ValueError: It is damaged, an export, or of other sizes.
    """
    return _fitted(workdir, _read(workdir), target)


def restore_networks(workdir: str, target: GanState) -> GanState:
    """Returns `target` with the networks of another run or export, in float32.

    Errors as `restore`.
    """
    stored, fresh = _read(workdir), serialization.to_state_dict(target)
    networks = {
        name: jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), stored.get(name))
        for name in _NETWORKS
    }
    return _fitted(workdir, {**fresh, **networks}, target)


def read_generators(workdir: str) -> Both:
    """Returns the averaged generators of a run or an export, in float32, by domain.

    Errors as `restore`.
    """
    create = functools.partial(step.create, read_config(workdir))
    shapes = jax.eval_shape(create, jax.random.key(0))
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return restore_networks(workdir, fresh).average


def _write(workdir: str, config: GanConfig, state: dict[str, Any]) -> None:
    folder = storage.path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    with storage.whole_file(folder / SETTINGS) as unfinished:
        unfinished.write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n")
    with storage.whole_file(folder / STATE) as unfinished:
        unfinished.write_bytes(serialization.msgpack_serialize(state))


def _read(workdir: str) -> dict[str, Any]:
    _check_exists(workdir)
    path = storage.path(workdir) / STATE
    try:
        stored = serialization.msgpack_restore(path.read_bytes())
    except (ValueError, TypeError, KeyError) as error:  # msgpack's own are ValueErrors.
        raise ValueError(f"{path} is damaged: {error}.") from error
    if not isinstance(stored, dict) or not {"step", *_NETWORKS} <= set(stored):
        raise ValueError(f"{path} is damaged, or of another program.")
    return stored


def _fitted(workdir: str, stored: dict[str, Any], target: GanState) -> GanState:
    path = storage.path(workdir) / STATE
    if "generator_optimizer" not in stored:
        raise ValueError(
            f"{path} is an export, without optimizers. Start from it with init_from={workdir} and "
            "another workdir."
        )
    try:
        state = serialization.from_state_dict(target, stored)
        differences = jax.tree.leaves(
            jax.tree.map(lambda leaf, wanted: np.shape(leaf) != np.shape(wanted), state, target)
        )
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} has other arrays than these settings: {error}.") from error
    if any(differences):
        raise ValueError(f"{path} has {sum(differences)} arrays of other sizes than its settings.")
    return state


def _check_exists(workdir: str) -> None:
    if not exists(workdir):
        raise FileNotFoundError(
            f"{workdir} holds no CycleGAN: {SETTINGS} and {STATE}, as experiments.cqt_cyclegan "
            "writes them, are not there."
        )
