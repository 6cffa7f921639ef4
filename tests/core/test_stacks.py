"""The layers of training give the same on other processors, by other compilers."""

import collections
import functools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
NATIVE = ("g++", "-march=native")
BUILDS = {
    # Vectors of 4, 8 and 16 numbers, where this processor has them.
    "SSE2": ("g++", "-march=x86-64"),
    "AVX2": ("g++", "-march=x86-64-v3"),
    "AVX-512": ("g++", "-march=x86-64-v4"),
    "clang": ("clang++", "-march=native"),
    # By an emulator of another processor.
    "ARM": ("aarch64-linux-gnu-g++", "-static"),
    "checked": ("g++", "-march=native", "-fsanitize=address,undefined", "-fno-sanitize-recover"),
}
_EMULATOR = "qemu-aarch64"


def _numbers(folder, compiler, *options):
    """Returns what a build prints, by name."""
    program = folder / "stacks"
    source = Path(__file__).with_name("stacks.cc")
    command = [compiler, "-std=c++17", "-O2", *options, f"-I{ROOT}", str(source), "-pthread"]
    subprocess.run([*command, "-o", str(program)], check=True)
    run = [_EMULATOR, str(program)] if compiler.startswith("aarch64") else [str(program)]
    printed = collections.defaultdict(list)
    for line in subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines():
        name, _, number = line.partition(" ")
        printed[name].append(float(number))
    return {name: np.asarray(numbers) for name, numbers in printed.items()}


@functools.cache
def _expected(folder):
    return _numbers(folder, *NATIVE)


@pytest.mark.thorough
@pytest.mark.parametrize("name", BUILDS)
def test_every_build_gives_the_same_numbers(name, tmp_path, tmp_path_factory):
    compiler, *options = BUILDS[name]
    needed = [compiler, *([_EMULATOR] if name == "ARM" else [])]
    if missing := [program for program in needed if not shutil.which(program)]:
        pytest.skip(f"{' and '.join(missing)} not installed")
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if {"AVX2": "avx2", "AVX-512": "avx512vl"}.get(name, "") not in flags:
        pytest.skip(f"this processor has no {name}")
    expected = _expected(tmp_path_factory.getbasetemp())
    numbers = _numbers(tmp_path, compiler, *options)
    assert numbers.keys() == expected.keys()
    for array, values in numbers.items():
        error = np.linalg.norm(values - expected[array]) / np.linalg.norm(expected[array])
        assert error < 2e-6, (array, error)
        assert np.linalg.norm(values) > 0.1, array
