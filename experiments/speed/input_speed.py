"""Measures how fast batches are read from prepared shards, next to the time of a step."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence

import numpy as np
from absl import flags
from etils import epath

from data_prep import tfds_files
from data_prep.segments import Example
from data_prep.settings import Recipe
from experiments.speed import machine, presets, training_speed
from umt_jax import command_line, text_tables
from umt_jax.config import TrainingConfig
from umt_jax.data import dataset

_NUM_SEGMENTS = 2000
_SECONDS = 2.0

# What one H200 would do at 0.4 of its rate in bfloat16.
_ACCELERATOR_FLOPS = 4e14


def define_flags() -> None:
    """Declares the flags of this stage."""
    flags.DEFINE_list("reader_threads", ["1", "2", "4"], "Threads that read, separated by commas.")
    flags.DEFINE_integer("input_domains", 2, "Domains in a batch of the input stage.", 1)


def report() -> str:
    """Measures as the flags say, and returns the section of this stage as Markdown."""
    args = flags.FLAGS
    rates = []
    with tempfile.TemporaryDirectory() as data_dir:
        domains = [f"Domain_{i}" for i in range(args.input_domains)]
        for domain in domains:
            _write_noise(domain, data_dir)
        prepared = dataset.Dataset(data_dir, domains)
        here = machine.matrix_rate()
        for preset in args.preset:
            for num_threads in map(int, args.reader_threads):
                rates.append(measure(prepared, preset, num_threads, num_rounds=args.rounds))
                command_line.say(table(rates, here).splitlines()[-1])
    return (
        f"## Input pipeline\n\nNothing but batches of {len(domains)} domains; segments of a second "
        f"with {Recipe.num_variants} variants, from a local disk, read before. No step takes "
        f"more than its products allow: {here / 1e9:.0f} GFLOP/s on this machine, and "
        f"{_ACCELERATOR_FLOPS / 1e12:.0f} TFLOP/s on an H200 at 0.4 of its rate (not run)."
        f"\n\n{table(rates, here)}"
    )


@dataclasses.dataclass(frozen=True)
class Rate:
    """How fast batches of a preset come.

    Attributes:
        preset: Name of the preset.
        num_threads: Threads that read.
        batches_per_s: The median of the rounds.
        examples_per_s: Segments of all domains.
        audio_per_s: Seconds of audio in them.
        mb_per_s: Codes that arrive, megabytes.
    """

    preset: str
    num_threads: int
    batches_per_s: float
    examples_per_s: float
    audio_per_s: float
    mb_per_s: float


def measure(prepared: dataset.Dataset, preset: str, num_threads: int, *, num_rounds: int) -> Rate:
    """Times batches as training asks for them, some seconds in each round."""
    training = presets.training(preset)
    batches = prepared.train_batches(training, first_step=0, num_threads=num_threads)
    next(batches)
    speeds = [_batches_per_s(batches) for _ in range(num_rounds)]
    speed = statistics.median(speeds)
    num_examples = speed * training.domain_batch * len(prepared.description)
    num_samples = num_examples * training.segment_samples
    return Rate(
        preset=preset,
        num_threads=num_threads,
        batches_per_s=speed,
        examples_per_s=num_examples,
        audio_per_s=num_samples / presets.model(preset).sample_rate_hz,
        mb_per_s=2 * num_samples / 1e6,
    )


def most_taken(preset: str, flops_per_s: float) -> float:
    """Returns the segments/s that training can take at most on a device of such a rate."""
    segment_samples = presets.training(preset).segment_samples
    return flops_per_s / training_speed.step_flops(presets.model(preset), 1, segment_samples)


def _batches_per_s(batches: Iterator[dataset.Batch]) -> float:
    start = time.perf_counter()
    count = 0
    while time.perf_counter() - start < _SECONDS:
        next(batches)
        count += 1
    return count / (time.perf_counter() - start)


def _write_noise(domain: str, data_dir: str) -> None:
    """Writes a dataset of noise, which no compression makes smaller."""
    recipe = Recipe(segment_samples=TrainingConfig.segment_samples)
    rng = np.random.default_rng(0)

    A, T = recipe.num_variants, recipe.segment_samples

    def example(index: int) -> Example:
        codes = rng.integers(256, size=(1 + A, T), dtype=np.uint8)
        return {"codes": codes[0], "augmented": codes[1:], "track": "a", "start_sample": index * T}

    counts = {"train": _NUM_SEGMENTS, "validation": 1, "test": 1}
    examples = {split: [*map(example, range(count))] for split, count in counts.items()}
    tfds_files.write_small_dataset(domain, examples, recipe, data_dir=epath.Path(data_dir))


def table(rates: Sequence[Rate], flops_per_s: float) -> str:
    """Returns all measurements as a Markdown table, on a machine of that rate."""
    heads = (
        *("preset", "reader threads", "batches/s", "segments/s", "audio s/s", "MB/s"),
        *("times this machine's step", "times an H200's"),
    )
    rows = []
    for rate in rates:
        taken = most_taken(rate.preset, _ACCELERATOR_FLOPS)
        steps_per_s = taken * rate.batches_per_s / rate.examples_per_s
        # A step of less than a millisecond keeps no accelerator at such a rate.
        ratio = f"{rate.examples_per_s / taken:,.1f}" if steps_per_s < 1000 else ""
        row = (
            rate.preset,
            rate.num_threads,
            f"{rate.batches_per_s:,.1f}",
            f"{rate.examples_per_s:,.0f}",
            f"{rate.audio_per_s:,.0f}",
            f"{rate.mb_per_s:,.0f}",
            f"{rate.examples_per_s / most_taken(rate.preset, flops_per_s):,.0f}",
            ratio,
        )
        rows.append(row)
    return text_tables.markdown(heads, rows)
