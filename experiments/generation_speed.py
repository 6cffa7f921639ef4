"""How fast each engine generates, in interleaved rounds, beside plain PyTorch and the machine."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from absl import flags

from experiments import machine, presets
from umt_jax import engines, generate, networks
from umt_jax.config import Config, ModelConfig, TrainingConfig

ENGINES = {
    "scan": ("scan", "float32"),
    "native": ("native", "float32"),
    "native bfloat16": ("native", "bfloat16"),
}
_TORCH_SECONDS = 1.0


def define_flags() -> None:
    """Declares the flags of this stage."""
    flags.DEFINE_list("streams", ["1", "4", "16", "64"], "Numbers of streams, separated by commas.")


def report() -> str:
    """Measures as the flags say, and returns the section of this stage as Markdown."""
    args = flags.FLAGS
    speeds = {}
    for preset in args.preset:
        for num_streams in map(int, args.streams):
            speeds[preset, num_streams] = measure(
                presets.model(preset), num_streams, num_rounds=args.rounds, with_torch=args.torch
            )
            print(table(speeds).splitlines()[-1], flush=True)
    rate = machine.matrix_rate() / 1e9
    return f"## Generation\n\n{table(speeds)}\n\nMatrix product: {rate:.0f} GFLOP/s."


@dataclasses.dataclass(frozen=True)
class Speed:
    """One engine at one number of streams.

    Attributes:
        engine: Its name, or "plain PyTorch".
        samples_per_s: Of all streams together; the median of the rounds.
        ratio: To plain PyTorch, the median over rounds; None without it.
        floor: Fraction of what the machine's own rates allow, were all weights read and multiplied
            once a sample. (Past taps of several samples at once read less.)
        compile_s: Time to compile, nothing cached.
    """

    engine: str
    samples_per_s: float
    ratio: float | None
    floor: float | None
    compile_s: float | None


def measure(
    config: ModelConfig, num_streams: int, *, num_rounds: int, with_torch: bool
) -> list[Speed]:
    """Times all engines with random weights, one after the other, round after round."""
    runs: dict[str, Callable[[], int]] = {}
    compile_s: dict[str, float] = {}
    for name, choice in ENGINES.items():
        runs[name], compile_s[name] = _prepare(config, engines.choose(*choice), num_streams)
    if with_torch:
        runs["plain PyTorch"] = _prepare_torch(config, num_streams)
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(num_rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            num_samples = run()
            speeds[name].append(num_samples / (time.perf_counter() - start))
    floors = {name: _floor(config, num_streams, name) for name in ENGINES}
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
        )
        for name, values in speeds.items()
    ]


def step_bytes_and_flops(config: ModelConfig, weight_bytes: int) -> tuple[int, int]:
    """Returns what one sample needs: bytes of weights, and FLOPs for each stream."""
    C, S = config.residual_channels, config.skip_channels
    num_layers = len(generate.dilations(config))
    num_weights = num_layers * (4 * C * C + C * C + C * S) + C * S + S * S + S * 256
    return num_weights * weight_bytes, 2 * num_weights


def _floor(config: ModelConfig, num_streams: int, engine: str) -> float:
    """Returns the samples/s at which weights can be read once a sample, and multiplied."""
    num_bytes, flops = step_bytes_and_flops(config, 2 if "bfloat16" in engine else 4)
    seconds = max(
        num_bytes / machine.read_bandwidth(num_bytes), num_streams * flops / machine.matrix_rate()
    )
    return num_streams / seconds


def _prepare(
    config: ModelConfig, engine: generate.Engine, num_streams: int
) -> tuple[Callable[[], int], float]:
    """Returns a function that generates one latent frame and its samples, and the compile time."""
    training = TrainingConfig(confusion_weight=0.0, segment_samples=config.pool_samples)
    nets = networks.Networks(Config(domains=("any",), model=config, training=training))
    weights = generate.pack(nets.init(jax.random.key(0)).decoders, config, engine)
    cache = generate.init_cache(config, num_streams)
    caches = jax.tree.map(lambda leaf: leaf[None].copy(), cache)
    latents = jax.random.normal(jax.random.key(1), (num_streams, 1, config.latent_channels))
    keys = jax.random.split(jax.random.key(2), (1, num_streams))
    arguments = latents, keys, jnp.float32(1)
    start = time.perf_counter()
    lowered = generate.generate.lower(weights, caches, *arguments, config=config, engine=engine)
    compiled = lowered.compile()
    seconds = time.perf_counter() - start

    def run() -> int:
        nonlocal caches
        caches, codes = compiled(weights, caches, *arguments)
        codes.block_until_ready()
        return codes.size

    run()
    return run, seconds


def _prepare_torch(config: ModelConfig, num_streams: int) -> Callable[[], int]:
    import torch

    from experiments import plain_torch

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
    lines = [
        "| preset | streams | engine | samples/s in all | to plain PyTorch | of the floor "
        "| compile, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for (preset, num_streams), rows in speeds.items():
        for speed in rows:
            cells = (
                preset,
                str(num_streams),
                speed.engine,
                f"{speed.samples_per_s:,.0f}",
                "" if speed.ratio is None else f"{speed.ratio:.1f}",
                "" if speed.floor is None else f"{speed.floor:.0%}",
                "" if speed.compile_s is None else f"{speed.compile_s:.1f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
