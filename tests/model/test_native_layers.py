"""The layers in C++ against those of XLA: numbers and gradients, for any sizes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mostly_thorough, random_parameters, sizes

from umt_jax.config import Config, TrainingConfig
from umt_jax.model import native_layers, networks

CASES = [
    # Several blocks of samples, the last one odd; widths that fill no register.
    ({}, 253),
    # Dilations beyond the segment; three taps; whole registers.
    ({"decoder": (1, 9, 32, 16), "encoder": (2, 9, 16), "decoder_taps": 3}, 132),
    ({"encoder_activation": "tanh", "encoder_preactivation": True, "encoder": (1, 6, 33)}, 374),
    ({"encoder_preactivation": True, "decoder": (1, 3, 70, 130)}, 121),
    ({"encoder_activation": "tanh", "decoder_taps": 8, "decoder": (1, 2, 3, 6)}, 11),
]


def networks_of(changes, **training):
    """Returns both kinds of networks for a configuration, and its parameters."""
    of_model = {"encoder": (2, 3, 6), "decoder": (2, 4, 7, 9), "latents": 5, "pool": 11} | changes
    config = Config(
        domains=("Cello", "Piano"),
        model=sizes(**of_model),
        training=TrainingConfig(segment_samples=11 * 12, **training),
    )
    nets = networks.Networks(config)
    native = dataclasses.replace(nets, native_threads=2)
    # Of a size at which one sample's rounding does not grow from layer to layer.
    return nets, native, jax.tree.map(lambda leaf: leaf / 2, random_parameters(nets))


def losses_and_gradients(nets, parameters, codes, weights):
    """Returns each sample's nats, and gradients of their weighted sum to all parameters."""

    def loss(parameters):
        latents = nets.encode(parameters.encoder, codes)
        decoder = networks.select(parameters.decoders, 1)
        nats = nets.code_losses(decoder, codes, latents, codes[::-1])
        return jnp.sum(weights * nats), nats

    grads, nats = jax.jit(jax.grad(loss, has_aux=True))(parameters)
    return nats, {"encoder": grads.encoder, "decoder": networks.select(grads.decoders, 1)}


def errors(grads, expected):
    """Returns of each array how far it is off, as a share of its size."""
    return {
        jax.tree_util.keystr(path): float(np.linalg.norm(a - b) / (np.linalg.norm(b) or 1))
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(expected), strict=True
        )
    }


@pytest.mark.parametrize(("changes", "num_samples"), mostly_thorough(CASES, every_day=2))
def test_losses_and_gradients_are_those_of_xla(changes, num_samples, rng):
    nets, native, parameters = networks_of(changes)
    codes = rng.integers(256, size=(3, num_samples)).astype(np.uint8)
    weights = rng.normal(size=codes.shape).astype(np.float32)
    expected_nats, expected = losses_and_gradients(nets, parameters, codes, weights)
    nats, grads = losses_and_gradients(native, parameters, codes, weights)
    np.testing.assert_allclose(nats, expected_nats, rtol=1e-5)
    off = errors(grads, expected)
    assert max(off.values()) < 1e-5, off
    for path, size in errors(expected, jax.tree.map(np.zeros_like, expected)).items():
        # None is compared with nothing, but that of the last layer, whose output nobody reads.
        assert size > 1e-3 or "residual" in path, path


@pytest.mark.parametrize(("changes", "num_samples"), mostly_thorough(CASES))
def test_bfloat16_costs_about_what_it_does_in_xla(changes, num_samples, rng):
    if native_layers.library().umt_bfloat16_depth() == 1:
        pytest.skip("this processor does not multiply bfloat16")
    nets, _, parameters = networks_of(changes)
    rounded, native, _ = networks_of(changes, compute_dtype="bfloat16")
    codes = rng.integers(256, size=(3, num_samples)).astype(np.uint8)
    weights = rng.normal(size=codes.shape).astype(np.float32)
    exact_nats, exact = losses_and_gradients(nets, parameters, codes, weights)
    xla_nats, xla = losses_and_gradients(rounded, parameters, codes, weights)
    nats, grads = losses_and_gradients(native, parameters, codes, weights)
    assert np.abs(nats - exact_nats).mean() <= 1.5 * np.abs(xla_nats - exact_nats).mean()
    # Rounded it is: not the same numbers by another name.
    off, of_xla = (np.asarray([*errors(g, exact).values()]) for g in (grads, xla))
    assert np.median(off) > 1e-4
    assert np.median(off) <= 1.5 * np.median(of_xla)
    assert np.all(off <= 3 * of_xla + 1e-6), (off, of_xla)


def test_processors_without_bfloat16_compute_in_float32(monkeypatch):
    assert native_layers.kept_dtype(jnp.float32) == jnp.float32
    library = native_layers.library()
    expected = jnp.bfloat16 if library.umt_bfloat16_depth() > 1 else jnp.float32
    assert native_layers.kept_dtype(jnp.bfloat16) == expected

    class Other:
        def umt_bfloat16_depth(self):
            return 1

    monkeypatch.setattr(native_layers, "library", Other)
    assert native_layers.kept_dtype(jnp.bfloat16) == jnp.float32


def test_logits_and_windows_of_recordings_are_those_of_xla(rng):
    nets, native, parameters = networks_of({})
    codes = rng.integers(256, size=(2, 143)).astype(np.uint8)
    inside = np.arange(143) < np.array([[143], [99]])
    latents = nets.encode(parameters.encoder, codes, inside)
    np.testing.assert_array_equal(native.encode(parameters.encoder, codes, inside), latents)
    decoder = networks.select(parameters.decoders, 0)
    expected = nets.decode_one(decoder, codes, latents)
    np.testing.assert_allclose(
        native.decode_one(decoder, codes, latents), expected, rtol=1e-5, atol=1e-5
    )


def test_threads_share_a_batch_and_change_nothing_but_rounding(rng):
    _, native, parameters = networks_of({})
    codes = rng.integers(256, size=(5, 132)).astype(np.uint8)
    weights = rng.normal(size=codes.shape).astype(np.float32)
    results = [
        losses_and_gradients(
            dataclasses.replace(native, native_threads=threads), parameters, codes, weights
        )
        for threads in (1, 2, 5, 9)
    ]
    for nats, grads in results[1:]:
        np.testing.assert_array_equal(nats, results[0][0])
        assert max(errors(grads, results[0][1]).values()) < 1e-5


def test_parameters_are_the_same_whatever_computes(tiny_config):
    fresh = [
        networks.Networks(tiny_config, native_threads=threads).init(jax.random.key(3))
        for threads in (0, 1)
    ]
    jax.tree.map(np.testing.assert_array_equal, *fresh)
