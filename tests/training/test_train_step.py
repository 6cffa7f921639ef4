import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.speed import presets
from umt_jax.config import Config, TrainingConfig
from umt_jax.data.dataset import Batch
from umt_jax.model import networks
from umt_jax.model.decoder import cross_entropy
from umt_jax.training import detuning, losses, train_state, train_step


@pytest.fixture(autouse=True)
def standard_promotion():
    # Optax's Adam itself mixes integers and floats.
    with jax.numpy_dtype_promotion("standard"):
        yield


def _batch(rng, config):
    shape = (len(config.domains), config.training.domain_batch, config.training.segment_samples)
    return Batch(
        codes=rng.integers(256, size=shape).astype(np.uint8),
        augmented=rng.integers(256, size=shape).astype(np.uint8),
    )


def _labels(batch):
    return np.repeat(np.arange(batch.codes.shape[0])[:, None], batch.codes.shape[1], axis=1)


def _assert_close(tree, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), tree, expected)


def _plain_loop(parameters, batches, nets, optimizers):
    """The paper's order with nothing shared: every player has its own passes and its own step."""
    config = nets.config.training
    encoder, decoders, classifier = (
        parameters.encoder,
        [networks.select(parameters.decoders, k) for k in range(len(nets.config.domains))],
        parameters.classifier,
    )
    autoencoder = {"encoder": encoder, "decoders": decoders}
    autoencoder_state = optimizers.autoencoder.init(autoencoder)
    classifier_state = optimizers.classifier.init(classifier)

    @jax.jit
    def classifier_grads_of(classifier, encoder, batch):
        def loss(classifier):
            latents = nets.encode(encoder, batch.augmented)
            return losses.classification(nets.classify(classifier, latents), _labels(batch))

        return jax.grad(loss)(classifier)

    @jax.jit
    def autoencoder_grads_of(autoencoder, classifier, batch):
        def domain_loss(encoder, decoder, k):
            latents = nets.encode(encoder, batch.augmented[k])
            logits = nets.decode_one(decoder, batch.codes[k], latents)
            confusion = -losses.classification(
                nets.classify(classifier, latents), np.full(len(latents), k)
            )
            reconstruction = jnp.mean(cross_entropy(logits, batch.codes[k]))
            return reconstruction + config.confusion_weight * confusion

        grads = [
            jax.grad(domain_loss, argnums=(0, 1))(autoencoder["encoder"], decoder, k)
            for k, decoder in enumerate(autoencoder["decoders"])
        ]
        encoder_grads = jax.tree.map(
            lambda *leaves: sum(leaves) / len(leaves), *(grad[0] for grad in grads)
        )
        return {"encoder": encoder_grads, "decoders": [grad[1] for grad in grads]}

    for batch in batches:
        grads = classifier_grads_of(classifier, autoencoder["encoder"], batch)
        updates, classifier_state = optimizers.classifier.update(grads, classifier_state)
        classifier = optax.apply_updates(classifier, updates)
        grads = autoencoder_grads_of(autoencoder, classifier, batch)
        updates, autoencoder_state = optimizers.autoencoder.update(grads, autoencoder_state)
        autoencoder = optax.apply_updates(autoencoder, updates)
    return autoencoder, classifier


def test_decoders_and_encoder_learn_from_the_latents_of_where_the_past_stands(
    rng, tiny_config, tiny_networks, tiny_parameters
):
    """Against latents that are copied frame by frame, and gradients summed likewise."""
    batch = _batch(rng, tiny_config)
    lesson = detuning.true_lesson(batch)
    latents = np.asarray(tiny_networks.encode(tiny_parameters.encoder, batch.augmented))
    frames = rng.integers(latents.shape[2], size=latents.shape[:3])

    def grads(latents, lesson):
        return train_step.reconstruction_grads(
            tiny_networks, tiny_parameters.decoders, jnp.asarray(latents), lesson
        )

    copied, expected_grads = np.empty_like(latents), np.zeros_like(latents)
    places = list(np.ndindex(frames.shape))
    for domain, segment, frame in places:
        copied[domain, segment, frame] = latents[domain, segment, frames[domain, segment, frame]]
    loss, (decoder_grads, copied_grads) = grads(copied, lesson)
    for domain, segment, frame in places:
        expected_grads[domain, segment, frames[domain, segment, frame]] += copied_grads[
            domain, segment, frame
        ]
    found = grads(latents, lesson.replace(frames=frames))
    _assert_close(found, (loss, (decoder_grads, expected_grads)), rtol=1e-5, atol=1e-6)


