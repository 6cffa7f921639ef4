"""One step of training and one of evaluation (§3.3). Pure functions."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from umt_jax import losses, train_state
from umt_jax.dataset import Batch
from umt_jax.networks import NetworkParameters, Networks
from umt_jax.shapes import Array, Float, Integer, PyTree
from umt_jax.train_state import Optimizers, TrainState

Metrics = dict[str, Float[Array, "..."]]


def _of_one_program(tree: PyTree) -> PyTree:
    """Is the mean over devices where one program sees the whole batch."""
    return tree


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    networks: Networks,
    optimizers: Optimizers,
    mean_over_devices: Callable[[PyTree], PyTree] = _of_one_program,
) -> tuple[TrainState, Metrics]:
    """Updates the classifier, then the autoencoder against the updated classifier (§3.3).

    One forward pass of the encoder serves both, since the first update leaves it alone.

    Args:
        state: State before the step.
        batch: B segments of each of the K trained domains.
        networks: The three networks.
        optimizers: The optimizers that made `state`.
        mean_over_devices: Where each device runs this function on segments of its own, the mean of
            a tree over the devices.

    Returns:
        The next state, and metrics: `reconstruction` in nats per sample, [K]; the rest scalars.
    """
    config = networks.config
    if config.training.freeze_encoder:
        return _decoders_step(state, batch, networks, optimizers, mean_over_devices)
    domain = domain_labels(batch)
    encode = functools.partial(networks.encode, codes=batch.augmented)
    latents, pull_back = jax.vjp(encode, state.parameters.encoder)

    def classification_loss(classifier, latents):
        domain_logits = networks.classify(classifier, latents)
        return losses.classification(domain_logits, domain), losses.accuracy(domain_logits, domain)

    # The classifier sees the latents as constants: its update never reaches the encoder.
    (classification, accuracy), classifier_grads = jax.value_and_grad(
        classification_loss, has_aux=True
    )(state.parameters.classifier, jax.lax.stop_gradient(latents))
    classifier_grads = mean_over_devices(classifier_grads)
    state = state.update_classifier(classifier_grads, optimizers)

    def autoencoder_loss(decoders, latents):
        reconstruction = reconstruction_loss(networks, decoders, latents, batch)
        confusion = -classification_loss(state.parameters.classifier, latents)[0]
        loss = jnp.mean(reconstruction) + config.training.confusion_weight * confusion
        return loss, (reconstruction, confusion)

    (_, (reconstruction, confusion)), (decoder_grads, latent_grads) = jax.value_and_grad(
        autoencoder_loss, argnums=(0, 1), has_aux=True
    )(state.parameters.decoders, latents)
    (encoder_grads,) = pull_back(latent_grads)
    # The mean over domains scaled each decoder's gradient by 1/K. A decoder learns from its own
    # domain alone, so neither its clipping nor its Adam epsilon may depend on how many there are.
    decoder_grads = jax.tree.map(lambda grad: grad * len(batch.codes), decoder_grads)
    grads = mean_over_devices({"encoder": encoder_grads, "decoders": decoder_grads})
    state = state.update_autoencoder(grads, optimizers, config)

    metrics = mean_over_devices(
        {
            "reconstruction": reconstruction,
            "classification": classification,
            "confusion": confusion,
            "classifier_accuracy": accuracy,
        }
    )
    metrics["encoder_gradient_norm"] = optax.tree.norm(grads["encoder"])
    metrics["decoder_gradient_norm"] = optax.tree.norm(grads["decoders"])
    metrics["classifier_gradient_norm"] = optax.tree.norm(classifier_grads)
    return state.replace(step=state.step + 1), metrics


def _decoders_step(state, batch, networks, optimizers, mean_over_devices):
    """Updates the trained decoders alone: neither of the other players has anything to learn."""
    config = networks.config
    latents = networks.encode(state.parameters.encoder, batch.augmented)

    def summed_loss(decoders):
        reconstruction = reconstruction_loss(networks, decoders, latents, batch)
        return jnp.sum(reconstruction), reconstruction

    decoders = train_state.trained_parameters(state.parameters, config)["decoders"]
    (_, reconstruction), grads = jax.value_and_grad(summed_loss, has_aux=True)(decoders)
    reconstruction, grads = mean_over_devices((reconstruction, grads))
    state = state.update_autoencoder({"decoders": grads}, optimizers, config)
    metrics = {"reconstruction": reconstruction, "decoder_gradient_norm": optax.tree.norm(grads)}
    return state.replace(step=state.step + 1), metrics


def eval_step(
    parameters: NetworkParameters,
    batch: Batch,
    *,
    networks: Networks,
    mean_over_devices: Callable[[PyTree], PyTree] = _of_one_program,
) -> Metrics:
    """Returns `reconstruction` of untouched segments, [K], and `classifier_accuracy`.

    The latter only where a classifier is trained. `mean_over_devices` as in `train_step`.
    """
    latents = networks.encode(parameters.encoder, batch.codes)
    decoders = train_state.trained_parameters(parameters, networks.config)["decoders"]
    metrics = {"reconstruction": reconstruction_loss(networks, decoders, latents, batch)}
    if not networks.config.training.freeze_encoder:
        domain_logits = networks.classify(parameters.classifier, latents)
        metrics["classifier_accuracy"] = losses.accuracy(domain_logits, domain_labels(batch))
    return mean_over_devices(metrics)


def reconstruction_loss(networks, decoders, latents, batch: Batch) -> Float[Array, "K"]:
    """Returns each domain's reconstruction loss in nats per sample."""
    code_logits = networks.decode(decoders, batch.codes, latents)
    return jnp.mean(losses.reconstruction(code_logits, batch.codes), axis=-1)


def domain_labels(batch: Batch) -> Integer[Array, "K B"]:
    """Returns the index of each segment's domain."""
    num_domains, domain_batch, _ = batch.codes.shape
    return jnp.broadcast_to(jnp.arange(num_domains)[:, None], (num_domains, domain_batch))
