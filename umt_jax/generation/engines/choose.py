"""Chooses the engine that generates, by its name or by the hardware of the machine.

`engine_name` does not import JAX, which takes longer than all the rest of the start, unless the
engine or an accelerator needs it: `native` plays without it.
"""

import importlib.metadata
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

from absl import logging

from umt_jax.core import frames, packing
from umt_jax.processes import cores

NAMES = ("auto", "scan", "native", "pallas")
WEIGHT_TYPES = packing.TYPES
_OF_PALLAS = ("float32", "bfloat16")

_OF_ACCELERATORS = ("jax_plugins", "libtpu")
"""Packages by which JAX finds accelerators; others name themselves as entry points."""

_VARIABLES = ("TPU_LIBRARY_PATH", "PJRT_NAMES_AND_LIBRARY_PATHS")
"""Variables of the environment by which it does."""

if TYPE_CHECKING:
    from umt_jax.generation.generate import Engine
else:
    Engine = Any


def choose(
    name: str = "auto", weights: str = "float32", *, taps: int = 2, threads: int | None = None
) -> Engine:
    """Returns an engine of JAX's for the first device. Arguments and errors as `engine_name`."""
    name = engine_name(name, weights, taps=taps, threads=threads)
    if name == "scan":
        from umt_jax.generation.engines import scan

        return scan.ScanEngine()
    if name == "native":
        from umt_jax.generation.engines import native

        native.library()
        return native.NativeEngine(weights, threads=threads)
    from umt_jax.generation.engines import pallas

    return pallas.PallasEngine(weights)


def engine_name(
    name: str = "auto", weights: str = "float32", *, taps: int = 2, threads: int | None = None
) -> str:
    """Returns `scan`, `native` or `pallas`, which plays on JAX's first device.

    Args:
        name: `scan` runs everywhere. `native` is for CPUs and needs a C++ compiler. `auto` takes
            `native` where it can run, else `scan`.
            `pallas` is for TPUs and only taken when asked for, since it has not run on one yet.
        weights: Type in which `native` and `pallas` keep the weights; int8 is `native`'s alone.
        taps: Of the decoders' convolutions; with more than two `auto` takes `scan`, which alone
            plays them.
        threads: Threads by which `native` generates, at most the cores that this process may use;
            None for as many as are measured to be the fastest.

    Raises:
        ValueError: There is no such engine or type, or it does not run here, or not by so many
            threads.
        OSError: `native` is asked for, and there is no C++ compiler, or it fails.
    """
    if name not in NAMES:
        raise ValueError(f"engine={name} is not known. Use one of {', '.join(NAMES)}.")
    if weights not in WEIGHT_TYPES:
        *others, last = WEIGHT_TYPES
        raise ValueError(f"weights={weights} is not known. Use {', '.join(others)} or {last}.")
    if threads is not None and not 1 <= threads <= cores.usable():
        raise ValueError(
            f"threads={threads} is not allowed: this process may use {cores.usable()} core(s). Use "
            "1 to that number, or leave it out for the fastest number."
        )
    if name == "auto":
        name = _automatic() if taps == 2 else "scan"
    if name == "scan":
        if weights != "float32":
            raise ValueError(
                f"weights={weights} needs engine=native (a CPU with a C++ compiler)"
                f"{' or pallas' if weights in _OF_PALLAS else ''}; this is scan, which has "
                "float32 alone."
            )
        if threads is not None:
            raise ValueError(
                f"threads={threads} needs engine=native (a CPU with a C++ compiler); this is scan, "
                "whose threads are XLA's."
            )
        return name
    needed = {"native": "cpu", "pallas": "tpu"}[name]
    if _platform() != needed:
        raise ValueError(f"engine={name} needs a {needed}; this is a {_platform()}. Use auto.")
    if name == "native":
        frames.library()
    elif threads is not None:
        raise ValueError(f"threads={threads} is for engine=native; this is {name}.")
    elif weights not in _OF_PALLAS:
        raise ValueError(
            f"weights={weights} needs engine=native (a CPU with a C++ compiler); this is {name}, "
            f"which has {' and '.join(_OF_PALLAS)}."
        )
    return name


def _automatic() -> str:
    if _platform() != "cpu":
        return "scan"
    try:
        frames.library()
    except OSError as error:
        logging.warning("Generating with engine=scan, a few times slower than native: %s", error)
        return "scan"
    return "native"


def _platform() -> str:
    """Returns JAX's name for what its first device is."""
    if "jax" not in sys.modules and _has_cpu_alone():
        return "cpu"
    import jax

    return jax.default_backend()


def _has_cpu_alone() -> bool:
    """Whether JAX would find no accelerator, whatever the machine has, were it imported."""
    if os.environ.get("JAX_PLATFORMS"):
        return os.environ["JAX_PLATFORMS"] == "cpu"
    return not (
        any(importlib.util.find_spec(package) for package in _OF_ACCELERATORS)
        or any(os.environ.get(variable) for variable in _VARIABLES)
        or importlib.metadata.entry_points(group="jax_plugins")
    )
