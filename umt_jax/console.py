"""The console commands, `umt-translate` and others: each runs a module as `python -m` does."""

import runpy
import sys
from pathlib import Path

from umt_jax import own_packages

MODULES = {
    "umt-benchmark": "experiments.benchmark",
    "umt-blend": "umt_jax.blend",
    "umt-build": "data_prep.build",
    "umt-cqt-cyclegan": "experiments.cqt_cyclegan",
    "umt-cqt-decoder": "experiments.cqt_decoder",
    "umt-cqt-resolution": "experiments.cqt_resolution",
    "umt-cqt-translate": "experiments.cqt_translate",
    "umt-evaluate": "experiments.evaluate",
    "umt-export": "umt_jax.export",
    "umt-font-check": "data_prep.font_check",
    "umt-guides": "experiments.guides",
    "umt-import": "umt_jax.published",
    "umt-listening": "experiments.listening",
    "umt-live": "umt_jax.live",
    "umt-musicnet": "data_prep.musicnet",
    "umt-pictures": "experiments.pictures",
    "umt-protocols": "experiments.protocols",
    "umt-render": "data_prep.render",
    "umt-report": "experiments.report",
    "umt-studio": "umt_jax.studio",
    "umt-studio-examples": "experiments.studio_examples",
    "umt-train": "experiments.train",
    "umt-translate": "umt_jax.infer",
}
"""The module of each command."""


def main() -> None:
    """Runs the command of the name under which this was started."""
    name = Path(sys.argv[0]).stem
    module = MODULES.get(name)
    if module is None:
        sys.exit(f"error: {name} is no command of umt_jax. There are: {', '.join(MODULES)}.")
    try:
        for package in own_packages.NAMES:
            own_packages.check(package)
    except ImportError as error:
        sys.exit(f"error: {error}")
    runpy.run_module(module, run_name="__main__", alter_sys=True)
