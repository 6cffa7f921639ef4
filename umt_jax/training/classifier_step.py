"""The classifier's turn in a training step (§3.3): one update, or several from recent latents."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from umt_jax.model import classifier
from umt_jax.model.networks import Networks
from umt_jax.shapes import Array, Float, Integer, Latents, Parameters
from umt_jax.training import losses
from umt_jax.training.devices import Devices
from umt_jax.training.train_state import Optimizers, TrainState

_DRAW = 0xC1A5
"""Tells the key of this draw from those of a step's segments."""


def update_classifier(
    state: TrainState,
    latents: Float[Array, "K B F Z"],
    domain: Integer[Array, "K B"],
    *,
    networks: Networks,
    optimizers: Optimizers,
    devices: Devices,
) -> tuple[TrainState, dict[str, Any]]:
    """Teaches the classifier, which sees the latents as constants: nothing reaches the encoder.

    The first update is with these latents. Further ones are with those of steps that are drawn from
    the last `classifier_memory_steps`, so that the classifier also knows what the encoder did
    before.

    Args:
        state: State before the step.
        latents: Of this step's segments.
        domain: Index of each segment's domain.
        networks: The three networks.
        optimizers: The optimizers that made `state`.
        devices: Those that share the step.

    Returns:
        The next state, and metrics of the first update.
    """
    training = networks.config.training
    latents = jax.lax.stop_gradient(latents)
    if training.classifier_standardised:
        state = _observe(state, latents, devices)

    def update(state, latents, domain):
        (loss, accuracy), grads = jax.value_and_grad(classification_loss, has_aux=True)(
            state.parameters.classifier, latents, domain, networks
        )
        grads = devices.mean(grads)
        metrics = {
            "classification": loss,
            "classifier_accuracy": accuracy,
            "classifier_gradient_norm": optax.tree.norm(grads),
        }
        return state.update_classifier(grads, optimizers), metrics

    if training.classifier_updates == 1:
        return update(state, latents, domain)
    everyone = devices.gather(latents)
    # All devices draw the same, and each of them learns from all of it.
    num_domains, domain_batch = everyone.shape[:2]
    labels = jnp.broadcast_to(jnp.arange(num_domains)[:, None], (num_domains, domain_batch))
    place = state.step % training.classifier_memory_steps
    recent = jnp.asarray(state.recent_latents).at[place].set(everyone)
    state = state.replace(recent_latents=recent)
    state, metrics = update(state, latents, domain)
    num_filled = jnp.minimum(state.step + 1, training.classifier_memory_steps)
    step_key = jax.random.fold_in(jax.random.key(training.seed), state.step)
    drawn = jax.random.randint(
        jax.random.fold_in(step_key, _DRAW), (training.classifier_updates - 1,), 0, num_filled
    )
    for index in range(training.classifier_updates - 1):
        state, _ = update(state, recent[drawn[index]], labels)
    return state, metrics


def classification_loss(
    parameters: Parameters, latents: Latents, domain: Integer[Array, "*B"], networks: Networks
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the classifier's loss in nats, and the fraction of segments that it gets right."""
    domain_logits = networks.classify(parameters, latents)
    return losses.classification(domain_logits, domain), losses.accuracy(domain_logits, domain)


def _observe(state, latents, devices):
    """Moves the statistics by which the classifier standardises latents."""
    axes = tuple(range(latents.ndim - 1))
    mean, square = devices.mean((jnp.mean(latents, axes), jnp.mean(jnp.square(latents), axes)))
    observed = classifier.observe(
        state.parameters.classifier, mean, square - jnp.square(mean), step=state.step
    )
    return state.replace(parameters=state.parameters.replace(classifier=observed))
