"""The layers of encoder and decoder, and the time axis they share (§3.1)."""

import contextlib
import contextvars
import functools
import itertools
import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import flatten_util
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from umt_jax.config import ModelConfig
from umt_jax.model import channels_first
from umt_jax.shapes import (
    Array,
    Codes,
    Features,
    Float,
    Key,
    Leaf,
    Parameters,
    PyTree,
    Stream,
)

_half_widths_alone = contextvars.ContextVar("_half_widths_alone", default=False)


def uniform(variance: float) -> nn.initializers.Initializer:
    """Returns an initializer that draws kernels uniformly.

    Args:
        variance: Of a product with the drawn kernel, for inputs of variance 1.
    """
    draw = nn.initializers.variance_scaling(variance, "fan_in", "uniform")

    def initialise(key, shape, dtype=jnp.float32):
        if _half_widths_alone.get():
            return jnp.full(shape, math.sqrt(3 * variance / math.prod(shape[:-1])), dtype)
        return draw(key, shape, dtype)

    return initialise


def init(module: nn.Module, key: Key[jax.Array, ""], *inputs: jax.ShapeDtypeStruct) -> Parameters:
    """Returns fresh parameters, distributed as those of `module.init`, in a quarter of its time.

    All kernels are drawn as one row, since XLA on CPU takes half a second to compile each shape
    that is drawn.

    Args:
        module: The module; its kernels are `uniform`, its biases zero.
        key: Of the draw.
        inputs: Shapes of what the module is called with.
    """
    with _no_draw():
        parameters = module.lazy_init(key, *inputs)["params"]
    half_widths, unravel = flatten_util.ravel_pytree(parameters)
    return unravel(half_widths * jax.random.uniform(key, half_widths.shape, minval=-1, maxval=1))


@contextlib.contextmanager
def _no_draw() -> Iterator[None]:
    """Has `uniform` fill kernels with the most that it would draw."""
    token = _half_widths_alone.set(True)
    try:
        yield
    finally:
        _half_widths_alone.reset(token)


Dense = functools.partial(nn.Dense, kernel_init=uniform(1.0))
"""A 1x1 convolution outside the residual layers; its product has the size of its input.

With a third of the variance, as in the published code, the demo preset is 0.1 nats behind after 120
steps.
"""

_uniform_third = uniform(1 / 3)
"""For convolutions along time and in residual layers, as in the published code.

With the whole variance residual streams grow from layer to layer, and training begins at 134 nats
instead of 5.6.
"""

Conv = functools.partial(nn.Conv, kernel_init=_uniform_third)
"""A convolution along time that is not dilated."""


class Network(nn.Module):
    """What encoder and decoder are made with.

    Attributes:
        config: Sizes.
        dtype: Type of the computation; parameters and what is returned stay float32.
        remat: What is computed once more for the gradient, as in `TrainingConfig`.
        native_threads: Threads by which `native_layers` computes it; 0 has XLA compute it, which
            alone makes parameters.
    """

    config: ModelConfig
    dtype: DTypeLike = jnp.float32
    remat: str = "none"
    native_threads: int = 0

    @property
    def _native_options(self):
        return {"dtype": self.dtype, "threads": self.native_threads}


class Conv1x1(nn.Module):
    """1x1 convolution in a residual layer.

    Attributes:
        channels: Output width.
    """

    channels: int

    def __call__(self, x: Float[Array, "C *N"]) -> Float[Array, "D *N"]:
        """Returns the mixed features, in their type."""
        return channels_first.project(x, *self.parameters(len(x)))

    @nn.compact
    def parameters(self, width: int) -> tuple[Float[Array, "C D"], Float[Array, "D"]]:
        """Returns kernel and bias for features of a width, float32."""
        kernel = self.param("kernel", _uniform_third, (width, self.channels), jnp.float32)
        return kernel, self.param("bias", nn.initializers.zeros, (self.channels,), jnp.float32)


