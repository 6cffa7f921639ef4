"""What a benchmark ran on, and what that machine can do at all."""

import datetime
import functools
import platform
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from umt_jax.processes import cores

T = TypeVar("T")


def describe() -> str:
    """Returns what was measured on, by which versions and when."""
    processor = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        names = [
            line.partition(": ")[2]
            for line in cpu_info.read_text().splitlines()
            if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    versions = f"Python {platform.python_version()}, jax {jax.__version__}"
    machine = f"{processor}, {cores.usable()} core(s), {jax.devices()[0]}"
    return f"{datetime.date.today()}: {machine}, {versions}"


def matrix_rate() -> float:
    """Returns the measured rate of a large float32 matrix product, in FLOP/s."""
    a = np.random.default_rng(0).normal(size=(1024, 1024)).astype(np.float32)
    return 2 * 1024**3 / best_time(lambda: a @ a)


@functools.cache
def product_rate(dtype: str) -> float:
    """Returns the measured rate of a large product by XLA on the default device, in FLOP/s."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    a = jax.numpy.ones((size, size), dtype)
    product = jax.jit(jax.numpy.matmul)
    return 2 * size**3 / best_time(lambda: product(a, a).block_until_ready())


def read_bandwidth(num_bytes: int) -> float:
    """Returns the measured rate of reading an array of that size again and again, in bytes/s."""
    array = np.ones((max(1, num_bytes // 4096), 1024), np.float32)
    ones = np.ones(1024, np.float32)
    return array.nbytes / best_time(lambda: array @ ones)


def peak_bytes(process_id: int) -> int:
    """Returns the most memory that a running process has held; 0 where the system does not say.

    Not by its resource usage: Linux counts there what held its parent, before the program was
    started in its place.
    """
    status = Path(f"/proc/{process_id}/status")
    peaks = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text() if status.exists() else "")
    return 1024 * int(peaks[0]) if peaks else 0


def compile_times(compile_program: Callable[[], T]) -> tuple[T, float, float]:
    """Returns what is compiled, and the seconds that took with nothing cached and from the cache.

    The persistent cache is a folder of its own, which is gone at the end.
    """
    settings: dict[str, Any] = {
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    with tempfile.TemporaryDirectory() as folder:
        settings["jax_compilation_cache_dir"] = folder
        before = {name: getattr(jax.config, name) for name in settings}
        seconds = []
        try:
            for name, value in settings.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()  # Whichever folder was used before.
            for _ in range(2):
                jax.clear_caches()  # What a new process would not have.
                start = time.perf_counter()
                compiled = compile_program()
                seconds.append(time.perf_counter() - start)
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()
    return compiled, seconds[0], seconds[1]


def best_time(function: Callable[[], Any]) -> float:
    """Returns the shortest of twenty calls, in seconds."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)
