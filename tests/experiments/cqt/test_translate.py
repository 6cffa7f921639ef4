"""`experiments.cqt_translate`: both ways back to sound, and checkpoints that do not fit."""

import dataclasses
import functools
import json

import commands
import jax
import pytest
import soundfile
from conftest import sizes, write_tone
from test_checkpoint import save

from experiments.cqt import checkpoint, step
from experiments.cqt.settings import GanConfig, GanSettings
from umt_jax.checkpoints import demo_model
from umt_jax.config import Config, TrainingConfig

CQT = {"encoder_kind": "cqt", "cqt_lowest_hz": 130.0, "cqt_bins_per_octave": 12}
MODEL = sizes(latents=40, pool=40, decoder=(1, 2, 4, 4), sample_rate_hz=4000, **CQT)
DOMAINS = ("Cello", "Piano")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A CycleGAN that changes nothing yet, an untrained CQT autoencoder, and recordings."""
    root = tmp_path_factory.mktemp("translate")
    training = GanSettings(segment_samples=2000, generator_channels=2, generator_blocks=1)
    config = GanConfig(domains=DOMAINS, model=MODEL, training=training)
    checkpoint.save(
        str(root / "gan"),
        config,
        jax.jit(functools.partial(step.create, config))(jax.random.key(0)),
    )
    of_model = Config(
        domains=DOMAINS, model=MODEL, training=TrainingConfig(segment_samples=2000, domain_batch=1)
    )
    save(root / "decoder", of_model, [1.0])
    other = dataclasses.replace(MODEL, cqt_bins_per_octave=13)
    save(root / "other", dataclasses.replace(of_model, model=other), [1.0])
    for index, domain in enumerate(DOMAINS):
        tone_hz = 300 + 100 * index
        write_tone(root / "input" / domain / "song.wav", 1.01, 4000, frequency_hz=tone_hz)
    return root


def run(folders, *flags):
    return commands.run(
        "experiments.cqt_translate",
        f"--gan={folders / 'gan'}",
        f"--input={folders / 'input'}",
        *flags,
    )


def test_both_back_ends_write_every_pair_as_long_as_its_source(folders, tmp_path):
    flags = (f"--checkpoint={folders / 'decoder'}", f"--output={tmp_path}")
    finished = run(folders, *flags)
    assert finished.returncode == 0, finished.stderr
    found = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*.wav")}
    assert set(found) == {
        f"{folder}/{source}/song.{target}.wav"
        for folder in ("wavenet", "griffin_lim")
        for source in DOMAINS
        for target in DOMAINS
    }
    for path in found.values():
        assert soundfile.info(path).frames == 4040
    times = json.loads((tmp_path / "times.json").read_text())
    assert times["seconds_of_sound"] == pytest.approx(4 * 1.01)
    assert set(times["times_real_time"]) == {"frames", "wavenet", "griffin_lim"}
    # Untrained generators are the identity, so a tone comes back as it was.
    same, _ = soundfile.read(found["griffin_lim/Piano/song.Cello.wav"])
    own, _ = soundfile.read(found["griffin_lim/Piano/song.Piano.wav"])
    assert abs(same - own).max() < 1e-3
    assert 0.15 < own[1000:3000].std() < 0.25


@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [
        (None, "has a learned encoder. The frames of a CycleGAN need decoders that were trained"),
        ("other", "has --cqt_bins_per_octave=13, but"),
        ("gan", "is not the folder of a training run"),
    ],
)
def test_a_checkpoint_of_another_kind_is_one_line(folders, tmp_path, checkpoint, said):
    path = folders / checkpoint if checkpoint else demo_model.path()
    finished = run(folders, f"--checkpoint={path}", f"--output={tmp_path}")
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: ")
    assert said.replace("--cqt", "cqt") in finished.stderr.replace("--cqt", "cqt")


def test_a_run_of_another_kind_is_no_cyclegan_and_recordings_must_be_there(folders, tmp_path):
    finished = run(folders, f"--output={tmp_path}", f"--gan={folders / 'decoder'}")
    assert f"error: {folders / 'decoder'} holds no CycleGAN" in finished.stderr
    finished = run(folders, f"--output={tmp_path}", f"--input={tmp_path}")
    assert f"error: There are no sound files in {tmp_path / 'Cello'}" in finished.stderr
