"""A translator of random weights, at 1000 Hz, for tests of it."""

import dataclasses

import numpy as np
import pytest
from conftest import TINY_MODEL

from umt_jax import translator

# Windows of 50 latent frames of 10 samples.
MODEL = dataclasses.replace(TINY_MODEL, sample_rate_hz=1000)
WINDOW = 500
PIECES = 5  # In a window.


@pytest.fixture(scope="module")
def config(tiny_config):
    return dataclasses.replace(tiny_config, model=MODEL)


@pytest.fixture(scope="module")
def model(config, tiny_parameters):
    return translator.Translator(config, tiny_parameters)


@pytest.fixture
def latents(rng):
    # Two windows and a bit.
    return rng.normal(size=(113, MODEL.latent_channels)).astype(np.float32)


def noise(rng, *shape):
    return rng.uniform(-0.9, 0.9, size=shape).astype(np.float32)


def collect(pieces):
    """Joins the pieces of each recording; returns the errors too."""
    parts, ended, errors = {}, set(), {}
    for piece in pieces:
        assert piece.recording not in ended
        parts.setdefault(piece.recording, []).append(piece.waveforms)
        if piece.is_last:
            ended.add(piece.recording)
        if piece.error:
            errors[piece.recording] = piece.error
    assert ended == set(parts)
    return {index: np.concatenate(part, axis=-1) for index, part in parts.items()}, errors
