"""The decoder, a WaveNet of one domain: codes and latents -> logits of each code (§3.1)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from umt_jax.audio import mu_law
from umt_jax.config import ModelConfig
from umt_jax.model import layers
from umt_jax.shapes import Array, CodeLogits, Codes, Float, Latents, Leaf


class GatedLayer(nn.Module):
    """Decoder layer: dilated causal convolution, gate, and two 1x1 convolutions of it (§3.1).

    Channels-first, as is the rest of its arrays.

    Attributes:
        config: Sizes.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        carry: tuple[Float[Array, "C *B T"], Float[Array, "S *B T"]],
        latents: Float[Array, "Z *B F"],
        dilation: Leaf,
    ) -> tuple[tuple[Float[Array, "C *B T"], Float[Array, "S *B T"]], None]:
        """Returns the residual stream and the sum of skips after this layer."""
        (x, skips), config = carry, self.config
        width, taps = 2 * config.residual_channels, tuple(range(1 - config.decoder_taps, 1))
        conditioning = layers.Conv1x1(width, name="condition")(latents)
        h = layers.DilatedConv(width, taps, name="dilated")(x, dilation, conditioning)
        residual, skip = layers.mix(
            gate(h),
            layers.Conv1x1(config.residual_channels, name="residual"),
            layers.Conv1x1(config.skip_channels, name="skip"),
        )
        return (x + residual, skips + skip), None


@jax.custom_vjp
def gate(h: Float[Array, "D *B T"]) -> Float[Array, "C *B T"]:
    """Returns sigmoid(first half of the channels) * tanh(second half)."""
    sigmoid_half, tanh_half = jnp.split(h, 2)
    return nn.sigmoid(sigmoid_half) * jnp.tanh(tanh_half)


def _gate_forward(h):
    sigmoid_half, tanh_half = jnp.split(h, 2)
    opening, content = layers.keep(nn.sigmoid(sigmoid_half)), layers.keep(jnp.tanh(tanh_half))
    return opening * content, (opening, content)


def _gate_backward(halves, grads):
    # From the halves that are kept. Automatic differentiation would compute them again, from `h`
    # (1.05 times the step of the demo preset) or, with no more than a mark on them, from `x`.
    opening, content = halves
    sigmoid_grads = grads * content * opening * (1 - opening)
    return (jnp.concatenate([sigmoid_grads, grads * opening * (1 - content * content)]),)


gate.defvjp(_gate_forward, _gate_backward)


class Decoder(layers.Network):
    """Predicts each code from the codes before it and the latents."""

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
        h = layers.Conv(
            config.residual_channels,
            config.decoder_taps,
            padding="CAUSAL",
            dtype=self.dtype,
            name="first",
        )(inputs)
        skips = layers.Dense(config.skip_channels, dtype=self.dtype, name="skip")(h)
        _, skips = layers.in_sequence(
            GatedLayer,
            config,
            (jnp.moveaxis(h, -1, 0), jnp.moveaxis(skips, -1, 0)),
            jnp.moveaxis(latents.astype(self.dtype), -1, 0),
            dilations=config.decoder_dilations,
            remat=self.remat,
        )
        return self._head(jnp.moveaxis(skips, 0, -1), latents)

    def _head(self, skips, latents):
        """ReLU, 1x1 plus conditioning, ReLU, 1x1 to the logits."""
        width = self.config.skip_channels
        y = layers.Dense(width, dtype=self.dtype, name="head")(nn.relu(skips))
        condition = layers.Dense(width, dtype=self.dtype, name="condition")(latents)
        y = nn.relu(y + layers.upsample(condition, skips.shape[-2] // latents.shape[-2]))
        logits = layers.Dense(mu_law.NUM_LEVELS, dtype=self.dtype, name="logits")(y)
        return logits.astype(jnp.float32)
