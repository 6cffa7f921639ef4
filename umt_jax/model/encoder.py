"""The encoder, shared by all domains: codes -> latents (§3.1)."""

import jax.numpy as jnp
from flax import linen as nn

from umt_jax.config import ModelConfig
from umt_jax.model import layers, native_layers
from umt_jax.shapes import Array, Bool, Codes, Latents, Leaf, Stream


class DilatedLayer(nn.Module):
    """Encoder layer: dilated convolution, activation, 1x1 convolution, residual sum (§3.1).

    Not causal: output t sees t - dilation, t and t + dilation.

    Attributes:
        config: Sizes.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: Stream, inside: Bool[Array, "*B T"] | None, dilation: Leaf
    ) -> tuple[Stream, None]:
        """Returns `x` plus its filtered version; outside of `inside` it counts as zero."""
        channels, activation = self.config.encoder_channels, self.config.encoder_activation
        if inside is not None:
            x = jnp.where(inside, x, 0)
        h = nn.relu(x) if self.config.encoder_preactivation else x
        h = layers.keep(layers.DilatedConv(channels, (-1, 0, 1), name="dilated")(h, dilation))
        h = {"relu": nn.relu, "tanh": jnp.tanh}[activation](h)
        return x + layers.Conv1x1(channels, name="mix")(h), None


class Encoder(layers.Network):
    """Non-causal dilated convolutions, averaged over runs of `pool_samples` samples."""

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
        waveform = layers.scale(codes)
        if inside is not None:
            waveform = jnp.where(inside, waveform, 0)
        is_native = self.native_threads > 0 and inside is None
        dtype = jnp.float32 if is_native else self.dtype
        h = layers.Conv(config.encoder_channels, 3, dtype=dtype, name="first")(waveform[..., None])
        if is_native:
            parameters = self.variables["params"]["layers"]
            h = native_layers.dilated(h, parameters, config, **self._native_options)
        else:
            h = layers.in_sequence(
                DilatedLayer,
                config,
                jnp.moveaxis(h, -1, 0),
                inside,
                dilations=config.encoder_dilations,
                remat=self.remat,
            )
            h = jnp.moveaxis(h, 0, -1).astype(jnp.float32)
        # The average commutes with the 1x1 convolution, which so runs at the rate of the frames.
        frames = layers.pool(h, config.pool_samples)
        return layers.Dense(config.latent_channels, name="latent")(frames)
