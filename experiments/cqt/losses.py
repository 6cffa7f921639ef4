"""Losses of the two players, and the penalty on a discriminator's gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.cqt.settings import GanSettings
from umt_jax.shapes import Array, Float, Latents, Leaf

Discriminate = Callable[[Latents], Float[Array, "B N"]]


def fooling(fake_logits: Float[Array, "B N"]) -> Float[Array, ""]:
    """Returns a generator's loss, in nats: of logits that should say "true"."""
    return jnp.mean(jax.nn.softplus(-fake_logits))


def telling_apart(
    true_logits: Float[Array, "B N"], fake_logits: Float[Array, "B N"]
) -> Float[Array, ""]:
    """Returns a discriminator's loss, in nats: log 2 for each of both where it knows nothing."""
    return jnp.mean(jax.nn.softplus(-true_logits)) + jnp.mean(jax.nn.softplus(fake_logits))


def gradient_penalty(discriminate: Discriminate, frames: Latents) -> Float[Array, ""]:
    """Returns the mean squared norm of the gradient of a segment's mean logit to its frames."""

    def mean_logits(frames):
        return jnp.sum(jnp.mean(discriminate(frames), axis=-1))

    return jnp.mean(jnp.sum(jnp.square(jax.grad(mean_logits)(frames)), axis=(-2, -1)))


def difference(frames: Latents, wanted: Latents) -> Float[Array, ""]:
    """Returns the mean absolute difference, of which cycle and identity losses are made."""
    return jnp.mean(jnp.abs(frames - wanted))


def identity_weight(training: GanSettings, step: Leaf) -> Leaf:
    """Returns the weight of the identity loss at a step, which falls to 0."""
    return training.identity_weight * jnp.maximum(0, 1 - step / training.identity_steps)
