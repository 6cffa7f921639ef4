import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from conftest import mostly_thorough
from flax import linen as nn

from umt_jax.config import ModelConfig
from umt_jax.model import decoder, encoder, layers

# Two blocks, as for `remat`; one dilation beyond the segment.
DILATIONS = (1, 2, 40, 1, 2, 40)
NUM_SAMPLES, NUM_FRAMES = 24, 3
REMAT = ("none", "layer", "block")


class InSequence(nn.Module):
    """Residual layers of any dilations, as the networks run them."""

    layer: type[nn.Module]
    config: ModelConfig
    dilations: tuple[int, ...]
    remat: str

    @nn.compact
    def __call__(self, carry, shared):
        return layers.in_sequence(
            self.layer, self.config, carry, shared, dilations=self.dilations, remat=self.remat
        )


def encoder_stack(x, parameters, *, dilations=DILATIONS, remat="none", **config):
    """Returns the residual stream after all layers, channels-first as `x`."""
    stack = InSequence(
        encoder.DilatedLayer, ModelConfig(encoder_channels=4, **config), dilations, remat
    )
    return stack.apply({"params": {"layers": parameters}}, x, None)


def decoder_stack(x, parameters, latents, *, dilations=DILATIONS, remat="none"):
    """Returns the sum of all layers' skips, channels-first as the rest."""
    taps = parameters["dilated"]["kernel"].shape[1]
    config = ModelConfig(residual_channels=4, skip_channels=5, decoder_taps=taps)
    stack = InSequence(decoder.GatedLayer, config, dilations, remat)
    carry = x, jnp.zeros((5, *x.shape[1:]))
    return stack.apply({"params": {"layers": parameters}}, carry, latents)[1]


def random_layers(rng, shapes):
    return {
        name: {
            "kernel": rng.normal(scale=0.4, size=(6, *shape)).astype(np.float32),
            "bias": rng.normal(scale=0.3, size=(6, shape[-1])).astype(np.float32),
        }
        for name, shape in shapes.items()
    }


@pytest.fixture
def encoder_layers(rng):
    return random_layers(rng, {"dilated": (3, 4, 4), "mix": (4, 4)})


@pytest.fixture(params=[2, 3], ids=lambda taps: f"{taps}_taps")
def decoder_layers(rng, request):
    shapes = {
        "dilated": (request.param, 4, 8),
        "condition": (3, 8),
        "residual": (4, 4),
        "skip": (4, 5),
    }
    return random_layers(rng, shapes)


def plain_encoder_stack(x, parameters, *, preactivation, activation):
    """The layers with nothing but autodiff and channels-last convolutions of XLA."""
    for index, dilation in enumerate(DILATIONS):
        layer = reference.layer_of(parameters, index)
        h = jax.nn.relu(x) if preactivation else x
        h = convolve(h, layer["dilated"], dilation, (dilation, dilation))
        h = jnp.tanh(h) if activation == "tanh" else jax.nn.relu(h)
        x = x + h @ layer["mix"]["kernel"] + layer["mix"]["bias"][None, None]
    return x


def plain_decoder_stack(x, parameters, latents):
    skips = 0.0
    for index, dilation in enumerate(DILATIONS):
        layer = reference.layer_of(parameters, index)
        condition = latents @ layer["condition"]["kernel"] + layer["condition"]["bias"][None, None]
        past = (len(layer["dilated"]["kernel"]) - 1) * dilation
        h = convolve(x, layer["dilated"], dilation, (past, 0))
        h = h + jnp.repeat(condition, NUM_SAMPLES // NUM_FRAMES, axis=1)
        g = jax.nn.sigmoid(h[..., :4]) * jnp.tanh(h[..., 4:])
        x = x + g @ layer["residual"]["kernel"] + layer["residual"]["bias"][None, None]
        skips = skips + g @ layer["skip"]["kernel"] + layer["skip"]["bias"][None, None]
    return skips


def convolve(x, parameters, dilation, padding):
    y = jax.lax.conv_general_dilated(
        x,
        parameters["kernel"],
        window_strides=(1,),
        padding=[padding],
        rhs_dilation=(dilation,),
        dimension_numbers=("NHC", "HIO", "NHC"),
    )
    return y + parameters["bias"][None, None]


def assert_close(tree, expected):
    """Compares to 1e-5 of each array's largest value."""

    def compare(array, expected):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(array / scale, expected / scale, rtol=1e-5, atol=1e-5)

    jax.tree.map(compare, tree, expected)


@pytest.mark.parametrize(
    ("preactivation", "activation", "remat"),
    mostly_thorough(
        [
            *((before, "relu", remat) for before in (False, True) for remat in REMAT),
            (False, "tanh", "none"),
        ]
    ),
)
def test_the_encoders_layers_have_values_and_gradients_of_the_plain_form(
    rng, encoder_layers, preactivation, activation, remat
):
    x, weight = rng.normal(size=(2, 2, NUM_SAMPLES, 4)).astype(np.float32)

    def loss(x, parameters):
        y = encoder_stack(
            jnp.moveaxis(x, -1, 0),
            parameters,
            remat=remat,
            encoder_preactivation=preactivation,
            encoder_activation=activation,
        )
        return jnp.sum(jnp.moveaxis(y, 0, -1) * weight)

    def plain_loss(x, parameters):
        y = plain_encoder_stack(x, parameters, preactivation=preactivation, activation=activation)
        return jnp.sum(y * weight)

    result, expected = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(x, encoder_layers)
        for f in (loss, plain_loss)
    )
    assert_close(result, expected)


