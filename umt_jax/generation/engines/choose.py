"""Chooses the engine that generates, by its name or by the hardware of the machine."""

import jax
from absl import logging

from umt_jax.generation.engines import native, scan
from umt_jax.generation.generate import Engine
from umt_jax.processes import cores

NAMES = ("auto", "scan", "native", "pallas")
WEIGHT_TYPES = ("float32", "bfloat16")


def choose(
    name: str = "auto", weights: str = "float32", *, taps: int = 2, threads: int | None = None
) -> Engine:
    """Returns an engine for the first device.

    Args:
        name: `scan` runs everywhere. `native` is for CPUs and needs a C++ compiler. `auto` takes
            `native` where it can run, else `scan`.
            `pallas` is for TPUs and only taken when asked for, since it has not run on one yet.
        weights: Type in which `native` and `pallas` keep the weights.
        taps: Of the decoders' convolutions; with more than two `auto` takes `scan`, which alone
            plays them.
        threads: Threads by which `native` generates, at most the cores that this process may use;
            None for as many as are measured to be the fastest.

    Raises:
        ValueError: There is no such engine or type, or it does not run here, or not by so many
            threads.
    """
    if name not in NAMES:
        raise ValueError(f"engine={name} is not known. Use one of {', '.join(NAMES)}.")
    if weights not in WEIGHT_TYPES:
        raise ValueError(f"weights={weights} is not known. Use {' or '.join(WEIGHT_TYPES)}.")
    if threads is not None and not 1 <= threads <= cores.usable():
        raise ValueError(
            f"threads={threads} is not allowed: this process may use {cores.usable()} core(s). Use "
            "1 to that number, or leave it out for the fastest number."
        )
    platform = jax.default_backend()
    if name == "auto":
        name = _automatic(platform) if taps == 2 else "scan"
    if name == "scan":
        if weights != "float32":
            raise ValueError(
                f"weights={weights} needs engine=native (a CPU with a C++ compiler) or "
                "pallas; this is scan, which has float32 alone."
            )
        if threads is not None:
            raise ValueError(
                f"threads={threads} needs engine=native (a CPU with a C++ compiler); this is scan, "
                "whose threads are XLA's."
            )
        return scan.ScanEngine()
    needed = {"native": "cpu", "pallas": "tpu"}[name]
    if platform != needed:
        raise ValueError(f"engine={name} needs a {needed}; this is a {platform}. Use auto.")
    if name == "native":
        native.library()
        return native.NativeEngine(weights, threads=threads)
    if threads is not None:
        raise ValueError(f"threads={threads} is for engine=native; this is {name}.")
    from umt_jax.generation.engines import pallas  # Slow to import, and for TPUs alone.

    return pallas.PallasEngine(weights)


def _automatic(platform: str) -> str:
    if platform != "cpu":
        return "scan"
    try:
        native.library()
    except OSError as error:
        logging.warning("Generating with engine=scan, a few times slower than native: %s", error)
        return "scan"
    return "native"
