import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from conftest import TINY_MODEL
from flax import linen as nn

from umt_jax.config import Config, ModelConfig
from umt_jax.model import classifier, decoder, encoder, layers, networks


def _published(decoder_layers):
    domains = tuple(f"Domain_{index}" for index in range(6))
    config = Config(domains=domains, model=ModelConfig(decoder_layers=decoder_layers))
    return jax.eval_shape(networks.Networks(config).init, jax.random.key(0))


@pytest.mark.parametrize(("decoder_layers", "count"), [(14, 6_540_288), (10, 4_692_992)])
def test_decoder_has_the_published_number_of_parameters(decoder_layers, count):
    decoders = _published(decoder_layers).decoders
    assert networks.num_parameters(decoders) == 6 * count
    assert {leaf.shape[0] for leaf in jax.tree.leaves(decoders)} == {6}


def test_encoder_and_classifier_have_the_published_number_of_parameters():
    parameters = _published(10)
    assert networks.num_parameters(parameters.encoder) == 1_982_528
    assert networks.num_parameters(parameters.classifier) == 27_306


def test_initial_parameters_differ_between_domains_and_follow_the_key(tiny_networks):
    kernel, again, other = (
        tiny_networks.init(jax.random.key(seed)).decoders["logits"]["kernel"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(kernel, again)
    assert np.abs(kernel - other).max() > 0.1
    assert np.abs(kernel[0] - kernel[1]).max() > 0.1


def test_initial_kernels_are_uniform_and_keep_their_share_of_a_products_variance():
    model = ModelConfig(decoder_layers=4, residual_channels=32, skip_channels=48)
    config = Config(domains=("Cello", "Flute"), model=model)
    parameters = networks.Networks(config).init(jax.random.key(0))
    decoders = parameters.decoders
    for kernel, inputs, variance in [
        (decoders["layers"]["residual"]["kernel"], 32, 1 / 3),
        (decoders["layers"]["dilated"]["kernel"], 2 * 32, 1 / 3),
        (parameters.encoder["layers"]["dilated"]["kernel"], 3 * 128, 1 / 3),
        (decoders["logits"]["kernel"], 48, 1.0),
        (parameters.classifier["layer_00"]["kernel"], 64, 1.0),
    ]:
        # Uniform within +-w has a variance of w^2 / 3.
        half_width = (3 * variance / inputs) ** 0.5
        shares, _ = np.histogram(kernel / half_width, bins=4, range=(-1, 1), density=True)
        np.testing.assert_allclose(shares, 0.5, atol=0.02)
    biases = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(parameters)
        if path[-1].key == "bias"
    ]
    assert len(biases) == 17 and not any(bias.any() for bias in biases)


def test_flaxs_own_init_draws_kernels_as_the_fast_one_does():
    latents = jax.ShapeDtypeStruct((1, 1, 50), jnp.float32)
    module = classifier.Classifier(ModelConfig(classifier_layers=1), 60, context_frames=1)
    slow = module.lazy_init(jax.random.key(0), latents)["params"]
    fast = layers.init(module, jax.random.key(1), latents)

    def compare(slow, fast):
        assert slow.shape == fast.shape
        if slow.ndim > 1:
            np.testing.assert_allclose(np.abs(slow).max(), np.abs(fast).max(), rtol=0.01)
            np.testing.assert_allclose(slow.std(), fast.std(), rtol=0.05)
        else:
            assert not slow.any() and not fast.any()

    jax.tree.map(compare, slow, fast)


@pytest.mark.parametrize(
    "changed",
    [{}, {"encoder_preactivation": True}, {"encoder_activation": "tanh"}],
    ids=lambda changed: next(iter(changed), "paper"),
)
def test_encoder_equals_its_definition(rng, changed, tiny_parameters):
    config = dataclasses.replace(TINY_MODEL, **changed)
    codes = rng.integers(256, size=(2, 60)).astype(np.uint8)
    latents = encoder.Encoder(config).apply({"params": tiny_parameters.encoder}, codes)
    for segment in range(2):
        expected = reference.encoder(codes[segment], tiny_parameters.encoder, config)
        np.testing.assert_allclose(latents[segment], expected, rtol=1e-5, atol=1e-5)


def test_decoder_equals_its_definition(rng, tiny_parameters):
    codes = rng.integers(256, size=(2, 40)).astype(np.uint8)
    latents = rng.normal(size=(2, 4, 5)).astype(np.float32)
    parameters = networks.select(tiny_parameters.decoders, 1)
    logits = decoder.Decoder(TINY_MODEL).apply({"params": parameters}, codes, latents)
    for segment in range(2):
        expected = reference.decoder(codes[segment], latents[segment], parameters, TINY_MODEL)
        np.testing.assert_allclose(logits[segment], expected, rtol=1e-4, atol=1e-4)


def test_classifier_equals_its_definition(rng, tiny_networks, tiny_parameters):
    latents = rng.normal(size=(2, 4, 5)).astype(np.float32)
    logits = tiny_networks.classify(tiny_parameters.classifier, latents)
    for segment in range(2):
        expected = reference.classifier(latents[segment], tiny_parameters.classifier)
        np.testing.assert_allclose(logits[segment], expected, rtol=1e-5, atol=1e-5)


def test_domains_in_a_loop_equal_domains_under_vmap(rng, tiny_config, tiny_parameters):
    codes = rng.integers(256, size=(3, 2, 40)).astype(np.uint8)
    latents = rng.normal(size=(3, 2, 4, 5)).astype(np.float32)
    logits = [
        networks.Networks(tiny_config, unroll_domains=unroll).decode(
            tiny_parameters.decoders, codes, latents
        )
        for unroll in (True, False)
    ]
    np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-5)


