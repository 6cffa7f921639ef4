"""The classifier: latents -> which domain they came from (§3.1)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from umt_jax.config import ModelConfig, TrainingConfig
from umt_jax.model import layers
from umt_jax.shapes import Array, DomainLogits, Float, Latents, Leaf, Parameters

_MEMORY = 0.99
"""Decay of the running mean and variance of the latents at each step."""

_LEAST_VARIANCE = 1e-8


class Classifier(nn.Module):
    """1x1 layers with ELU (three in the paper), then logits, averaged over latent frames.

    Beyond the paper, and only where asked for: latents are standardised first, and a second head of
    three convolutions along time adds its logits.

    Attributes:
        config: Sizes.
        num_domains: K.
        standardised: Whether latents are brought to mean 0 and variance 1, by running statistics.
            See `observe`.
        context_frames: Frames on either side that each layer of the second head sees; 0 for none.
    """

    config: ModelConfig
    num_domains: int
    standardised: bool = False
    context_frames: int = 0

    @nn.compact
    def __call__(self, latents: Latents) -> DomainLogits:
        """Returns the domain logits of each segment, float32, [*B, K]."""
        width, h = self.config.classifier_channels, latents
        if self.standardised:
            h = self._standardise(latents)
        standardised = h
        for index in range(self.config.classifier_layers):
            h = nn.elu(layers.Dense(width, name=f"layer_{index:02d}")(h))
        logits = layers.Dense(self.num_domains, name="logits")(h)
        if self.context_frames:
            h = standardised
            for index in range(3):
                h = nn.elu(
                    layers.Conv(width, 1 + 2 * self.context_frames, name=f"context_{index:02d}")(h)
                )
            logits = logits + layers.Dense(self.num_domains, name="context_logits")(h)
        return jnp.mean(logits, axis=-2)

    def _standardise(self, latents):
        # No gradient: these are observed, not learned.
        mean, log_variance = (
            jax.lax.stop_gradient(
                self.param(name, nn.initializers.zeros, latents.shape[-1:], jnp.float32)
            ).reshape(*[1] * (latents.ndim - 1), -1)
            for name in ("mean", "log_variance")
        )
        return (latents - mean) * jnp.exp(-log_variance / 2)


def make(config: ModelConfig, training: TrainingConfig, num_domains: int) -> Classifier:
    """Returns the classifier of a configuration."""
    return Classifier(
        config, num_domains, training.classifier_standardised, training.classifier_context_frames
    )


def observe(
    parameters: Parameters, mean: Float[Array, "Z"], variance: Float[Array, "Z"], *, step: Leaf
) -> Parameters:
    """Moves the running statistics by which latents are standardised towards those of one batch.

    Args:
        parameters: Of a classifier that is `standardised`.
        mean: Of each latent channel.
        variance: Of each latent channel.
        step: Number of this step, from 0: the first ones count more, as there is nothing before.
    """
    share = jnp.maximum(1 - _MEMORY, 1 / (1 + step))
    observed = {"mean": mean, "log_variance": jnp.log(variance + _LEAST_VARIANCE)}
    moved = {
        name: parameters[name] + share * (value - parameters[name])
        for name, value in observed.items()
    }
    return {**parameters, **moved}
