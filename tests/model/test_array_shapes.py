import dataclasses

import jax
import pytest

from umt_jax.model import array_shapes, networks
from umt_jax.model.networks import Networks


@pytest.mark.parametrize(
    ("of_model", "of_training"),
    [
        ({}, {}),
        ({"decoder_taps": 3, "encoder_preactivation": True}, {"classifier_standardised": True}),
        ({"classifier_layers": 1, "skip_channels": 5}, {"classifier_context_frames": 2}),
    ],
)
def test_shapes_are_those_of_the_networks_in_their_order(tiny_config, of_model, of_training):
    config = dataclasses.replace(
        tiny_config,
        model=dataclasses.replace(tiny_config.model, **of_model),
        training=dataclasses.replace(tiny_config.training, **of_training),
    )
    arrays = networks.by_name(jax.eval_shape(Networks(config).init, jax.random.key(0)))
    expected = {name: leaf.shape for name, leaf in arrays.items()}
    assert list(array_shapes.shapes(config).items()) == list(expected.items())


def test_arrays_come_back_from_their_names(tiny_parameters):
    by_name = networks.by_name(tiny_parameters)
    assert networks.by_name(networks.from_arrays(by_name)) == by_name
    assert networks.from_arrays(by_name).encoder == tiny_parameters.encoder