def test_decoder_never_sees_the_present_or_the_future(rng, tiny_networks, tiny_parameters):
    codes = rng.integers(256, size=(40,)).astype(np.int32)
    latents = rng.normal(size=(4, 5)).astype(np.float32)
    parameters = networks.select(tiny_parameters.decoders, 0)
    logits = tiny_networks.decode_one(parameters, codes, latents)
    for changed in (0, 17, 39):
        other = codes.copy()
        other[changed] = 255 - other[changed]
        difference = np.abs(tiny_networks.decode_one(parameters, other, latents) - logits).sum(-1)
        assert not difference[: changed + 1].any()
        assert changed == 39 or difference[changed + 1] > 0


def test_encoder_sees_the_future_within_its_reach_and_nothing_beyond(
    rng, tiny_networks, tiny_parameters
):
    # Sum of dilations 2 x (1 + 2 + 4), one more for the first convolution: 15 samples.
    codes = rng.integers(256, size=(80,)).astype(np.int32)
    latents = tiny_networks.encode(tiny_parameters.encoder, codes)
    other = codes.copy()
    other[44] = 255 - other[44]
    difference = tiny_networks.encode(tiny_parameters.encoder, other) - latents
    seen_by = set(np.flatnonzero(np.abs(difference).sum(axis=-1)))
    # Frame 2 holds sample 29, the only one of it within reach: a ReLU may close that path.
    assert {3, 4, 5} <= seen_by <= {2, 3, 4, 5}
    assert tiny_networks.encoder_reach == 2


@pytest.mark.parametrize(("decoder_layers", "samples"), [(10, 4_094), (14, 65_534)])
def test_receptive_field_of_the_published_decoders_by_gradient(decoder_layers, samples):
    config = ModelConfig(
        decoder_layers=decoder_layers, residual_channels=2, skip_channels=2, latent_channels=1
    )
    assert config.decoder_receptive_field == samples

    # The decoder's own layers, two channels wide, with weights that let all through.
    first = {"kernel": jnp.full((2, 1, 2), 0.5), "bias": jnp.zeros(2)}
    kernel = jnp.concatenate([jnp.zeros((2, 2, 2)), jnp.full((2, 2, 2), 0.3)], axis=-1)
    layer = {
        "dilated": {"kernel": kernel, "bias": jnp.zeros(4)},
        "condition": {"kernel": jnp.zeros((1, 4)), "bias": jnp.zeros(4)},
        "residual": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)},
        "skip": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)},
    }
    num_layers = len(config.decoder_dilations)
    of_layers = jax.tree.map(lambda leaf: jnp.stack([leaf] * num_layers), layer)
    parameters = {"first": first, "layers": of_layers}

    class Skips(nn.Module):
        """The decoder on real inputs, up to the sum of its layers' skips."""

        @nn.compact
        def __call__(self, x):
            h = layers.Conv(2, 2, padding="CAUSAL", name="first")(x).T
            _, skips = layers.in_sequence(
                decoder.GatedLayer,
                config,
                (h, jnp.zeros_like(h)),
                jnp.zeros((1, 1)),
                dilations=config.decoder_dilations,
                remat="none",
            )
            return skips

    def last_output(x):
        return jnp.sum(Skips().apply({"params": parameters}, x)[:, -1])

    gradient = jax.grad(last_output)(jnp.zeros((samples + 100, 1)))[:, 0]
    assert not gradient[:100].any()
    assert gradient[100] != 0


def test_windows_cut_out_of_a_recording_give_its_own_latents(rng, tiny_networks, tiny_parameters):
    codes = rng.integers(256, size=(100,)).astype(np.int32)
    whole = tiny_networks.encode(tiny_parameters.encoder, codes)
    reach = tiny_networks.encoder_reach
    padded = np.pad(codes, reach * 10)
    inside = np.pad(np.ones(100, bool), reach * 10)
    for frame in range(0, 10, 2):
        window = slice(frame * 10, (frame + 2 + 2 * reach) * 10)
        latents = tiny_networks.encode(tiny_parameters.encoder, padded[window], inside[window])
        np.testing.assert_allclose(
            latents[reach:-reach], whole[frame : frame + 2], rtol=1e-5, atol=1e-5
        )
