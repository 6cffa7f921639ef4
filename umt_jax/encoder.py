"""The encoder, shared by all domains: codes -> latents (§3.1)."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from umt_jax import layers
from umt_jax.config import ModelConfig
from umt_jax.shapes import Array, Bool, Codes, Latents


class Encoder(nn.Module):
    """Non-causal dilated convolutions, averaged over runs of `pool_samples` samples.

    Attributes:
        config: Sizes.
        dtype: Type of the computation; parameters and latents stay float32.
    """

    config: ModelConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, codes: Codes, inside: Bool[Array, "*B T"] | None = None) -> Latents:
        """Encodes a waveform's codes.

        Args:
            codes: Codes, [*B, T]; T is a multiple of `pool_samples`.
            inside: Which samples belong to the recording, [*B, T]; the rest counts as the zero
                padding beyond its ends, so that a window cut out of a recording gives exactly
                the latents of the whole. None: all of them.

        Returns:
            Latents, float32, [*B, F, Z] with F = T / pool_samples.
        """
        config = self.config

        def zero_outside(features):
            return features if inside is None else jnp.where(inside[..., None], features, 0)

        h = zero_outside(layers.scale(codes)[..., None])
        h = layers.Conv(config.encoder_channels, (-1, 0, 1), dtype=self.dtype, name="first")(h)
        for index, dilation in enumerate(
            layers.dilations(config.encoder_blocks, config.encoder_layers)
        ):
            h = layers.DilatedResidualLayer(
                channels=config.encoder_channels,
                dilation=dilation,
                preactivation=config.encoder_preactivation,
                dtype=self.dtype,
                name=f"layer_{index:02d}",
            )(zero_outside(h))
        h = nn.Dense(config.latent_channels, dtype=self.dtype, name="latent")(h)
        return layers.pool(h.astype(jnp.float32), config.pool_samples)
