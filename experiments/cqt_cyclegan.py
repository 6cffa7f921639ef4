r"""Trains a CycleGAN between the constant-Q spectrograms of two domains: the other road.

    python -m experiments.cqt_cyclegan --data_dir=data --domains=Piano,Cello --workdir=runs/gan

The same command resumes a run that was stopped. TensorBoard shows both directions and what comes
back. `experiments.cqt_translate` makes sound of it. What is from a source in it, and what is our
choice, is said in `experiments/cqt/settings.py`.

    python -m experiments.cqt_cyclegan --workdir=runs/gan --export=gan

copies a run's networks in float16, without its optimizers, to start from with --init_from.
"""

import collections
import dataclasses
import functools
import math
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import flags, logging

from experiments.cqt import checkpoint, pictures, settings, step
from experiments.cqt.settings import GanConfig, GanSettings
from experiments.cqt.step import GanState
from experiments.training_run import preemption
from experiments.training_run.scalars_log import ScalarsLog
from umt_jax import command_line, config_flags, path_flags
from umt_jax.checkpoints import folder_lock
from umt_jax.config import ModelConfig, TrainingConfig
from umt_jax.data import dataset
from umt_jax.shapes import Array, Float

_PICTURE_SECONDS = 4.0


def define_flags() -> None:
    """Declares this command's flags."""
    path_flags.define("data_dir", None, "Folder of prepared domains (data_prep.build --data_dir).")
    path_flags.define(
        "workdir", None, "Folder of this run: newest state, metrics, TensorBoard.", required=True
    )
    path_flags.define("export", None, "Folder to copy the run's networks to, in place of training.")
    flags.DEFINE_list("domains", [], "The two domains.")
    flags.DEFINE_integer("num_steps", 5000, "Steps in all, from the run's beginning.", 1)
    flags.DEFINE_integer("log_every", 50, "Steps between two lines of progress.", 1)
    flags.DEFINE_integer("checkpoint_every", 100, "Steps between two checkpoints.", 1)
    flags.DEFINE_integer("pictures_every", 500, "Steps between two rows of pictures.", 1)
    defaults = settings.TRANSFORM
    left_out = {field.name for field in dataclasses.fields(ModelConfig)}
    config_flags.define(defaults, leave_out=left_out - set(settings.TRANSFORM_FIELDS))
    config_flags.define(GanSettings(), paths=("init_from",))


def main() -> None:
    """Trains, or exports, as the flags say."""
    args = flags.FLAGS
    logging.set_verbosity(logging.INFO)
    if args.export:
        with folder_lock.held(args.export, purpose="an export"):
            exported = checkpoint.export(args.workdir, args.export)
        command_line.say(f"Exported step {exported} to {args.export}.")
        return
    if not args.data_dir:
        raise ValueError("--data_dir is missing: name the folder of prepared domains.")
    # Before anything is read: so many domains never fit.
    if len(args.domains) != 2:
        raise ValueError(
            f"--domains={','.join(args.domains)} names {len(args.domains)}. A CycleGAN is between "
            "two, such as --domains=Piano,Cello."
        )
    command_line.use_compilation_cache()
    prepared = dataset.Dataset(args.data_dir, args.domains)
    config = _config_from_flags(args, prepared)
    with (
        preemption.StopRequest() as stop,
        folder_lock.held(args.workdir, purpose="a training run"),
    ):
        done = run(config, prepared, args, asked_to_stop=stop.reached)
    logging.info("Written: %s, newest state and metrics.", args.workdir)
    if not done:
        sys.exit(preemption.EXIT_STATUS)


def _config_from_flags(args: flags.FlagValues, prepared: dataset.Dataset) -> GanConfig:
    """Returns what is trained: the flags, and what the data say of themselves."""
    model: dict[str, Any] = {name: args[name].value for name in settings.TRANSFORM_FIELDS}
    training: dict[str, Any] = {
        field.name: args[field.name].value for field in dataclasses.fields(GanSettings)
    }
    return GanConfig(
        domains=tuple(args.domains),
        model=dataclasses.replace(
            settings.TRANSFORM,
            sample_rate_hz=prepared.sample_rate_hz,
            mu_law=prepared.mu_law,
            rms_dbfs=prepared.rms_dbfs,
            **model,
        ),
        training=GanSettings(**training),
    )


def run(
    config: GanConfig,
    prepared: dataset.Dataset,
    args: flags.FlagValues,
    *,
    asked_to_stop: Callable[[int], bool] = lambda step: False,
) -> bool:
    """Trains until `args.num_steps`, from the state in `args.workdir` if there is one.

    Args:
        config: What to train.
        prepared: The data of both domains.
        args: Where, how long, and what to report when.
        asked_to_stop: Asked after each step whether it is the last one for now.

    Returns:
        Whether it got there; if not, it was asked to stop.

    Raises:
        ValueError: The folder holds a run of other settings, the data do not fit, or a loss was not
            finite.
    """
    _check_segments(config.training, prepared)
    state = _first_state(config, args.workdir)
    first_step = int(state.step)
    batches = _batches(config, prepared, first_step)
    excerpts = _excerpts(config, prepared)
    log = ScalarsLog(pathlib.Path(args.workdir), first_step)
    update = jax.jit(functools.partial(step.train_step, config=config), donate_argnums=0)
    history: dict[str, list[Float[Array, ""]]] = collections.defaultdict(list)
    for number in range(first_step + 1, args.num_steps + 1):
        state, metrics = update(state, next(batches))
        for name, value in metrics.items():
            history[name].append(value)
        stopped, last = asked_to_stop(number), number == args.num_steps
        if number % args.log_every == 0 or stopped or last:
            _report(log, number, args.num_steps, history)
        if number % args.checkpoint_every == 0 or stopped or last:
            checkpoint.save(args.workdir, config, state)
        if number % args.pictures_every == 0 or last:
            _draw(log, number, state, excerpts, config)
        if stopped and not last:
            logging.info("Stopped after step %d. The same command resumes from there.", number)
            break
    log.close()
    return int(state.step) >= args.num_steps


