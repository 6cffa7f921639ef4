"""The device mesh, and where each array of state and batch lives on it."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from umt_jax.dataset import Batch
from umt_jax.train_state import TrainState


def make_mesh(
    num_domains: int, domain_batch: int, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Lays devices out as (domain, data): decoders split over the first, segments over both.

    As many devices as possible go to `domain`, since decoders then need no gradient exchange.

    Raises:
        ValueError: No layout divides both the domains and the segments evenly.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    for domain_axis in range(min(count, num_domains), 0, -1):
        data_axis = count // domain_axis
        divides = count % domain_axis == 0 and num_domains % domain_axis == 0
        if divides and domain_batch % data_axis == 0:
            grid = np.asarray(devices).reshape(domain_axis, data_axis)
            return Mesh(grid, ("domain", "data"))
    nearest = -(-domain_batch // count) * count
    raise ValueError(
        f"{count} devices cannot share {num_domains} domains of --domain_batch={domain_batch} "
        f"segments evenly. Use --domain_batch={nearest}, or as many devices as divide "
        f"{num_domains} x {domain_batch}."
    )


def state_shardings(state: TrainState, mesh: Mesh) -> TrainState:
    """Returns the sharding of each array: decoders (and their moments) by domain, rest whole."""

    def leaf_sharding(path: Any, leaf: Any) -> NamedSharding:
        names = {getattr(key, "name", getattr(key, "key", None)) for key in path}
        return NamedSharding(mesh, PartitionSpec(*(["domain"] if "decoders" in names else [])))

    return jax.tree_util.tree_map_with_path(leaf_sharding, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch's arrays, [K, B, T]."""
    return NamedSharding(mesh, PartitionSpec("domain", "data"))


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Moves this process's part of a batch to its devices."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, array), batch
    )
