"""Saves and restores a state, with its Config beside it (Orbax).

A run's folder, `workdir`, holds `checkpoints/<step>/`, each with four parts: parameters,
optimizers, configuration and description of the dataset. Inference reads the first and third.
"""

import contextlib
import dataclasses
import errno
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from umt_jax import storage
from umt_jax.config import Config, SamplingConfig
from umt_jax.networks import NetworkParameters, Networks
from umt_jax.train_state import TrainState

# The parts of a checkpoint: trees of arrays, and JSON in a file of this name.
ARRAYS = ("parameters", "optimizers")
JSON_FILES = {"config": "metadata", "dataset": "metadata", "metrics": "metrics"}

_METRIC = "reconstruction"
_UNLOGGED = "unlogged"
_DELETED = "deleted"


def _reconstruction(metrics: dict[str, float]) -> float:
    return metrics[_METRIC]


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """Leaves this to the training loop.

        Orbax asks again from a thread of its own, with the steps of earlier checkpoints. With
        several processes the answer counts on every question being about the present step.
        """
        return False


class Checkpoints:
    """The checkpoints of one run: the newest, and the one with the best validation loss."""

    def __init__(self, workdir: str) -> None:
        """Opens `workdir`, making it if need be."""
        policies = checkpoint_managers.preservation_policy
        self._manager = _Manager(
            folder_of(workdir),
            options=ocp.CheckpointManagerOptions(
                # Without this Orbax does not save the metrics, and forgets which one is the best.
                best_fn=_reconstruction,
                best_mode="min",
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(1),
                        policies.BestN(get_metric_fn=_reconstruction, reverse=True, n=1),
                    ]
                ),
                cleanup_tmp_directories=True,
                # Moved away first, since half-deleted ones would look like damaged ones.
                todelete_subdir=_DELETED,
            ),
        )

    def newest_step(self) -> int | None:
        """Returns the step of the newest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(
        self,
        state: TrainState,
        config: Config,
        dataset: dict[str, Any],
        reconstruction: float,
        unlogged: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Saves a state in the background.

        Args:
            state: State to save; may be donated to the next step at once.
            config: What made it.
            dataset: What the data builder recorded of each domain.
            reconstruction: Validation loss in nats per sample, which decides the best. Not NaN;
                infinite where it is not known.
            unlogged: Metrics of the last steps that no mean in the run's log includes yet.

        Raises:
            OSError: This checkpoint or the one before it could not be written.
        """
        with self._saving():
            self._manager.wait_until_finished()
            self._remove_deleted()
            self._manager.save(
                int(state.step),
                args=ocp.args.Composite(
                    parameters=ocp.args.StandardSave(state.best_parameters),
                    optimizers=ocp.args.StandardSave(_optimizers(state)),
                    config=ocp.args.JsonSave(config.to_json()),
                    dataset=ocp.args.JsonSave(dataset),
                ),
                metrics={
                    _METRIC: reconstruction,
                    _UNLOGGED: [
                        {name: np.asarray(value).tolist() for name, value in metrics.items()}
                        for metrics in unlogged
                    ],
                },
            )

    def restore(self, step: int, target: TrainState) -> TrainState:
        """Returns the state saved at `step`, on the devices where `target`'s arrays live.

        Raises:
            ValueError: It has other arrays than `target`.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, target)
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    parameters=ocp.args.StandardRestore(abstract.best_parameters),
                    optimizers=ocp.args.StandardRestore(_optimizers(abstract)),
                ),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(
                f"{self._manager.directory / str(step)} does not hold the arrays of this model: it "
                "was written by another version of umt_jax, or by another program. Start anew in "
                "another --workdir."
            ) from error
        optimizers = restored["optimizers"]
        if target.average is None:
            return TrainState(parameters=restored["parameters"], **optimizers)
        return TrainState(average=restored["parameters"], **optimizers)

    def unlogged(self, step: int) -> list[dict[str, Any]]:
        """Returns what `save` was given under that name, in float32 as metrics are."""
        return [
            {name: np.asarray(value, np.float32) for name, value in metrics.items()}
            for metrics in self._manager.metrics(step).get(_UNLOGGED, [])
        ]

    def __enter__(self) -> "Checkpoints":
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Waits until everything is on disk."""
        with self._saving():
            self._manager.close()
            self._remove_deleted()

    def _remove_deleted(self) -> None:
        if jax.process_index() == 0:
            (self._manager.directory / _DELETED).rmtree(missing_ok=True)

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Says plainly when a checkpoint could not be written, this one or the one before it."""
        try:
            yield
        except (ValueError, OSError) as error:
            full = os.strerror(errno.ENOSPC)
            reason = full if full in str(error) else str(error).partition("\n")[0][:200]
            raise OSError(
                f"A checkpoint could not be written to {self._manager.directory}, which keeps the "
                f"ones before it: {reason}"
            ) from error


def folder_of(workdir: str) -> epath.Path:
    """Returns where a run keeps its checkpoints, each in a folder named after its step."""
    if storage.is_local(workdir):
        workdir = os.path.abspath(workdir)  # Orbax asks for it.
    return storage.path(workdir) / "checkpoints"


def has_checkpoint(workdir: str) -> bool:
    """Says whether a run has saved anything yet."""
    return folder_of(workdir).is_dir() and bool(ocp.utils.checkpoint_steps(folder_of(workdir)))


def read_config(workdir: str, step: int | None = None) -> Config:
    """Returns the configuration that a run was trained with.

    Args:
        workdir: Folder of the run.
        step: Which checkpoint; None for the best.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: What is there was not written by this project.
    """
    fields = _read(workdir, step, config=ocp.args.JsonRestore())["config"]
    try:
        return Config.from_json(fields)
    except ValueError as error:
        raise ValueError(f"The checkpoint in {workdir} does not fit: {error}") from error


def restore_parameters(workdir: str, step: int | None = None) -> NetworkParameters:
    """Returns the trained arrays alone, without the optimizers, on the first device.

    Args and errors as `read_config`.
    """
    config = read_config(workdir, step)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        jax.eval_shape(Networks(config).init, jax.random.key(0)),
    )
    return _read(workdir, step, parameters=ocp.args.StandardRestore(abstract))["parameters"]


def best_step(workdir: str) -> int:
    """Returns the step of the checkpoint that inference takes if none is named."""
    with ocp.CheckpointManager(folder_of(workdir), options=_reading()) as manager:
        return manager.best_step()


def export(
    workdir: str, output: str, step: int | None = None, *, sampling: SamplingConfig | None = None
) -> tuple[int, float]:
    """Copies a checkpoint without its optimizers, weights in float16, a twelfth of its size.

    Weights are small numbers: float16 rounds them eight times as finely as bfloat16. The copy loads
    as any other, in float32; training goes on from it with --init_from.

    Args:
        workdir: Folder of the run.
        output: Folder to make.
        step: Which checkpoint; None for the best.
        sampling: How the copy is to be played; None for what the checkpoint says.

    Returns:
        Its step, and its validation loss in nats per sample.

    Raises:
        FileExistsError: The output holds a run already.
        FileNotFoundError: There is no such checkpoint.
        ValueError: It cannot be read, or float16 cannot hold a weight of it.
    """
    if has_checkpoint(output):
        raise FileExistsError(f"--output={output} holds a run already. Name another folder.")
    config = read_config(workdir, step)  # Says what is wrong, if anything is.
    config = dataclasses.replace(config, sampling=sampling or config.sampling)
    with ocp.CheckpointManager(folder_of(workdir), options=_reading()) as manager:
        step = manager.best_step() if step is None else step
        metrics = {_METRIC: manager.metrics(step)[_METRIC], _UNLOGGED: []}
    parameters = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float16), restore_parameters(workdir, step)
    )
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(parameters)):
        raise ValueError(f"--checkpoint={workdir} has weights beyond float16, step {step}.")
    dataset = _read(workdir, step, dataset=ocp.args.JsonRestore())["dataset"]
    # Without `best_fn` Orbax does not save the metrics.
    options = ocp.CheckpointManagerOptions(best_fn=_reconstruction, best_mode="min")
    with ocp.CheckpointManager(folder_of(output), options=options) as manager:
        manager.save(
            step,
            args=ocp.args.Composite(
                parameters=ocp.args.StandardSave(parameters),
                config=ocp.args.JsonSave(config.to_json()),
                dataset=ocp.args.JsonSave(dataset),
            ),
            metrics=metrics,
        )
    return step, metrics[_METRIC]


def _optimizers(state):
    """Returns what training alone needs; with an average, the newest parameters are part of it."""
    optional = {} if state.average is None else {"parameters": state.parameters}
    if state.recent_latents is not None:
        optional["recent_latents"] = state.recent_latents
    return {
        "step": state.step,
        "autoencoder_optimizer": state.autoencoder_optimizer,
        "classifier_optimizer": state.classifier_optimizer,
        **optional,
    }


def _read(workdir, step, **parts):
    """Restores parts of the checkpoint of a step, or of the best for None."""
    folder = folder_of(workdir)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"--checkpoint={workdir} is not the folder of a training run: it has no folder "
            "'checkpoints'. Give what was --workdir in training."
        )
    with ocp.CheckpointManager(folder, options=_reading()) as manager:
        there = manager.all_steps()
        if not there:
            raise FileNotFoundError(f"--checkpoint={workdir} holds no finished checkpoint yet.")
        if step is not None and step not in there:
            raise FileNotFoundError(
                f"--checkpoint={workdir} has no step {step}. There are: "
                f"{', '.join(map(str, there))}."
            )
        try:
            step = manager.best_step() if step is None else step
            return manager.restore(step, args=ocp.args.Composite(**parts))
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(
                f"{folder if step is None else folder / str(step)} is damaged, or holds a "
                f"checkpoint of another program: its {' and '.join(parts)} cannot be read."
            ) from error


def _reading():
    # Writes nothing. Orbax's option `read_only` would say so in two lines at every opening.
    return ocp.CheckpointManagerOptions(create=False, best_fn=_reconstruction, best_mode="min")
