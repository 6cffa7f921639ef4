"""Training on several hosts: how their processes find one another, and which of them writes."""

import jax
from absl import logging
from jax.experimental import multihost_utils

from umt_jax.shapes import PyTree

HEARTBEAT_TIMEOUT_SECONDS = 60
"""How long a process may be silent before the others give up."""


def join(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Makes this process one of those that train together; before any device is used.

    Args:
        coordinator_address: HOST:PORT of process 0.
        num_processes: How many there are.
        process_id: Which of them this is.

    None of the three are needed on Cloud TPU, Slurm, Kubernetes and Open MPI.

    Raises:
        ValueError: They are needed here, or contradict one another.
        OSError: The others did not come.
    """
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS,
        )
    except ValueError as error:
        raise ValueError(
            f"--distributed: {error} Only Cloud TPU, Slurm, Kubernetes and Open MPI tell by "
            "themselves: give --coordinator_address=HOST:PORT, --num_processes=N and "
            "--process_id=0 to N-1."
        ) from error
    if jax.process_index():
        logging.set_verbosity(logging.WARNING)


def writes() -> bool:
    """Says whether this is the process that logs and writes metrics and translations."""
    return jax.process_index() == 0


def gather(tree: PyTree) -> PyTree:
    """Returns arrays whole in this process's memory. All processes must call it together."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
