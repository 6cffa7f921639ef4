r"""Trains encoder, decoders and classifier on prepared domains (§3.3).

    python -m experiments.train --preset=demo --data_dir=data --workdir=runs/demo

The same command resumes a run that was stopped.
"""

import contextlib
import math
import sys
from collections.abc import Callable, Sequence

import jax
import numpy as np
from absl import logging

from experiments.training_run import (
    distributed,
    initial_state,
    metrics_log,
    preemption,
    sample_translations,
)
from experiments.training_run import flags as train_flags
from umt_jax import command_line
from umt_jax.checkpoints import checkpoint, integrity, reading
from umt_jax.config import Config
from umt_jax.data import dataset
from umt_jax.model import networks
from umt_jax.training import partitioning, sharding, step_engines, train_state, train_step

TAKES_LESS = (
    "--preset=demo is a model for any machine; for another one --microbatches, --remat=layer, "
    "--domain_batch or --segment_samples take less."
)


def main() -> None:
    """Trains as the flags say."""
    logging.set_verbosity(logging.INFO)
    jax.config.update("jax_num_cpu_devices", train_flags.CPU_DEVICES.value)
    data_dir, workdir = train_flags.DATA_DIR.value, train_flags.WORKDIR.value
    with (
        preemption.StopRequest() as stop,
        joined_hosts(),
        distributed.alone_in(workdir) as check_alone,
    ):
        command_line.use_compilation_cache()
        integrity.set_aside(workdir)
        base = initial_state.base_config(workdir)
        domains, train_domains = train_flags.domains_from_flags(data_dir, base)
        prepared = dataset.Dataset(data_dir, train_domains or domains)
        config = train_flags.config_from_flags(
            domains,
            train_domains,
            sample_rate_hz=prepared.sample_rate_hz,
            mu_law=prepared.mu_law,
            rms_dbfs=prepared.rms_dbfs,
            base=base,
        )
        if not train_flags.ACCEPT_CHANGED_DATA.value:
            initial_state.check_data(prepared.description, workdir)

        newest_step = reading.newest_step(workdir)
        schedule = train_flags.schedule_from_flags(newest_step)
        if train_flags.MORE_STEPS.value is not None:
            logging.info(
                "Training on to step %d. Should it be stopped, --num_steps=%d in place of "
                "--more_steps resumes it.",
                *(schedule.num_steps, schedule.num_steps),
            )

        def asked_to_stop(step: int) -> bool:
            check_alone()
            return stop.reached(step)

        done = run(
            config,
            schedule,
            prepared,
            workdir=workdir,
            layout=train_flags.layout_from_flags(),
            asked_to_stop=asked_to_stop,
        )
    logging.info("Written: %s, checkpoints and metrics.", workdir)
    if not done:
        sys.exit(preemption.EXIT_STATUS)


def joined_hosts() -> contextlib.AbstractContextManager[None]:
    """Joins the processes of other hosts if the flags say so; before any device is used."""
    address, number, process = (
        train_flags.COORDINATOR_ADDRESS,
        train_flags.NUM_PROCESSES,
        train_flags.PROCESS_ID,
    )
    if train_flags.DISTRIBUTED.value:
        return distributed.joined(address.value, number.value, process.value)
    for flag in (address, number, process):
        if flag.value is not None:
            raise ValueError(f"--{flag.name}={flag.value} needs --distributed.")
    return contextlib.nullcontext()


