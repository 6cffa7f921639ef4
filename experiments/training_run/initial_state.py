"""What a run starts from: the weights of another one, or its own newest checkpoint."""

import copy
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags, logging

from experiments import configs
from experiments.training_run import data_changes
from experiments.training_run import flags as train_flags
from umt_jax import path_flags, storage
from umt_jax.checkpoints import checkpoint, reading
from umt_jax.config import Config, TrainingConfig
from umt_jax.model import networks


def with_preset(argv: Sequence[str]) -> list[str]:
    """Returns the command line with the flags of its --preset; see `configs.with_preset`.

    A run whose --preset was a name alone, as it once was for all, is resumed by the same words:
    neither has a new name to be that of a preset, nor do its sizes have to be those of a preset.
    """
    configs.check_flagfiles(argv)
    given = flags.FlagValues()
    workdir = path_flags.define("workdir", "", "", flag_values=given)
    given(argv, known_only=True)
    # Not from a checkpoint: reading one starts a device, and hosts are joined before that.
    record = storage.path(workdir.value or ".") / "config.json"
    run = json.loads(record.read_text()) if record.exists() else {}
    expanded = configs.with_preset(argv, run.get("preset", ""))
    if not run or configs.chosen(argv) != run.get("preset"):
        return expanded
    try:
        # What fits the run, the preset if both do.
        return min((expanded, list(argv)), key=lambda words: _num_contradictions(words, run))
    except flags.Error:  # Reported when the command line itself is parsed.
        return expanded


def _num_contradictions(argv: Sequence[str], run: dict[str, Any]) -> int:
    """Returns how many fields of a run have other values by a command line."""
    values = copy.deepcopy(flags.FLAGS)
    values(argv, known_only=True)
    fields = run["model"] | run["training"]
    return sum(name in values and values[name].value != fields[name] for name in fields)


def base_config(workdir: str) -> Config | None:
    """Returns the configuration of the run that --init_from names, if it names one.

    Once `workdir` has a checkpoint of its own, that one knows it; the other may be gone.
    """
    init_from = train_flags.INIT_FROM.value
    if not init_from:
        return None
    if reading.has_checkpoint(workdir):
        return reading.read_config(workdir)
    config = reading.read_config(init_from)
    if config.model.guide_channels:
        logging.info(
            "Guides stay behind: experiments.guides trains them once the model is done, and takes "
            "these by --guides_from=%s after --freeze_encoder.",
            init_from,
        )
    # They would not fit latents and tones that training changes.
    return config.without_guides()


def initial_parameters(
    nets: networks.Networks, *, to_be_restored: bool = False
) -> networks.NetworkParameters:
    """Returns the weights of step 0: fresh, but for what `init_from` has.

    Args:
        nets: The networks.
        to_be_restored: They only lend their shapes to a checkpoint, so `init_from` may be gone.
    """
    config = nets.config
    parameters = nets.init(jax.random.key(config.training.seed))
    init_from = config.training.init_from
    if to_be_restored or not init_from:
        return parameters
    source_domains = reading.read_config(init_from).domains
    logging.info(
        "Starting from %s. Fresh decoders: %s.",
        init_from,
        ", ".join(name for name in config.domains if name not in source_domains) or "none",
    )
    return networks.transfer(
        parameters,
        config.domains,
        source=checkpoint.restore_parameters(init_from),
        source_domains=source_domains,
    )


def check_config(config: Config, workdir: str) -> None:
    """Raises `ValueError` if `workdir` holds a run of another configuration, and says how."""
    if not reading.has_checkpoint(workdir):
        return
    before, now = _by_flag(reading.read_config(workdir)), _by_flag(config)
    if before["rms_dbfs"] is None:
        del now["rms_dbfs"]  # Runs from before it was recorded go on, and record it.
    for flag, value in now.items():
        if before[flag] != value:
            way = ""
            if flag in _free_with_init_from():
                way = (
                    f" To train its model on with --{flag}={value}: --init_from={workdir} and "
                    "another --workdir; steps count from 0 there, and optimizers start afresh."
                )
            raise ValueError(
                f"--{flag}={value} contradicts the run in --workdir={workdir}, which has "
                f"--{flag}={before[flag]}. Use that value to go on with it (--more_steps=N for N "
                f"more steps), or another --workdir to start anew.{way}"
            )


def check_data(description: dict[str, Any], workdir: str) -> None:
    """Checks that a run is resumed with the data that it was trained on so far.

    Args:
        description: What the data builder recorded of each domain, `Dataset.description`.
        workdir: Folder of the run; need not have a checkpoint yet.

    Raises:
        ValueError: The data were built anew, out of other recordings or with other settings.
    """
    newest = reading.newest_step(workdir)
    if newest is None:
        return
    changes = data_changes.between(reading.read_dataset(workdir, newest), description)
    if changes:
        raise ValueError(
            f"--data_dir was built anew since the run in --workdir={workdir} began: "
            f"{'; '.join(changes)}. Nothing was changed. Give the folder that it was trained on, "
            "or --accept_changed_data to go on with this one, or another --workdir to start anew."
        )


def _free_with_init_from() -> set[str]:
    """Returns what may differ in a run that starts from the weights of another."""
    return {field.name for field in dataclasses.fields(TrainingConfig)} - {"init_from"}


def _by_flag(config: Config) -> dict[str, Any]:
    fields = config.to_json()
    names = {name: ",".join(fields[name]) for name in ("domains", "train_domains")}
    # These decide memory and time; the numbers are the same but for rounding.
    for field in ("remat", "microbatches", "compute_dtype"):
        del fields["training"][field]
    return {**names, **fields["model"], **fields["training"]}