@pytest.mark.parametrize("remat", mostly_thorough(["none", "layer", "block"]))
def test_the_decoders_layers_have_values_and_gradients_of_the_plain_form(
    rng, decoder_layers, remat
):
    x = rng.normal(size=(2, NUM_SAMPLES, 4)).astype(np.float32)
    latents = rng.normal(size=(2, NUM_FRAMES, 3)).astype(np.float32)
    weight = rng.normal(size=(2, NUM_SAMPLES, 5)).astype(np.float32)

    def loss(x, parameters, latents):
        skips = decoder_stack(
            jnp.moveaxis(x, -1, 0), parameters, jnp.moveaxis(latents, -1, 0), remat=remat
        )
        return jnp.sum(jnp.moveaxis(skips, 0, -1) * weight)

    def plain_loss(x, parameters, latents):
        return jnp.sum(plain_decoder_stack(x, parameters, latents) * weight)

    result, expected = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(x, decoder_layers, latents)
        for f in (loss, plain_loss)
    )
    assert_close(result, expected)


@pytest.mark.parametrize("dilation", [1, 4, 16, 100])
def test_what_a_decoder_layer_adds_equals_its_definition(rng, decoder_layers, dilation):
    x = rng.normal(size=(NUM_SAMPLES, 4)).astype(np.float32)
    latents = rng.normal(size=(NUM_FRAMES, 3)).astype(np.float32)
    one = jax.tree.map(lambda leaf: leaf[:1], decoder_layers)
    skips = decoder_stack(x.T, one, latents.T, dilations=(dilation,))
    _, expected = reference.gated_layer(x, latents, reference.layer_of(one, 0), dilation, 8)
    np.testing.assert_allclose(skips.T, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("preactivation", [False, True])
@pytest.mark.parametrize("dilation", [1, 2, 8, 100])
def test_an_encoder_layer_equals_its_definition(rng, encoder_layers, dilation, preactivation):
    x = rng.normal(size=(NUM_SAMPLES, 4)).astype(np.float32)
    one = jax.tree.map(lambda leaf: leaf[:1], encoder_layers)
    y = encoder_stack(x.T, one, dilations=(dilation,), encoder_preactivation=preactivation)
    expected = reference.dilated_layer(x, reference.layer_of(one, 0), dilation, preactivation)
    np.testing.assert_allclose(y.T, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.thorough
def test_each_remat_keeps_less_for_the_gradient_than_the_one_before():
    dilations = tuple(2**layer for layer in range(8)) * 8
    shapes = {"dilated": (2, 4, 8), "condition": (3, 8), "residual": (4, 4), "skip": (4, 5)}
    parameters = {
        name: {
            "kernel": jax.ShapeDtypeStruct((64, *shape), jnp.float32),
            "bias": jax.ShapeDtypeStruct((64, shape[-1]), jnp.float32),
        }
        for name, shape in shapes.items()
    }
    x = jax.ShapeDtypeStruct((4, 600), jnp.float32)
    latents = jax.ShapeDtypeStruct((3, 2), jnp.float32)

    def temporary_bytes(remat):
        def loss(parameters, x, latents):
            skips = decoder_stack(x, parameters, latents, dilations=dilations, remat=remat)
            return jnp.sum(skips)

        compiled = jax.jit(jax.grad(loss)).lower(parameters, x, latents).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    everything, of_layers, of_blocks = map(temporary_bytes, ("none", "layer", "block"))
    # Kept at each sample, in channels: 64 layers' inputs and both halves of their gates; the inputs
    # alone; those of 8 blocks and of the 8 layers of one. Some are needed at once besides.
    assert of_layers < 0.5 * everything
    assert of_blocks < 0.5 * of_layers


def test_the_gradient_computes_no_product_twice_unless_there_is_remat():
    shapes = {"dilated": (2, 4, 8), "condition": (3, 8), "residual": (4, 4), "skip": (4, 5)}
    parameters = {
        name: {"kernel": jnp.zeros((6, *shape)), "bias": jnp.zeros((6, shape[-1]))}
        for name, shape in shapes.items()
    }

    def products(remat):
        def loss(parameters, x, latents):
            return jnp.sum(decoder_stack(x, parameters, latents, remat=remat))

        gradient = jax.grad(loss, argnums=(0, 1, 2))
        arguments = parameters, jnp.zeros((4, NUM_SAMPLES)), jnp.zeros((3, NUM_FRAMES))
        return str(jax.make_jaxpr(gradient)(*arguments)).count("dot_general[")

    # Convolution, both outputs at once, conditioning: forward, to input and to kernel. And sums as
    # products: over the samples of a latent frame, and to two biases.
    assert products("none") == 3 * 3 + 3
    assert products("layer") > products("none")
