"""The decoder, a WaveNet of one domain: codes and latents -> logits of each code (§3.1)."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from umt_jax.audio import mu_law
from umt_jax.config import ModelConfig
from umt_jax.model import layers, stacks
from umt_jax.shapes import CodeLogits, Codes, Latents


class Decoder(nn.Module):
    """Predicts each code from the codes before it and the latents.

    Attributes:
        config: Sizes.
        dtype: Type of the computation; parameters and logits stay float32.
        remat: What is computed once more for the gradient, as in `TrainingConfig`.
    """

    config: ModelConfig
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

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
        channels, skips = config.residual_channels, config.skip_channels
        dilations = layers.dilations(config.decoder_blocks, config.decoder_layers)
        shapes = {
            "dilated": (config.decoder_taps, channels, 2 * channels),
            "condition": (config.latent_channels, 2 * channels),
            "residual": (channels, channels),
            "skip": (channels, skips),
        }
        parameters = layers.ResidualLayers(len(dilations), shapes, name="layers")()

        # Shifted by one sample, so that the logits at t have not seen code t.
        inputs = layers.shift(layers.scale(codes)[..., None], 1)
        offsets = tuple(range(1 - config.decoder_taps, 1))
        h = layers.Conv(channels, offsets, dtype=self.dtype, name="first")(inputs)
        first_skip = layers.Dense(skips, dtype=self.dtype, name="skip")(h)
        layer_skips = stacks.decoder_stack(
            jnp.moveaxis(h, -1, 0),
            parameters,
            jnp.moveaxis(latents.astype(self.dtype), -1, 0),
            dilations=dilations,
            remat=self.remat,
        )
        return self._head(first_skip + jnp.moveaxis(layer_skips, 0, -1), latents)

    def _head(self, skips, latents):
        """ReLU, 1x1 plus conditioning, ReLU, 1x1 to the logits."""
        width = self.config.skip_channels
        y = layers.Dense(width, dtype=self.dtype, name="head")(nn.relu(skips))
        condition = layers.Dense(width, dtype=self.dtype, name="condition")(latents)
        y = nn.relu(y + layers.upsample(condition, skips.shape[-2] // latents.shape[-2]))
        logits = layers.Dense(mu_law.NUM_LEVELS, dtype=self.dtype, name="logits")(y)
        return logits.astype(jnp.float32)
