"""The decoder, a WaveNet of one domain: codes and latents -> logits of each code (§3.1)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from umt_jax.audio import mu_law
from umt_jax.config import ModelConfig
from umt_jax.model import layers, native_layers
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
    def __call__(
        self, codes: Codes, latents: Latents, targets: Codes | None = None
    ) -> CodeLogits | Float[Array, "*B T"]:
        """Scores every code of a recording at once, given the true codes before it.

        Args:
            codes: Codes, [*B, T].
            latents: Latents, [*B, F, Z], where T is a multiple of F.
            targets: Codes, [*B, T], whose losses are wanted in the place of logits.

        Returns:
            Logits of codes[t] given codes[:t], float32, [*B, T, Q]; with targets, what targets[t]
            costs by them, in nats, float32, [*B, T].
        """
        if self.native_threads:
            skips = self._native_skips(codes, latents)
            if targets is not None:
                return native_layers.code_losses(
                    skips, latents, self.variables["params"], targets, **self._native_options
                )
        else:
            skips = self._skips(codes, latents)
        logits = self._head(skips, latents)
        return logits if targets is None else cross_entropy(logits, targets)

    def _first(self, codes, dtype):
        """Returns what the first layer is given, and the sum of skips before it, [*B, T, _]."""
        config = self.config
        # Shifted by one sample, so that the logits at t have not seen code t.
        inputs = layers.shift(layers.scale(codes)[..., None], 1)
        channels, taps = config.residual_channels, config.decoder_taps
        h = layers.Conv(channels, taps, padding="CAUSAL", dtype=dtype, name="first")(inputs)
        return h, layers.Dense(config.skip_channels, dtype=dtype, name="skip")(h)

    def _skips(self, codes, latents):
        h, skips = self._first(codes, self.dtype)
        _, skips = layers.in_sequence(
            GatedLayer,
            self.config,
            (jnp.moveaxis(h, -1, 0), jnp.moveaxis(skips, -1, 0)),
            jnp.moveaxis(latents.astype(self.dtype), -1, 0),
            dilations=self.config.decoder_dilations,
            remat=self.remat,
        )
        return jnp.moveaxis(skips, 0, -1)

    def _native_skips(self, codes, latents):
        h, skips = self._first(codes, jnp.float32)
        parameters = self.variables["params"]["layers"]
        return native_layers.gated(
            h, skips, latents, parameters, self.config, **self._native_options
        )

    def _head(self, skips, latents):
        """ReLU, 1x1 plus conditioning, ReLU, 1x1 to the logits."""
        width = self.config.skip_channels
        y = layers.Dense(width, dtype=self.dtype, name="head")(nn.relu(skips))
        condition = layers.Dense(width, dtype=self.dtype, name="condition")(latents)
        y = nn.relu(y + layers.upsample(condition, skips.shape[-2] // latents.shape[-2]))
        logits = layers.Dense(mu_law.NUM_LEVELS, dtype=self.dtype, name="logits")(y)
        return logits.astype(jnp.float32)


def cross_entropy(code_logits: CodeLogits, codes: Codes) -> Float[Array, "*B T"]:
    """Returns what each code costs by its logits, in nats."""
    # Picked by comparing, which is fused with the sum. The gradient of indexing is a scatter, which
    # XLA:CPU works out when it compiles, for seconds where batches are large.
    is_code = jax.nn.one_hot(codes, code_logits.shape[-1], dtype=bool)
    chosen = jnp.sum(jnp.where(is_code, code_logits, 0), axis=-1)
    return jax.nn.logsumexp(code_logits, axis=-1) - chosen
