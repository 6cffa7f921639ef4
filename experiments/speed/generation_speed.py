"""Measures the speed of each engine, in interleaved rounds with plain PyTorch."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from experiments.speed import first_sound, machine, presets
from umt_jax import command_line, text_tables
from umt_jax.config import Config, ModelConfig, TrainingConfig
from umt_jax.generation import generate
from umt_jax.generation.engines import choose, native
from umt_jax.model import networks
from umt_jax.processes import cores

ENGINES = {
    "scan": ("scan", "float32"),
    "native": ("native", "float32"),
    "native bfloat16": ("native", "bfloat16"),
    "native int8": ("native", "int8"),
}
_TORCH_SECONDS = 1.0


def define_flags() -> None:
    """Declares the flags of this stage."""
    flags.DEFINE_list("streams", ["1", "4", "16", "64"], "Numbers of streams, separated by commas.")


def report() -> str:
    """Measures as the flags say, and returns the section of this stage as Markdown."""
    args = flags.FLAGS
    speeds, first_sounds = {}, {}
    for preset in args.preset:
        config = presets.model(preset)
        for num_streams in map(int, args.streams):
            speeds[preset, num_streams] = measure(
                config, num_streams, num_rounds=args.rounds, with_torch=args.torch
            )
            newest = {(preset, num_streams): speeds[preset, num_streams]}
            command_line.say(*table(newest).splitlines()[2:])
        for name, (engine, weights) in ENGINES.items():
            first_sounds[preset, name] = first_sound.measure(config, engine, weights)
    rate = machine.matrix_rate() / 1e9
    return "\n\n".join(
        [
            "## Generation",
            table(speeds),
            f"Matrix product: {rate:.0f} GFLOP/s. Of the floor: of the samples/s at which the "
            "machine can read all weights at its rate for so many bytes, those of a past tap once "
            "in as many samples as its dilation, or multiply them at that of a large product "
            "(twice that in bfloat16, where the processor multiplies it, and four times in int8, "
            "where one instruction adds four products), whichever takes longer.",
            first_sound.table(first_sounds),
        ]
    )


@dataclasses.dataclass(frozen=True)
class Speed:
    """One engine at one number of streams.

    Attributes:
        engine: Its name, or "plain PyTorch".
        samples_per_s: Of all streams together; the median of the rounds.
        ratio: To plain PyTorch, the median over rounds; None without it.
        floor: Fraction of what the machine's own rates allow.
        compile_s: Time to compile, nothing cached.
        load_s: Time to load the same program from the persistent cache.
    """

    engine: str
    samples_per_s: float
    ratio: float | None = None
    floor: float | None = None
    compile_s: float | None = None
    load_s: float | None = None


def measure(
    config: ModelConfig, num_streams: int, *, num_rounds: int, with_torch: bool
) -> list[Speed]:
    """Times all engines with random weights, one after the other, round after round."""
    runs: dict[str, Callable[[], int]] = {}
    compile_s: dict[str, float] = {}
    load_s: dict[str, float] = {}
    engines = engines_by_threads(cores.usable())
    for name, engine in engines.items():
        runs[name], compile_s[name], load_s[name] = _prepare(config, engine, num_streams)
    if with_torch:
        runs["plain PyTorch"] = _prepare_torch(config, num_streams)
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(num_rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            num_samples = run()
            speeds[name].append(num_samples / (time.perf_counter() - start))
    floors = {name: _floor(config, num_streams, name) for name in engines}
    plain = speeds.get("plain PyTorch")
    return [
        Speed(
            engine=name,
            samples_per_s=statistics.median(values),
            ratio=statistics.median(a / b for a, b in zip(values, plain, strict=True))
            if plain
            else None,
            floor=statistics.median(values) / floors[name] if name in floors else None,
            compile_s=compile_s.get(name),
            load_s=load_s.get(name),
        )
        for name, values in speeds.items()
    ]


def engines_by_threads(num_cores: int) -> dict[str, generate.Engine]:
    """Returns the engines by the names of their rows: `native` by each number of threads as well.

    These are 1, 2, 4 and so on, and the number of cores. Without a number in its name `native`
    finds the fastest one itself.
    """
    numbers = {2**power for power in range(num_cores.bit_length())} | {num_cores}
    engines = {name: choose.choose(*choice) for name, choice in ENGINES.items()}
    for name, choice in ENGINES.items():
        if choice[0] == "native" and num_cores > 1:
            for threads in sorted(numbers):
                row = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
                engines[row] = choose.choose(*choice, threads=threads)
    return engines


def step_weights(config: ModelConfig) -> tuple[int, float]:
    """Returns how many weights a sample is multiplied with, and the fewest it has to read.

    The past tap of a layer of dilation d can be computed for d samples at once, no more.
    """
    C, S = config.residual_channels, config.skip_channels
    dilations = config.decoder_dilations
    past = 2 * C * C
    rest = len(dilations) * (2 * C * C + C * C + C * S) + C * S + S * S + S * 256
    return rest + past * len(dilations), rest + sum(past / dilation for dilation in dilations)


def _floor(config: ModelConfig, num_streams: int, engine: str) -> float:
    """Returns the samples/s at which weights can be read, and multiplied."""
    multiplied, read = step_weights(config)
    _, weights = ENGINES[engine.partition(",")[0]]
    # So many products are one instruction, which takes as long as one of float32.
    products = {
        "float32": 1,
        "bfloat16": native.library().umt_bfloat16_depth(),
        "int8": native.library().umt_int8_products(),
    }[weights]
    in_float32 = config.skip_channels * 256 if weights == "int8" else 0  # The logits' weights.
    num_bytes = round((read - in_float32) * jnp.dtype(weights).itemsize + 4 * in_float32)
    reading = num_bytes / machine.read_bandwidth(num_bytes)
    multiplying = num_streams * 2 * multiplied / (machine.matrix_rate() * products)
    return num_streams / max(reading, multiplying)


def _prepare(
    config: ModelConfig, engine: generate.Engine, num_streams: int
) -> tuple[Callable[[], int], float, float]:
    """Returns a function that generates one latent frame, and the times to compile and to load."""
    training = TrainingConfig(confusion_weight=0.0, segment_samples=config.pool_samples)
    nets = networks.Networks(Config(domains=("any",), model=config, training=training))
    weights = generate.pack(nets.init(jax.random.key(0)).decoders, config, engine)
    cache = generate.init_cache(config, num_streams)
    caches = jax.tree.map(lambda leaf: leaf[None].copy(), cache)
    latents = jax.random.normal(jax.random.key(1), (num_streams, 1, config.latent_channels))
    keys = jax.random.split(jax.random.key(2), (1, num_streams))
    arguments = latents, keys, jnp.float32(1)

    def compile_generate() -> Any:
        lowered = generate.generate.lower(weights, caches, *arguments, config=config, engine=engine)
        return lowered.compile()

    compiled, compile_s, load_s = machine.compile_times(compile_generate)

    def run() -> int:
        nonlocal caches
        caches, codes = compiled(weights, caches, *arguments)
        codes.block_until_ready()
        return codes.size

    run()
    return run, compile_s, load_s


def _prepare_torch(config: ModelConfig, num_streams: int) -> Callable[[], int]:
    import torch

    from experiments.speed import plain_torch

    torch.set_num_threads(1)
    generator = plain_torch.PlainGenerator(config, num_streams)
    start = time.perf_counter()
    generator.generate(10)
    num_samples = max(10, round(10 * _TORCH_SECONDS / (time.perf_counter() - start)))

    def run() -> int:
        generator.generate(num_samples)
        return num_samples * num_streams

    return run


def table(speeds: Mapping[tuple[str, int], Sequence[Speed]]) -> str:
    """Returns all measurements by preset and streams as a Markdown table."""
    heads = (
        *("preset", "streams", "engine", "samples/s in all", "times real time, each"),
        *("to plain PyTorch", "of the floor", "compile, s", "from cache, s"),
    )
    cells = []

    def cell(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    for (preset, num_streams), rows in speeds.items():
        rate_hz = presets.model(preset).sample_rate_hz
        for speed in rows:
            row = (
                preset,
                num_streams,
                speed.engine,
                f"{speed.samples_per_s:,.0f}",
                f"{speed.samples_per_s / num_streams / rate_hz:.3f}",
                cell(speed.ratio, ".1f"),
                cell(speed.floor, ".0%"),
                cell(speed.compile_s, ".1f"),
                cell(speed.load_s, ".1f"),
            )
            cells.append(row)
    return text_tables.markdown(heads, cells)
