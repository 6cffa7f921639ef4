"""Products in 8 bits, by every kind of instruction that can be run here, against the formula."""

import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from umt_jax.core import compiler, packing

SOURCE = Path(__file__).with_name("int8_product.cc")

# Options of the compiler, and what the processor must have for what they allow.
X86 = {
    "-march=x86-64": "sse2",
    "-march=x86-64-v3": "avx2",
    "-march=x86-64-v3 -mavxvnni": "avx_vnni",
    "-march=x86-64-v4": "avx512bw",
    "-march=x86-64-v4 -mavx512vnni": "avx512_vnni",
}
ARM = ("-march=armv8-a", "-march=armv8.2-a+dotprod")


def program_for(options, folder):
    """Returns the command that multiplies by what the options allow; skips where it cannot."""
    command, emulator = ["g++"], []
    if options in X86:
        flags = Path("/proc/cpuinfo")
        if not flags.exists() or f" {X86[options]} " not in flags.read_text().replace("\n", " "):
            pytest.skip(f"This processor has no {X86[options]}.")
    elif options in ARM and platform.machine() != "aarch64":
        command, emulator = ["aarch64-linux-gnu-g++", "-static"], ["qemu-aarch64"]
        if not all(map(shutil.which, (command[0], *emulator))):
            pytest.skip("aarch64-linux-gnu-g++ and qemu-aarch64 are not installed.")
    program = folder / "int8_product"
    root = Path(compiler.__file__).parents[2]
    command += ["-std=c++17", "-O3", "-w", f"-I{root}", *options.split(), SOURCE, "-o", program]
    subprocess.run(command, check=True)
    return [*emulator, program]


def formula(x, w):
    """Returns x @ w as 8-bit numbers give it, and the whole numbers of both."""
    largest = np.maximum(np.abs(x).max(axis=1, keepdims=True), np.float32(1e-30))
    factor = np.float32(127 * 65536) / largest
    whole_x = np.floor(np.trunc(x * factor) / 65536 + 0.5).astype(np.int64)
    largest_w = np.abs(w).max(axis=0)
    scale_w = np.where(largest_w > 0, largest_w, np.float32(1)) / np.float32(127)
    whole_w = np.rint(w / scale_w).astype(np.int64)
    scale = scale_w[np.newaxis] * (largest / np.float32(127))
    return (whole_x @ whole_w).astype(np.float32) * scale, whole_x, whole_w


@pytest.mark.parametrize("options", ["-march=native", *X86, *ARM])
def test_every_processor_gives_the_products_of_the_formula_bit_for_bit(rng, tmp_path, options):
    if options == "-march=native" and platform.machine() not in ("x86_64", "aarch64"):
        options = "-O3"
    program = program_for(options, tmp_path)
    panel, width, _ = map(int, subprocess.check_output(program).split())
    layout = packing.Layout(panel, width, 1)
    for rows, depth, panels in ((1, 128, 4), (1, 7, 1), (2, 70, 2), (5, 64, 1), (13, 129, 3)):
        x = rng.normal(size=(rows, depth)).astype(np.float32)
        w = rng.normal(size=(depth, panels * panel)).astype(np.float32)
        x[-1, :3] = [9, -9, 0]
        w[:, 5] = 0
        w[:2, 6] = [-7, 7]
        w[:, 7] = 1
        if rows > 2:
            x[1] = 0
            x[2] = -1  # All are the largest, which pairs of products must not overflow by.
        expected, whole_x, whole_w = formula(x, w)
        assert {whole_x.min(), whole_x.max(), whole_w.min(), whole_w.max()} == {-127, 127}
        written = subprocess.run(
            [*program, *map(str, (rows, depth, panels))],
            input=packing.panels(w, layout, "int8").tobytes() + x.tobytes(),
            capture_output=True,
            check=True,
        ).stdout
        found = np.frombuffer(written, np.float32).reshape(rows, -1)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(found, x @ w, atol=0.05 * np.abs(x).max() * depth**0.5)
