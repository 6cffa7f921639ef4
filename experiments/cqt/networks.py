"""Generator and discriminator, convolutional networks on pictures of constant-Q frames.

Pictures are frames with a last axis of channels, [B, F, Z, C]: time, bins, channels.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments.cqt.settings import GanSettings
from umt_jax.shapes import Array, Float, Latents

_SHRINK = 4
"""How many frames, and bins, the middle of a generator sees as one."""

_LEAK = 0.2
_DISCRIMINATOR_LAYERS = 3


class Generator(nn.Module):
    """Frames of one domain -> frames of another, of any number.

    Two convolutions of stride 2, residual blocks, two steps up by repeating what is nearest, and
    what comes out is added to the frames. The last layer starts at zero: untrained it is the
    identity. Normalised at each place over channels alone, so that the length of a recording
    changes nothing.

    Attributes:
        settings: Sizes.
    """

    settings: GanSettings

    @nn.compact
    def __call__(self, frames: Float[Array, "B F Z"]) -> Float[Array, "B F Z"]:
        """Returns the translated frames."""
        num_frames, num_bins = frames.shape[1:]
        width = self.settings.generator_channels
        x = nn.Conv(width, (5, 5), name="first")(_with_heights(_padded(frames)))
        for index, channels in enumerate((2 * width, 4 * width)):
            x = nn.Conv(channels, (3, 3), strides=2, name=f"down_{index}")(_activated(x))
        for index in range(self.settings.generator_blocks):
            h = nn.Conv(4 * width, (3, 3), name=f"block_{index}_first")(_activated(x))
            h = nn.Conv(4 * width, (3, 3), name=f"block_{index}_second")(_activated(h))
            x = x + h
        for index, channels in enumerate((2 * width, width)):
            x = _twice_as_large(_activated(x))
            x = nn.Conv(channels, (3, 3), name=f"up_{index}")(x)
        zeros = nn.initializers.zeros
        change = nn.Conv(1, (5, 5), kernel_init=zeros, name="last")(_activated(x))
        return frames + change[:, :num_frames, :num_bins, 0]


class Discriminator(nn.Module):
    """Frames -> how much they look like those of its domain.

    Three convolutions of stride 2, then one over all that is left of the spectrum: each of its
    logits has seen every bin, of a stretch of time. No normalisation, which the penalty on its
    gradient would not agree with.

    Attributes:
        settings: Sizes.
    """

    settings: GanSettings

    @nn.compact
    def __call__(self, frames: Float[Array, "B F Z"]) -> Float[Array, "B N"]:
        """Returns a logit for each stretch of 24 frames, eight frames after the one before."""
        x = frames[..., jnp.newaxis]
        for index in range(_DISCRIMINATOR_LAYERS):
            channels = self.settings.discriminator_channels * 2**index
            x = nn.Conv(channels, (4, 4), strides=2, name=f"down_{index}")(x)
            x = nn.leaky_relu(x, _LEAK)
        return nn.Conv(1, (3, x.shape[2]), padding="VALID", name="logits")(x)[:, :, 0, 0]


def _padded(frames: Latents) -> Latents:
    """Repeats the last frame and bin until both numbers can be halved twice."""
    missing = [(0, -size % _SHRINK) for size in frames.shape[1:]]
    return jnp.pad(frames, [(0, 0), *missing], mode="edge")


def _with_heights(frames: Latents) -> Float[Array, "B F Z 2"]:
    """Returns a picture whose second channel says how high a bin is, from -1 to 1.

    Convolutions do not know that, and formants stay where they are whatever the pitch.
    """
    heights = jnp.broadcast_to(jnp.linspace(-1, 1, frames.shape[-1]), frames.shape)
    return jnp.stack([frames, heights], axis=-1)


def _activated(x: Float[Array, "B F Z C"]) -> Float[Array, "B F Z C"]:
    """Normalises each place over its channels, and takes the positive part."""
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True)
    return nn.relu((x - mean) * jax.lax.rsqrt(variance + 1e-5))


def _twice_as_large(x: Float[Array, "B F Z C"]) -> Float[Array, "B _ _ C"]:
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
