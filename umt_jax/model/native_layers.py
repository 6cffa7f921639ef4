"""Residual layers and losses in training on CPUs, by the C++ of `core`: XLA's numbers, sooner.

`native_layers.cc` is called through XLA's `jax.ffi`; `core.compiler` compiles it.
"""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from umt_jax.config import ModelConfig
from umt_jax.core import ffi
from umt_jax.shapes import Array, Codes, Features, Float, Latents, Parameters

MOST_TAPS = 8
"""Of a decoder's convolutions along time: `kMostParts` in `blocks.h`."""

_SOURCE = Path(__file__).with_suffix(".cc")
_TARGETS = (
    "umt_gated_forward",
    "umt_gated_backward",
    "umt_dilated_forward",
    "umt_dilated_backward",
    "umt_losses_forward",
    "umt_losses_backward",
)


@functools.cache
def library() -> ctypes.CDLL:
    """Returns the compiled layers, registered with XLA; compiles them where that was not done yet.

    Raises:
        OSError: There is no compiler, or it fails.
    """
    return ffi.library(_SOURCE, _TARGETS)


def kept_dtype(compute_dtype: DTypeLike) -> np.dtype:
    """Returns the type in which activations are kept and multiplied, for one that is asked for.

    It is float32 where this processor does not multiply bfloat16.
    """
    is_bfloat16 = compute_dtype == jnp.bfloat16 and library().umt_bfloat16_depth() > 1
    return jnp.dtype(jnp.bfloat16 if is_bfloat16 else jnp.float32)


def gated(
    x: Features,
    skips: Float[Array, "*B T S"],
    latents: Latents,
    layers: Parameters,
    config: ModelConfig,
    *,
    dtype: DTypeLike,
    threads: int,
) -> Float[Array, "*B T S"]:
    """Returns `skips` and what all residual layers of a decoder add to it, float32.

    Args:
        x: What the first layer is given, float32, [*B, T, C].
        skips: Float32, [*B, T, S].
        latents: Latents, [*B, F, Z].
        layers: Parameters of the layers, leaves [L, ...].
        config: Sizes.
        dtype: Type in which activations are kept and multiplied, as far as `kept_dtype`; sums are
            float32.
        threads: Most threads, which share out the batch.
    """
    items = _items(x)
    kernel, bias = layers["condition"]["kernel"], layers["condition"]["bias"]
    frames = jnp.einsum("bfz,lzd->lbfd", _items(latents), kernel)
    frames += (bias + layers["dilated"]["bias"])[:, jnp.newaxis, jnp.newaxis]
    weights = (layers["dilated"]["kernel"], *_affine(layers, "residual"), *_affine(layers, "skip"))
    numbers = {"threads": np.int64(threads), "frames": np.int64(frames.shape[2])}
    attributes = _Attributes(config.decoder_dilations, numbers)
    sums = _gated(items, _items(skips), frames, weights, attributes, kept_dtype(dtype))
    return sums.reshape(skips.shape)


def dilated(
    x: Features, layers: Parameters, config: ModelConfig, *, dtype: DTypeLike, threads: int
) -> Features:
    """Returns what the last residual layer of an encoder gives, float32, [*B, T, C].

    Args:
        x: What the first layer is given, float32, [*B, T, C].
        layers: Parameters of the layers, leaves [L, ...].
        config: Sizes.
        dtype: As in `gated`.
        threads: Most threads, which share out the batch.
    """
    attributes = _Attributes(
        config.encoder_dilations,
        {
            "threads": np.int64(threads),
            "preactivation": config.encoder_preactivation,
            "tanh": config.encoder_activation == "tanh",
        },
    )
    weights = (*_affine(layers, "dilated"), *_affine(layers, "mix"))
    return _dilated(_items(x), weights, attributes, kept_dtype(dtype)).reshape(x.shape)


def code_losses(
    skips: Float[Array, "*B T S"],
    latents: Latents,
    parameters: Parameters,
    codes: Codes,
    *,
    dtype: DTypeLike,
    threads: int,
) -> Float[Array, "*B T"]:
    """Returns what each code costs by a decoder's logits, in nats, float32.

    Args:
        skips: Sum over all layers, float32, [*B, T, S].
        latents: Latents, [*B, F, Z].
        parameters: Of the decoder.
        codes: The true ones, [*B, T].
        dtype: As in `gated`.
        threads: As in `gated`.
    """
    kernel, bias = _affine(parameters, "condition")
    frames = _items(latents) @ kernel
    frames += (bias + parameters["head"]["bias"])[jnp.newaxis, jnp.newaxis]
    weights = (parameters["head"]["kernel"], *_affine(parameters, "logits"))
    attributes = _Attributes((), {"threads": np.int64(threads)})
    codes = codes.reshape(-1, codes.shape[-1]).astype(jnp.int32)
    nats = _code_losses(_items(skips), frames, codes, weights, attributes, kept_dtype(dtype))
    return nats.reshape(skips.shape[:-1])


