import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from umt_jax.model import layers


def _moved(variables, rng):
    """Replaces zero biases, which would hide a bias that is never added."""
    return jax.tree.map(
        lambda leaf: leaf + rng.normal(scale=0.3, size=leaf.shape).astype(np.float32), variables
    )


@pytest.mark.parametrize("offsets", [(-1, 0), (-1, 0, 1), (-4, 0), (-8, 0, 8), (-40, 0)])
def test_conv_equals_its_definition(rng, offsets):
    x = rng.normal(size=(2, 24, 4)).astype(np.float32)
    layer = layers.Conv(channels=5, offsets=offsets)
    variables = _moved(layer.init(jax.random.key(0), x), rng)
    y = layer.apply(variables, x)
    for segment in range(2):
        expected = reference.conv_of(x[segment], variables["params"], offsets)
        np.testing.assert_allclose(y[segment], expected, rtol=1e-5, atol=1e-5)


def test_scale_spans_minus_half_to_half():
    codes = np.array([0, 51, 255], np.uint8)
    np.testing.assert_allclose(layers.scale(codes), [-0.5, -0.3, 0.5], atol=1e-7)


@pytest.mark.parametrize("samples", [0, 1, 3, 5, 9, -1, -5, -9])
def test_shift_moves_features_and_lets_zeros_enter(samples):
    x = jnp.arange(1.0, 6.0)[:, None]
    expected = [x[t - samples, 0] if 0 <= t - samples < 5 else 0 for t in range(5)]
    np.testing.assert_array_equal(layers.shift(x, samples)[:, 0], expected)


def test_pool_averages_runs_and_upsample_repeats_frames():
    x = jnp.array([1.0, 3.0, 5.0, 9.0])[:, None]
    np.testing.assert_array_equal(layers.pool(x, 2)[:, 0], [2, 7])
    np.testing.assert_array_equal(layers.upsample(layers.pool(x, 2), 2)[:, 0], [2, 2, 7, 7])


def test_dilations_double_within_a_block():
    assert layers.dilations(2, 4) == (1, 2, 4, 8, 1, 2, 4, 8)
