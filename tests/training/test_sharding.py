import re
from unittest import mock

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from umt_jax.data.dataset import Part
from umt_jax.training import sharding


def divisors(number):
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def layouts(num_domains, domain_batch, num_devices):
    """All even layouts, by trying them."""
    return [
        (domain_axis, num_devices // domain_axis)
        for domain_axis in divisors(num_devices)
        if num_domains % domain_axis == 0 and domain_batch % (num_devices // domain_axis) == 0
    ]


@pytest.mark.parametrize("num_domains", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("num_devices", range(1, 9))
def test_the_mesh_splits_decoders_as_far_as_it_can(num_domains, num_devices):
    devices = jax.devices()[:num_devices]
    for domain_batch in range(1, 9):
        possible = layouts(num_domains, domain_batch, num_devices)
        if possible:
            mesh = sharding.make_mesh(num_domains, domain_batch, devices)
            assert mesh.axis_names == ("domain", "data") and mesh.devices.shape == possible[-1]
        else:
            with pytest.raises(ValueError, match=f"^{num_devices} devices cannot share"):
                sharding.make_mesh(num_domains, domain_batch, devices)


INDIVISIBLE = [
    (*sizes, num_devices)
    for sizes in [(3, 2), (6, 1), (1, 5), (4, 3), (3, 12)]
    for num_devices in (5, 7, 8)
    if not layouts(*sizes, num_devices)
]


@pytest.mark.parametrize(("num_domains", "domain_batch", "num_devices"), INDIVISIBLE)
def test_what_the_message_proposes_divides(num_domains, domain_batch, num_devices):
    with pytest.raises(ValueError) as raised:
        sharding.make_mesh(num_domains, domain_batch, jax.devices()[:num_devices])
    proposal = str(raised.value).partition("Use ")[2]
    assert proposal.endswith(" devices.")
    nearest, multiple, *counts = map(int, re.findall(r"\d+", proposal))
    assert nearest >= domain_batch
    for enough in (nearest, multiple, 5 * multiple):
        assert layouts(num_domains, enough, num_devices)
    assert counts == [n for n in range(1, num_devices) if layouts(num_domains, domain_batch, n)]


@pytest.mark.parametrize("layout", [(1, 8), (2, 4), (4, 2)])
def test_a_layout_may_be_asked_for(layout):
    assert sharding.make_mesh(4, 8, jax.devices(), layout=layout).devices.shape == layout


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (
            (2, 2),
            "mesh=2x2 is a layout of 4 devices, but there are 8. Use mesh=2x4, or leave it",
        ),
        ((4, 2), "mesh=4x2 cannot split 6 decoders over 4 .* Use mesh=2x4, or leave it out"),
        ((1, 8), "cannot split domain_batch=12 segments over 8 .* Use mesh=2x4, or leave it"),
    ],
)
def test_a_layout_that_does_not_divide_is_told_what_does(layout, message):
    with pytest.raises(ValueError, match=message):
        sharding.make_mesh(6, 12, jax.devices(), layout=layout)


def test_the_devices_of_a_process_follow_one_another():
    # As on a TPU slice, where a process has a square of the chips, which are numbered by row.
    square = np.array([[0, 0, 1, 1], [0, 0, 1, 1]])
    devices = [
        mock.Mock(spec=jax.Device, id=id, process_index=process, client=None, platform="tpu")
        for id, process in enumerate(square.flat)
    ]
    mesh = sharding.make_mesh(2, 4, devices)
    assert [[device.id for device in row] for row in mesh.devices] == [[0, 1, 4, 5], [2, 3, 6, 7]]


class OfOneProcess:
    """A sharding as one process of several sees it."""

    def __init__(self, whole, devices):
        self._whole, self._devices = whole, devices

    def addressable_devices_indices_map(self, shape):
        indices = self._whole.devices_indices_map(shape)
        return {device: indices[device] for device in self._devices}


@pytest.mark.parametrize(
    ("layout", "per_process"), [((1, 8), 2), ((2, 4), 2), ((2, 4), 4), ((4, 2), 4), ((2, 3), 2)]
)
def test_the_parts_of_all_processes_make_the_batch(monkeypatch, layout, per_process):
    count = layout[0] * layout[1]
    mesh = Mesh(np.array(jax.devices()[:count]).reshape(layout), ("domain", "data"))
    whole = NamedSharding(mesh, PartitionSpec("domain", "data"))
    read = np.zeros((4, 24), int)
    for first in range(0, count, per_process):
        own = mesh.devices.ravel()[first : first + per_process]
        monkeypatch.setattr(
            sharding, "batch_sharding", lambda mesh, own=own: OfOneProcess(whole, own)
        )
        part = sharding.local_part(mesh, 4, 24)
        box = np.s_[
            part.domains.start : part.domains.stop, part.segments.start : part.segments.stop
        ]
        read[box] += 1
        for device in own:
            domains, segments = whole.devices_indices_map((4, 24))[device]
            assert {*range(4)[domains]} <= {*part.domains}
            assert {*range(24)[segments]} <= {*part.segments}
    # Only where a process begins and ends in different rows does it read more than it needs.
    assert read.min() == 1 and (read.max() == 1 or layout == (2, 3))


def test_a_process_with_all_devices_reads_everything():
    mesh = sharding.make_mesh(4, 8, jax.devices())
    assert sharding.local_part(mesh, 4, 8) == Part(range(4), range(8))