def mix(x: Float[Array, "C *N"], *convolutions: Conv1x1) -> Sequence[Float[Array, "_ *N"]]:
    """Returns what each convolution makes of the same features, by one product for all."""
    kernels, biases = zip(*(conv.parameters(len(x)) for conv in convolutions), strict=True)
    y = channels_first.project(x, jnp.concatenate(kernels, axis=-1), jnp.concatenate(biases))
    *ends, _ = itertools.accumulate(conv.channels for conv in convolutions)
    return jnp.split(y, ends)


class DilatedConv(nn.Module):
    """Dilated convolution in a residual layer, zero padded to the same length.

    One product with the shifted inputs of all taps beside each other, which on CPU is faster than a
    dilated `conv_general_dilated`.

    Attributes:
        channels: Output width.
        taps: For each tap, how many dilations after the output it reads. Causal if none is above 0.
    """

    channels: int
    taps: tuple[int, ...]

    @nn.compact
    def __call__(
        self, x: Stream, dilation: Leaf, conditioning: Float[Array, "D *B F"] | None = None
    ) -> Float[Array, "D *B T"]:
        """Returns the filtered features, in their type; `conditioning` is added to the bias."""
        shape = (len(self.taps), len(x), self.channels)
        kernel = self.param("kernel", _uniform_third, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,), jnp.float32)
        inputs = jnp.concatenate([_tap(x, tap, dilation) for tap in self.taps])
        kernel = kernel.reshape(-1, self.channels)
        if conditioning is None:
            return channels_first.project(inputs, kernel, bias)
        # Once per latent frame, not once per audio sample.
        frames = conditioning + bias.astype(x.dtype).reshape(-1, *[1] * (conditioning.ndim - 1))
        pool_samples = x.shape[-1] // frames.shape[-1]
        y = channels_first.project(inputs, kernel)
        return y + channels_first.upsample(frames, pool_samples)


def _tap(x, tap, dilation):
    if tap < 0:
        return channels_first.delay(x, -tap * dilation)
    return channels_first.advance(x, tap * dilation) if tap else x


def keep(activations: Stream) -> Stream:
    """Marks what the gradient finds unless there is `remat`; the rest is computed once more.

    Automatic differentiation would keep twice as many activations.
    """
    return checkpoint_name(activations, _KEPT)


_KEPT = "kept"


def in_sequence(
    layer: type[nn.Module],
    config: ModelConfig,
    carry: PyTree,
    shared: PyTree,
    *,
    dilations: Sequence[int],
    remat: str,
) -> PyTree:
    """Runs residual layers, for a module that has their parameters as `layers`, [L, ...].

    They have the same shapes, so that a single one is traced and compiled, however many there are.

    Args:
        layer: Made with `config`; called with the carry, `shared` and its dilation.
        config: Sizes.
        carry: What the first layer is given.
        shared: What each layer is given.
        dilations: Of each layer.
        remat: What is computed once more for the gradient, as in `TrainingConfig`.

    Returns:
        The carry after the last layer.
    """
    # Across a scan nothing is computed once for two uses, which `prevent_cse` is there to prevent.
    recompute = functools.partial(nn.remat, prevent_cse=False)
    repeat = functools.partial(
        nn.scan,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast, 0),
    )
    kept = jax.checkpoint_policies.save_only_these_names(_KEPT) if remat == "none" else None
    layers, inputs = repeat(recompute(layer, policy=kept)), jnp.asarray(dilations, jnp.int32)
    if remat == "block":  # A run of the same dilations.
        split, join = _split_blocks(dilations.count(dilations[0]))
        layers, inputs = repeat(recompute(layers)), split(inputs)
        layers = nn.map_variables(layers, "params", split, join, init=True)
    return layers(config, name="layers")(carry, shared, inputs)[0]


def _split_blocks(num_blocks):
    """Returns how stacked layers, [L, ...], become [blocks, L / blocks, ...], and the inverse."""

    def split(tree):
        return jax.tree.map(lambda leaf: leaf.reshape(num_blocks, -1, *leaf.shape[1:]), tree)

    def join(tree):
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)

    return split, join


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
