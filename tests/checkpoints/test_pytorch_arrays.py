"""Parity: the published code's numbers, and how its arrays and options are taken over."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import published_code
import pytest
import reference
from conftest import sizes

from umt_jax import published
from umt_jax.checkpoints import pytorch_arrays
from umt_jax.config import ModelConfig, TrainingConfig
from umt_jax.model import networks
from umt_jax.model.decoder import cross_entropy
from umt_jax.training import losses

PUBLISHED_TRAINING = TrainingConfig(
    **{"learning_rate": 1e-3, "learning_rate_decay": 0.995, "decay_steps": 1000},
    **{"classifier_learning_rate_decay": 1.0, "gradient_clip": 1.0, "confusion_weight": 0.01},
)


@pytest.fixture(scope="module")
def nets():
    return networks.Networks(published_code.config())


@pytest.fixture(scope="module")
def parameters():
    return published_code.parameters()


@pytest.fixture(scope="module")
def latents(nets, parameters):
    return nets.encode(parameters.encoder, published_code.expected("augmented"))


def channels_last(array):
    return np.moveaxis(array, 1, -1)


def assert_close(actual, expected):
    """Within 1e-5 of the largest value of the array."""
    expected = np.asarray(expected)
    assert np.shape(actual) == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_latents_and_domain_logits_are_those_of_the_published_code(nets, parameters, latents):
    assert_close(latents, channels_last(published_code.expected("latent")))
    domain_logits = nets.classify(parameters.classifier, latents)
    assert_close(domain_logits, published_code.expected("class_logits"))


@pytest.mark.parametrize("domain", range(published_code.NUM_DOMAINS))
def test_logits_and_losses_of_each_domain_are_those_of_the_published_code(
    nets, parameters, latents, domain
):
    codes = published_code.expected("codes")
    code_logits = nets.decode_one(networks.select(parameters.decoders, domain), codes, latents)
    assert_close(code_logits, channels_last(published_code.expected(f"decoder_logits_{domain}")))
    reconstruction = cross_entropy(code_logits, codes).mean(-1)
    assert_close(reconstruction, published_code.expected(f"reconstruction_loss_{domain}"))
    labels = np.full(len(codes), domain)
    classification = losses.classification(nets.classify(parameters.classifier, latents), labels)
    assert_close(classification, published_code.expected(f"classifier_loss_{domain}"))
    weight = nets.config.training.confusion_weight
    assert_close(
        jnp.mean(reconstruction) - weight * classification,
        published_code.expected(f"autoencoder_loss_{domain}"),
    )


def test_gradients_are_those_of_the_published_code(nets, parameters, latents):
    codes, augmented = published_code.expected("codes"), published_code.expected("augmented")
    labels = np.zeros(len(codes), int)

    def classification_loss(classifier, latents):
        return losses.classification(nets.classify(classifier, latents), labels)

    def autoencoder_loss(encoder, decoder):
        latents = nets.encode(encoder, augmented)
        code_logits = nets.decode_one(decoder, codes, latents)
        confusion = -classification_loss(parameters.classifier, latents)
        weight = nets.config.training.confusion_weight
        return jnp.mean(cross_entropy(code_logits, codes)) + weight * confusion

    decoder = networks.select(parameters.decoders, 0)
    encoder_grads, decoder_grads = jax.jit(jax.grad(autoencoder_loss, argnums=(0, 1)))(
        parameters.encoder, decoder
    )
    classifier_grads = jax.jit(jax.grad(classification_loss))(parameters.classifier, latents)
    # The published gradients stand where the parameters do. Its last residual convolution feeds
    # nothing: PyTorch gives its gradient as zeros.
    expected = published_code.parameters(
        encoder=published_code.gradients_of("encoder"),
        decoder_0=published_code.gradients_of("decoder_0"),
        classifier=published_code.gradients_of("classifier"),
    )
    jax.tree.map(assert_close, encoder_grads, expected.encoder)
    jax.tree.map(assert_close, decoder_grads, networks.select(expected.decoders, 0))
    jax.tree.map(assert_close, classifier_grads, expected.classifier)


def test_the_configuration_is_the_published_runs():
    config = published_code.config()
    assert config.model == sizes(
        encoder=(2, 4, 16),
        latents=8,
        pool=40,
        decoder=(2, 4, 12, 20),
        classifier=10,
        mu_law="truncated",
    )
    assert config.training == dataclasses.replace(
        PUBLISHED_TRAINING, segment_samples=240, domain_batch=2, seed=3
    )


def test_options_that_were_not_set_or_not_there_yet_have_their_defaults():
    options = published_code.options()[0] | {"grad_clip": None}
    del options["encoder_pool"]
    options |= {"seq_len": 16_000}
    config = pytorch_arrays.config_from_options(options, ["Only"])
    assert config.model.pool_samples == 800
    assert config.training.gradient_clip == config.training.confusion_weight == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder_func": "glu"}, "encoder_func is 'glu'; runs of the .* have relu or tanh"),
        ({"kernel_size": 1}, "decoder_taps=1 must be at least 2"),
        ({"d_layers": 0}, "classifier_layers=0 must be at least 1"),
        ({"layers": None}, "layers is None instead of a whole number"),
        ({"blocks": 2.5}, r"blocks is 2\.5 instead of a whole number"),
        ({"lr": "fast"}, "lr is 'fast' instead of a number"),
        ({"latent_d": True}, "latent_d is True instead of a whole number"),
    ],
)
def test_options_without_counterpart_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        pytorch_arrays.config_from_options(published_code.options()[0] | changed, ["A", "B"])


# Options beyond the published weights'. The published code's equations again, as loops in its own
# layout: features [channels, T], weights [out, in, tap].


def conv1d(x, weight, bias, *, dilation=1, past):
    """A convolution of which output t reads x[t - past], x[t - past + dilation], ..."""
    y = np.repeat(np.asarray(bias, float)[:, None], x.shape[1], axis=1)
    for t in range(x.shape[1]):
        for tap in range(weight.shape[-1]):
            if 0 <= (source := t - past + tap * dilation) < x.shape[1]:
                y[:, t] += weight[:, :, tap] @ x[:, source]
    return y


class Published:
    """The published networks with other options, on random weights."""

    def __init__(self, rng, options):
        self.options, self.rng = options, rng
        self.encoder, self.decoder, self.classifier = {}, {}, {}

    def conv(self, arrays, name, x, num_out, *, taps=1, dilation=1, past=0):
        """Applies a convolution, whose weights are drawn when it is first used."""
        if f"{name}.weight" not in arrays:
            shape = (num_out, len(x), taps)
            arrays[f"{name}.weight"] = self.rng.normal(size=shape) / np.sqrt(len(x) * taps)
            arrays[f"{name}.bias"] = self.rng.normal(size=num_out) / 3
        weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
        return conv1d(x, weight, bias, dilation=dilation, past=past)

    def encode(self, codes):
        options, width = self.options, self.options["encoder_channels"]
        activate = {"tanh": np.tanh, "relu": reference.relu}[options["encoder_func"]]
        h = self.conv(self.encoder, "start", codes[None] / 255 - 0.5, width, taps=3, past=1)
        for index in range(options["encoder_blocks"] * options["encoder_layers"]):
            dilation, name = 2 ** (index % options["encoder_layers"]), f"dilated_convs.{index}"
            x = self.conv(
                *(self.encoder, f"{name}.dilated_conv", h, width),
                **{"taps": 3, "dilation": dilation, "past": dilation},
            )
            h = h + self.conv(self.encoder, f"{name}.conv_1x1", activate(x), width)
        z = self.conv(self.encoder, "conv_1x1", h, options["latent_d"])
        return z.reshape(len(z), -1, options["encoder_pool"]).mean(axis=-1)

    def classify(self, z):
        for index in range(self.options["d_layers"]):
            z = self.conv(self.classifier, f"convs.{2 * index}", z, self.options["d_channels"])
            z = np.where(z > 0, z, np.expm1(np.minimum(z, 0)))
        last = f"convs.{2 * self.options['d_layers']}"
        return self.conv(self.classifier, last, z, self.options["n_datasets"]).mean(axis=-1)

    def decode(self, codes, z):
        options, arrays, taps = self.options, self.decoder, self.options["kernel_size"]
        width, skips = options["residual_channels"], options["skip_channels"]
        z = np.repeat(z, options["encoder_pool"], axis=1)
        x = np.concatenate([[0.0], codes[:-1] / 255 - 0.5])[None]
        h = self.conv(arrays, "first_conv", x, width, taps=taps, past=taps - 1)
        y = self.conv(arrays, "skip_conv", h, skips)
        for index in range(options["blocks"] * options["layers"]):
            name, dilation = f"layers.{index}", 2 ** (index % options["layers"])
            past = (taps - 1) * dilation
            x = self.conv(
                *(arrays, f"{name}.causal", h, 2 * width),
                **{"taps": taps, "dilation": dilation, "past": past},
            )
            x = x + self.conv(arrays, f"{name}.condition", z, 2 * width)
            gated = reference.sigmoid(x[:width]) * np.tanh(x[width:])
            h = h + self.conv(arrays, f"{name}.residual", gated, width)
            y = y + self.conv(arrays, f"{name}.skip", gated, skips)
        y = self.conv(arrays, "fc", reference.relu(y), skips)
        y = reference.relu(y + self.conv(arrays, "condition", z, skips))
        return self.conv(arrays, "logits", y, 256)


@pytest.mark.parametrize(
    "changed",
    [{"d_layers": 1}, {"d_layers": 5, "encoder_func": "tanh"}, {"kernel_size": 3}],
    ids=lambda changed: "_".join(changed),
)
def test_other_options_have_the_numbers_of_the_published_equations(rng, changed):
    options = published_code.options()[0] | {"encoder_pool": 10, "seq_len": 60, "n_datasets": 2}
    options |= changed
    slow = Published(rng, options)
    codes = rng.integers(256, size=60).astype(np.uint8)
    latents = slow.encode(codes)
    domain_logits, code_logits = slow.classify(latents), slow.decode(codes, latents)

    config = pytorch_arrays.config_from_options(options, ["A", "B"])
    parameters = pytorch_arrays.parameters_from_arrays(
        config, encoder=slow.encoder, decoders=[slow.decoder] * 2, classifier=slow.classifier
    )
    nets = networks.Networks(config)
    ours = nets.encode(parameters.encoder, codes[None])
    assert_close(ours[0].T, latents)
    assert_close(nets.classify(parameters.classifier, ours)[0], domain_logits)
    decoder = networks.select(parameters.decoders, 1)
    assert_close(nets.decode_one(decoder, codes[None], ours)[0].T, code_logits)


def without(arrays, name):
    return {other: array for other, array in arrays.items() if other != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda arrays: without(arrays, "layers.3.skip.bias"),
            r"the decoder 2 lacks layers\.3\.skip\.bias",
        ),
        (
            lambda arrays: arrays | {"layers.8.skip.bias": np.zeros(20)},
            r"the decoder 2 has layers\.8\.skip\.bias, for which there is no place",
        ),
        (
            lambda arrays: arrays | {"fc.weight": np.zeros((20, 21, 1))},
            r"decoder 2's fc\.weight has shape \(20, 21, 1\), not \(20, 20, 1\)",
        ),
        (
            # As many numbers, in the wrong order.
            lambda arrays: arrays | {"first_conv.weight": np.zeros((2, 1, 12))},
            r"first_conv\.weight has shape \(2, 1, 12\), not \(12, 1, 2\)",
        ),
        (
            lambda arrays: arrays | {"logits.bias": np.full(256, np.nan)},
            r"decoder 2's logits\.bias holds values that are not finite",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(change, message):
    arrays = change(published_code.arrays_of("decoder_2"))
    with pytest.raises(ValueError, match=message):
        published_code.parameters(decoder_2=arrays)


def test_an_import_without_pytorch_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "args.pth").touch()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match="needs PyTorch, any build: pip install torch"):
        published.read(tmp_path)


def test_published_sizes_have_the_published_numbers_of_parameters():
    options = published_code.options()[0] | {
        "encoder_blocks": 3,
        "encoder_layers": 10,
        "encoder_channels": 128,
        "latent_d": 64,
        "encoder_pool": 800,
        "layers": 14,
        "blocks": 4,
        "residual_channels": 128,
        "skip_channels": 128,
        "d_channels": 100,
        "seq_len": 12_000,
        "batch_size": 32,
    }
    config = pytorch_arrays.config_from_options(options, list("abcdef"))
    musicnet = ModelConfig(decoder_layers=14, mu_law="truncated")
    assert config.model == musicnet
    shapes = jax.eval_shape(networks.Networks(config).init, jax.random.key(0))
    assert networks.num_parameters(shapes.encoder) == 1_982_528
    assert networks.num_parameters(shapes.decoders) == 6 * 6_540_288
    assert networks.num_parameters(shapes.classifier) == 27_306
    assert config.training == dataclasses.replace(
        PUBLISHED_TRAINING, segment_samples=12_000, domain_batch=32, seed=3
    )
