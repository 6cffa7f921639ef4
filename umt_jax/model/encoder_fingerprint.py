"""Tells encoders apart, without JAX."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from umt_jax.config import ModelConfig

_OF_DECODERS = ("decoder_", "residual_", "skip_", "guide_", "classifier_")
"""Prefixes of the names of sizes that do not affect the encoder."""

_OF_RECORDINGS = ("rms_dbfs",)
"""Sizes that affect recordings before they are encoded."""

_LATER = {
    "encoder_activation": "relu",
    "encoder_kind": "learned",
    "cqt_lowest_hz": ModelConfig.cqt_lowest_hz,
    "cqt_bins_per_octave": ModelConfig.cqt_bins_per_octave,
}
"""Fields that came when there were fingerprints already, which none has with these values."""


def fingerprint(parameters: Any, config: ModelConfig) -> str:
    """Returns 16 hexadecimal digits that tell encoders apart, trained arrays and sizes together.

    Decoders trained on a frozen encoder so share the latents of the run that it came from.

    Args:
        parameters: The encoder's arrays by name, nested.
        config: Sizes.
    """
    sizes = {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if not name.startswith(_OF_DECODERS + _OF_RECORDINGS) and _LATER.get(name) != value
    }
    digest = hashlib.sha256(json.dumps(sizes, sort_keys=True).encode())
    for path, leaf in _leaves(parameters, ""):
        array = np.asarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yields arrays in the order, and by the paths, of `jax.tree_util`."""
    if not isinstance(tree, Mapping):
        yield path, tree
        return
    for name in sorted(tree):
        yield from _leaves(tree[name], f"{path}[{name!r}]")
