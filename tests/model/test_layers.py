import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from umt_jax.config import ModelConfig
from umt_jax.model import layers


def _moved(variables, rng):
    """Replaces zero biases, which would hide a bias that is never added."""
    return jax.tree.map(
        lambda leaf: leaf + rng.normal(scale=0.3, size=leaf.shape).astype(np.float32), variables
    )


@pytest.mark.parametrize("dilation", [1, 4, 40])
@pytest.mark.parametrize("taps", [(-1, 0), (-2, -1, 0), (-1, 0, 1)])
def test_a_dilated_convolution_equals_its_definition(rng, taps, dilation):
    x = rng.normal(size=(2, 24, 4)).astype(np.float32)
    layer = layers.DilatedConv(channels=5, taps=taps)
    stream = jnp.moveaxis(x, -1, 0)
    variables = _moved(layer.init(jax.random.key(0), stream, dilation), rng)
    y = jnp.moveaxis(layer.apply(variables, stream, dilation), 0, -1)
    offsets = [tap * dilation for tap in taps]
    for segment in range(2):
        expected = reference.conv_of(x[segment], variables["params"], offsets)
        np.testing.assert_allclose(y[segment], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("padding", "offsets"), [("SAME", (-1, 0, 1)), ("CAUSAL", (-2, -1, 0))])
def test_an_undilated_convolution_equals_its_definition(rng, padding, offsets):
    x = rng.normal(size=(24, 4)).astype(np.float32)
    layer = layers.Conv(5, 3, padding=padding)
    variables = _moved(layer.init(jax.random.key(0), x), rng)
    expected = reference.conv_of(x, variables["params"], offsets)
    np.testing.assert_allclose(layer.apply(variables, x), expected, rtol=1e-5, atol=1e-5)


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
    config = ModelConfig(encoder_blocks=2, encoder_layers=4, decoder_blocks=1, decoder_layers=3)
    assert config.encoder_dilations == (1, 2, 4, 8, 1, 2, 4, 8)
    assert config.decoder_dilations == (1, 2, 4)
