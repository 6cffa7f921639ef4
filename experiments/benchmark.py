r"""Measures speed, as ratios in one run, and prints one table.

    taskset -c 0 python -m experiments.benchmark --stage=generate --output=benchmarks/mine.md

Pin it to one core, as above, to compare one thread with one thread. The comparison with plain
PyTorch needs `pip install torch`; --notorch leaves it out.
"""

import datetime
import os
import platform
from pathlib import Path

import jax
from absl import flags

from experiments import generation_speed
from umt_jax import command_line
from umt_jax.config import ModelConfig

# Decoders of the recipes in experiments/configs; the encoder takes no part in what is measured.
PRESETS = {
    "demo": ModelConfig(
        latent_channels=32,
        pool_samples=200,
        decoder_blocks=2,
        decoder_layers=9,
        residual_channels=32,
        skip_channels=64,
    ),
    "paper": ModelConfig(),
    "musicnet": ModelConfig(decoder_layers=14),
}


def define_flags() -> None:
    """Declares this command's flags."""
    flags.DEFINE_enum("stage", "generate", ["generate"], "What to measure.")
    flags.DEFINE_multi_enum("preset", ["musicnet", "demo"], list(PRESETS), "Sizes to measure.")
    flags.DEFINE_list("streams", ["1", "4", "16", "64"], "Numbers of streams, separated by commas.")
    flags.DEFINE_integer("rounds", 5, "Interleaved rounds, of which medians are given.", 1)
    flags.DEFINE_bool("torch", True, "Time plain PyTorch beside the engines.")
    flags.DEFINE_string("output", None, "A file to write the table to, besides printing it.")


def machine() -> str:
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
    cores = len(os.sched_getaffinity(0))
    versions = f"Python {platform.python_version()}, jax {jax.__version__}"
    return f"{datetime.date.today()}: {processor}, {cores} core(s), {jax.devices()[0]}, {versions}"


def main() -> None:
    """Measures as the flags say."""
    args = flags.FLAGS
    speeds = {}
    for preset in args.preset:
        for num_streams in map(int, args.streams):
            speeds[preset, num_streams] = generation_speed.measure(
                PRESETS[preset], num_streams, num_rounds=args.rounds, with_torch=args.torch
            )
            print(generation_speed.table(speeds).splitlines()[-1], flush=True)
    rate = generation_speed.matrix_rate() / 1e9
    text = (
        f"{machine()}\n\n{generation_speed.table(speeds)}\n\nMatrix product: {rate:.0f} GFLOP/s.\n"
    )
    print(text)
    if args.output:
        path = Path(args.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# Speed of generation\n\n{text}")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
