import dataclasses

import jax
import pytest
from conftest import sizes

from experiments.speed import training_memory
from umt_jax.config import Config, TrainingConfig
from umt_jax.model import networks

MODEL = sizes(encoder=(2, 4, 16), latents=4, pool=50, decoder=(2, 4, 16, 16))
TRAINING = TrainingConfig(segment_samples=4000, domain_batch=4)


@pytest.fixture(autouse=True)
def standard_promotion():
    # Optax's Adam itself mixes integers and floats.
    with jax.numpy_dtype_promotion("standard"):
        yield


def step_bytes(**training):
    training = dataclasses.replace(TRAINING, **training)
    config = Config(domains=("a", "b"), model=MODEL, training=training)
    return training_memory.step_bytes(config), config


@pytest.mark.slow
def test_a_step_needs_its_state_and_less_with_remat_or_microbatches():
    none, config = step_bytes()
    parameters = jax.eval_shape(networks.Networks(config).init, jax.random.key(0))
    state_bytes = 3 * 4 * networks.num_parameters(parameters)
    # Each layer keeps at least its input, for one of the two decoders, and of the encoder.
    kept = 4 * 4000 * 16 * 4 * (8 + 2 * 8)
    layer, _ = step_bytes(remat="layer")
    parts, _ = step_bytes(microbatches=4)
    assert none > state_bytes + kept
    assert none > layer > state_bytes
    assert none > 2 * parts > 2 * state_bytes


def test_the_table_has_a_column_for_each_remat():
    row = {"none": 2_000_000_000, "layer": 1_000_000_000, "block": 500_000_000}
    table = training_memory.table({("demo", "3 x 2 x 4,000", 1): row})
    head, _, line = ([cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines())
    assert head[3:] == ["--remat=none", "--remat=layer", "--remat=block"]
    assert line == ["demo", "3 x 2 x 4,000", "1", "2", "1", "0.5"]
