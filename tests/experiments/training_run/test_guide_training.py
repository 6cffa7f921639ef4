"""A guide learns spectrograms from latents; the command that trains guides."""

import dataclasses

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_MODEL, shared_by_workers

from experiments import guides
from experiments.training_run import guide_training
from umt_jax.checkpoints import checkpoint, reading
from umt_jax.model import guide, layers

MODEL = dataclasses.replace(TINY_MODEL, sample_rate_hz=1000, guide_channels=12)
BINS = 33


@pytest.fixture
def examples(rng):
    """Spectra that depend on the latents of the frame before, of which there are two versions."""
    latents = (3 + 2 * rng.normal(size=(1, 600, 5))).astype(np.float32)
    spectra = rng.normal(size=(5, BINS)).astype(np.float32)
    magnitudes = np.roll(latents[0], 1, axis=0) @ spectra - 4
    return guide_training.Examples(np.concatenate([latents, latents + 2]), magnitudes)


def error(parameters, examples):
    module = guide.Guide(MODEL)
    return guide_training.validation_db(module, parameters, examples)


def train_guide(examples, validation, settings):
    # Optax's Adam itself mixes integers and floats.
    with jax.numpy_dtype_promotion("standard"):
        return guide_training.train(MODEL, examples, validation, settings, name="Cello")


def test_the_first_guide_predicts_the_mean_spectrum_from_latents_of_any_scale(rng, examples):
    module = guide.Guide(MODEL)
    fresh = layers.init(module, jax.random.key(0), jax.ShapeDtypeStruct((1, 1, 5), jnp.float32))
    latents = examples.latents[0]
    first = guide.first_parameters(fresh, latents, examples.magnitudes)
    mean, scale = latents.mean(axis=0), latents.std(axis=0)
    spectrum = jnp.asarray(examples.magnitudes.mean(axis=0))
    expected = module.apply({"params": fresh}, (latents - mean) / scale) + spectrum[None]
    found = module.apply({"params": first}, latents)
    # Outside the recording latents are zero, whatever their mean.
    inside = slice(150, -20)
    np.testing.assert_allclose(found[inside], expected[inside], rtol=1e-4, atol=1e-3)


def test_a_guide_learns_what_latents_tell_and_other_seeds_other_weights(examples):
    train = guide_training.Examples(examples.latents[:, :500], examples.magnitudes[:500])
    rest = guide_training.Examples(examples.latents[:, 500:], examples.magnitudes[500:])
    settings = guide_training.Settings(num_steps=400, learning_rate=1e-2)
    trained = train_guide(train, rest, settings)
    module = guide.Guide(MODEL)
    fresh = layers.init(module, jax.random.key(0), jax.ShapeDtypeStruct((1, 1, 5), jnp.float32))
    first = guide.first_parameters(fresh, train.latents[0], train.magnitudes)
    for found, before in zip(error(trained, rest), error(first, rest), strict=True):
        assert found < 0.6 * before
    short = dataclasses.replace(settings, num_steps=2)
    again, same, other = (
        train_guide(train, rest, chosen)
        for chosen in (short, short, dataclasses.replace(short, seed=1))
    )
    jax.tree.map(np.testing.assert_array_equal, again, same)
    assert not np.array_equal(again["first"]["kernel"], other["first"]["kernel"])


def test_a_learning_rate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="learning_rate=0.0 must be above 0"):
        guide_training.Settings(learning_rate=0.0)


@pytest.fixture(scope="session")
def guided_dir(trained_dir, prepared_dir, tmp_path_factory):
    """A trained model with guides, made by the command."""
    folder = shared_by_workers(tmp_path_factory) / "guided"
    if not folder.exists():
        made = commands.run(
            "experiments.guides",
            *(f"--checkpoint={trained_dir}", f"--data_dir={prepared_dir}", f"--output={folder}"),
            *("--guide_channels=4", "--num_steps=3", "--guide_strength=0.5"),
        )
        assert made.returncode == 0, made.stderr
        assert f"Written: {folder}, whose decoders follow their guides." in made.stdout
        assert made.stderr.count("dB off in validation") == len(
            reading.read_config(str(folder)).domains
        )
    return str(folder)


