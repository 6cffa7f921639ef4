"""Numerics, devices and small models of every test."""

import jax
import numpy as np
import pytest

from umt_jax import networks
from umt_jax.config import Config, ModelConfig, TrainingConfig

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

TINY_MODEL = ModelConfig(
    encoder_blocks=2,
    encoder_layers=3,
    encoder_channels=6,
    latent_channels=5,
    pool_samples=10,
    decoder_blocks=2,
    decoder_layers=4,
    residual_channels=7,
    skip_channels=9,
    classifier_channels=8,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def tiny_config():
    """Three domains, everything small, every width different."""
    return Config(
        domains=("Cello", "Flute", "Piano"),
        model=TINY_MODEL,
        training=TrainingConfig(segment_samples=60, domain_batch=4, confusion_weight=0.3),
    )


@pytest.fixture(scope="session")
def tiny_networks(tiny_config):
    return networks.Networks(tiny_config)


@pytest.fixture(scope="session")
def tiny_parameters(tiny_networks):
    """Parameters far enough from their initial values that biases and gates matter."""
    parameters = tiny_networks.init(jax.random.key(0))
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: leaf + rng.normal(scale=0.2, size=leaf.shape).astype(np.float32), parameters
    )