# Adam divides gradients by their size: its epsilon keeps the noise of tiny ones small.
_ADAM = functools.partial(optax.adam, eps=1e-4)


# Plain gradient descent shows errors of scale, which Adam would hide.
@pytest.mark.parametrize("optimizer", [optax.sgd, pytest.param(_ADAM, marks=pytest.mark.slow)])
def test_the_step_equals_a_plain_loop_with_two_optimizers(
    rng, tiny_config, tiny_networks, tiny_parameters, optimizer
):
    optimizers = train_state.Optimizers(optimizer(1e-2), optimizer(3e-2))
    batches = [_batch(rng, tiny_config) for _ in range(3)]
    state = train_state.create(tiny_parameters, optimizers, tiny_config)
    step = jax.jit(
        lambda state, batch: train_step.train_step(
            state, batch, networks=tiny_networks, optimizers=optimizers
        )
    )
    for batch in batches:
        state, _ = step(state, batch)
    autoencoder, classifier = _plain_loop(tiny_parameters, batches, tiny_networks, optimizers)
    tolerance = {"rtol": 1e-4, "atol": 1e-4 if optimizer is _ADAM else 1e-5}
    _assert_close(state.parameters.encoder, autoencoder["encoder"], **tolerance)
    _assert_close(state.parameters.classifier, classifier, **tolerance)
    for k, decoder in enumerate(autoencoder["decoders"]):
        _assert_close(networks.select(state.parameters.decoders, k), decoder, **tolerance)
    assert state.step == 3


@pytest.mark.parametrize("frozen", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_step_in_microbatches_is_the_step_of_the_whole_batch(
    rng, tiny_config, tiny_parameters, frozen
):
    batch = _batch(rng, tiny_config)
    frozen = {"freeze_encoder": True, "init_from": "elsewhere"} if frozen else {}

    def step(**changed):
        training = dataclasses.replace(tiny_config.training, **changed, **frozen)
        nets = networks.Networks(dataclasses.replace(tiny_config, training=training))
        # Fast enough that the confusion loss, after the classifier's step, sees another classifier.
        optimizers = train_state.Optimizers(optax.sgd(1.0), optax.sgd(1.0))
        state = train_state.create(tiny_parameters, optimizers, nets.config)
        step = functools.partial(train_step.train_step, networks=nets, optimizers=optimizers)
        return jax.jit(step)(state, batch)

    whole, parts = step(), step(microbatches=2)
    _assert_close(parts, whole, rtol=1e-5, atol=1e-5)
    assert _changed(tiny_parameters.decoders, whole[0].parameters.decoders)


@pytest.fixture(scope="module")
def player_step(tiny_config):
    """Returns the parameters after one step of gradient descent at given speeds."""

    @functools.cache
    def compiled(confusion_weight):
        training = dataclasses.replace(tiny_config.training, confusion_weight=confusion_weight)
        nets = networks.Networks(dataclasses.replace(tiny_config, training=training))

        def step(parameters, batch, autoencoder, classifier):
            optimizers = train_state.Optimizers(optax.sgd(autoencoder), optax.sgd(classifier))
            state = train_state.create(parameters, optimizers, nets.config)
            return train_step.train_step(state, batch, networks=nets, optimizers=optimizers)

        return jax.jit(step)

    def step(parameters, batch, *, autoencoder=1e-2, classifier=1e-2, confusion_weight=0.0):
        state, _ = compiled(confusion_weight)(parameters, batch, autoencoder, classifier)
        # As NumPy's: XLA compiles each operation on arrays of its own, for each shape anew.
        return jax.device_get(state.parameters)

    return step


def _changed(before, after):
    differences = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, after)
    return max(jax.tree.leaves(differences)) > 0


def _assert_moved_alone(moved, before, after):
    """Checks that of the three networks one has changed, and no bit of the others."""
    for name in ("encoder", "decoders", "classifier"):
        if name == moved:
            assert _changed(getattr(before, name), getattr(after, name))
        else:
            _assert_close(getattr(after, name), getattr(before, name), rtol=0, atol=0)


def test_classification_loss_never_reaches_the_encoder(
    rng, tiny_config, tiny_parameters, player_step
):
    batch = _batch(rng, tiny_config)
    slow, fast = (player_step(tiny_parameters, batch, classifier=speed) for speed in (0.0, 1.0))
    _assert_moved_alone("classifier", slow, fast)