@pytest.mark.thorough
def test_guides_are_added_and_all_else_stays(guided_dir, trained_dir):
    trained_dir = str(trained_dir)
    before, config = reading.read_config(trained_dir), reading.read_config(guided_dir)
    assert (config.model.guide_channels, config.sampling.guide_strength) == (4, 0.5)
    assert dataclasses.replace(config.model, guide_channels=0) == before.model
    assert reading.best_step(guided_dir) == reading.best_step(trained_dir)
    old = checkpoint.restore_parameters(trained_dir)
    new = checkpoint.restore_parameters(guided_dir)
    own = {name: part for name, part in new.decoders.items() if name != "guide"}
    jax.tree.map(np.testing.assert_array_equal, old, new.replace(decoders=own))
    again = commands.run(
        "experiments.guides", f"--data_dir={trained_dir}", f"--output={guided_dir}"
    )
    assert "holds a run already. Name another folder." in again.stderr


def renamed(guided_dir, folder, encoder=lambda leaf: leaf):
    """Writes a guided model whose second domain has another name; returns its path."""
    config, step = reading.read_config(guided_dir), reading.best_step(guided_dir)
    parameters = checkpoint.restore_parameters(guided_dir)
    checkpoint.write_parameters(
        str(folder),
        dataclasses.replace(config, domains=(config.domains[0], "Kazoo")),
        parameters.replace(encoder=jax.tree.map(encoder, parameters.encoder)),
        reading.read_dataset(guided_dir, step),
        step=step,
        loss=reading.loss(guided_dir, step),
    )
    return str(folder)


@pytest.mark.thorough
def test_guides_are_kept_and_only_the_others_trained(
    guided_dir, trained_dir, prepared_dir, tmp_path
):
    other = renamed(guided_dir, tmp_path / "other")
    made = commands.run(
        "experiments.guides",
        *(f"--checkpoint={trained_dir}", f"--data_dir={prepared_dir}"),
        *(f"--guides_from={other}", f"--output={tmp_path / 'made'}", "--seed=1"),
        *("--guide_channels=4", "--num_steps=3", "--guide_strength=0.5"),
    )
    assert made.returncode == 0, made.stderr
    assert f"{reading.read_config(guided_dir).domains[0]}: step" not in made.stderr
    old, new = (
        checkpoint.restore_parameters(str(folder)).decoders["guide"]
        for folder in (guided_dir, tmp_path / "made")
    )
    jax.tree.map(lambda one, other: np.testing.assert_array_equal(one[0], other[0]), old, new)
    assert not np.array_equal(old["first"]["kernel"][1], new["first"]["kernel"][1])
    assert reading.read_dataset(str(tmp_path / "made")) == reading.read_dataset(str(trained_dir))


@pytest.mark.thorough
def test_guides_that_fit_nothing_are_refused(guided_dir, trained_dir, tmp_path):
    config = guides.with_guides(reading.read_config(str(trained_dir)), 4, 0.5)
    with pytest.raises(ValueError, match=r"--guides_from=.* has no guides\. Name a model that has"):
        guides.kept(str(trained_dir), str(trained_dir), config)
    with pytest.raises(ValueError, match=r"has other sizes \(guide_channels=4\)"):
        guides.kept(guided_dir, str(trained_dir), guides.with_guides(config, 5, 0.5))
    with pytest.raises(ValueError, match=r"has a guide for each of .*, so none is left to train"):
        guides.kept(guided_dir, str(trained_dir), config)
    other = renamed(guided_dir, tmp_path / "other", encoder=lambda leaf: leaf + 1)
    with pytest.raises(ValueError, match=r"has another encoder .* Train with --freeze_encoder"):
        guides.kept(other, str(trained_dir), config)


@pytest.mark.thorough
def test_training_on_leaves_guides_behind(guided_dir, prepared_dir, tmp_path):
    trained = commands.run(
        "experiments.train",
        *(f"--data_dir={prepared_dir}", f"--init_from={guided_dir}", f"--workdir={tmp_path / 'a'}"),
        *("--segment_samples=60", "--num_steps=1", "--eval_audio_seconds=0"),
    )
    assert trained.returncode == 0, trained.stderr
    assert "Guides stay behind: experiments.guides trains them" in trained.stderr
    config = reading.read_config(str(tmp_path / "a"))
    assert (config.model.guide_channels, config.sampling.guide_strength) == (0, 0.0)
