"""Losses of a checkpoint, and what a fresh probe tells from its latents."""

import functools

import jax
import numpy as np
import played_scale  # noqa: F401 (skips these tests where the evaluators are not installed)
import pytest

from experiments.evaluation import checkpoint_scores
from umt_jax.audio import mu_law
from umt_jax.data.dataset import Batch
from umt_jax.model.networks import Networks
from umt_jax.training import train_step


def random_codes(rng, config, num_segments):
    shape = (len(config.domains), num_segments, config.training.segment_samples)
    return rng.integers(256, size=shape).astype(np.uint8)


def test_losses_are_those_of_an_evaluation_step(rng, tiny_config, tiny_parameters):
    codes = random_codes(rng, tiny_config, 11)
    found = checkpoint_scores.score(tiny_parameters, tiny_config, codes)
    step = functools.partial(train_step.eval_step, networks=Networks(tiny_config))
    whole = jax.jit(step)(tiny_parameters, Batch(codes, codes))
    np.testing.assert_allclose(
        list(found.reconstruction.values()), whole["reconstruction"], rtol=1e-5
    )
    np.testing.assert_allclose(found.classifier_accuracy, whole["classifier_accuracy"], rtol=1e-5)
    np.testing.assert_allclose(found.bits["Cello"] * np.log(2), found.reconstruction["Cello"])
    assert found.segments == 11


def test_a_fresh_probe_tells_domains_that_differ_and_guesses_where_they_do_not(
    rng, tiny_config, tiny_parameters
):
    same = random_codes(rng, tiny_config, 40)
    apart = same.copy()
    apart[1] //= 8
    apart[2] = 255 - apart[2] // 8

    def accuracy(codes):
        with jax.numpy_dtype_promotion("standard"):  # Adam mixes integers and floats.
            return checkpoint_scores.probe_accuracy(
                tiny_parameters, tiny_config, train=codes[:, :20], test=codes[:, 20:]
            )

    assert accuracy(apart) > 0.95
    assert accuracy(same) < 0.6


def test_segments_are_whole_and_as_many_of_each_domain(tiny_config):
    music = {
        "Cello": [np.zeros(130), np.zeros(59)],
        "Flute": [np.zeros(60)] * 3,
        "Piano": [np.full(240, 0.5)],
    }
    segments = checkpoint_scores.segments_of(music, tiny_config, most=9)
    assert segments.shape == (3, 2, 60)
    assert (segments[2] == mu_law.encode(np.array([0.5]), "rounded")).all()
    assert checkpoint_scores.segments_of(music, tiny_config, most=1).shape == (3, 1, 60)
    music["Flute"] = [np.zeros(59)]
    with pytest.raises(ValueError, match="Flute has no sound of 60 samples"):
        checkpoint_scores.segments_of(music, tiny_config, most=9)
