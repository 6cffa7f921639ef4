"""What the published code computed on random weights; see tests/fixtures/README.md."""

import json
from pathlib import Path

import numpy as np

from umt_jax.checkpoints import pytorch_arrays

FOLDER = Path(__file__).parent / "fixtures" / "published"
NUM_DOMAINS = 3


def options():
    """Returns the options of the run, and its last epoch."""
    content = json.loads((FOLDER / "options.json").read_text())
    return content["options"], content["epoch"]


def expected(name):
    with np.load(FOLDER / "expected.npz") as arrays:
        return arrays[name]


def arrays_of(network, file="weights.npz"):
    """Returns the arrays of `encoder`, `classifier` or `decoder_<k>` by PyTorch's names."""
    with np.load(FOLDER / file) as arrays:
        prefix = f"{network}/"
        names = [name for name in arrays if name.startswith(prefix)]
        return {name.removeprefix(prefix): arrays[name] for name in names}


def gradients_of(network):
    return arrays_of(f"grad/{network}", "expected.npz")


def config():
    names = [f"domain_{index}" for index in range(NUM_DOMAINS)]
    return pytorch_arrays.config_from_options(options()[0], names)


def parameters(**changed):
    """Returns the weights as ours; `changed` replaces the arrays of networks by name."""
    networks = ["encoder", *(f"decoder_{k}" for k in range(NUM_DOMAINS)), "classifier"]
    arrays = {network: arrays_of(network) for network in networks} | changed
    return pytorch_arrays.parameters_from_arrays(
        config(),
        encoder=arrays["encoder"],
        decoders=[arrays[f"decoder_{k}"] for k in range(NUM_DOMAINS)],
        classifier=arrays["classifier"],
    )
