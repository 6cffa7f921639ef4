"""The decoder, a WaveNet of one domain: codes and latents -> logits of each code (§3.1)."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from umt_jax import layers, mu_law
from umt_jax.config import ModelConfig
from umt_jax.shapes import CodeLogits, Codes, Latents


class Decoder(nn.Module):
    """Predicts each code from the codes before it and the latents.

    Attributes:
        config: Sizes.
        dtype: Type of the computation; parameters and logits stay float32.
    """

    config: ModelConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, codes: Codes, latents: Latents) -> CodeLogits:
        """Scores every code of a recording at once, given the true codes before it.

        Args:
            codes: Codes, [*B, T].
            latents: Latents, [*B, F, Z], where T is a multiple of F.

        Returns:
            Logits of codes[t] given codes[:t], float32, [*B, T, Q].
        """
        config = self.config
        # Shifted by one sample, so that the logits at t have not seen code t.
        inputs = layers.shift(layers.scale(codes)[..., None], 1)
        h = layers.Conv(config.residual_channels, (-1, 0), dtype=self.dtype, name="first")(inputs)
        skips = nn.Dense(config.skip_channels, dtype=self.dtype, name="skip")(h)
        for index, dilation in enumerate(
            layers.dilations(config.decoder_blocks, config.decoder_layers)
        ):
            h, skip = layers.GatedResidualLayer(
                channels=config.residual_channels,
                skip_channels=config.skip_channels,
                dilation=dilation,
                dtype=self.dtype,
                name=f"layer_{index:02d}",
            )(h, latents)
            skips = skips + skip
        return self._head(skips, latents)

    def _head(self, skips, latents):
        """ReLU, 1x1 plus conditioning, ReLU, 1x1 to the logits."""
        width = self.config.skip_channels
        y = nn.Dense(width, dtype=self.dtype, name="head")(nn.relu(skips))
        condition = nn.Dense(width, dtype=self.dtype, name="condition")(latents)
        y = nn.relu(y + layers.upsample(condition, skips.shape[-2] // latents.shape[-2]))
        return nn.Dense(mu_law.NUM_LEVELS, dtype=self.dtype, name="logits")(y).astype(jnp.float32)