class _Attributes:
    """What a call is told beside arrays; hashable, as `custom_vjp` needs it."""

    def __init__(self, dilations: Sequence[int], numbers: dict[str, Any]) -> None:
        self.dilations = np.asarray(dilations, np.int32)
        self.numbers = numbers
        self._key = (*dilations, *numbers.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Attributes) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _gated(x, skips, frames, weights, attributes, dtype):
    return _gated_forward(x, skips, frames, weights, attributes, dtype)[0]


def _gated_forward(x, skips, frames, weights, attributes, dtype):
    sums, inputs, halves = jax.ffi.ffi_call(
        "umt_gated_forward",
        (_array(skips.shape), *_kept(x, attributes, dtype, 1), *_kept(x, attributes, dtype, 2)),
    )(x, skips, frames, *weights, attributes.dilations, **attributes.numbers)
    return sums, (inputs, halves, weights)


def _gated_backward(attributes, dtype, kept, grads):
    inputs, halves, weights = kept
    dilated, residual, _, skip, _ = weights
    items, num_samples, _ = grads.shape
    layers, _, channels, gates = dilated.shape
    outputs = [
        _array((items, num_samples, channels)),
        _array((layers, items, attributes.numbers["frames"], gates)),
        *(_array(array.shape) for array in weights),
    ]
    x_grads, frame_grads, *weight_grads, _ = jax.ffi.ffi_call(
        "umt_gated_backward",
        (*outputs, _array(halves.shape, dtype)),
        input_output_aliases={2: len(outputs)},
    )(
        *(grads, inputs, halves, dilated, residual, skip, attributes.dilations),
        **attributes.numbers,
    )
    return x_grads, grads, frame_grads, tuple(weight_grads)


_gated.defvjp(_gated_forward, _gated_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dilated(x, weights, attributes, dtype):
    return _dilated_forward(x, weights, attributes, dtype)[0]


def _dilated_forward(x, weights, attributes, dtype):
    y, inputs, hidden = jax.ffi.ffi_call(
        "umt_dilated_forward",
        (_array(x.shape), *_kept(x, attributes, dtype, 1), *_kept(x, attributes, dtype, 1)),
    )(x, *weights, attributes.dilations, **attributes.numbers)
    return y, (inputs, hidden, weights)


def _dilated_backward(attributes, dtype, kept, grads):
    del dtype
    inputs, hidden, weights = kept
    dilated, _, mix, _ = weights
    x_grads, *weight_grads = jax.ffi.ffi_call(
        "umt_dilated_backward", [_array(array.shape) for array in (grads, *weights)]
    )(grads, inputs, hidden, dilated, mix, attributes.dilations, **attributes.numbers)
    return x_grads, tuple(weight_grads)


_dilated.defvjp(_dilated_forward, _dilated_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _code_losses(skips, frames, codes, weights, attributes, dtype):
    return _code_losses_forward(skips, frames, codes, weights, attributes, dtype)[0]


def _code_losses_forward(skips, frames, codes, weights, attributes, dtype):
    kept = _array((*skips.shape[:-1], _padded(skips.shape[-1])), dtype)
    nats, summed, hidden = jax.ffi.ffi_call(
        "umt_losses_forward", (_array(codes.shape), kept, kept)
    )(skips, frames, codes, *weights, **attributes.numbers)
    return nats, (summed, hidden, frames, codes, weights)


def _code_losses_backward(attributes, dtype, kept, grads):
    del dtype
    summed, hidden, frames, codes, weights = kept
    skips_shape = (*codes.shape, frames.shape[-1])
    skip_grads, frame_grads, *weight_grads = jax.ffi.ffi_call(
        "umt_losses_backward",
        [_array(shape) for shape in (skips_shape, frames.shape, *(w.shape for w in weights))],
    )(grads, codes, summed, hidden, *weights, **attributes.numbers)
    return skip_grads, frame_grads, None, tuple(weight_grads)


_code_losses.defvjp(_code_losses_forward, _code_losses_backward)


def _items(x):
    """Returns an array whose leading axes are one."""
    return x.reshape(-1, *x.shape[-2:])


def _affine(layers, name):
    return layers[name]["kernel"], layers[name]["bias"]


def _array(shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def _kept(x, attributes, dtype, times):
    """Returns the shape of what is kept of each layer, whole registers of channels wide."""
    items, num_samples, channels = x.shape
    width = times * _padded(channels)
    return [_array((items, len(attributes.dilations), num_samples, width), dtype)]


def _padded(channels):
    """Returns how many channels fill whole registers of this processor."""
    register = library().umt_register_columns()
    return -(-channels // register) * register
