import types
from pathlib import Path

import numpy as np
import pytest

import umt_jax
from umt_jax.audio import mu_law
from umt_jax.checkpoints import demo_model
from umt_jax.training import losses


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
        assert np.mean(losses.reconstruction(logits, codes)) < np.log(mu_law.NUM_LEVELS)
