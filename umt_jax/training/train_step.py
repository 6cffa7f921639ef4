"""One step of training and one of evaluation (§3.3). Pure functions."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from umt_jax.data.dataset import Batch
from umt_jax.model.networks import NetworkParameters, Networks
from umt_jax.shapes import Array, Float, Integer, Parameters, PyTree
from umt_jax.training import detuning, losses, train_state
from umt_jax.training.classifier_step import classification_loss, update_classifier
from umt_jax.training.detuning import Lesson
from umt_jax.training.devices import ONE_PROGRAM, Devices
from umt_jax.training.train_state import Optimizers, TrainState

Metrics = dict[str, Float[Array, "..."]]


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    networks: Networks,
    optimizers: Optimizers,
    devices: Devices = ONE_PROGRAM,
) -> tuple[TrainState, Metrics]:
    """Updates the classifier, then the autoencoder against the updated classifier (§3.3).

    One forward pass of the encoder serves both, since the first update leaves it alone. With
    `microbatches` each part has another one, and the gradients are those of the whole batch.

    Args:
        state: State before the step.
        batch: B segments of each of the K trained domains.
        networks: The three networks.
        optimizers: The optimizers that made `state`.
        devices: Those that share the step.

    Returns:
        The next state, and metrics: `reconstruction` in nats per sample, [K]; the rest scalars.
    """
    config = networks.config
    training = config.training
    lesson = detuning.make_lesson(
        batch, config, step=state.step, first_segment=devices.first_segment
    )
    if training.freeze_encoder:
        return _decoders_step(state, lesson, networks, optimizers, devices)
    domain = domain_labels(batch.codes)
    num_domains, num_parts = len(batch.codes), training.microbatches

    def encode(part):
        return jax.vjp(lambda p: _encode(networks, p, part), state.parameters.encoder)

    if num_parts == 1:
        encoded = encode(lesson)
        latents = encoded[0]
    else:  # The encoder runs again for each part, when its gradient is due.
        parts = _split(lesson, num_parts)
        latents = jax.lax.map(lambda part: encode(part)[0], parts)
        latents = jnp.moveaxis(latents, 0, 2).reshape(*domain.shape, *latents.shape[-2:])

    state, classifier_metrics = update_classifier(
        state, latents, domain, networks=networks, optimizers=optimizers, devices=devices
    )
    confusion_weight = train_state.confusion_weight(training, state.step)

    def confusion_loss(latents, domain):
        return -classification_loss(state.parameters.classifier, latents, domain, networks)[0]

    def autoencoder_grads(part):
        latents, pull_back = encoded if num_parts == 1 else encode(part)
        reconstruction, (decoder_grads, latent_grads) = reconstruction_grads(
            networks, state.parameters.decoders, latents, part
        )
        confusion, confusion_grads = jax.value_and_grad(confusion_loss)(
            latents, domain_labels(part.augmented)
        )
        # Encoder: mean over domains. Decoders: each from its own domain, however many there are.
        latent_grads = latent_grads / num_domains + confusion_weight * confusion_grads
        if training.latent_range_weight:
            range_grads = jax.grad(losses.outside_range)(latents)
            latent_grads = latent_grads + training.latent_range_weight * range_grads
        (encoder_grads,) = pull_back(latent_grads)
        grads = {"encoder": encoder_grads, "decoders": decoder_grads}
        return grads, {"reconstruction": reconstruction, "confusion": confusion}

    grads, metrics = _mean_over_parts(autoencoder_grads, lesson, num_parts)
    grads = devices.mean(grads)
    state = state.update_autoencoder(grads, optimizers, config)

    metrics = devices.mean(metrics | classifier_metrics)
    metrics["encoder_gradient_norm"] = optax.tree.norm(grads["encoder"])
    metrics["decoder_gradient_norm"] = optax.tree.norm(grads["decoders"])
    return state.finish_step(training), metrics


def _decoders_step(state, lesson, networks, optimizers, devices):
    """Updates the trained decoders alone: neither of the other players has anything to learn."""
    config = networks.config
    decoders = train_state.trained_parameters(state.parameters, config)["decoders"]

    def decoder_grads(part):
        latents = _encode(networks, state.parameters.encoder, part)
        reconstruction, (grads, _) = reconstruction_grads(networks, decoders, latents, part)
        return grads, reconstruction

    grads, reconstruction = devices.mean(
        _mean_over_parts(decoder_grads, lesson, config.training.microbatches)
    )
    state = state.update_autoencoder({"decoders": grads}, optimizers, config)
    metrics = {"reconstruction": reconstruction, "decoder_gradient_norm": optax.tree.norm(grads)}
    return state.finish_step(config.training), metrics


def _encode(networks, encoder, lesson):
    """Returns the latents that decoders and classifier find, noise included."""
    latents = networks.encode(encoder, lesson.augmented)
    return latents if lesson.latent_noise is None else latents + lesson.latent_noise


def _split(lesson: Lesson, num_parts: int) -> Lesson:
    """Returns parts of the segments of every domain, leaves [parts, K, B / parts, ...].

    Every part has segments of all places in the batch, and so of all devices that share it.
    """

    def split(leaf):
        num_domains, domain_batch, *of_segment = leaf.shape
        leaf = leaf.reshape(num_domains, domain_batch // num_parts, num_parts, *of_segment)
        return jnp.moveaxis(leaf, 2, 0)

    return jax.tree.map(split, lesson)


def _mean_over_parts(
    function: Callable[[Lesson], PyTree], lesson: Lesson, num_parts: int
) -> PyTree:
    """Returns the mean of `function` over parts of the lesson, taken one after the other."""
    if num_parts == 1:
        return function(lesson)
    parts = _split(lesson, num_parts)
    shapes = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], parts))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(total, part):
        return jax.tree.map(jnp.add, total, function(part)), None

    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda leaf: leaf / num_parts, total)


def eval_step(
    parameters: NetworkParameters,
    batch: Batch,
    *,
    networks: Networks,
    devices: Devices = ONE_PROGRAM,
) -> Metrics:
    """Returns `reconstruction` of untouched segments, [K], and `classifier_accuracy`.

    The latter only where a classifier is trained. Arguments as in `train_step`.
    """
    latents = networks.encode(parameters.encoder, batch.codes)
    decoders = train_state.trained_parameters(parameters, networks.config)["decoders"]
    lesson = detuning.true_lesson(batch)
    metrics = {"reconstruction": reconstruction_loss(networks, decoders, latents, lesson)}
    if not networks.config.training.freeze_encoder:
        domain_logits = networks.classify(parameters.classifier, latents)
        metrics["classifier_accuracy"] = losses.accuracy(domain_logits, domain_labels(batch.codes))
    return devices.mean(metrics)


def reconstruction_loss(networks, decoders, latents, lesson: Lesson) -> Float[Array, "K"]:
    """Returns each domain's reconstruction loss in nats per sample."""
    return networks.for_each_domain(
        functools.partial(_domain_loss, networks), decoders, latents, lesson
    )


def reconstruction_grads(
    networks, decoders, latents, lesson: Lesson
) -> tuple[Float[Array, "K"], tuple[Parameters, Float[Array, "K B F Z"]]]:
    """Returns each domain's loss, and its gradients to the domain's decoder and latents."""
    loss = functools.partial(_domain_loss, networks)
    return networks.for_each_domain(
        jax.value_and_grad(loss, argnums=(0, 1)), decoders, latents, lesson
    )


def _domain_loss(networks, decoder, latents, lesson):
    code_logits = networks.decode_one(decoder, lesson.past, latents)
    return jnp.mean(losses.reconstruction(code_logits, lesson.targets, lesson.counted))


def domain_labels(codes: Integer[Array, "K B T"]) -> Integer[Array, "K B"]:
    """Returns the index of each segment's domain."""
    num_domains, domain_batch, _ = codes.shape
    return jnp.broadcast_to(jnp.arange(num_domains)[:, None], (num_domains, domain_batch))
