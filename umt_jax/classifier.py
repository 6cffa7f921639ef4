"""The classifier: latents -> which domain they came from (§3.1)."""

import jax.numpy as jnp
from flax import linen as nn

from umt_jax import layers
from umt_jax.config import ModelConfig
from umt_jax.shapes import DomainLogits, Latents


class Classifier(nn.Module):
    """Three 1x1 layers with ELU, then logits, averaged over latent frames.

    Attributes:
        config: Sizes.
        num_domains: K.
    """

    config: ModelConfig
    num_domains: int

    @nn.compact
    def __call__(self, latents: Latents) -> DomainLogits:
        """Returns the domain logits of each segment, float32, [*B, K]."""
        h = latents
        for index in range(3):
            h = nn.elu(layers.Dense(self.config.classifier_channels, name=f"layer_{index:02d}")(h))
        return jnp.mean(layers.Dense(self.num_domains, name="logits")(h), axis=-2)
