import functools

import jax
import numpy as np
import optax
import pytest
from conftest import random_parameters

from umt_jax import networks, sharding, train_state, train_step
from umt_jax.config import Config, ModelConfig, TrainingConfig
from umt_jax.dataset import Batch


@pytest.fixture(autouse=True)
def standard_promotion():
    # Optax's Adam itself mixes integers and floats.
    with jax.numpy_dtype_promotion("standard"):
        yield


def _state_after_a_step(config, parameters, mesh, optimizer):
    rng = np.random.default_rng(3)
    shape = (len(config.domains), config.training.domain_batch, config.training.segment_samples)
    batch = Batch(
        codes=rng.integers(256, size=shape).astype(np.uint8),
        augmented=rng.integers(256, size=shape).astype(np.uint8),
    )
    nets = networks.Networks(config, unroll_domains=mesh.shape["domain"] == 1)
    optimizers = train_state.Optimizers(optimizer, optimizer)
    state = train_state.create(parameters, optimizers, config)
    shardings = sharding.state_shardings(state, mesh)
    step = jax.jit(
        functools.partial(train_step.train_step, networks=nets, optimizers=optimizers),
        out_shardings=(shardings, None),
    )
    return step(jax.device_put(state, shardings), sharding.put_batch(batch, mesh))[0]


@pytest.fixture(scope="module")
def small():
    """A configuration that compiles fast, and its parameters, for a number of domains."""

    @functools.cache
    def make(num_domains):
        model = ModelConfig(
            encoder_blocks=1,
            encoder_layers=2,
            encoder_channels=4,
            latent_channels=3,
            pool_samples=10,
            decoder_blocks=1,
            decoder_layers=2,
            residual_channels=4,
            skip_channels=5,
            classifier_channels=4,
        )
        training = TrainingConfig(segment_samples=20, domain_batch=4, confusion_weight=0.3)
        config = Config(
            domains=("Cello", "Flute", "Piano")[:num_domains], model=model, training=training
        )
        return config, random_parameters(networks.Networks(config))

    return make


@pytest.mark.parametrize(
    ("num_domains", "num_devices", "layout"),
    [(3, 2, (1, 2)), (3, 3, (3, 1)), (3, 4, (1, 4)), (2, 4, (2, 2))],
)
def test_any_number_of_devices_has_the_gradients_of_one(small, num_domains, num_devices, layout):
    config, parameters = small(num_domains)
    mesh = sharding.make_mesh(num_domains, 4, jax.devices()[:num_devices])
    assert (mesh.shape["domain"], mesh.shape["data"]) == layout
    one = sharding.make_mesh(num_domains, 4, jax.devices()[:1])
    # Plain gradient descent at speed 1 shows the gradients; Adam would hide their scale.
    state, expected = (
        _state_after_a_step(config, parameters, where, optax.sgd(1.0)) for where in (mesh, one)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), state, expected
    )


def test_decoders_and_their_moments_are_split_over_domains(small):
    mesh = sharding.make_mesh(3, 4, jax.devices()[:3])
    state = _state_after_a_step(*small(3), mesh, optax.adam(1e-3))
    moments = state.autoencoder_optimizer[0].mu
    for tree in (state.parameters.decoders, moments["decoders"]):
        for leaf in jax.tree.leaves(tree):
            assert leaf.addressable_shards[0].data.shape == (1, *leaf.shape[1:])
    for tree in (state.parameters.encoder, moments["encoder"], state.parameters.classifier):
        assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(tree))


def test_devices_that_cannot_share_evenly_get_a_batch_that_can():
    with pytest.raises(ValueError, match="--domain_batch=4"):
        sharding.make_mesh(3, 2, jax.devices()[:4])
