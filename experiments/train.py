r"""Trains encoder, decoders and classifier on prepared domains (§3.3).

    python -m experiments.train --flagfile=experiments/configs/demo.flags \
        --data_dir=data --workdir=runs/demo

The same command goes on with a run that was stopped.
"""

import contextlib
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from experiments import flags as train_flags
from experiments import hosts, metrics_log, samples, stopping
from umt_jax import (
    checkpoint,
    command_line,
    damage,
    dataset,
    networks,
    partitioning,
    sharding,
    train_state,
    train_step,
)
from umt_jax.config import Config


def main() -> None:
    """Trains as the flags say."""
    logging.set_verbosity(logging.INFO)
    jax.config.update("jax_num_cpu_devices", train_flags.CPU_DEVICES.value)
    with stopping.StopRequest() as stop:
        join_hosts()
        data_dir, workdir = train_flags.DATA_DIR.value, train_flags.WORKDIR.value
        damage.set_aside(workdir)
        base = base_config(workdir)
        domains, train_domains = train_flags.domains_from_flags(data_dir, base)
        prepared = dataset.Dataset(data_dir, train_domains or domains)
        config = train_flags.config_from_flags(
            domains,
            train_domains,
            sample_rate_hz=prepared.sample_rate_hz,
            mu_law=prepared.mu_law,
            base=base,
        )
        done = run(
            config,
            train_flags.schedule_from_flags(),
            prepared,
            workdir=workdir,
            layout=train_flags.layout_from_flags(),
            asked_to_stop=stop.reached,
        )
    if not done:
        sys.exit(stopping.EXIT_STATUS)


def join_hosts() -> None:
    """Joins the processes of other hosts if the flags say so; before any device is used."""
    address, number, process = (
        train_flags.COORDINATOR_ADDRESS,
        train_flags.NUM_PROCESSES,
        train_flags.PROCESS_ID,
    )
    if train_flags.DISTRIBUTED.value:
        hosts.join(address.value, number.value, process.value)
        return
    for flag in (address, number, process):
        if flag.value is not None:
            raise ValueError(f"--{flag.name}={flag.value} needs --distributed.")


def base_config(workdir: str) -> Config | None:
    """Returns the configuration of the run that --init_from names, if it names one.

    Once `workdir` has a checkpoint of its own, that one knows it; the other may be gone.
    """
    init_from = train_flags.INIT_FROM.value
    if not init_from:
        return None
    return checkpoint.read_config(workdir if checkpoint.has_checkpoint(workdir) else init_from)


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
    nets = networks.Networks(config, unroll_domains=mesh.shape["domain"] == 1)
    optimizers = train_state.make_optimizers(config.training)
    check_config(config, workdir)
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(checkpoint.Checkpoints(workdir))
        newest_step = checkpoints.newest_step()
        first_step = newest_step or 0
        parameters = initial_parameters(nets) if newest_step is None else nets.init(_key(config))
        state = train_state.create(parameters, optimizers, config)
        devices = partitioning.make(layout.partitioning, mesh, nets, optimizers, state)
        state = devices.put_state(state)
        unlogged: list[train_step.Metrics] = []
        if newest_step is not None:
            state = checkpoints.restore(newest_step, state)
            unlogged = checkpoints.unlogged(newest_step)
            logging.info("Going on from step %d in %s.", newest_step, workdir)
        if first_step >= schedule.num_steps:
            logging.info("That is all that --num_steps=%d asks for.", schedule.num_steps)
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
        translations = samples.Translations(config, prepared, schedule.eval_audio_seconds)
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
                    [devices.eval_step(state.parameters, batch) for batch in eval_batches]
                )
                # The update of this very step may have been one too many.
                _check_finite(scores, [step] * len(scores), config, workdir)
                log.evaluate(step, scores)
                reconstruction = float(np.mean([s["reconstruction"] for s in scores]))
            if schedule.saves(step) or stopped:
                checkpoints.save(state, config, prepared.description, reconstruction, unlogged)
            if stopped and step < schedule.num_steps:
                logging.info("Stopped after step %d. The same command goes on from there.", step)
                return False
            if schedule.evaluates(step):
                log.translations(step, translations.make(state.parameters))
    return True


def make_mesh(config: Config, layout: train_flags.Layout) -> jax.sharding.Mesh:
    """Lays out all devices for this configuration."""
    # The mesh splits all decoders, and the batch, which may have fewer domains.
    num_domains = math.gcd(len(config.domains), len(config.trained_domains))
    if layout.partitioning == "pmap" and not layout.mesh:
        num_domains = 1  # It cannot split them.
    return sharding.make_mesh(num_domains, config.training.domain_batch, layout=layout.mesh)


def initial_parameters(nets: networks.Networks) -> networks.NetworkParameters:
    """Returns the weights of step 0: fresh, but for what `init_from` has."""
    config = nets.config
    parameters = nets.init(_key(config))
    init_from = config.training.init_from
    if not init_from:
        return parameters
    source_domains = checkpoint.read_config(init_from).domains
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


def _key(config: Config) -> jax.Array:
    return jax.random.key(config.training.seed)


def check_config(config: Config, workdir: str) -> None:
    """Raises `ValueError` if `workdir` holds a run of another configuration, and says how."""
    if not checkpoint.has_checkpoint(workdir):
        return
    before, now = _by_flag(checkpoint.read_config(workdir)), _by_flag(config)
    for flag, value in now.items():
        if before[flag] != value:
            raise ValueError(
                f"--{flag}={value} contradicts the run in --workdir={workdir}, which has "
                f"--{flag}={before[flag]}. Use that value to go on with it, or another --workdir "
                "to start anew."
            )


def _by_flag(config: Config) -> dict[str, Any]:
    fields = config.to_json()
    names = {name: ",".join(fields[name]) for name in ("domains", "train_domains")}
    return {**names, **fields["model"], **fields["training"]}


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
    command_line.run(main)
