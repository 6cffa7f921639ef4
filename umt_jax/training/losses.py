"""Reconstruction and classification losses, in nats (§3.2)."""

import jax.numpy as jnp
import optax
from flax import linen as nn

from umt_jax.shapes import Array, Bool, Float, Integer, Latents


def reconstruction(
    nats: Float[Array, "*B T"], counted: Bool[Array, "*B T"] | None = None
) -> Float[Array, "*B"]:
    """Returns each segment's cross-entropy in nats per audio sample, over those that count."""
    return jnp.mean(nats, axis=-1, where=counted)


def classification(
    domain_logits: Float[Array, "*B K"], domain: Integer[Array, "*B"]
) -> Float[Array, ""]:
    """Returns the classifier's cross-entropy in nats, averaged over segments.

    The encoder's confusion loss is its negative.
    """
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(domain_logits, domain))


def accuracy(domain_logits: Float[Array, "*B K"], domain: Integer[Array, "*B"]) -> Float[Array, ""]:
    """Returns the fraction of segments whose likeliest domain is the true one."""
    return jnp.mean(jnp.argmax(domain_logits, axis=-1) == domain)


def outside_range(latents: Latents) -> Float[Array, ""]:
    """Returns the mean square by which latents leave [-1, 1]."""
    return jnp.mean(jnp.square(nn.relu(jnp.abs(latents) - 1)))
