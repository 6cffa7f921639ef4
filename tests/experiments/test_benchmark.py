import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_command_lists_the_flags_of_all_stages_together():
    help_text = subprocess.run(
        [sys.executable, "-m", "experiments.benchmark", "--helpfull"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not help_text.stderr
    for stage in ("generate", "approximations", "train", "input", "build"):
        assert stage in help_text.stdout
    for flag in ("--streams", "--parallel_segments", "--segments"):
        assert flag in help_text.stdout
