"""Operations of residual layers on channels-first activations, with written gradients (§3.1).

On CPU the three products of a 1x1 convolution (forward, to its input, to its kernel) read matrices
along their rows this way, [C, *B, T], which is faster; accelerators choose layouts by themselves.
Gradients are written where automatic differentiation gives slower ones: it sums without products,
and pulls a slice back by writing into zeros.
"""

import functools

import jax
import jax.numpy as jnp

from umt_jax.shapes import Array, Float, Leaf, Stream


@jax.custom_vjp
def project(
    x: Float[Array, "C *N"], kernel: Float[Array, "C D"], bias: Float[Array, "D"] | None = None
) -> Float[Array, "D *N"]:
    """Returns a 1x1 convolution of features, in their type."""
    y = jax.lax.dot_general(kernel.astype(x.dtype), x, (((0,), (0,)), ((), ())))
    return y if bias is None else y + bias.astype(x.dtype).reshape(-1, *[1] * (y.ndim - 1))


def _project_forward(x, kernel, bias):
    return project(x, kernel, bias), (x, kernel, bias)


def _project_backward(residuals, y_grads):
    x, kernel, bias = residuals
    kernel_of_type = kernel.astype(y_grads.dtype)
    x_grads = jax.lax.dot_general(kernel_of_type, y_grads, (((1,), (0,)), ((), ())))
    x, y_grads = (array.reshape(len(array), -1) for array in (x, y_grads))
    kernel_grads = jax.lax.dot_general(
        x, y_grads, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
    )
    return x_grads, kernel_grads, None if bias is None else _sum_last(y_grads)


project.defvjp(_project_forward, _project_backward)


@jax.custom_vjp
def delay(x: Stream, samples: Leaf) -> Stream:
    """Returns the features of `samples` samples before each sample, zero at first."""
    num_samples = x.shape[-1]
    padded = jnp.pad(x, [*[(0, 0)] * (x.ndim - 1), (num_samples, 0)])
    start = num_samples - jnp.minimum(samples, num_samples)
    return jax.lax.dynamic_slice_in_dim(padded, start, num_samples, axis=-1)


@jax.custom_vjp
def advance(x: Stream, samples: Leaf) -> Stream:
    """Returns the features of `samples` samples after each sample, zero at last."""
    num_samples = x.shape[-1]
    padded = jnp.pad(x, [*[(0, 0)] * (x.ndim - 1), (0, num_samples)])
    start = jnp.minimum(samples, num_samples)
    return jax.lax.dynamic_slice_in_dim(padded, start, num_samples, axis=-1)


delay.defvjp(
    lambda x, samples: (delay(x, samples), samples),
    lambda samples, y_grads: (advance(y_grads, samples), None),
)
advance.defvjp(
    lambda x, samples: (advance(x, samples), samples),
    lambda samples, y_grads: (delay(y_grads, samples), None),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def upsample(frames: Float[Array, "C *B F"], pool_samples: int) -> Stream:
    """Repeats each latent frame `pool_samples` times."""
    return jnp.repeat(frames, pool_samples, axis=-1)


def _upsample_backward(pool_samples, residuals, y_grads):
    del residuals
    y_grads = y_grads.reshape(*y_grads.shape[:-1], -1, pool_samples)
    return (_sum_last(y_grads).astype(y_grads.dtype),)


upsample.defvjp(
    lambda frames, pool_samples: (upsample(frames, pool_samples), None), _upsample_backward
)


def _sum_last(x):
    """Returns the sum over the last axis, float32: as a product, which XLA:CPU adds up faster."""
    return jnp.dot(x, jnp.ones(x.shape[-1], x.dtype), preferred_element_type=jnp.float32)
