import dataclasses
import subprocess
import sys

from umt_jax import checkpoint
from umt_jax.config import SamplingConfig


def export(run, output, *flags):
    command = ["-m", "umt_jax.export", f"--checkpoint={run}", f"--output={output}", *flags]
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_the_command_exports_the_best_weights_and_the_record_of_losses(tmp_path, trained_dir):
    output = tmp_path / "exported"
    finished = export(trained_dir, output)
    step = checkpoint.best_step(str(trained_dir))
    assert finished.stdout.startswith(f"Exported step {step}, "), finished.stderr
    assert checkpoint.best_step(str(output)) == step
    record = (trained_dir / "metrics.jsonl").read_bytes()
    assert (output / "metrics.jsonl").read_bytes() == record
    assert checkpoint.read_config(str(output)) == checkpoint.read_config(str(trained_dir))
    again = export(trained_dir, output)
    assert (again.returncode, again.stderr.splitlines()) == (
        1,
        [f"error: --output={output} holds a run already. Name another folder."],
    )


def test_an_export_keeps_how_it_is_to_be_played(tmp_path, trained_dir):
    output, again = tmp_path / "exported", tmp_path / "again"
    finished = export(trained_dir, output, "--temperature=0.4", "--top_p=0.95")
    assert finished.stdout.endswith("It is played at temperature 0.4, top_p 0.95.\n")
    trained = checkpoint.read_config(str(trained_dir))
    own = SamplingConfig(temperature=0.4, top_p=0.95)
    assert checkpoint.read_config(str(output)) == dataclasses.replace(trained, sampling=own)
    # What is not named stays.
    assert export(output, again, "--top_p=1").returncode == 0
    assert checkpoint.read_config(str(again)).sampling == SamplingConfig(temperature=0.4)


def test_a_sampling_that_means_nothing_is_refused_before_anything_is_written(tmp_path, trained_dir):
    finished = export(trained_dir, tmp_path / "exported", "--top_p=1.5")
    assert (finished.returncode, finished.stderr.splitlines()) == (
        1,
        [
            "error: --top_p=1.5 must lie in (0, 1]: codes are drawn from the likeliest ones, which "
            "have so much of the probability together; 1 draws from all."
        ],
    )
    assert not (tmp_path / "exported").exists()
