"""How fast a training step is, in interleaved rounds, beside plain PyTorch and the machine.

Each variant runs in a process of its own, so that its peak memory is its own; the processes step in
turn, round after round. Compilers take more memory than some steps do: another process has compiled
before, as at a run's first start. One domain: several cost as many times as much, one after the
other.
"""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import machine, presets
from umt_jax import command_line, dataset, layers, mu_law, networks, train_state, train_step
from umt_jax.config import Config, ModelConfig

VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "remat=layer": {"remat": "layer"},
    "remat=block": {"remat": "block"},
    "microbatches=4": {"microbatches": 4},
    "bfloat16": {"compute_dtype": "bfloat16"},
}
PLAIN = {"plain PyTorch": False, "plain PyTorch, frugal": True}


def define_flags() -> None:
    """Declares the flags of this stage."""
    flags.DEFINE_list(
        "segments",
        ["1x4000", "4x12000"],
        "Batches to train on, as SEGMENTSxSAMPLES, separated by commas; the samples are rounded to "
        "whole latent frames.",
    )
    flags.DEFINE_multi_enum(
        "variant", ["float32", "remat=layer", "remat=block"], list(VARIANTS), "What to train with."
    )
    flags.DEFINE_bool("frugal_torch", True, "With --torch: time PyTorch also with fewer copies.")


def report() -> str:
    """Measures as the flags say, and returns the section of this stage as Markdown."""
    args = flags.FLAGS
    speeds = {}
    for preset in args.preset:
        for batch in args.segments:
            speeds[preset, batch] = measure(preset, batch, args)
            print(table(speeds).splitlines()[-1], flush=True)
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
        workers = {name: _Worker(preset, shape, name, cache) for name in names}
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


class _Process:
    """A process that runs `target(connection, name, *arguments)`, and what it sends."""

    def __init__(self, target: Callable[..., None], name: str, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._name = name
        self._connection, theirs = context.Pipe()
        # A daemon, so that none is left where another one fails.
        self._process = context.Process(target=target, args=(theirs, name, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    def receive(self) -> Any:
        """Waits for what it sends next.

        Raises:
            OSError: It has ended.
        """
        try:
            return self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join()
            raise OSError(
                f"The process that trains with {self._name} has ended with "
                f"{self._process.exitcode}; -9 is mostly for want of memory, since all variants "
                "are kept at once. Leave some out (--variant, --nofrugal_torch)."
            ) from error

    def ask(self, question: Any) -> Any:
        """Sends something and returns the answer; errors as `receive`."""
        with contextlib.suppress(BrokenPipeError):  # What has ended is told on receiving.
            self._connection.send(question)
        return self.receive()

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.join()

    def join(self) -> None:
        """Waits for its end."""
        self._process.join()


class _Worker:
    """A process that trains one variant, a step at a time.

    Its programs are in `cache` when it starts; another process compiles them.
    """

    def __init__(self, preset: str, shape: tuple[int, int], name: str, cache: str) -> None:
        self._costs: dict[str, Any] = {}
        if name not in PLAIN:
            compiler = _Process(_compile, name, preset, shape, cache)
            self._costs |= compiler.receive()
            compiler.join()
        start = time.perf_counter()
        self.process = _Process(_work, name, preset, shape, cache)
        costs = self.process.receive()
        self._costs["start_s"] = costs.pop("ready") - start
        self._costs |= costs

    def step(self) -> float:
        """Takes one step; returns its seconds."""
        return self.process.ask(True)

    def close(self) -> dict[str, Any]:
        """Ends the process; returns what it cost besides steps."""
        self._costs["peak_bytes"] = self.process.ask(False)
        self.process.join()
        return self._costs


def _work(connection: Any, name: str, preset: str, shape: tuple[int, int], cache: str) -> None:
    """Is the worker's process: prepares, takes the first step, then one when told to."""
    if name in PLAIN:
        step, costs = _plain_step(name, preset, shape)
    else:
        step, costs = _step(name, preset, shape, cache)
    step()
    connection.send(costs)
    while connection.recv():
        start = time.perf_counter()
        step()
        connection.send(time.perf_counter() - start)
    connection.send(machine.peak_bytes(os.getpid()))


def _compile(connection: Any, name: str, preset: str, shape: tuple[int, int], cache: str) -> None:
    """Is the process that fills the cache; sends what that took."""
    _, costs = _step(name, preset, shape, cache)
    peak_bytes = machine.peak_bytes(os.getpid())
    connection.send({"compile_s": costs["cached_s"], "compile_peak_bytes": peak_bytes})


def _plain_step(
    name: str, preset: str, shape: tuple[int, int]
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Returns a function that takes PyTorch's step, and when it was ready, with which libraries."""
    from experiments import plain_torch_training

    costs: dict[str, Any] = {"libraries_bytes": machine.peak_bytes(os.getpid())}
    plain_torch_training.torch.set_num_threads(1)
    config = _config(preset, shape, name)
    plain = plain_torch_training.PlainTraining(config.model, config.training, 6, frugal=PLAIN[name])
    costs["ready"] = time.perf_counter()
    codes = _codes(shape)[0]
    return functools.partial(plain.step, codes, codes, 0), costs


def _step(
    name: str, preset: str, shape: tuple[int, int], cache: str
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Returns a function that takes our step, and what there was to wait for, set up as a run is.

    What is not in the cache is compiled, and is in it then.
    """
    costs: dict[str, Any] = {"libraries_bytes": machine.peak_bytes(os.getpid())}
    command_line.keep_freed_memory()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    command_line.use_compilation_cache()
    state, nets, optimizers = initial_state(_config(preset, shape, name))
    costs["ready"] = time.perf_counter()
    codes = _codes(shape)
    batch = dataset.Batch(codes=codes, augmented=codes)
    function = functools.partial(train_step.train_step, networks=nets, optimizers=optimizers)
    compiled = jax.jit(function, donate_argnums=0).lower(state, batch).compile()
    costs["cached_s"] = time.perf_counter() - costs["ready"]

    def step() -> None:
        nonlocal state
        state, metrics = compiled(state, batch)
        jax.block_until_ready((state, metrics))

    return step, costs


def _config(preset: str, shape: tuple[int, int], name: str) -> Config:
    training = dataclasses.replace(
        presets.training(preset),
        domain_batch=shape[0],
        segment_samples=shape[1],
        confusion_weight=0.0,
        **VARIANTS.get(name, {}),
    )
    return Config(domains=("any",), model=presets.model(preset), training=training)


def _codes(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(1, *shape)).astype(np.uint8)


def initial_state(config: Config) -> tuple[Any, networks.Networks, train_state.Optimizers]:
    """Returns the state before the first step, and what steps need."""
    nets = networks.Networks(config)
    optimizers = train_state.make_optimizers(config.training)
    state = train_state.create(nets.init(jax.random.key(0)), optimizers, config)
    return jax.block_until_ready(state), nets, optimizers


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
    num_encoder, num_decoder = (
        len(layers.dilations(blocks, number))
        for blocks, number in (
            (model.encoder_blocks, model.encoder_layers),
            (model.decoder_blocks, model.decoder_layers),
        )
    )
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
    lines = [
        "| preset | batch | variant | step, s | steps/s | audio samples/s | GFLOP/s | of the rate "
        "| to plain PyTorch | peak, GB | of it libraries | start, s | cached, s "
        "| compile, s | peak then, GB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (preset, batch), rows in speeds.items():
        for speed in rows:
            cells = (
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
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
