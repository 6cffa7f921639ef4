"""The residual layers of encoder and decoder, one after the other, and their gradients (§3.1).

All layers of a stack have the same shapes, so they are one `lax.scan` over stacked weights, with
the dilation as data: a single layer is traced and compiled, however many there are.

Activations are channels-first in here, [C, *B, T]. On CPU the three products of a layer (forward,
to its input, to its weights) then read matrices along their rows, which is faster; accelerators
choose layouts by themselves. The gradient of what a layer adds is written out, since automatic
differentiation would keep twice as many activations and multiply more slowly.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from umt_jax.shapes import Array, Bool, Float, Leaf, Parameters, Stream


class FilterWeights(struct.PyTreeNode):
    """Weights of an encoder layer, or of all, [L, ...]; float32.

    Attributes:
        dilated: Kernel for the samples t - dilation, t and t + dilation, in this order, [3 C, C].
        dilated_bias: [C].
        mix: [C, C].
        mix_bias: [C].
    """

    dilated: Leaf
    dilated_bias: Leaf
    mix: Leaf
    mix_bias: Leaf


class GateWeights(struct.PyTreeNode):
    """Weights of a decoder layer, or of all, [L, ...]; float32.

    Attributes:
        dilated: Kernel for the samples ..., t - dilation and t, in this order, [taps C, 2 C]; its
            bias is part of the conditioning.
        outputs: Kernels of residual and skip beside each other, [C, C + S].
        outputs_bias: [C + S].
    """

    dilated: Leaf
    outputs: Leaf
    outputs_bias: Leaf


def encoder_stack(
    x: Stream,
    parameters: Parameters,
    *,
    dilations: Sequence[int],
    preactivation: bool,
    remat: str,
    activation: str = "relu",
    inside: Bool[Array, "*B T"] | None = None,
) -> Stream:
    """Returns `x` after all layers, each of which adds `filtered` to it.

    Args:
        x: The residual stream, [C, *B, T].
        parameters: `dilated` and `mix` of all layers, leaves [L, ...].
        dilations: Of each layer.
        preactivation: One more ReLU before each dilated convolution, as in NSynth.
        remat: What is computed once more for the gradient, as in `TrainingConfig`.
        activation: Between the convolutions of a layer, as in `ModelConfig`.
        inside: Where each layer's input is kept; elsewhere it is made zero.
    """
    weights = FilterWeights(
        dilated=_join_taps(parameters["dilated"]["kernel"]),
        dilated_bias=parameters["dilated"]["bias"],
        mix=parameters["mix"]["kernel"],
        mix_bias=parameters["mix"]["bias"],
    )

    def layer(x, layer_inputs):
        weights, dilation = layer_inputs
        if inside is not None:
            x = jnp.where(inside, x, 0)
        h = nn.relu(x) if preactivation else x
        return x + filtered(h, weights, dilation, activation), None

    return _scan(layer, x, weights, dilations, remat)


def decoder_stack(
    x: Stream,
    parameters: Parameters,
    latents: Float[Array, "Z *B F"],
    *,
    dilations: Sequence[int],
    remat: str,
) -> Float[Array, "S *B T"]:
    """Returns the sum of all layers' skips, each half of `gated`; the other half moves the stream.

    Args:
        x: The residual stream, [C, *B, T].
        parameters: `dilated`, `condition`, `residual` and `skip` of all layers, leaves [L, ...].
        latents: Latent frames, [Z, *B, F].
        dilations: Of each layer.
        remat: What is computed once more for the gradient, as in `TrainingConfig`.
    """

    def beside(name):
        return jnp.concatenate([parameters["residual"][name], parameters["skip"][name]], axis=-1)

    weights = GateWeights(
        dilated=_join_taps(parameters["dilated"]["kernel"]),
        outputs=beside("kernel"),
        outputs_bias=beside("bias"),
    )
    condition_bias = parameters["condition"]["bias"] + parameters["dilated"]["bias"]

    def layer(carry, layer_inputs):
        (x, skips), ((weights, kernel, bias), dilation) = carry, layer_inputs
        # Projected once per latent frame, not once per audio sample.
        conditioning = project(latents, kernel, bias)
        residual, skip = jnp.split(gated(x, conditioning, weights, dilation), [len(x)])
        return (x + residual, skips + skip), None

    skips = jnp.zeros((parameters["skip"]["bias"].shape[-1], *x.shape[1:]), x.dtype)
    of_layers = weights, parameters["condition"]["kernel"], condition_bias
    return _scan(layer, (x, skips), of_layers, dilations, remat)[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def filtered(x: Stream, weights: FilterWeights, dilation: Leaf, activation: str = "relu") -> Stream:
    """Returns what an encoder layer adds: dilated convolution, activation, 1x1 convolution.

    Not causal: output t sees t - dilation, t and t + dilation.
    """
    return _filtered_forward(x, weights, dilation, activation)[0]


def _filtered_forward(x, weights, dilation, activation):
    taps = jnp.concatenate([_past(x, dilation), x, _future(x, dilation)])
    activate = {"relu": nn.relu, "tanh": jnp.tanh}[activation]
    h = activate(project(taps, weights.dilated, weights.dilated_bias))
    return project(h, weights.mix, weights.mix_bias), (x, h, weights, dilation)


def _filtered_backward(activation, residuals, output_grads):
    x, h, weights, dilation = residuals
    h_grads = _pull_back(output_grads, weights.mix)
    h_grads = jnp.where(h > 0, h_grads, 0) if activation == "relu" else h_grads * (1 - h * h)
    taps = jnp.concatenate([_past(x, dilation), x, _future(x, dilation)])
    weight_grads = FilterWeights(
        dilated=_kernel_gradient(taps, h_grads),
        dilated_bias=_bias_gradient(h_grads),
        mix=_kernel_gradient(h, output_grads),
        mix_bias=_bias_gradient(output_grads),
    )
    past, present, future = jnp.split(_pull_back(h_grads, weights.dilated), 3)
    x_grads = _future(past, dilation) + present + _past(future, dilation)
    return x_grads, weight_grads, None


filtered.defvjp(_filtered_forward, _filtered_backward)


@jax.custom_vjp
def gated(
    x: Stream, conditioning: Float[Array, "D *B F"], weights: GateWeights, dilation: Leaf
) -> Float[Array, "E *B T"]:
    """Returns what a decoder layer adds to residual stream and skip sum, [C + S, *B, T].

    A causal convolution of the samples ..., t - dilation and t, plus conditioning; the gate; then
    both 1x1 convolutions.
    """
    return _gated_forward(x, conditioning, weights, dilation)[0]


def _gated_forward(x, conditioning, weights, dilation):
    h = project(_taps(x, weights, dilation), weights.dilated)
    h = h + jnp.repeat(conditioning, h.shape[-1] // conditioning.shape[-1], axis=-1)
    sigmoid_half, tanh_half = jnp.split(h, 2)
    opening, content = nn.sigmoid(sigmoid_half), jnp.tanh(tanh_half)
    outputs = project(opening * content, weights.outputs, weights.outputs_bias)
    # Shaped like the conditioning, which is not needed otherwise.
    return outputs, (x, opening, content, weights, dilation, conditioning)


def _gated_backward(residuals, output_grads):
    x, opening, content, weights, dilation, conditioning = residuals
    gate_grads = _pull_back(output_grads, weights.outputs)
    h_grads = jnp.concatenate(
        [
            gate_grads * content * opening * (1 - opening),
            gate_grads * opening * (1 - content * content),
        ]
    )
    weight_grads = GateWeights(
        dilated=_kernel_gradient(_taps(x, weights, dilation), h_grads),
        outputs=_kernel_gradient(opening * content, output_grads),
        outputs_bias=_bias_gradient(output_grads),
    )
    *past, x_grads = jnp.split(_pull_back(h_grads, weights.dilated), _num_taps(x, weights))
    for lag, tap_grads in enumerate(reversed(past), start=1):
        x_grads = _future(tap_grads, lag * dilation) + x_grads
    frames = h_grads.reshape(*conditioning.shape, -1)
    conditioning_grads = _sum_last(frames).astype(conditioning.dtype)
    return x_grads, conditioning_grads, weight_grads, None


gated.defvjp(_gated_forward, _gated_backward)


def project(
    x: Float[Array, "C *N"], kernel: Float[Array, "C D"], bias: Float[Array, "D"] | None = None
) -> Float[Array, "D *N"]:
    """Returns a 1x1 convolution of channels-first features, in their type."""
    y = jax.lax.dot_general(kernel.astype(x.dtype), x, (((0,), (0,)), ((), ())))
    if bias is None:
        return y
    return y + bias.astype(x.dtype).reshape(-1, *[1] * (y.ndim - 1))


def _pull_back(y_grads, kernel):
    """Returns the gradient to the input of `project`."""
    return jax.lax.dot_general(kernel.astype(y_grads.dtype), y_grads, (((1,), (0,)), ((), ())))


def _kernel_gradient(x, y_grads):
    """Returns the gradient to the kernel of `project`, float32."""
    x, y_grads = (array.reshape(len(array), -1) for array in (x, y_grads))
    dimensions = (((1,), (1,)), ((), ()))
    return jax.lax.dot_general(x, y_grads, dimensions, preferred_element_type=jnp.float32)


def _bias_gradient(y_grads):
    return _sum_last(y_grads.reshape(len(y_grads), -1))


def _sum_last(x):
    """Returns the sum over the last axis, float32: as a product, which XLA:CPU adds up faster."""
    ones = jnp.ones(x.shape[-1], x.dtype)
    return jnp.dot(x, ones, preferred_element_type=jnp.float32)


def _num_taps(x, weights):
    return len(weights.dilated) // len(x)


def _taps(x, weights, dilation):
    """Returns what each tap of a decoder layer reads, the oldest first, [taps C, *B, T]."""
    lags = reversed(range(1, _num_taps(x, weights)))
    return jnp.concatenate([*(_past(x, lag * dilation) for lag in lags), x])


def _past(x, dilation):
    """Returns each sample's past tap: the features of `dilation` samples before, zero at first."""
    num_samples = x.shape[-1]
    padded = jnp.pad(x, [*[(0, 0)] * (x.ndim - 1), (num_samples, 0)])
    start = num_samples - jnp.minimum(dilation, num_samples)
    return jax.lax.dynamic_slice_in_dim(padded, start, num_samples, axis=-1)