def _check_segments(training: GanSettings, prepared: dataset.Dataset) -> None:
    """Raises `ValueError` if segments were prepared too short."""
    for domain, recipe in prepared.description.items():
        if recipe["segment_samples"] < training.segment_samples:
            raise ValueError(
                f"{domain} was prepared in segments of {recipe['segment_samples']} samples, fewer "
                f"than segment_samples={training.segment_samples}. Use at most those, or prepare "
                f"longer ones with data_prep.build --segment_samples={training.segment_samples}."
            )


def _first_state(config: GanConfig, workdir: str) -> GanState:
    """Returns the state to train on from: the folder's, another run's networks, or a fresh one."""
    init_from = config.training.init_from
    if checkpoint.exists(workdir):
        before = checkpoint.read_config(workdir)
        if before != config:
            raise ValueError(
                f"--workdir={workdir} holds a CycleGAN of other settings: "
                f"{_first_difference(before, config)}. Use those to go on, or another --workdir."
            )
    elif init_from:
        source = checkpoint.read_config(init_from)
        if (source.domains, source.model) != (config.domains, config.model):
            raise ValueError(
                f"--init_from={init_from} has {_first_difference(source, config)}. Domains and "
                "constant-Q transform must be the same."
            )
    fresh = jax.jit(functools.partial(step.create, config))(jax.random.key(config.training.seed))
    if checkpoint.exists(workdir):
        state = checkpoint.restore(workdir, fresh)
        logging.info("Resuming from step %d in %s.", int(state.step), workdir)
        return state
    if not init_from:
        return fresh
    logging.info("Starting from the networks in %s.", init_from)
    return checkpoint.restore_networks(init_from, fresh)


def _first_difference(before: GanConfig, now: GanConfig) -> str:
    """Returns a field that differs, as a flag with both values."""
    flat = []
    for config in (before, now):
        fields = dataclasses.asdict(config)
        domains = ",".join(config.domains)
        flat.append({"domains": domains, **fields["model"], **fields["training"]})
    name = next(name for name in flat[0] if flat[0][name] != flat[1][name])
    return f"{name}={flat[0][name]}, not {flat[1][name]}"


def _batches(config: GanConfig, prepared: dataset.Dataset, first_step: int) -> Iterator[np.ndarray]:
    """Yields codes of a step's segments, [2, B, T]."""
    training = config.training
    crops = TrainingConfig(
        segment_samples=training.segment_samples,
        domain_batch=training.domain_batch,
        seed=training.seed,
    )
    batches = prepared.train_batches(crops, first_step=first_step)
    return (batch.codes for batch in batches)


def _excerpts(config: GanConfig, prepared: dataset.Dataset) -> list[Float[Array, "F Z"]]:
    """Returns the first seconds of a validation track of each domain, as frames."""
    pool = config.model.pool_samples
    num_samples = math.ceil(_PICTURE_SECONDS * config.model.sample_rate_hz / pool) * pool
    codes = prepared.excerpts("validation", num_samples)
    return [
        step.all_frames(of_domain[: len(of_domain) // pool * pool], config) for of_domain in codes
    ]


def _report(
    log: ScalarsLog, number: int, num_steps: int, history: dict[str, list[Float[Array, ""]]]
) -> None:
    """Records the means since the last report, and forgets them."""
    means = {f"train/{name}": float(np.mean(values)) for name, values in history.items()}
    history.clear()
    wrong = [name for name, mean in means.items() if not math.isfinite(mean)]
    if wrong:
        raise ValueError(
            f"The loss {wrong[0]} is not finite at step {number}. Try a smaller --learning_rate "
            "and --discriminator_learning_rate, or a larger --penalty_weight."
        )
    log.write(number, means)
    logging.info(
        "step %d/%d  %s",
        number,
        num_steps,
        "  ".join(f"{name.partition('/')[2]} {mean:.3f}" for name, mean in means.items()),
    )


def _draw(
    log: ScalarsLog,
    number: int,
    state: GanState,
    excerpts: list[Float[Array, "F Z"]],
    config: GanConfig,
) -> None:
    """Draws each domain's excerpt, its translation and what comes back."""
    for source, frames in enumerate(excerpts):
        there, back = (state.average[domain] for domain in (1 - source, source))
        made = step.translate(there, frames[np.newaxis], config.training)
        cycle = step.translate(back, made, config.training)
        titles = config.domains[source], f"as {config.domains[1 - source]}", "and back"
        row = dict(zip(titles, (frames, made[0], cycle[0]), strict=True))
        log.tensorboard.draw(number, f"{titles[0]}/frames", pictures.row(row, config.model))
    log.tensorboard.flush()


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