def test_confusion_loss_moves_the_encoder_and_never_the_classifier(
    rng, tiny_config, tiny_parameters, player_step
):
    batch = _batch(rng, tiny_config)
    weak = player_step(tiny_parameters, batch, confusion_weight=0.0)
    strong = player_step(tiny_parameters, batch, confusion_weight=5.0)
    _assert_moved_alone("encoder", weak, strong)


def test_each_decoder_learns_from_its_own_domain_alone(
    rng, tiny_config, tiny_parameters, player_step
):
    batch = _batch(rng, tiny_config)
    other_codes, other_augmented = batch.codes.copy(), batch.augmented.copy()
    other_codes[1], other_augmented[1] = _batch(rng, tiny_config).codes[:2, :4].reshape(2, 4, -1)
    other = Batch(codes=other_codes, augmented=other_augmented)
    first, second = (
        player_step(tiny_parameters, which, autoencoder=1e-1, classifier=0.0).decoders
        for which in (batch, other)
    )
    for k in range(3):
        changed = _changed(networks.select(first, k), networks.select(second, k))
        assert changed == (k == 1)


def test_eval_step_scores_untouched_segments(rng, tiny_config, tiny_networks, tiny_parameters):
    batch = _batch(rng, tiny_config)
    metrics = train_step.eval_step(tiny_parameters, batch, networks=tiny_networks)
    for k in range(3):
        latents = tiny_networks.encode(tiny_parameters.encoder, batch.codes[k])
        decoder = networks.select(tiny_parameters.decoders, k)
        logits = tiny_networks.decode_one(decoder, batch.codes[k], latents)
        expected = np.mean(cross_entropy(logits, batch.codes[k]))
        np.testing.assert_allclose(metrics["reconstruction"][k], expected, rtol=1e-5)


def _seen_gradient(optimizer, gradient):
    """Returns the gradient that reaches Adam, whose first step is the same at any scale."""
    gradient = jnp.asarray(gradient)
    _, state = optimizer.update(gradient, optimizer.init(jnp.zeros_like(gradient)))
    return optax.tree.get(state, "mu") / (1 - 0.9)


def test_gradients_of_encoder_and_decoders_alone_are_clipped():
    gradient = [2.0, -3.0, 0.1]
    optimizers = train_state.make_optimizers(TrainingConfig(gradient_clip=0.5))
    clipped = _seen_gradient(optimizers.autoencoder, gradient)
    np.testing.assert_allclose(clipped, [0.5, -0.5, 0.1], rtol=1e-6)
    np.testing.assert_allclose(_seen_gradient(optimizers.classifier, gradient), gradient, rtol=1e-6)
    unclipped = train_state.make_optimizers(TrainingConfig(gradient_clip=0.0)).autoencoder
    np.testing.assert_allclose(_seen_gradient(unclipped, gradient), gradient, rtol=1e-6)


def _sizes_of_steps(optimizer, num_steps):
    """Returns how far each step goes under a constant gradient, which is Adam's learning rate."""
    state, sizes = optimizer.init(jnp.zeros(())), []
    for _ in range(num_steps):
        update, state = optimizer.update(jnp.ones(()), state)
        sizes.append(-float(update))
    return sizes


def test_autoencoder_and_classifier_decay_each_at_its_own_rate():
    training = TrainingConfig(
        learning_rate=0.1,
        learning_rate_decay=0.5,
        classifier_learning_rate=0.3,
        classifier_learning_rate_decay=0.1,
        decay_steps=2,
    )
    optimizers = train_state.make_optimizers(training)
    np.testing.assert_allclose(
        _sizes_of_steps(optimizers.autoencoder, 5), [0.1, 0.1, 0.05, 0.05, 0.025], rtol=1e-4
    )
    np.testing.assert_allclose(
        _sizes_of_steps(optimizers.classifier, 5), [0.3, 0.3, 0.03, 0.03, 0.003], rtol=1e-4
    )


