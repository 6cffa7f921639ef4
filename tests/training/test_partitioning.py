"""Any number of devices, split by either partitioning, trains as one device does."""

import dataclasses
import functools
import itertools
import math

import jax
import numpy as np
import optax
import pytest
from conftest import random_parameters, sizes

from umt_jax.config import Config, TrainingConfig
from umt_jax.data.dataset import Batch
from umt_jax.model import networks
from umt_jax.training import partitioning, sharding, train_state

DOMAINS = ("Cello", "Flute", "Harp", "Piano")


@pytest.fixture(autouse=True)
def standard_promotion():
    # Optax's Adam itself mixes integers and floats.
    with jax.numpy_dtype_promotion("standard"):
        yield


@functools.cache
def small(num_domains):
    """Returns a configuration that compiles fast, its parameters, and two batches."""
    model = sizes(encoder=(1, 1, 4), latents=3, pool=10, decoder=(1, 1, 4, 5))
    training = TrainingConfig(segment_samples=20, domain_batch=8, confusion_weight=0.3)
    config = Config(domains=DOMAINS[:num_domains], model=model, training=training)
    shape = (2, num_domains, training.domain_batch, training.segment_samples)
    rng = np.random.default_rng(3)
    codes, augmented = rng.integers(256, size=(2, *shape)).astype(np.uint8)
    batches = [Batch(*pair) for pair in zip(codes, augmented, strict=True)]
    return config, random_parameters(networks.Networks(config)), batches


def gradient_descent_with_moments():
    """Descends at speed 1, which shows the gradients, and keeps Adam's moments of them.

    Adam itself hides the scale of gradients, and makes of rounding near zero a whole step.
    """
    adam = optax.scale_by_adam()

    def update(grads, state, params=None):
        return jax.tree.map(lambda grad: -grad, grads), adam.update(grads, state, params)[1]

    return optax.GradientTransformation(adam.init, update)


EVERYTHING = {
    "past_detune_semitones": 2.5,
    "past_detune_samples": 10,
    "past_noise": 0.03,
    "latent_noise": 0.1,
    "latent_range_weight": 0.5,
    "ema_decay": 0.9,
    "classifier_updates": 2,
    "classifier_standardised": True,
    "classifier_context_frames": 1,
    "confusion_ramp_steps": 3,
}
"""All that a step can do beyond the paper."""


def train(name, num_domains, devices, layout=None, native_threads=0, **changed):
    """Returns the state and the metrics after two steps, and the metrics of an evaluation."""
    config, parameters, batches = small(num_domains)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, **changed))
    if changed:
        parameters = random_parameters(networks.Networks(config))
    mesh = sharding.make_mesh(num_domains, 8, devices, layout=layout)
    unroll_domains = mesh.shape["domain"] == 1
    nets = networks.Networks(config, unroll_domains, native_threads)
    optimizer = gradient_descent_with_moments()
    optimizers = train_state.Optimizers(optimizer, optimizer)
    state = train_state.create(parameters, optimizers, config)
    steps = partitioning.make(name, mesh, nets, optimizers, state)
    state = steps.put_state(state)
    for batch in batches:
        state, metrics = steps.train_step(state, steps.put_batch(batch))
    scores = steps.eval_step(state.parameters, steps.put_batch(batches[0]))
    return state, metrics, scores


@functools.cache
def on_one_device(num_domains):
    return jax.device_get(train("jit", num_domains, jax.devices()[:1]))


def assert_same(tree, expected, tolerance=1e-5):
    """Compares with a tolerance relative to each array's largest value."""
    assert jax.tree.structure(tree) == jax.tree.structure(expected)

    def compare(array, expected):
        atol = tolerance * np.max(np.abs(expected))
        np.testing.assert_allclose(array, expected, rtol=0, atol=atol)

    jax.tree.map(compare, jax.device_get(tree), expected)


QUICK = [("jit", 8, 4), ("pmap", 8, 4)]
ALL = [*itertools.product(partitioning.NAMES, (1, 2, 4, 8), (3, 4)), ("jit", 3, 3)]
SLOW = [case for case in ALL if case not in QUICK]


@pytest.mark.parametrize(
    ("name", "num_devices", "num_domains"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
)
def test_gradients_moments_and_metrics_are_those_of_one_device(name, num_devices, num_domains):
    layout = (1, num_devices) if name == "pmap" else None
    state, *metrics = train(name, num_domains, jax.devices()[:num_devices], layout)
    assert_same((state, *metrics), on_one_device(num_domains))

    # Decoders and their moments are split over domains, all else is whole everywhere.
    domain_axis = math.gcd(num_devices, num_domains) if name == "jit" else 1
    moments = state.autoencoder_optimizer.mu
    for tree in (state.parameters.decoders, moments["decoders"]):
        for leaf in jax.tree.leaves(tree):
            shape = (num_domains // domain_axis, *leaf.shape[1:])
            assert leaf.addressable_shards[0].data.shape == shape
    for tree in (state.parameters.encoder, moments["encoder"], state.parameters.classifier):
        assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("name", "num_devices", "changed"),
    [
        ("jit", 1, {}),
        ("pmap", 4, {}),
        pytest.param("pmap", 2, {"microbatches": 2, **EVERYTHING}, marks=pytest.mark.thorough),
        pytest.param("jit", 1, {"microbatches": 4, **EVERYTHING}, marks=pytest.mark.thorough),
    ],
)
def test_layers_in_cpp_train_as_those_of_xla(name, num_devices, changed):
    layout = (1, num_devices)
    trained = train(name, 3, jax.devices()[:num_devices], layout, native_threads=2, **changed)
    others = {field: value for field, value in changed.items() if field != "microbatches"}
    expected = train("jit", 3, jax.devices()[:1], **others) if changed else on_one_device(3)
    assert_same(trained, jax.device_get(expected), tolerance=2e-4 if changed else 1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("name", partitioning.NAMES)
def test_all_that_goes_beyond_the_paper_is_the_same_on_many_devices_and_in_microbatches(name):
    layout = (1, 4) if name == "pmap" else (2, 2)
    trained = train(name, 4, jax.devices()[:4], layout, microbatches=2, **EVERYTHING)
    expected = train("jit", 4, jax.devices()[:1], **EVERYTHING)
    # The updates of two classifiers at speed 1 follow one another: rounding grows with each.
    assert_same(trained, jax.device_get(expected), tolerance=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", partitioning.NAMES)
def test_microbatches_on_many_devices_have_the_gradients_of_one_device(name):
    layout = (1, 4) if name == "pmap" else (2, 2)
    trained = train(name, 4, jax.devices()[:4], layout, microbatches=2)
    assert_same(trained, on_one_device(4))


def test_pmap_cannot_split_domains():
    with pytest.raises(ValueError, match="mesh=4x2 does. Use mesh=1x8, or partitioning=jit"):
        train("pmap", 4, jax.devices(), (4, 2))
