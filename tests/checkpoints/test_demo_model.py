import dataclasses
import types
from pathlib import Path

import numpy as np
import pytest
import reference

import umt_jax
from umt_jax.audio import mu_law
from umt_jax.checkpoints import checkpoint, demo_model, reading
from umt_jax.model import networks
from umt_jax.model.decoder import cross_entropy


def test_a_copy_without_the_model_says_what_to_pass_instead(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_model, "_FOLDER", tmp_path / "demo")
    with pytest.raises(FileNotFoundError, match=r"Name the folder of a training run.*make demo"):
        umt_jax.load()
    monkeypatch.setattr(demo_model.flags, "FLAGS", types.SimpleNamespace(checkpoint=None))
    with pytest.raises(FileNotFoundError, match=r"make demo.* --checkpoint=DIR names it"):
        demo_model.chosen()
    (tmp_path / "demo").mkdir()
    assert demo_model.path() == str(tmp_path / "demo")


def test_the_shipped_model_is_small_and_beats_a_guess_at_a_tone():
    folder = Path(demo_model.path())
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 20e6
    translator = umt_jax.load(engine="scan")
    assert len(translator.domains) >= 2
    rate_hz, pool = translator.sample_rate_hz, translator.config.model.pool_samples
    time_s = np.arange(20 * pool) / rate_hz
    waveform = (0.3 * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)
    codes = mu_law.encode(waveform, translator.config.model.mu_law)
    latents = translator.encode(waveform, rate_hz)
    for domain in translator.domains:
        logits = translator.code_logits(codes, latents, domain=domain)
        assert np.mean(cross_entropy(logits, codes)) < np.log(mu_law.NUM_LEVELS)


def test_the_shipped_arrays_are_played_as_the_networks_are_defined(rng):
    trained = reading.read_config(demo_model.path())
    # Whatever it was trained in, it is played in float32.
    config = dataclasses.replace(
        trained, training=dataclasses.replace(trained.training, compute_dtype="float32")
    )
    parameters = checkpoint.restore_parameters(demo_model.path())
    nets, model = networks.Networks(config), config.model
    codes = rng.integers(100, 156, size=model.pool_samples)
    latents = nets.encode(parameters.encoder, codes)
    expected = reference.encoder(codes, parameters.encoder, model)
    np.testing.assert_allclose(latents, expected, rtol=1e-4, atol=1e-4)

    decoder = networks.select(parameters.decoders, 0)
    logits = nets.decode_one(decoder, codes, latents)
    expected = reference.decoder(codes, np.asarray(latents), decoder, model)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    _, second, first = np.moveaxis(np.sort(expected, axis=-1)[:, -3:], -1, 0)
    is_clear = first - second > 1e-2
    assert is_clear.mean() > 0.5
    greedy, expected = np.argmax(logits, axis=-1), np.argmax(expected, axis=-1)
    np.testing.assert_array_equal(greedy[is_clear], expected[is_clear])
