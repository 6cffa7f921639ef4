"""The layers of encoder and decoder, and the time axis they share (§3.1)."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import flatten_util
from jax.typing import DTypeLike

from umt_jax.shapes import Array, Codes, Features, Float, Key, Parameters


def half_width(variance: float) -> Callable[..., jax.Array]:
    """Returns an initializer that declares a kernel for `init`: it fills it with one number.

    Args:
        variance: Of a product with the drawn kernel, for inputs of variance 1.
    """

    def declare(key, shape, dtype=jnp.float32):
        del key  # `init` draws.
        return jnp.full(shape, math.sqrt(3 * variance / math.prod(shape[:-1])), dtype)

    return declare


def init(module: nn.Module, key: Key[jax.Array, ""], *inputs: jax.ShapeDtypeStruct) -> Parameters:
    """Returns fresh parameters of a module whose kernels are declared by `half_width`.

    They are uniform within what the module declares: kernels within the half-width, biases zero.
    All are drawn as one row, since XLA on CPU takes half a second for each shape that is drawn.

    Args:
        module: The module.
        key: Of the draw.
        inputs: Shapes of what the module is called with.
    """
    half_widths, unravel = flatten_util.ravel_pytree(module.lazy_init(key, *inputs)["params"])
    return unravel(half_widths * jax.random.uniform(key, half_widths.shape, minval=-1, maxval=1))


Dense = functools.partial(nn.Dense, kernel_init=half_width(1.0))
"""A 1x1 convolution outside the stacks; its product has the size of its input.

With a third of the variance, as in the published code, the demo preset is 0.1 nats behind after 120
steps.
"""

_of_stacks = half_width(1 / 3)
"""Of convolutions, as in the published code.

With the whole variance residual streams grow from layer to layer, and training begins at 134 nats
instead of 5.6.
"""


class Conv(nn.Module):
    """Convolution along time, zero padded to the same length.

    Computed as one matrix product with the shifted inputs of all taps beside each other, which on
    CPU is faster than a dilated `conv_general_dilated`.

    Attributes:
        channels: Output width.
        offsets: For each tap, the sample it reads, relative to the output's. Causal if none is
            above zero.
        dtype: Type of the computation; parameters stay float32.
    """

    channels: int
    offsets: tuple[int, ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "*B T D"]:
        """Returns the filtered features, [*B, T, channels]."""
        taps, width = len(self.offsets), x.shape[-1]
        kernel = self.param("kernel", _of_stacks, (taps, width, self.channels), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,), jnp.float32)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        inputs = jnp.concatenate([shift(x, -offset) for offset in self.offsets], axis=-1)
        return affine(inputs, kernel.reshape(taps * width, self.channels), bias)


class Affines(nn.Module):
    """Declares one convolution of each layer of a stack, for a function that uses them all.

    Attributes:
        num_layers: L.
        shape: Of one layer's kernel: [C, D], or [taps, C, D].
    """

    num_layers: int
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> Parameters:
        """Returns `kernel`, [L, ...], and `bias`, [L, D], float32."""
        kernel = self.param("kernel", self._half_widths)
        bias_shape = self.num_layers, self.shape[-1]
        bias = self.param("bias", nn.initializers.zeros, bias_shape, jnp.float32)
        return {"kernel": kernel, "bias": bias}

    def _half_widths(self, key):
        return jnp.broadcast_to(_of_stacks(key, self.shape), (self.num_layers, *self.shape))


class ResidualLayers(nn.Module):
    """Declares the parameters of a stack of residual layers, for `stacks`.

    Attributes:
        num_layers: L.
        shapes: Of one layer's kernels, by the names of its convolutions.
    """

    num_layers: int
    shapes: Mapping[str, tuple[int, ...]]

    @nn.compact
    def __call__(self) -> Parameters:
        """Returns `kernel`, [L, ...], and `bias`, [L, D], of each convolution."""
        return {
            name: Affines(self.num_layers, shape, name=name)()
            for name, shape in self.shapes.items()
        }


def affine(
    x: Float[Array, "*B C"], kernel: Float[Array, "C D"], bias: Float[Array, "D"]
) -> Float[Array, "*B D"]:
    """Returns `x @ kernel + bias`: a 1x1 convolution whose parameters are at hand."""
    y = x @ kernel
    return y + jnp.broadcast_to(bias, y.shape)


def gate(h: Float[Array, "*B D"]) -> Float[Array, "*B C"]:
    """Returns sigmoid(first half of the channels) * tanh(second half)."""
    sigmoid_half, tanh_half = jnp.split(h, 2, axis=-1)
    return nn.sigmoid(sigmoid_half) * jnp.tanh(tanh_half)


def scale(codes: Codes) -> Float[Array, "*B T"]:
    """Returns what both networks read instead of codes: float32 in [-0.5, 0.5]."""
    return jnp.asarray(codes, jnp.float32) / 255 - 0.5


def shift(features: Features, samples: int) -> Features:
    """Moves features later in time (earlier if negative); zeros enter, length is kept."""
    num_samples = features.shape[-2]
    unpadded = [(0, 0)] * (features.ndim - 2)
    if samples >= 0:
        kept = features[..., : max(num_samples - samples, 0), :]
        padding = (num_samples - kept.shape[-2], 0)
    else:
        kept = features[..., min(-samples, num_samples) :, :]
        padding = (0, num_samples - kept.shape[-2])
    return jnp.pad(kept, [*unpadded, padding, (0, 0)])


def pool(features: Features, pool_samples: int) -> Float[Array, "*B F C"]:
    """Averages each run of `pool_samples` samples into one latent frame."""
    *batch, num_samples, channels = features.shape
    frames = features.reshape(*batch, num_samples // pool_samples, pool_samples, channels)
    return jnp.mean(frames, axis=-2)


def upsample(frames: Float[Array, "*B F C"], pool_samples: int) -> Features:
    """Repeats each latent frame `pool_samples` times."""
    return jnp.repeat(frames, pool_samples, axis=-2)


def dilations(blocks: int, layers: int) -> tuple[int, ...]:
    """Returns 1, 2, 4, ... for `layers` layers, `blocks` times over."""
    return tuple(2**layer for _ in range(blocks) for layer in range(layers))


def receptive_field(dilations: Sequence[int], taps: int = 2) -> int:
    """Returns how many past inputs one output of the decoder sees, itself included.

    So many taps of each layer, and of the first convolution.
    """
    return (taps - 1) * (sum(dilations) + 1) + 1


def encoder_reach(dilations: Sequence[int]) -> int:
    """Returns how many samples on either side of itself a feature of the encoder sees."""
    return sum(dilations) + 1
