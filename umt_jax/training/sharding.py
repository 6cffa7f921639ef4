"""The device mesh, and where each array of state and batch lives on it."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from umt_jax.data.dataset import Part
from umt_jax.shapes import Array
from umt_jax.training.train_state import TrainState


def make_mesh(
    num_domains: int,
    domain_batch: int,
    devices: Sequence[jax.Device] | None = None,
    *,
    layout: tuple[int, int] | None = None,
) -> Mesh:
    """Lays devices out as (domain, data): decoders split over the first, segments over both.

    A process's devices follow one another, so that it reads what they need and no more. With
    `jax.make_mesh`, which knows a TPU's topology, neighbours would exchange more, but a process
    would read up to five times as much (4x4x4 chips as 1x64; 4x4 as 1x16: four times), and some
    layouts it refuses (4x4x4 as 2x32; several slices). Little is exchanged here.

    Args:
        num_domains: K, or what else must be divisible by the first axis.
        domain_batch: Segments of each domain in a batch, B.
        devices: What to lay out; None for all devices of all processes.
        layout: Sizes of the two axes; None for as many devices as possible along `domain`, since
            decoders then need no gradient exchange.

    Raises:
        ValueError: The layout, or every layout, leaves some devices more to do than others.
    """
    devices = jax.devices() if devices is None else devices
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    possible = _layouts(num_domains, domain_batch, len(devices))
    if layout is None:
        layout = possible[-1]
    elif layout not in possible:
        _refuse(layout, num_domains, domain_batch, len(devices), possible)
    return Mesh(np.asarray(devices).reshape(layout), ("domain", "data"))


def _layouts(num_domains, domain_batch, num_devices):
    """Returns all even layouts, those that split decoders further after the others."""
    domain_axes = _divisors(math.gcd(num_domains, num_devices))
    layouts = [(axis, num_devices // axis) for axis in domain_axes]
    possible = [layout for layout in layouts if domain_batch % layout[1] == 0]
    if possible:
        return possible
    multiple = layouts[-1][1]
    nearest = -(-domain_batch // multiple) * multiple
    counts = {d * b for d in _divisors(num_domains) for b in _divisors(domain_batch)}
    raise ValueError(
        f"{num_devices} devices cannot share domain_batch={domain_batch} segments of each domain "
        f"evenly. Use domain_batch={nearest} or another multiple of {multiple}, or "
        f"{_one_of(count for count in counts if count < num_devices)} devices."
    )


def _refuse(layout, num_domains, domain_batch, num_devices, possible):
    domain_axis, data_axis = layout
    given = f"mesh={domain_axis}x{data_axis}"
    advice = f"Use mesh={_one_of(f'{d}x{b}' for d, b in possible)}, or leave it out."
    if domain_axis * data_axis != num_devices:
        raise ValueError(
            f"{given} is a layout of {domain_axis * data_axis} devices, but there are "
            f"{num_devices}. {advice}"
        )
    if num_domains % domain_axis:
        raise ValueError(
            f"{given} cannot split {num_domains} decoders over {domain_axis} devices evenly. "
            f"{advice}"
        )
    raise ValueError(
        f"{given} cannot split domain_batch={domain_batch} segments over {data_axis} devices "
        f"evenly. {advice}"
    )


def _divisors(number):
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _one_of(choices):
    *most, last = map(str, sorted(choices))
    return f"{', '.join(most)} or {last}" if most else last


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device has whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch's arrays, [K, B, T]."""
    return NamedSharding(mesh, PartitionSpec("domain", "data"))


def state_shardings(state: TrainState, mesh: Mesh) -> TrainState:
    """Returns the sharding of each array: decoders (and their moments) by domain, rest whole."""

    def leaf_sharding(path: Any, leaf: Any) -> NamedSharding:
        names = {getattr(key, "name", getattr(key, "key", None)) for key in path}
        return NamedSharding(mesh, PartitionSpec(*(["domain"] if "decoders" in names else [])))

    return jax.tree_util.tree_map_with_path(leaf_sharding, state)


def put_whole(array: Array, sharding: NamedSharding) -> jax.Array:
    """Moves an array that every process has whole to the devices of `sharding`."""
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)


def local_part(mesh: Mesh, num_domains: int, domain_batch: int) -> Part:
    """Returns what the devices of this process need of each batch, as one box.

    The box is exactly that, but for layouts in which a process ends in the middle of a row of the
    mesh that it does not begin: there it holds other processes' segments as well.
    """
    indices = batch_sharding(mesh).addressable_devices_indices_map((num_domains, domain_batch))
    boxes = [index for index in indices.values() if index is not None]

    def enclosing(axis, size):
        bounds = [box[axis].indices(size)[:2] for box in boxes]
        return range(min(start for start, _ in bounds), max(stop for _, stop in bounds))

    return Part(domains=enclosing(0, num_domains), segments=enclosing(1, domain_batch))


def put_box(
    box: np.ndarray, start: Sequence[int], shape: Sequence[int], sharding: NamedSharding
) -> jax.Array:
    """Puts together an array of which each process has a box that encloses its devices' shards.

    Args:
        box: This process's box.
        start: Where in the whole array it begins.
        shape: Shape of the whole array.
        sharding: Where the parts of the whole array live.
    """

    def shard(index):
        bounds = [s.indices(size)[:2] for s, size in zip(index, shape, strict=True)]
        return box[tuple(slice(b - s, e - s) for (b, e), s in zip(bounds, start, strict=True))]

    return jax.make_array_from_callback(tuple(shape), sharding, shard)
