"""`experiments.cqt_decoder`: decoders of latents become decoders of frames."""

import dataclasses

import commands
import jax
import numpy as np
import pytest
from conftest import random_parameters, sizes

from experiments import cqt_decoder
from umt_jax.checkpoints import checkpoint, reading
from umt_jax.config import Config, TrainingConfig
from umt_jax.model import networks

TRANSFORM = ("--cqt_lowest_hz=1000", "--cqt_bins_per_octave=3", "--latent_channels=5")


def test_a_map_is_found_from_frames_and_latents_and_judged_by_others(rng):
    frames = rng.normal(size=(5000, 6)).astype(np.float32)
    kernel, bias = rng.normal(size=(6, 3)), rng.normal(size=3)
    latents = frames @ kernel + bias
    found, found_bias, explained = cqt_decoder.latents_of_frames(frames, latents)
    np.testing.assert_allclose(found, kernel, atol=0.02)  # A little smaller, by the ridge.
    np.testing.assert_allclose(found_bias, bias, atol=0.02)
    assert explained > 0.999
    noise = rng.normal(size=latents.shape) * np.sqrt(latents.var())
    assert 0.4 < cqt_decoder.latents_of_frames(frames, latents + noise)[2] < 0.6
    assert cqt_decoder.latents_of_frames(frames[:20], noise[:20])[2] < 0.3


def test_decoders_do_with_frames_what_they_did_with_their_latents(rng):
    model = sizes(encoder=(1, 1, 4), latents=3, pool=10, decoder=(1, 2, 4, 5))
    training = TrainingConfig(segment_samples=40)
    nets = networks.Networks(Config(domains=("Cello", "Piano"), model=model, training=training))
    decoders = random_parameters(nets).decoders
    frames = rng.normal(size=(4, 7)).astype(np.float32)
    kernel = rng.normal(size=(7, 3)).astype(np.float32)
    bias = rng.normal(size=3).astype(np.float32)
    codes = rng.integers(256, size=40).astype(np.uint8)
    of_frames = cqt_decoder.reading_frames(decoders, kernel, bias)
    for domain in (0, 1):
        expected = nets.decode_one(networks.select(decoders, domain), codes, frames @ kernel + bias)
        logits = nets.decode_one(networks.select(of_frames, domain), codes, frames)
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def guided_and_frozen(trained_dir, tmp_path):
    """A model as the shipped one: with guides, and whose encoder was frozen at last."""
    trained_dir = str(trained_dir)
    before, step = reading.read_config(trained_dir), reading.best_step(trained_dir)
    config = dataclasses.replace(
        before,
        model=dataclasses.replace(before.model, guide_channels=2),
        training=dataclasses.replace(before.training, freeze_encoder=True, init_from="another"),
    )
    fresh = networks.Networks(config).init(jax.random.key(0))
    parameters = checkpoint.restore_parameters(trained_dir)
    decoders = {**parameters.decoders, "guide": fresh.decoders["guide"]}
    folder = str(tmp_path / "guided")
    described = reading.read_dataset(trained_dir, step)
    parameters = parameters.replace(decoders=decoders)
    checkpoint.write_parameters(folder, config, parameters, described, step=step, loss=1.0)
    return folder


@pytest.mark.thorough
def test_training_starts_from_what_is_made(guided_and_frozen, prepared_dir, tmp_path):
    flags = (f"--data_dir={prepared_dir}", f"--checkpoint={guided_and_frozen}", *TRANSFORM)
    made = commands.run(
        "experiments.cqt_decoder", *flags, "--domains=Piano", f"--output={tmp_path / 'made'}"
    )
    assert made.returncode == 0, made.stderr
    assert "of the latents' variance" in made.stdout
    config = reading.read_config(str(tmp_path / "made"))
    assert (config.model.encoder_kind, config.domains) == ("cqt", ("Piano",))
    assert (config.model.guide_channels, config.training.freeze_encoder) == (0, False)
    trained = commands.run(
        "experiments.train",
        *(f"--data_dir={prepared_dir}", f"--init_from={tmp_path / 'made'}", "--domains=Piano"),
        *(
            "--segment_samples=60",
            "--num_steps=1",
            "--eval_audio_seconds=0",
            f"--workdir={tmp_path / 'run'}",
        ),
    )
    assert trained.returncode == 0, trained.stderr
    again = commands.run("experiments.cqt_decoder", *flags, f"--output={tmp_path / 'made'}")
    assert "holds a run already. Name another folder." in again.stderr
    unknown = commands.run(
        "experiments.cqt_decoder", *flags, "--domains=Tuba", f"--output={tmp_path / 'other'}"
    )
    assert "--domains: the model has no Tuba. Use some of" in unknown.stderr
