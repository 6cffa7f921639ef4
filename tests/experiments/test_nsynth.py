"""NSynth's autoencoder: one domain, no confusion, by the same commands as the rest."""

import dataclasses
import json
from pathlib import Path

import commands
import jax
import numpy as np
import pytest
import soundfile
from conftest import random_parameters, write_tone

import umt_jax
from experiments.speed import presets
from umt_jax import translator
from umt_jax.config import Config
from umt_jax.generation import blending
from umt_jax.model import networks

CONFIG = Config(
    domains=("Notes",), model=presets.model("nsynth"), training=presets.training("nsynth")
)
REDUCED = {
    "encoder_blocks": 1,
    "encoder_layers": 3,
    "encoder_channels": 8,
    "decoder_blocks": 1,
    "decoder_layers": 3,
    "residual_channels": 8,
    "skip_channels": 8,
    "segment_samples": 512,
    "domain_batch": 2,
}
SECONDS = 4.0


def run(module, *flags):
    finished = commands.run(module, *flags)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_four_seconds_encode_to_125_frames_of_16_channels():
    nets = networks.Networks(CONFIG)
    parameters = jax.eval_shape(nets.init, jax.random.key(0))
    codes = jax.ShapeDtypeStruct((round(SECONDS * CONFIG.model.sample_rate_hz),), np.uint8)
    assert jax.eval_shape(nets.encode, parameters.encoder, codes).shape == (125, 16)


@pytest.mark.slow
def test_four_seconds_of_sound_encode_to_125_finite_frames_at_full_size(rng):
    parameters = random_parameters(networks.Networks(CONFIG))
    model = translator.Translator(CONFIG, parameters, engine="scan")
    latents = model.encode(rng.uniform(-0.5, 0.5, size=176_400).astype(np.float32), 44_100)
    assert latents.shape == (125, 16)
    assert np.isfinite(latents).all() and latents.std(axis=0).min() > 0


@pytest.mark.slow
def test_a_folder_of_notes_is_trained_reconstructed_and_interpolated(tmp_path):
    for name, frequency_hz in [("low", 200.0), ("middle", 300.0), ("deep/high", 400.0)]:
        path = tmp_path / "music" / "Notes" / f"{name}.wav"
        write_tone(path, seconds=2.0, rate_hz=16_000, frequency_hz=frequency_hz)
    data, workdir, out = tmp_path / "data", tmp_path / "run", tmp_path / "out"
    run(
        *("data_prep.build", f"--audio_dir={tmp_path / 'music'}", f"--data_dir={data}"),
        *("--segment_samples=1024", "--num_workers=1"),
    )
    flagfile = presets.flagfile("nsynth")
    sizes = [f"--{name}={value}" for name, value in REDUCED.items()]
    run(
        *("experiments.train", f"--flagfile={flagfile}", f"--data_dir={data}"),
        *(f"--workdir={workdir}", *sizes, "--num_steps=30", "--log_every=10", "--eval_batches=1"),
        *("--eval_audio_seconds=0.1", "--learning_rate=3e-3"),
    )
    config = Config.from_json(json.loads((workdir / "config.json").read_text()))
    assert config.domains == ("Notes",) and config.training.confusion_weight == 0
    assert config.model == dataclasses.replace(
        CONFIG.model, **{k: v for k, v in REDUCED.items() if hasattr(CONFIG.model, k)}
    )
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/reconstruction"] for line in lines if "train/reconstruction" in line]
    assert losses[-1] < losses[0]

    low, high = (tmp_path / "music" / "Notes" / name for name in ("low.wav", "deep/high.wav"))
    run(
        *("umt_jax.infer", f"--checkpoint={workdir}", f"--input={low}", "--domain=Notes"),
        *(f"--output={out}", f"--save_latents={out}"),
    )
    waveform, rate_hz = soundfile.read(out / "low.Notes.wav")
    assert (len(waveform), rate_hz) == (32_000, 16_000)
    run(
        *("umt_jax.blend", f"--checkpoint={workdir}", f"--input={low},{high}"),
        *("--domain=Notes", "--schedule=constant", f"--output={out}"),
    )
    model = umt_jax.load(str(workdir))
    assert model.load_latents(out / "low.npz").shape == (63, 16)
    blended, _ = soundfile.read(out / "low+high.constant-0.5.Notes.wav")
    first, second = (
        model.encode(sound, 16_000)
        for sound in blending.match_levels(
            [soundfile.read(path, dtype="float32")[0] for path in (low, high)]
        )
    )
    expected = model.generate((first + second) / 2, domain="Notes")
    np.testing.assert_allclose(blended, expected, atol=1e-4)
    assert Path(workdir, "tensorboard").is_dir()