def test_the_published_recipe_clips_and_decays_as_the_authors_run_did():
    """By value at 1, and by 0.995 each 1,000 steps, for the autoencoder; neither for the rest."""
    optimizers = train_state.make_optimizers(presets.training("musicnet"))
    clipped, unclipped = (
        _seen_gradient(optimizer, [3.0, -0.2])
        for optimizer in (optimizers.autoencoder, optimizers.classifier)
    )
    np.testing.assert_allclose(clipped, [1.0, -0.2], rtol=1e-6)
    np.testing.assert_allclose(unclipped, [3.0, -0.2], rtol=1e-6)

    training = presets.training("musicnet")
    rates = [float(train_state.learning_rate(training)(step)) for step in (0, 999, 1000, 263_999)]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 0.995e-3, 1e-3 * 0.995**263], rtol=1e-4)
    assert training.classifier_learning_rate_decay == 1


def test_the_average_follows_the_parameters_and_the_first_steps_weigh_more(tiny_config):
    training = dataclasses.replace(tiny_config.training, ema_decay=0.5)
    # One number for each network: the average does not look into them.
    values = np.array([1.0, 3.0, -2.0, 5.0, 4.0, 0.0, 7.0, 7.0, -1.0, 2.0], np.float32)

    def parameters(value):
        return networks.NetworkParameters(*({"kernel": factor * value} for factor in (1, 2, 3)))

    state = train_state.TrainState(
        step=0,
        parameters=parameters(values[0]),
        autoencoder_optimizer=None,
        classifier_optimizer=None,
        average=parameters(values[0]),
    )
    average = values[0]
    for step, value in enumerate(values):
        state = state.replace(parameters=parameters(value)).finish_step(training)
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
        _assert_close(state.average, parameters(average), rtol=1e-5)
        assert state.best_parameters is state.average and state.step == step + 1
    without = state.replace(average=None).finish_step(training)
    assert without.average is None and without.best_parameters is without.parameters


def test_the_range_weight_pulls_latents_back_by_the_gradient_of_its_loss(
    rng, tiny_config, tiny_parameters
):
    batch = _batch(rng, tiny_config)
    # Ten times the latents, most of which then lie outside.
    latent = jax.tree.map(lambda leaf: 10 * leaf, tiny_parameters.encoder["latent"])
    parameters = tiny_parameters.replace(encoder={**tiny_parameters.encoder, "latent": latent})
    optimizers = train_state.Optimizers(optax.sgd(1e-3), optax.sgd(1e-3))

    def encoder_after_a_step(weight):
        training = dataclasses.replace(tiny_config.training, latent_range_weight=weight)
        config = dataclasses.replace(tiny_config, training=training)
        step = functools.partial(
            train_step.train_step, networks=networks.Networks(config), optimizers=optimizers
        )
        state = train_state.create(parameters, optimizers, config)
        return jax.jit(step)(state, batch)[0].parameters.encoder

    @jax.jit
    @jax.grad
    def pull(encoder):
        latents = networks.Networks(tiny_config).encode(encoder, batch.augmented)
        beyond = jnp.where(jnp.abs(latents) > 1, jnp.abs(latents) - 1, 0)
        return jnp.sum(beyond**2) / latents.size

    without, pulled = encoder_after_a_step(0.0), encoder_after_a_step(2.0)
    grads = pull(parameters.encoder)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads)) > 0.1
    jax.tree.map(
        lambda a, b, grad: np.testing.assert_allclose(a - b, -2e-3 * grad, rtol=1e-2, atol=1e-6),
        *(pulled, without, grads),
    )


def test_learning_rate_decays_in_steps():
    training = TrainingConfig(learning_rate=1e-3, learning_rate_decay=0.5, decay_steps=10)
    schedule = train_state.learning_rate(training)
    np.testing.assert_allclose([schedule(9), schedule(10), schedule(25)], [1e-3, 5e-4, 2.5e-4])


@pytest.mark.slow
def test_one_batch_can_be_overfitted(rng, tiny_config):
    model = dataclasses.replace(
        tiny_config.model, residual_channels=32, skip_channels=64, encoder_channels=32
    )
    training = TrainingConfig(
        segment_samples=100, domain_batch=2, learning_rate=5e-3, learning_rate_decay=1.0
    )
    config = Config(domains=("Cello", "Flute", "Piano"), model=model, training=training)
    nets, optimizers = networks.Networks(config), train_state.make_optimizers(training)
    state = train_state.create(nets.init(jax.random.key(0)), optimizers, config)
    batch = _batch(rng, config)
    step = jax.jit(
        lambda state: train_step.train_step(state, batch, networks=nets, optimizers=optimizers)
    )
    for _ in range(400):
        state, metrics = step(state)
    assert max(metrics["reconstruction"]) < 0.5
