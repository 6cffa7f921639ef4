import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import TINY_MODEL, random_parameters

from umt_jax.config import TrainingConfig
from umt_jax.model import classifier, networks
from umt_jax.training import classifier_step, losses, train_state
from umt_jax.training.devices import ONE_PROGRAM


def made(config, **training):
    """Returns networks, optimizers and a state of a configuration with other training."""
    training = dataclasses.replace(config.training, **training)
    nets = networks.Networks(dataclasses.replace(config, training=training))
    optimizers = train_state.Optimizers(optax.sgd(0.1), optax.sgd(0.1))
    state = train_state.create(random_parameters(nets), optimizers, nets.config)
    return nets, optimizers, state


def random_latents(rng, config):
    training, model = config.training, config.model
    frames = training.segment_samples // model.pool_samples
    shape = (len(config.domains), training.domain_batch, frames, model.latent_channels)
    return jnp.asarray(rng.normal(size=shape).astype(np.float32))


def labels(latents):
    return jnp.broadcast_to(jnp.arange(len(latents))[:, None], latents.shape[:2])


def update(state, latents, nets, optimizers):
    state, metrics = classifier_step.update_classifier(
        state,
        latents,
        labels(latents),
        networks=nets,
        optimizers=optimizers,
        devices=ONE_PROGRAM,
    )
    return state.replace(step=state.step + 1), metrics


def descend(parameters, latents, nets):
    def loss(parameters):
        return losses.classification(nets.classify(parameters, latents), labels(latents))

    return jax.tree.map(lambda p, g: p - 0.1 * g, parameters, jax.grad(loss)(parameters))


def assert_close(tree, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), tree, expected
    )


def test_further_updates_learn_from_latents_of_recent_steps(rng, tiny_config):
    nets, optimizers, state = made(tiny_config, classifier_updates=3, classifier_memory_steps=1)
    expected = state.parameters.classifier
    for _ in range(2):  # A memory of one step holds the present one alone.
        latents = random_latents(rng, tiny_config)
        state, _ = update(state, latents, nets, optimizers)
        for _ in range(3):
            expected = descend(expected, latents, nets)
    assert_close(state.parameters.classifier, expected)


def test_the_memory_is_a_ring_of_the_last_steps_and_is_drawn_from_evenly(rng, tiny_config):
    nets, optimizers, state = made(tiny_config, classifier_updates=2, classifier_memory_steps=3)
    history = [random_latents(rng, tiny_config) for _ in range(5)]
    drawn = []
    for step, latents in enumerate(history):
        before = state.parameters.classifier
        state, _ = update(state, latents, nets, optimizers)
        first = descend(before, latents, nets)
        # Which of the steps in memory explains the second update?
        recent = range(max(0, step - 2), step + 1)
        distances = [
            float(
                optax.tree.norm(
                    optax.tree.sub(
                        descend(first, history[index], nets), state.parameters.classifier
                    )
                )
            )
            for index in recent
        ]
        assert min(distances) < 1e-5
        drawn.append(recent[int(np.argmin(distances))] - step)
    assert len(set(drawn)) > 1
    for step in (2, 3, 4):
        np.testing.assert_array_equal(state.recent_latents[step % 3], history[step])


def test_neither_encoder_nor_decoders_move(rng, tiny_config):
    nets, optimizers, state = made(tiny_config, classifier_updates=4, classifier_standardised=True)
    after, _ = update(state, random_latents(rng, tiny_config), nets, optimizers)
    for before, now in (
        (state.parameters.encoder, after.parameters.encoder),
        (state.parameters.decoders, after.parameters.decoders),
    ):
        jax.tree.map(np.testing.assert_array_equal, before, now)


def test_a_standardised_classifier_does_not_mind_scale_and_offset_of_latents(rng, tiny_config):
    nets, optimizers, state = made(tiny_config, classifier_standardised=True)
    latents = random_latents(rng, tiny_config)
    size = (2, 1, 1, 1, latents.shape[-1])
    scale, offset = 7.0 * rng.uniform(0.1, 1, size=size).astype(np.float32)

    def logits(latents):
        after, _ = update(state, latents, nets, optimizers)
        return nets.classify(after.parameters.classifier, latents), after

    plain, _ = logits(latents)
    moved, after = logits(scale * latents + offset)
    np.testing.assert_allclose(moved, plain, rtol=1e-3, atol=1e-4)
    # At the first step the statistics are those of its latents.
    values = np.asarray(scale * latents + offset).reshape(-1, latents.shape[-1])
    found = after.parameters.classifier
    np.testing.assert_allclose(found["mean"], values.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.exp(found["log_variance"]), values.var(axis=0), rtol=1e-3)


def test_statistics_have_no_gradient():
    module = classifier.Classifier(TINY_MODEL, 3, standardised=True)
    latents = jnp.ones((2, 4, TINY_MODEL.latent_channels))
    parameters = module.init(jax.random.key(0), latents)["params"]
    grads = jax.grad(lambda p: module.apply({"params": p}, latents).sum())(parameters)
    assert not np.any(grads["mean"]) and not np.any(grads["log_variance"])


def test_only_the_second_head_knows_the_order_of_frames(rng, tiny_config):
    latents = random_latents(rng, tiny_config)
    for frames, minds in ((0, False), (1, True)):
        nets, _, state = made(tiny_config, classifier_context_frames=frames)
        forward, backward = (
            nets.classify(state.parameters.classifier, order)
            for order in (latents, latents[:, :, ::-1])
        )
        assert (float(jnp.abs(forward - backward).max()) > 1e-3) == minds


def test_confusion_grows_over_its_ramp():
    ramp = TrainingConfig(confusion_weight=0.2, confusion_ramp_steps=4)
    found = [float(train_state.confusion_weight(ramp, step)) for step in range(6)]
    np.testing.assert_allclose(found, [0.05, 0.1, 0.15, 0.2, 0.2, 0.2], rtol=1e-6)
    assert train_state.confusion_weight(TrainingConfig(confusion_weight=0.2), 0) == 0.2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classifier_updates": 0}, "classifier_updates=0 must be at least 1"),
        ({"classifier_memory_steps": 0}, "classifier_memory_steps=0 must be at least 1"),
        ({"latent_noise": -0.1}, "latent_noise=-0.1 must be 0 or more"),
    ],
)
def test_values_that_make_no_sense_are_refused_in_a_sentence(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**fields)
