"""Measures the speed of a training step, in interleaved rounds with plain PyTorch.

Each variant runs in a process of its own and takes its steps in turn. One domain: several cost as
many times as much, one after the other.
"""

import dataclasses
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from experiments.speed import machine, presets
from experiments.speed.training_processes import PLAIN, VARIANTS, Worker
from umt_jax import command_line, text_tables
from umt_jax.audio import mu_law
from umt_jax.config import ModelConfig


def define_flags() -> None:
    """Declares the flags of this stage."""
    flags.DEFINE_list(
        "segments",
        ["1x4000", "4x12000"],
        "Batches to train on, as SEGMENTSxSAMPLES, separated by commas; the samples are rounded to "
        "whole latent frames.",
    )
    flags.DEFINE_multi_enum(
        "variant",
        ["float32", "remat=layer", "remat=block", "native", "native bfloat16"],
        list(VARIANTS),
        "What to train with.",
    )
    flags.DEFINE_bool("frugal_torch", True, "With --torch: time PyTorch also with fewer copies.")


def report() -> str:
    """Measures as the flags say, and returns the section of this stage as Markdown."""
    args = flags.FLAGS
    speeds = {}
    for preset in args.preset:
        for batch in args.segments:
            speeds[preset, batch] = measure(preset, batch, args)
            command_line.say(table(speeds).splitlines()[-1])
    return "\n\n".join(
        [
            "## Training",
            table(speeds),
            "One domain, on random codes. GFLOP/s: of the products that the model needs, what is "
            "computed once more not counted; of the rate: to that of one large float32 product, "
            f"{machine.product_rate('float32') / 1e9:.0f} GFLOP/s. Start: from the process's "
            "beginning to the state. Peak: most resident memory of a process that does nothing "
            "else; libraries: what it held once they were imported, Python included. Start, peak "
            "and cached are with compiled programs in the persistent cache, as at every start of a "
            "run but the first. Compile: tracing included, nothing cached, and the peak of the "
            "process that does it.",
        ]
    )


@dataclasses.dataclass(frozen=True)
class Speed:
    """One variant at one batch.

    Attributes:
        name: Of the variant.
        step_s: Seconds of a step, the median of the rounds.
        samples_per_s: Audio samples trained on.
        flops_per_s: Of the products that the model needs.
        ratio: How many times as fast as plain PyTorch, the median over rounds; None without it.
        peak_bytes: Most resident memory of its process, with what is compiled from the cache.
        libraries_bytes: Of that, what it held once its libraries were imported.
        start_s: Until the state is there, likewise.
        cached_s: Until its program is there, from then on, likewise.
        compile_s: Tracing and compiling, nothing cached.
        compile_peak_bytes: Most resident memory of the process that compiles.
    """

    name: str
    step_s: float
    samples_per_s: float
    flops_per_s: float
    ratio: float | None
    peak_bytes: int
    libraries_bytes: int
    start_s: float
    cached_s: float | None = None
    compile_s: float | None = None
    compile_peak_bytes: int | None = None


def measure(preset: str, batch: str, args: Any) -> list[Speed]:
    """Times all variants, one after the other, round after round."""
    model = presets.model(preset)
    num_segments, _, num_samples = batch.partition("x")
    shape = int(num_segments), int(num_samples) // model.pool_samples * model.pool_samples
    plain = [name for name, frugal in PLAIN.items() if args.frugal_torch or not frugal]
    names = [*args.variant, *(plain if args.torch else [])]
    with tempfile.TemporaryDirectory() as cache:
        workers = {name: Worker(preset, shape, name, cache) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name, worker in workers.items():
            times[name].append(worker.step())
    of_torch = times.get("plain PyTorch")
    return [
        Speed(
            name=name,
            step_s=statistics.median(values),
            samples_per_s=shape[0] * shape[1] / statistics.median(values),
            flops_per_s=step_flops(model, *shape) / statistics.median(values),
            ratio=statistics.median(b / a for a, b in zip(values, of_torch, strict=True))
            if of_torch
            else None,
            **workers[name].close(),
        )
        for name, values in times.items()
    ]


def step_flops(model: ModelConfig, domain_batch: int, segment_samples: int) -> int:
    """Returns the FLOPs of all products that one domain's step needs, each computed once.

    Products run forward, to their input's gradient and to their weights', but for the first
    convolutions, whose inputs are codes. The classifier, at the rate of latent frames, and what is
    done to single numbers are left out.
    """
    C, R, S, Z = (
        model.encoder_channels,
        model.residual_channels,
        model.skip_channels,
        model.latent_channels,
    )
    num_encoder, num_decoder = len(model.encoder_dilations), len(model.decoder_dilations)
    of_codes = 3 * C + 2 * R
    of_samples = num_encoder * (3 * C * C + C * C)
    of_samples += num_decoder * (2 * R * 2 * R + R * (R + S))
    of_samples += R * S + S * S + S * mu_law.NUM_LEVELS
    of_frames = C * Z + num_decoder * Z * 2 * R + Z * S
    per_frame = model.pool_samples * (2 * of_codes + 3 * of_samples) + 3 * of_frames
    return 2 * per_frame * domain_batch * segment_samples // model.pool_samples


def table(speeds: Mapping[tuple[str, str], Sequence[Speed]]) -> str:
    """Returns all measurements by preset and batch as a Markdown table."""
    rate = machine.product_rate("float32")
    heads = (
        *("preset", "batch", "variant", "step, s", "steps/s", "audio samples/s", "GFLOP/s"),
        *("of the rate", "to plain PyTorch", "peak, GB", "of it libraries", "start, s"),
        *("cached, s", "compile, s", "peak then, GB"),
    )
    cells = []
    for (preset, batch), rows in speeds.items():
        for speed in rows:
            row = (
                preset,
                batch,
                speed.name,
                f"{speed.step_s:.2f}",
                f"{1 / speed.step_s:.3f}",
                f"{speed.samples_per_s:,.0f}",
                f"{speed.flops_per_s / 1e9:.0f}",
                f"{speed.flops_per_s / rate:.0%}",
                "" if speed.ratio is None else f"{speed.ratio:.2f}",
                f"{speed.peak_bytes / 1e9:.2f}",
                f"{speed.libraries_bytes / 1e9:.2f}",
                f"{speed.start_s:.1f}",
                "" if speed.cached_s is None else f"{speed.cached_s:.1f}",
                "" if speed.compile_s is None else f"{speed.compile_s:.1f}",
                "" if speed.compile_peak_bytes is None else f"{speed.compile_peak_bytes / 1e9:.2f}",
            )
            cells.append(row)
    return text_tables.markdown(heads, cells)
