"""Chooses what computes encoder and decoders in training: XLA, or C++ where that is faster."""

import jax
from absl import logging
from jax.sharding import Mesh

from umt_jax.config import Config
from umt_jax.model import native_layers
from umt_jax.processes import cores

NAMES = ("auto", "native", "xla")


def native_threads(name: str, config: Config, mesh: Mesh, partitioning: str) -> int:
    """Returns by how many threads each device computes natively; 0 where XLA computes.

    Args:
        name: `xla` runs everywhere. `native` is for CPUs and needs a C++ compiler. `auto` takes
            `native` where it can run.
        config: What is trained.
        mesh: The devices.
        partitioning: How they share a step, one of `partitioning.NAMES`.

    Raises:
        ValueError: `native` is asked for where it cannot run.
    """
    if name == "xla":
        return 0
    obstacle = _obstacle(config, mesh, partitioning)
    if not obstacle:
        return max(1, cores.usable() // len(mesh.local_devices))
    if name == "native":
        raise ValueError(f"engine=native cannot run: {obstacle}")
    if jax.default_backend() == "cpu":
        # Not a warning: of several hosts one says it.
        logging.info("Training with engine=xla, slower than native: %s", obstacle)
    return 0


def _obstacle(config, mesh, partitioning):
    """Returns what keeps `native` from running and what to do about it; "" for nothing."""
    if jax.default_backend() != "cpu":
        return f"it needs a cpu, and this is a {jax.default_backend()}. Use auto."
    if mesh.size > 1 and partitioning != "pmap":
        return (
            f"XLA itself splits each step over {mesh.size} devices. Use partitioning=pmap, which "
            "leaves each device its own, or one device."
        )
    if config.training.remat != "none":
        return f"it computes nothing once more, as remat={config.training.remat} asks. Use none."
    if config.model.decoder_taps > native_layers.MOST_TAPS:
        return (
            f"its convolutions read at most {native_layers.MOST_TAPS} samples, and decoder_taps="
            f"{config.model.decoder_taps}. Use auto or xla."
        )
    try:
        native_layers.library()
    except OSError as error:
        return str(error)
    return ""
