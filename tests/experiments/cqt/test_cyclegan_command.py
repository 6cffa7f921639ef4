"""`experiments.cqt_cyclegan` as a whole: trained, resumed, exported, and bad input."""

import json

import commands
import pytest

from experiments.cqt import checkpoint
from umt_jax.checkpoints import demo_model

SMALL = (
    "--segment_samples=1000",
    "--pool_samples=20",
    "--cqt_lowest_hz=500",
    "--cqt_bins_per_octave=6",
    "--latent_channels=14",
    "--generator_channels=2",
    "--generator_blocks=1",
    "--discriminator_channels=2",
    "--log_every=2",
)


def run(*flags):
    return commands.run("experiments.cqt_cyclegan", *flags)


@pytest.fixture(scope="module")
def data(prepared_dir):
    return (f"--data_dir={prepared_dir}", "--domains=Cello,Piano")


@pytest.fixture(scope="module")
def gan_dir(tmp_path_factory, data):
    workdir = tmp_path_factory.mktemp("gan")
    finished = run(*data, *SMALL, f"--workdir={workdir}", "--num_steps=4", "--pictures_every=4")
    assert finished.returncode == 0, finished.stderr
    return workdir


def test_a_run_writes_its_state_numbers_and_pictures(gan_dir):
    lines = [json.loads(line) for line in (gan_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert {"train/cycle", "train/fooling", "train/gradient_penalty"} <= lines[0].keys()
    (events,) = (gan_dir / "tensorboard").iterdir()
    for picture in ("Cello/frames", "Piano/frames"):
        assert picture.encode() in events.read_bytes()
    assert checkpoint.read_config(str(gan_dir)).domains == ("Cello", "Piano")


def test_a_resumed_run_is_one_that_was_never_stopped(gan_dir, data, tmp_path):
    flags = (*data, *SMALL, f"--workdir={tmp_path}")
    assert run(*flags, "--num_steps=2").returncode == 0
    resumed = run(*flags, "--num_steps=4")
    assert "Resuming from step 2" in resumed.stderr
    whole, parts = ((folder / checkpoint.STATE).read_bytes() for folder in (gan_dir, tmp_path))
    assert whole == parts


def test_a_run_starts_from_the_networks_of_an_export(gan_dir, data, tmp_path):
    exported = run(f"--workdir={gan_dir}", f"--export={tmp_path / 'small'}")
    assert exported.stdout.startswith("Exported step 4 to ")
    flags = (*data, *SMALL, f"--workdir={tmp_path / 'more'}", "--num_steps=1")
    started = run(*flags, f"--init_from={tmp_path / 'small'}")
    assert started.returncode == 0, started.stderr
    assert "Starting from the networks in" in started.stderr
    other = run(*flags, f"--workdir={tmp_path}", f"--init_from={gan_dir}", "--latent_channels=13")
    assert f"--init_from={gan_dir} has --latent_channels=14, not 13" in other.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--domains=Piano"], "error: --domains=Piano names 1. A CycleGAN is between two"),
        (["--domains=A,B,C"], "error: --domains=A,B,C names 3. A CycleGAN is between two"),
        (["--latent_channels=40"], "error: --latent_channels=40 bins from --cqt_lowest_hz=500"),
        (["--cqt_lowest_hz=5000"], "error: --cqt_lowest_hz=5000 leaves no bin"),
        (["--cqt_lowest_hz=50"], "error: --segment_samples=1000 are too few"),
        (["--segment_samples=2000"], "error: Cello was prepared in segments of 1024 samples"),
        (["--cycle_weight=3"], "holds a CycleGAN of other settings: --cycle_weight=10.0, not 3.0"),
    ],
)
def test_bad_input_is_one_line(gan_dir, data, flags, said):
    finished = run(*data, *SMALL, f"--workdir={gan_dir}", *flags)
    assert finished.returncode == 1
    assert said in finished.stderr.strip().splitlines()[-1]
    assert "Traceback" not in finished.stderr


def test_the_folder_of_another_kind_of_run_is_no_cyclegan(data, tmp_path):
    finished = run(*data, *SMALL, f"--workdir={tmp_path}", f"--init_from={demo_model.path()}")
    assert finished.returncode == 1
    assert f"error: {demo_model.path()} holds no CycleGAN" in finished.stderr.splitlines()[-1]


def test_a_cyclegan_is_no_checkpoint_of_a_model(gan_dir):
    finished = commands.run("umt_jax.export", f"--checkpoint={gan_dir}", "--output=nowhere")
    assert finished.returncode == 1
    assert "is not the folder of a training run" in finished.stderr
