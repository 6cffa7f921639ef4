r"""Measures speed, as ratios in one run, and prints one table for each stage.

    taskset -c 0 python -m experiments.benchmark --stage=generate --output=docs/benchmarks/mine.md

Pin it to one core, as above, to compare one thread with one thread. The comparison with plain
PyTorch needs `pip install torch`; --notorch leaves it out. --helpfull lists each stage's flags.
"""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from absl import flags

from experiments.speed import machine, presets
from umt_jax import command_line, path_flags

STAGES = {
    "generate": "generation_speed",
    "train": "training_speed",
    "memory": "training_memory",
    "approximations": "approximations",
    "input": "input_speed",
    "build": "build_speed",
    "live": "live_speed",
}
"""Modules with `define_flags()`, and `report()` that measures and returns a Markdown section."""


def _module(stage: str) -> ModuleType:
    """Imports a stage.

    Not above: processes whose memory is measured import this file, too, and would hold all stages.
    """
    return importlib.import_module(f"experiments.speed.{STAGES[stage]}")


def define_flags() -> None:
    """Declares this command's flags."""
    flags.DEFINE_multi_enum(
        "stage", ["generate"], list(STAGES), "What to measure; may be given more than once."
    )
    flags.DEFINE_multi_enum("preset", ["musicnet", "demo"], presets.NAMES, "Sizes to measure.")
    flags.DEFINE_integer("rounds", 5, "Interleaved rounds, of which medians are given.", 1)
    flags.DEFINE_bool("torch", True, "Time plain PyTorch beside this project.")
    path_flags.define("output", None, "A file to write the table to, besides printing it.")
    for stage in STAGES:
        _module(stage).define_flags()


def main() -> None:
    """Measures as the flags say."""
    args = flags.FLAGS
    timed = [stage for stage in args.stage if stage in ("generate", "train")]
    if args.torch and timed and importlib.util.find_spec("torch") is None:
        raise ValueError(
            f"--stage={','.join(timed)} times plain PyTorch beside this project, and torch is not "
            "installed. Type: pip install torch, or leave it out with --notorch."
        )
    sections = [_module(stage).report() for stage in args.stage]
    text = "\n\n".join(["# Speed", machine.describe(), *sections]) + "\n"
    command_line.say(*text.split("\n"))
    if args.output:
        path = Path(args.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        command_line.say(f"Written: {path}")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
