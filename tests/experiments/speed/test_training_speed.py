import dataclasses
import functools

import jax
import numpy as np
import pytest
from conftest import sizes

from experiments.speed import presets, training_processes, training_speed
from umt_jax.config import Config, TrainingConfig
from umt_jax.data import dataset
from umt_jax.model import networks
from umt_jax.training import train_state, train_step

# One layer each, since XLA counts a loop's body once; wide, so that products are nearly all.
MODEL = sizes(encoder=(1, 1, 96), latents=32, pool=50, decoder=(1, 1, 64, 128))


@pytest.fixture(autouse=True)
def standard_promotion():
    # Optax's Adam itself mixes integers and floats.
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_the_closed_form_of_flops_is_what_xla_counts():
    training = TrainingConfig(segment_samples=2000, domain_batch=2, confusion_weight=0.0)
    config = Config(domains=("any",), model=MODEL, training=training)
    nets, optimizers = networks.Networks(config), train_state.make_optimizers(training)
    parameters = jax.eval_shape(nets.init, jax.random.key(0))
    state = jax.eval_shape(lambda p: train_state.create(p, optimizers, config), parameters)
    codes = jax.ShapeDtypeStruct((1, 2, 2000), np.uint8)
    step = functools.partial(train_step.train_step, networks=nets, optimizers=optimizers)
    lowered = jax.jit(step).lower(state, dataset.Batch(codes=codes, augmented=codes))
    counted = lowered.compile().cost_analysis()["flops"]
    # XLA counts what is done to single numbers, too.
    assert 1 < counted / training_speed.step_flops(MODEL, 2, 2000) < 1.05


def test_flops_grow_with_layers_as_the_layers_products_do():
    def flops(**changed):
        return training_speed.step_flops(dataclasses.replace(MODEL, **changed), 1, 50)

    per_sample = 3 * 2 * (4 * 96 * 96)
    assert flops(encoder_layers=4) - flops() == 3 * per_sample * 50
    per_sample = 3 * 2 * (4 * 64 * 64 + 64 * (64 + 128))
    condition = 3 * 2 * 32 * 2 * 64
    assert flops(decoder_blocks=3) - flops() == 2 * (per_sample * 50 + condition)


@pytest.mark.slow  # Compiles a step three times.
def test_a_worker_that_is_killed_is_named(tmp_path):
    worker = training_processes.Worker("demo", (1, 200), "float32", str(tmp_path))
    assert worker.step() > 0
    worker.process.kill()
    with pytest.raises(OSError, match="trains with float32 has ended with -9"):
        worker.step()


def test_the_detuned_past_that_is_timed_is_that_of_the_demos_second_part():
    preset = presets.training("demo_detuned")
    for name, value in training_processes.VARIANTS["detuned past"].items():
        assert getattr(preset, name) == value