def _future(x, dilation):
    """Returns the features of `dilation` samples after each sample, zero at last."""
    num_samples = x.shape[-1]
    padded = jnp.pad(x, [*[(0, 0)] * (x.ndim - 1), (0, num_samples)])
    start = jnp.minimum(dilation, num_samples)
    return jax.lax.dynamic_slice_in_dim(padded, start, num_samples, axis=-1)


def _join_taps(kernels: Float[Array, "L P C D"]) -> Float[Array, "L W D"]:
    """Lays the taps of each kernel beside each other."""
    num_layers, taps, width, channels = kernels.shape
    return kernels.reshape(num_layers, taps * width, channels)


def _scan(
    layer: Callable[..., tuple[Any, None]],
    carry: Any,
    of_layers: Parameters,
    dilations: Sequence[int],
    remat: str,
) -> Any:
    """Runs `layer` with each layer's weights and dilation in turn.

    With `remat`, the gradient finds only the carries before layers, or before blocks of them (runs
    of the same dilations) and of one block at a time before layers.
    """

    def run(layer, carry, inputs):
        return jax.lax.scan(layer, carry, inputs)[0]

    inputs = of_layers, jnp.asarray(dilations, jnp.int32)
    if remat != "none":
        layer = jax.checkpoint(layer, prevent_cse=False)  # Nothing is shared across a scan.
    if remat != "block":
        return run(layer, carry, inputs)
    num_blocks = dilations.count(dilations[0])
    inputs = jax.tree.map(lambda leaf: leaf.reshape(num_blocks, -1, *leaf.shape[1:]), inputs)
    block = jax.checkpoint(
        lambda carry, inputs: (run(layer, carry, inputs), None), prevent_cse=False
    )
    return run(block, carry, inputs)
