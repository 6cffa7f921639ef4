"""Operations that a training step needs from the devices that share it."""

import dataclasses
from collections.abc import Callable

from umt_jax.shapes import Array, Float, Leaf, PyTree


def _as_it_is(tree: PyTree) -> PyTree:
    return tree


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices of a step. The defaults are for one program that sees the whole batch.

    Attributes:
        first_segment: Where each device runs the step on segments of its own: place of its first
            one among the B of the whole batch.
        mean: Returns the mean of a tree over the devices.
        gather: Returns the segments [K, B, ...] of all devices, given those of one.
    """

    first_segment: Leaf = 0
    mean: Callable[[PyTree], PyTree] = _as_it_is
    gather: Callable[[Float[Array, "K B ..."]], Float[Array, "K D ..."]] = _as_it_is


ONE_PROGRAM = Devices()
