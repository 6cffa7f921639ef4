"""Processes that train, of which `experiments.speed.training_speed` measures time and memory.

Each variant has one of its own, so that its peak memory is its own. Compilers take more memory than
some steps do: another process has compiled before, as at a run's first start.
"""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.speed import machine, presets
from umt_jax import command_line
from umt_jax.config import Config
from umt_jax.data import dataset
from umt_jax.model import networks
from umt_jax.training import train_state, train_step

# Those named `native` compute by one thread of C++, the others by XLA.
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "remat=layer": {"remat": "layer"},
    "remat=block": {"remat": "block"},
    "microbatches=4": {"microbatches": 4},
    "bfloat16": {"compute_dtype": "bfloat16"},
    "native": {},
    "native bfloat16": {"compute_dtype": "bfloat16"},
    # As experiments/configs/demo_detuned.flags.
    "detuned past": {
        "past_detune_semitones": 4.0,
        "past_detune_share": 1.0,
        "past_detune_samples": 1_500,
        "past_noise": 0.03,
    },
}
PLAIN = {"plain PyTorch": False, "plain PyTorch, frugal": True}


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


class Worker:
    """A process that trains one variant, a step at a time.

    Its programs are in `cache` when it starts; another process compiles them.
    """

    def __init__(self, preset: str, shape: tuple[int, int], name: str, cache: str) -> None:
        """Waits until the first step is taken.

        Args:
            preset: Sizes of the model.
            shape: Segments of a batch, and the samples of each.
            name: Of VARIANTS or PLAIN.
            cache: Folder for compiled programs.

        Raises:
            OSError: One of the two processes has ended.
        """
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
    """Runs in the worker process: prepares, takes the first step, then one for each request."""
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
    from experiments.speed import plain_torch_training

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
    config = _config(preset, shape, name)
    state, nets, optimizers = initial_state(config, native_threads=int(name.startswith("native")))
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


def initial_state(
    config: Config, *, native_threads: int = 0
) -> tuple[Any, networks.Networks, train_state.Optimizers]:
    """Returns the state before the first step, and what steps need."""
    nets = networks.Networks(config, native_threads=native_threads)
    optimizers = train_state.make_optimizers(config.training)
    state = train_state.create(nets.init(jax.random.key(0)), optimizers, config)
    return jax.block_until_ready(state), nets, optimizers
