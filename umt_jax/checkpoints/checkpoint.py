"""Saves and restores the state of a training run, with its Config beside it (Orbax).

`reading` says what a run's folder holds, and reads it without Orbax.
"""

import contextlib
import dataclasses
import errno
import ntpath
import os
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint import checkpoint_managers

from umt_jax import storage
from umt_jax.checkpoints import model_file, orbax_handlers, reading, stored_arrays
from umt_jax.config import Config, SamplingConfig
from umt_jax.model import networks
from umt_jax.model.networks import NetworkParameters
from umt_jax.training.train_state import TrainState

ARRAYS = ("parameters", "optimizers")
"""The parts of a checkpoint that are trees of arrays; the others are `stored_json.FILES`."""

_RECORD = "metrics.jsonl"
_UNLOGGED = "unlogged"
_DELETED = "deleted"


def _reconstruction(metrics: dict[str, float]) -> float:
    return metrics[reading.METRIC]


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
        """Opens `workdir`, making it if need be.

        Raises:
            ValueError: Checkpoints cannot be written in a folder of this name.
        """
        policies = checkpoint_managers.preservation_policy
        folder = reading.folder_of(workdir)
        remove_empty(folder)
        self._manager = _Manager(
            folder,
            handler_registry=orbax_handlers.registry(ARRAYS),
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
        """Saves a state in the background, and reads it back before an older one is deleted.

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
                    reading.METRIC: reconstruction,
                    _UNLOGGED: [
                        {name: np.asarray(value).tolist() for name, value in metrics.items()}
                        for metrics in unlogged
                    ],
                },
            )

    def restore(self, step: int, target: TrainState) -> TrainState:
        """Returns the state saved at `step`, on the devices where `target`'s arrays live.

        Raises:
            ValueError: It has other arrays than `target`, or of other shapes or types.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, target)
        trees = {"parameters": abstract.best_parameters, "optimizers": _optimizers(abstract)}
        folder = self._manager.directory / str(step)
        try:
            differences = [
                f"{part}.{clause}"
                for part, tree in trees.items()
                for clause in stored_arrays.differences(folder / part, _needed(tree))
            ]
            if differences:
                raise ValueError(reading.first(differences))
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    **{part: ocp.args.StandardRestore(tree) for part, tree in trees.items()}
                ),
            )
        except (KeyError, ValueError, TypeError) as error:
            reason = str(error).partition("\n")[0][:200]
            raise ValueError(
                f"{folder} does not hold the arrays of this model ({reason}): it was written by "
                "another version of umt_jax, or by another program. Start anew in another "
                "workdir."
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


def restore_parameters(workdir: str, step: int | None = None) -> NetworkParameters:
    """Returns the trained arrays alone, without the optimizers, on the first device.

    Args and errors as `reading.read_config`.
    """
    parameters = networks.from_arrays(reading.read_arrays(workdir, step))
    return jax.device_put(parameters, jax.local_devices()[0])


def remove_half_written(folder: epath.Path) -> None:
    """Removes checkpoints that were never finished; nobody else may be writing there."""
    for half_written in ocp.utils.tmp_checkpoints(folder) if folder.is_dir() else ():
        logging.warning("Removing %s, half-written by a run that was killed.", half_written.get())
        half_written.get().rmtree()


def remove_empty(folder: epath.Path) -> None:
    """Removes empty folders named after a step, which Orbax would take for checkpoints."""
    if jax.process_index() != 0 or not folder.is_dir():
        return
    for step in set(ocp.utils.checkpoint_steps(folder)).difference(reading.steps(folder)):
        if (folder / str(step)).is_dir():
            logging.warning("Removing %s: it is empty, so no checkpoint.", folder / str(step))
            (folder / str(step)).rmdir()


def export(
    workdir: str,
    output: str,
    step: int | None = None,
    *,
    sampling: SamplingConfig | None = None,
    recordings: bool = False,
    guides: bool = True,
) -> tuple[int, float]:
    """Copies a checkpoint without its optimizers, weights in float16, a twelfth of its size.

    Weights are small numbers: float16 rounds them eight times as finely as bfloat16. The copy loads
    as any other, in float32; training starts from it with --init_from. It is made to be shared: of
    the paths of this machine it holds the last names alone, and of recordings, unless asked for,
    only how long they are. Nobody else may be writing to the output (`folder_lock`).

    Args:
        workdir: Folder of the run.
        output: Folder to make.
        step: Which checkpoint; None for the best.
        sampling: How the copy is to be played; None for what the checkpoint says.
        recordings: Keeps the names of the recordings that it was trained on.
        guides: Keeps its guides, if it has any.

    Returns:
        Its step, and its validation loss in nats per sample.

    Raises:
        FileExistsError: The output holds a run already.
        FileNotFoundError: There is no such checkpoint.
        ValueError: It cannot be read, or float16 cannot hold a weight of it.
    """
    check_is_free(output)
    config, parameters, step, loss = to_share(workdir, step, sampling=sampling, guides=guides)
    dataset = reading.read_dataset(workdir, step)
    if not recordings:
        dataset = {name: _without_recordings(domain) for name, domain in dataset.items()}
    write_parameters(output, config, parameters, _without_paths(dataset), step=step, loss=loss)
    return step, loss


def write_parameters(
    output: str,
    config: Config,
    parameters: NetworkParameters,
    dataset: dict[str, Any],
    *,
    step: int,
    loss: float,
) -> None:
    """Writes a checkpoint without optimizers, which loads as any other.

    Args:
        output: Folder to make.
        config: Of the model.
        parameters: Its arrays, in any type.
        dataset: Description of what it was trained on.
        step: Of the checkpoint.
        loss: Of it in validation, in nats per sample.

    Raises:
        FileExistsError: The output holds a run already.
    """
    check_is_free(output)
    metrics = {reading.METRIC: loss, _UNLOGGED: []}
    folder = reading.folder_of(output)
    remove_half_written(folder)
    remove_empty(folder)
    # Without `best_fn` Orbax does not save the metrics.
    options = ocp.CheckpointManagerOptions(best_fn=_reconstruction, best_mode="min")
    handlers = orbax_handlers.registry(("parameters",))
    with ocp.CheckpointManager(folder, options=options, handler_registry=handlers) as manager:
        manager.save(
            step,
            args=ocp.args.Composite(
                parameters=ocp.args.StandardSave(jax.tree.map(np.asarray, parameters)),
                config=ocp.args.JsonSave(config.to_json()),
                dataset=ocp.args.JsonSave(dataset),
            ),
            metrics=metrics,
        )
    for part in ("", *(path.name for path in (folder / str(step)).iterdir() if path.is_dir())):
        # That it is there is what counts; Orbax writes the path of its folder into it.
        if (committed := folder / str(step) / part / reading.COMMITTED).exists():
            committed.write_text("Committed.\n")


def copy_record(workdir: str, output: str) -> None:
    """Copies a run's record of its losses to another folder, if there is one."""
    record = storage.path(workdir) / _RECORD
    if record.exists():
        with storage.whole_file(storage.path(output) / _RECORD) as copy:
            copy.write_bytes(record.read_bytes())


def check_is_free(output: str) -> None:
    """Raises `FileExistsError` if a folder holds a run, before the work that is to be put there."""
    if reading.has_checkpoint(output):
        raise FileExistsError(f"output={output} holds a run already. Name another folder.")


def to_share(
    workdir: str,
    step: int | None = None,
    *,
    sampling: SamplingConfig | None = None,
    guides: bool = True,
) -> tuple[Config, NetworkParameters, int, float]:
    """Returns a checkpoint's configuration without paths, its arrays in float16, step and loss.

    Args and errors as `export`.
    """
    if model_file.is_model_file(workdir):
        raise ValueError(f"{workdir} is one model's file already. Copy it.")
    config = reading.read_config(workdir, step)  # Says what is wrong, if anything is.
    config = dataclasses.replace(config, sampling=sampling or config.sampling)
    step = reading.best_step(workdir) if step is None else step
    loss = reading.loss(workdir, step)
    parameters = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float16), restore_parameters(workdir, step)
    )
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(parameters)):
        raise ValueError(f"{workdir} has weights beyond float16, step {step}.")
    if not guides:
        config = config.without_guides()
        parameters = parameters.replace(decoders=networks.without_guides(parameters.decoders))
    init_from = _last_name(config.training.init_from)
    config = dataclasses.replace(
        config, training=dataclasses.replace(config.training, init_from=init_from)
    )
    return config, parameters, step, loss


def _without_recordings(domain: Any) -> Any:
    """Returns the description of a domain without the names and hashes of its recordings."""
    if not isinstance(domain, dict):
        return domain
    about = {name: value for name, value in domain.items() if not isinstance(value, dict | list)}
    tracks = [
        {name: track[name] for name in ("seconds", "num_segments") if name in track}
        for track in domain.get("tracks", ())
    ]
    return {**about, "tracks": tracks} if tracks else about


def _without_paths(value: Any) -> Any:
    """Returns JSON with the last name of each absolute path in it."""
    if isinstance(value, dict):
        return {name: _without_paths(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_without_paths(entry) for entry in value]
    if isinstance(value, str) and (posixpath.isabs(value) or ntpath.isabs(value)):
        return _last_name(value)
    return value


def _last_name(path: str) -> str:
    """Returns the last name of a path of any system."""
    return ntpath.basename(path.rstrip("/\\"))


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


def _needed(tree: Any) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Returns shape and type of each array of a state by its name in a checkpoint."""
    flat = ocp.tree.to_flat_dict(tree, sep=".")
    return {name: (tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in flat.items()}
