"""Chooses the engine that generates, by its name or by the hardware of the machine."""

import jax
from absl import logging

from umt_jax.generation.engines import native, scan
from umt_jax.generation.generate import Engine

NAMES = ("auto", "scan", "native", "pallas")
WEIGHT_TYPES = ("float32", "bfloat16")


def choose(name: str = "auto", weights: str = "float32", *, taps: int = 2) -> Engine:
    """Returns an engine for the first device.

    Args:
        name: `scan` runs everywhere. `native` is for CPUs and needs a C++ compiler. `auto` takes
            `native` where it can run, else `scan`.
            `pallas` is for TPUs and only taken when asked for, since it has not run on one yet.
        weights: Type in which `native` and `pallas` keep the weights.
        taps: Of the decoders' convolutions; with more than two `auto` takes `scan`, which alone
            plays them.

    Raises:
        ValueError: There is no such engine or type, or it does not run here.
    """
    if name not in NAMES:
        raise ValueError(f"engine={name} is not known. Use one of {', '.join(NAMES)}.")
    if weights not in WEIGHT_TYPES:
        raise ValueError(f"weights={weights} is not known. Use {' or '.join(WEIGHT_TYPES)}.")
    platform = jax.default_backend()
    if name == "auto":
        name = _automatic(platform) if taps == 2 else "scan"
    if name == "scan":
        if weights != "float32":
            raise ValueError(
                f"weights={weights} needs engine=native (a CPU with a C++ compiler) or "
                "pallas; this is scan, which has float32 alone."
            )
        return scan.ScanEngine()
    needed = {"native": "cpu", "pallas": "tpu"}[name]
    if platform != needed:
        raise ValueError(f"engine={name} needs a {needed}; this is a {platform}. Use auto.")
    if name == "native":
        native.library()
        return native.NativeEngine(weights)
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
