"""One step of training and one of evaluation (§3.3). Pure functions."""

import functools

import jax
import jax.numpy as jnp
import optax
from optax.microbatching import AccumulationType

from umt_jax.data.dataset import Batch
from umt_jax.model.networks import NetworkParameters, Networks
from umt_jax.shapes import Array, Float, Integer, Parameters
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

    With an encoder that is frozen, or a constant-Q transform, updates the decoders alone. The
    latter hears segments as recorded: their pitch is not modulated, as it has nothing to unlearn.

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
    if config.model.encoder_kind == "cqt":
        batch = batch.replace(augmented=batch.codes)
    lesson = detuning.make_lesson(
        batch, config, step=state.step, first_segment=devices.first_segment
    )
    update = _update_all if config.trains_encoder else _update_decoders
    state, metrics = update(state, lesson, networks, optimizers, devices)
    return state.finish_step(config.training), metrics


def _update_all(state, lesson, networks, optimizers, devices):
    """Updates all networks, the classifier first."""
    training = networks.config.training
    domain = domain_labels(lesson.targets)
    # One forward pass of the encoder serves both updates, since the first one leaves it alone.
    latents, pull_back = jax.vjp(
        lambda encoder: _encode(networks, encoder, lesson), state.parameters.encoder
    )
    state, classifier_metrics = update_classifier(
        state, latents, domain, networks=networks, optimizers=optimizers, devices=devices
    )

    reconstruction, (decoder_grads, latent_grads) = reconstruction_grads(
        networks, state.parameters.decoders, latents, lesson
    )

    def confusion_loss(latents):
        return -classification_loss(state.parameters.classifier, latents, domain, networks)[0]

    confusion, confusion_grads = jax.value_and_grad(confusion_loss)(latents)
    # Encoder: mean over domains. Decoders: each from its own domain, however many there are.
    latent_grads /= len(domain)
    latent_grads += train_state.confusion_weight(training, state.step) * confusion_grads
    if training.latent_range_weight:
        latent_grads += training.latent_range_weight * jax.grad(losses.outside_range)(latents)
    (encoder_grads,) = pull_back(latent_grads)

    grads, metrics = devices.mean(
        (
            {"encoder": encoder_grads, "decoders": decoder_grads},
            {"reconstruction": reconstruction, "confusion": confusion, **classifier_metrics},
        )
    )
    metrics["encoder_gradient_norm"] = optax.tree.norm(grads["encoder"])
    metrics["decoder_gradient_norm"] = optax.tree.norm(grads["decoders"])
    return state.update_autoencoder(grads, optimizers, networks.config), metrics


def _update_decoders(state, lesson, networks, optimizers, devices):
    """Updates the trained decoders alone: neither of the other players has anything to learn."""
    decoders = train_state.trained_parameters(state.parameters, networks.config)["decoders"]
    latents = _encode(networks, state.parameters.encoder, lesson)
    reconstruction, (grads, _) = reconstruction_grads(networks, decoders, latents, lesson)
    reconstruction, grads = devices.mean((reconstruction, grads))
    metrics = {"reconstruction": reconstruction, "decoder_gradient_norm": optax.tree.norm(grads)}
    return state.update_autoencoder({"decoders": grads}, optimizers, networks.config), metrics


def _encode(networks, encoder, lesson):
    """Returns the latents that decoders and classifier find, noise included, [K, B, F, Z].

    Microbatches are encoded one after the other, and once more when their gradient is due.
    """
    part_segments = _part_segments(networks, lesson)
    if part_segments is None:
        latents = networks.encode(encoder, lesson.augmented)
    else:
        encode = optax.microbatch(
            jax.checkpoint(lambda codes: networks.encode(encoder, codes)),
            argnums=0,
            microbatch_size=part_segments,
            accumulator=AccumulationType.CONCAT,  # Along the first axis, here that of segments.
        )
        latents = jnp.swapaxes(encode(jnp.swapaxes(lesson.augmented, 0, 1)), 0, 1)
    return latents if lesson.latent_noise is None else latents + lesson.latent_noise


def reconstruction_grads(
    networks, decoders, latents, lesson: Lesson
) -> tuple[Float[Array, "K"], tuple[Parameters, Float[Array, "K B F Z"]]]:
    """Returns each domain's loss, and its gradients to the domain's decoder and latents."""
    num_segments = latents.shape[1]

    def loss(decoder, latents, lesson):
        return jnp.sum(_segment_losses(networks, decoder, latents, lesson)) / num_segments

    grads = optax.microbatch(
        jax.value_and_grad(loss, argnums=(0, 1)),
        argnums=(1, 2),
        microbatch_size=_part_segments(networks, lesson),
        accumulator=(AccumulationType.SUM, (AccumulationType.SUM, AccumulationType.CONCAT)),
    )
    return networks.for_each_domain(grads, decoders, latents, lesson)


def _part_segments(networks, lesson):
    """Returns the segments of a domain in a microbatch; None where there is one alone."""
    num_parts = networks.config.training.microbatches
    return lesson.past.shape[1] // num_parts if num_parts > 1 else None


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
    segment_losses = networks.for_each_domain(
        functools.partial(_segment_losses, networks), decoders, latents, lesson
    )
    metrics: Metrics = {"reconstruction": jnp.mean(segment_losses, axis=-1)}
    if networks.config.trains_encoder:
        domain_logits = networks.classify(parameters.classifier, latents)
        metrics["classifier_accuracy"] = losses.accuracy(domain_logits, domain_labels(batch.codes))
    return devices.mean(metrics)


def _segment_losses(networks, decoder, latents, lesson) -> Float[Array, "B"]:
    """Returns one domain's reconstruction losses, in nats per sample."""
    if lesson.frames is not None:
        latents = jnp.take_along_axis(latents, lesson.frames[..., None], axis=-2)
    nats = networks.code_losses(decoder, lesson.past, latents, lesson.targets)
    return losses.reconstruction(nats, lesson.counted)


def domain_labels(codes: Integer[Array, "K B T"]) -> Integer[Array, "K B"]:
    """Returns the index of each segment's domain."""
    num_domains, domain_batch, _ = codes.shape
    return jnp.broadcast_to(jnp.arange(num_domains)[:, None], (num_domains, domain_batch))
