"""A guide: predicts the spectrogram of one domain's sound from latents alone (beyond the paper).

A decoder that reads its own past knows a pitch from there, and believes the latents too little
(see `umt_jax.training.detuning`). A guide has no past: what it predicts can only come from the
latents. `umt_jax.generation.guiding` makes a waveform of it, which the decoder follows.
"""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from umt_jax.config import ModelConfig
from umt_jax.model import layers
from umt_jax.model.array_shapes import GUIDE_DILATIONS, GUIDE_TAPS, guide_padding
from umt_jax.shapes import Array, Float, Latents


class Guide(nn.Module):
    """Convolutions over latent frames, residual ones between the first and the last.

    Attributes:
        config: Sizes.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, latents: Latents) -> Float[Array, "*B N M"]:
        """Predicts log-magnitudes, several frames for each latent frame.

        Outside a recording all features are zero.

        Args:
            latents: Latents, [*B, F, Z].

        Returns:
            Log-magnitudes as `umt_jax.audio.spectrogram` has them, in M bins of a Fourier
            transform of `guide_fft_samples`, a frame every `guide_hop_samples`: N = F *
            `pool_samples` / hop.
        """
        config, (first, dilated, last) = self.config, GUIDE_TAPS
        width, hop = config.guide_channels, config.guide_hop_samples
        bins, frames = config.guide_fft_samples // 2 + 1, config.pool_samples // hop
        x = _conv(width, first, name="first")(latents)
        for index, dilation in enumerate(GUIDE_DILATIONS):
            h = _conv(width, dilated, dilation, name=f"dilated_{index:02d}")(_active(x))
            x += layers.Dense(width, name=f"mix_{index:02d}")(nn.relu(h))
        y = _conv(frames * bins, last, name="magnitudes")(_active(x))
        return y.reshape(*latents.shape[:-2], -1, bins)


def _conv(width, taps, dilation=1, *, name):
    return nn.Conv(
        width,
        (taps,),
        kernel_dilation=dilation,
        padding=[guide_padding(taps, dilation)],
        kernel_init=layers.uniform(1.0),
        name=name,
    )


def _active(x):
    """ReLU of features that are brought to mean 0 and variance 1 at each frame."""
    return nn.relu(nn.LayerNorm(use_scale=False, use_bias=False)(x))


def first_parameters(
    fresh: dict[str, dict[str, Array]],
    latents: Float[np.ndarray, "F Z"],
    magnitudes: Float[np.ndarray, "N M"],
) -> dict[str, dict[str, Array]]:
    """Returns fresh parameters for latents of this mean and variance, and this mean spectrum."""
    scale, mean = 1 / (latents.std(axis=0) + 1e-6), latents.mean(axis=0)
    kernel = np.asarray(fresh["first"]["kernel"]) * scale[:, np.newaxis]
    bias = fresh["first"]["bias"] - np.einsum("z,tzc->c", mean, kernel)
    repeats = len(fresh["magnitudes"]["bias"]) // magnitudes.shape[-1]
    spectrum = np.tile(magnitudes.mean(axis=0), repeats)
    first: dict[str, Array] = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    last = {**fresh["magnitudes"], "bias": jnp.asarray(spectrum)}
    return {**fresh, "first": first, "magnitudes": last}
