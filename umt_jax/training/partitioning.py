"""Splits a step over the devices of a mesh: by the compiler, or as one program per device.

Both have the same methods and give back the same state, so that a run may change from one to the
other where it is resumed.
"""

import functools

import jax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from umt_jax.data.dataset import Batch
from umt_jax.model.networks import NetworkParameters, Networks
from umt_jax.shapes import PyTree
from umt_jax.training import sharding, train_step
from umt_jax.training.devices import Devices
from umt_jax.training.train_state import Optimizers, TrainState
from umt_jax.training.train_step import Metrics


class Jit:
    """The compiler splits one program for the whole batch (`jax.jit`)."""

    def __init__(
        self, mesh: Mesh, nets: Networks, optimizers: Optimizers, state: TrainState
    ) -> None:
        """Compiles nothing yet; `state` is a state of the run, or its shapes alone."""
        config = nets.config
        self._shape = (len(config.trained_domains), config.training.domain_batch)
        self._part = sharding.local_part(mesh, *self._shape)
        self._batch_sharding = sharding.batch_sharding(mesh)
        self._state_shardings = sharding.state_shardings(state, mesh)
        everywhere = sharding.replicated(mesh)
        self._train_step = jax.jit(
            functools.partial(train_step.train_step, networks=nets, optimizers=optimizers),
            donate_argnums=0,
            out_shardings=(self._state_shardings, everywhere),
        )
        self._eval_step = jax.jit(
            functools.partial(train_step.eval_step, networks=nets), out_shardings=everywhere
        )

    def put_state(self, state: TrainState) -> TrainState:
        """Moves a state that every process has whole to its places on the devices."""
        return jax.tree.map(sharding.put_whole, state, self._state_shardings)

    def put_batch(self, batch: Batch) -> Batch:
        """Moves this process's part (`sharding.local_part`) of a batch to its devices."""
        start = (self._part.domains.start, self._part.segments.start, 0)
        return jax.tree.map(
            lambda box: sharding.put_box(
                box, start, (*self._shape, box.shape[-1]), self._batch_sharding
            ),
            batch,
        )

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Runs `train_step.train_step`. Donates `state`, which must not be used again."""
        return self._train_step(state, batch)

    def eval_step(self, parameters: NetworkParameters, batch: Batch) -> Metrics:
        """Runs `train_step.eval_step`."""
        return self._eval_step(parameters, batch)


class Pmap:
    """Each device runs the step on its own segments and averages with the others (`jax.pmap`).

    JAX advises `jit` with shardings for new code; `pmap` is here because users asked for it. It
    knows one axis, so that every device has all decoders.
    """

    _AXIS = "data"

    def __init__(self, mesh: Mesh, nets: Networks, optimizers: Optimizers) -> None:
        """Compiles nothing yet.

        Raises:
            ValueError: The mesh splits domains.
        """
        if mesh.shape["domain"] != 1:
            raise ValueError(
                f"partitioning=pmap cannot split domains, but mesh={mesh.shape['domain']}x"
                f"{mesh.shape['data']} does. Use mesh=1x{mesh.size}, or partitioning=jit."
            )
        config = nets.config
        self._shape = (len(config.trained_domains), config.training.domain_batch)
        self._part = sharding.local_part(mesh, *self._shape)
        # What `pmap` makes of its devices; with another mesh it would compile twice.
        self._mesh = Mesh(mesh.devices.ravel(), (self._AXIS,))
        self._everywhere = sharding.replicated(self._mesh)
        # Not mapped: state goes in and comes out whole on every device. `pmap` does not check that
        # the devices agree (check_vma=False), nor does it sum gradients by itself.
        pmap = functools.partial(
            jax.pmap,
            axis_name=self._AXIS,
            in_axes=(None, 1),
            out_axes=None,
            devices=list(self._mesh.devices),
            axis_size=mesh.size,
        )
        mean = functools.partial(lax.pmean, axis_name=self._AXIS)
        device_batch = config.training.domain_batch // mesh.size

        def local_step(state, batch):
            return train_step.train_step(
                state,
                batch,
                networks=nets,
                optimizers=optimizers,
                devices=Devices(
                    first_segment=lax.axis_index(self._AXIS) * device_batch,
                    mean=mean,
                    gather=functools.partial(
                        lax.all_gather, axis_name=self._AXIS, axis=1, tiled=True
                    ),
                ),
            )

        self._train_step = pmap(local_step, donate_argnums=0)
        self._eval_step = pmap(
            functools.partial(train_step.eval_step, networks=nets, devices=Devices(mean=mean))
        )

    def put_state(self, state: TrainState) -> TrainState:
        """Moves a state that every process has whole to every device."""
        return jax.tree.map(lambda leaf: sharding.put_whole(leaf, self._everywhere), state)

    def put_batch(self, batch: Batch) -> Batch:
        """Moves this process's part (`sharding.local_part`) of a batch to its devices.

        The batch's arrays are [K, devices, B / devices, T].
        """
        num_domains, domain_batch = self._shape
        device_batch = domain_batch // self._mesh.size
        start = (0, self._part.segments.start // device_batch, 0, 0)
        by_device = NamedSharding(self._mesh, PartitionSpec(None, self._AXIS))

        def put(box):
            split = box.reshape(num_domains, -1, device_batch, box.shape[-1])
            shape = (num_domains, self._mesh.size, *split.shape[2:])
            return sharding.put_box(split, start, shape, by_device)

        return jax.tree.map(put, batch)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Runs `train_step.train_step`. Donates `state`, which must not be used again."""
        state, metrics = self._train_step(state, batch)
        return self._whole(state), metrics

    def eval_step(self, parameters: NetworkParameters, batch: Batch) -> Metrics:
        """Runs `train_step.eval_step`."""
        return self._eval_step(parameters, batch)

    def _whole(self, state: PyTree) -> PyTree:
        """Returns arrays on the devices of all processes; `pmap` returns this process's copies."""
        if jax.process_count() == 1:
            return state
        return jax.tree.map(
            lambda leaf: jax.make_array_from_single_device_arrays(
                leaf.shape, self._everywhere, [shard.data for shard in leaf.addressable_shards]
            ),
            state,
        )


Partitioning = Jit | Pmap

NAMES = ("jit", "pmap")
"""Values of `partitioning`."""


def make(
    name: str, mesh: Mesh, nets: Networks, optimizers: Optimizers, state: TrainState
) -> Partitioning:
    """Returns the partitioning of that name, one of NAMES; `state` may be shapes alone."""
    if name == "pmap":
        return Pmap(mesh, nets, optimizers)
    return Jit(mesh, nets, optimizers, state)
