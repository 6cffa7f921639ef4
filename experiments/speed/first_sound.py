"""From the command to the first sound: what a user waits for, and the memory it takes."""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

import jax

from experiments.speed import machine
from umt_jax import text_tables
from umt_jax.checkpoints import checkpoint
from umt_jax.config import Config, ModelConfig, TrainingConfig
from umt_jax.generation import pieces
from umt_jax.model import networks
from umt_jax.training import train_state

_SECONDS_IN = 2.0
_WARM_STARTS = 3


@dataclasses.dataclass(frozen=True)
class FirstSound:
    """One engine's start, with sound waiting on standard input.

    Attributes:
        cold_s: From the command to the first sample, nothing compiled before.
        warm_s: The same with what was compiled then; the shortest of a few starts.
        peak_bytes: Most memory that the process had held by then; 0 where the system does not say.
    """

    cold_s: float
    warm_s: float
    peak_bytes: int


def measure(config: ModelConfig, engine: str, weights: str) -> FirstSound:
    """Starts `umt_jax.infer` several times, with random weights."""
    training = TrainingConfig(confusion_weight=0.0, segment_samples=config.pool_samples)
    of_one_domain = Config(domains=("any",), model=config, training=training)
    with tempfile.TemporaryDirectory() as folder:
        optimizers = train_state.make_optimizers(training)
        parameters = networks.Networks(of_one_domain).init(jax.random.key(0))
        state = train_state.create(parameters, optimizers, of_one_domain)
        with checkpoint.Checkpoints(folder) as checkpoints:
            checkpoints.save(state, of_one_domain, {}, 0.0)
        environment = {**os.environ, "XDG_CACHE_HOME": os.path.join(folder, "cache")}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        command = [
            *(sys.executable, "-m", "umt_jax.infer", f"--checkpoint={folder}", "--domain=any"),
            *("--input=-", "--output=-", f"--engine={engine}", f"--weights={weights}"),
        ]
        cold_s, _ = _start(command, environment, config)
        warm = [_start(command, environment, config) for _ in range(_WARM_STARTS)]
    return FirstSound(cold_s, min(warm)[0], max(peak for _, peak in warm))


def _start(
    command: list[str], environment: Mapping[str, str], config: ModelConfig
) -> tuple[float, int]:
    """Runs the command until its first piece of sound; returns seconds and peak bytes."""
    samples_in = round(_SECONDS_IN * config.sample_rate_hz)
    bytes_out = 2 * pieces.piece_frames(config) * config.pool_samples
    start = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        assert process.stdin and process.stdout
        process.stdin.write(bytes(2 * samples_in))
        process.stdin.close()
        sound = process.stdout.read(bytes_out)
        seconds = time.perf_counter() - start
        peak_bytes = machine.peak_bytes(process.pid)
        process.stdout.close()
        process.wait()
        if len(sound) < bytes_out:
            errors.seek(0)
            raise OSError(f"{' '.join(command)} gave no sound: {errors.read().decode()}")
    return seconds, peak_bytes


def table(first_sounds: Mapping[tuple[str, str], FirstSound]) -> str:
    """Returns all measurements by preset and engine as a Markdown table."""
    heads = ("preset", "engine", "nothing cached, s", "cached, s", "peak memory, MB")
    rows = [
        (*names, f"{first.cold_s:.1f}", f"{first.warm_s:.1f}", f"{first.peak_bytes / 1e6:,.0f}")
        for names, first in first_sounds.items()
    ]
    lines = (
        "From the command `umt_jax.infer --input=-` to the end of its first "
        f"{pieces.PIECE_SECONDS} s of sound, imports included:",
        "",
        text_tables.markdown(heads, rows),
    )
    return "\n".join(lines)
