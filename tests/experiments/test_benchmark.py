import subprocess
import sys
import types
from pathlib import Path

import pytest

from experiments import benchmark

ROOT = Path(__file__).parents[2]

# Each look at the clock is half a second after the last, and recordings are as short as may be.
ON_A_CLOCK_OF_ITS_OWN = """
import itertools, runpy, time
from experiments.speed import build_speed
looks = itertools.count()
time.perf_counter = lambda: next(looks) / 2
build_speed._SECONDS = 6.0
runpy.run_module("experiments.benchmark", run_name="__main__", alter_sys=True)
"""


def test_the_table_of_a_stage_has_the_numbers_that_the_clock_gives(tmp_path):
    # Flags of other stages are accepted beside those of this one.
    others = ["--streams=3", "--parallel_segments=2", "--segments=5", "--notorch"]
    output = tmp_path / "new" / "speed.md"
    measured = ["--stage=build", "--formats=wav,flac", "--rounds=1", f"--output={output}"]
    finished = subprocess.run(
        [sys.executable, "-c", ON_A_CLOCK_OF_ITS_OWN, *measured, *others],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    text = output.read_text()
    assert finished.stdout == f"{text}\nWritten: {output}\n"
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    assert [row[0] for row in rows] == ["file", "wav", "flac"]
    # Six seconds of audio in half a second.
    assert [row[1:] for row in rows[1:]] == 2 * [["12x", "12x", "12x", "12x", "12x", "12x"]]


def test_without_torch_the_first_line_says_what_to_install_or_leave_out(monkeypatch):
    given = types.SimpleNamespace(torch=True, stage=["memory", "generate"])
    monkeypatch.setattr(benchmark.flags, "FLAGS", given)
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--stage=generate .* pip install torch, or .* --notorch"):
        benchmark.main()