def run(
    config: Config,
    schedule: train_flags.Schedule,
    prepared: dataset.Dataset,
    *,
    workdir: str,
    layout: train_flags.Layout = train_flags.BEST_LAYOUT,
    asked_to_stop: Callable[[int], bool] = lambda step: False,
) -> bool:
    """Trains until `schedule.num_steps`, from the newest checkpoint in `workdir` if there is one.

    Args:
        config: What to train.
        schedule: How long, and what to report when.
        prepared: The data of `config.trained_domains`.
        workdir: Folder of the run.
        layout: How the devices share each step.
        asked_to_stop: Asked after each step whether it is the last one for now.

    Returns:
        Whether it got there; if not, it was asked to stop.

    Raises:
        ValueError: `workdir` holds a run of another configuration, the data do not fit, the devices
            cannot share a step, or a loss was not finite.
    """
    prepared.check(config)
    mesh = make_mesh(config, layout)
    nets = networks.Networks(
        config,
        unroll_domains=mesh.shape["domain"] == 1,
        native_threads=step_engines.native_threads(
            layout.engine, config, mesh, layout.partitioning
        ),
    )
    optimizers = train_state.make_optimizers(config.training)
    initial_state.check_config(config, workdir)
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(checkpoint.Checkpoints(workdir))
        newest_step = checkpoints.newest_step()
        first_step = newest_step or 0
        distributed.check_agreement(
            {
                "configuration": config,
                "schedule": schedule,
                "layout of devices": layout,
                "data": prepared.description,
                "newest checkpoint in --workdir": newest_step,
            }
        )
        parameters = initial_state.initial_parameters(nets, to_be_restored=newest_step is not None)
        state = train_state.create(parameters, optimizers, config)
        devices = partitioning.make(layout.partitioning, mesh, nets, optimizers, state)
        state = devices.put_state(state)
        unlogged: list[train_step.Metrics] = []
        if newest_step is not None:
            state = checkpoints.restore(newest_step, state)
            unlogged = checkpoints.unlogged(newest_step)
            logging.info("Resuming from step %d in %s.", newest_step, workdir)
        if first_step >= schedule.num_steps:
            logging.info(
                "That is all that --num_steps=%d asks for; --more_steps=N trains on.",
                schedule.num_steps,
            )
        _log_sizes(state, mesh)

        part = sharding.local_part(mesh, len(config.trained_domains), config.training.domain_batch)
        eval_batches = [
            devices.put_batch(batch)
            for batch in prepared.eval_batches(
                config.training,
                split="validation",
                num_batches=schedule.eval_batches,
                part=part,
            )
        ]
        translations = sample_translations.Translations(
            config, prepared, schedule.eval_audio_seconds
        )
        learning_rate = train_state.learning_rate(config.training)
        batches = prepared.train_batches(config.training, first_step=first_step, part=part)
        log = stack.enter_context(
            metrics_log.open_log(workdir, config, first_step, schedule.num_steps)
        )

        steps = range(first_step + 1, schedule.num_steps + 1)
        for step, batch in zip(steps, batches, strict=False):  # The batches never end.
            state, metrics = devices.train_step(state, devices.put_batch(batch))
            # No more than two steps are under way, so that a run that is to stop soon does.
            jax.block_until_ready(unlogged[-1:])
            unlogged.append(metrics)
            stopped = asked_to_stop(step)
            if schedule.logs(step) or schedule.saves(step) or stopped:
                unlogged = jax.device_get(unlogged)
                first_unlogged = step + 1 - len(unlogged)
                _check_finite(unlogged, range(first_unlogged, step + 1), config, workdir)
            if schedule.logs(step):
                log.train(step, unlogged, learning_rate=float(learning_rate(step - 1)))
                unlogged = []
            reconstruction = math.inf  # Not known.
            if schedule.evaluates(step):
                scores = jax.device_get(
                    [devices.eval_step(state.best_parameters, batch) for batch in eval_batches]
                )
                # The update of this very step may have been one too many.
                _check_finite(scores, [step] * len(scores), config, workdir)
                log.evaluate(step, scores)
                reconstruction = float(np.mean([s["reconstruction"] for s in scores]))
            if schedule.saves(step) or stopped:
                checkpoints.save(state, config, prepared.description, reconstruction, unlogged)
            if stopped and step < schedule.num_steps:
                logging.info("Stopped after step %d. The same command resumes from there.", step)
                return False
            if schedule.evaluates(step):
                log.translations(step, translations.make(state.best_parameters))
    return True


def make_mesh(config: Config, layout: train_flags.Layout) -> jax.sharding.Mesh:
    """Lays out all devices for this configuration."""
    # The mesh splits all decoders, and the batch, which may have fewer domains.
    num_domains = math.gcd(len(config.domains), len(config.trained_domains))
    if layout.partitioning == "pmap" and not layout.mesh:
        num_domains = 1  # It cannot split them.
    mesh = sharding.make_mesh(num_domains, config.training.domain_batch, layout=layout.mesh)
    local_batch = config.training.domain_batch // mesh.shape["data"]
    if local_batch % config.training.microbatches:
        raise ValueError(
            f"--microbatches={config.training.microbatches} must divide the {local_batch} segments "
            f"of each domain that a device has of --domain_batch={config.training.domain_batch}."
        )
    return mesh


def _check_finite(
    history: Sequence[train_step.Metrics], steps: Sequence[int], config: Config, workdir: str
) -> None:
    """Raises `ValueError` at the first loss that is not a finite number."""
    for step, metrics in zip(steps, history, strict=True):
        losses = {
            f"The reconstruction loss of {domain}": loss
            for domain, loss in zip(config.trained_domains, metrics["reconstruction"], strict=True)
        }
        for name in ("classification", "confusion"):
            if name in metrics:
                losses[f"The {name} loss"] = metrics[name]
        for name, loss in losses.items():
            if not np.isfinite(loss):
                raise ValueError(
                    f"{name} is {loss} at step {step}. Checkpoints of earlier steps in {workdir} "
                    "are kept. Try a smaller --learning_rate or --classifier_learning_rate, or "
                    "--gradient_clip=1."
                )


def _log_sizes(state: train_state.TrainState, mesh: jax.sharding.Mesh) -> None:
    parameters = state.parameters
    logging.info(
        "Parameters: encoder %s, each decoder %s, classifier %s. Devices: %s, laid out as %s.",
        f"{networks.num_parameters(parameters.encoder):,}",
        f"{networks.num_parameters(networks.select(parameters.decoders, 0)):,}",
        f"{networks.num_parameters(parameters.classifier):,}",
        mesh.devices.flat[0].device_kind,
        dict(mesh.shape),
    )


if __name__ == "__main__":
    command_line.run(main, arguments=initial_state.with_preset, takes_less=TAKES_LESS)
