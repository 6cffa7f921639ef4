import subprocess
import sys

from umt_jax import checkpoint


def export(run, output):
    return subprocess.run(
        [sys.executable, "-m", "umt_jax.export", f"--checkpoint={run}", f"--output={output}"],
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
    again = export(trained_dir, output)
    assert (again.returncode, again.stderr.splitlines()) == (
        1,
        [f"error: --output={output} holds a run already. Name another folder."],
    )
