"""Compares two checkouts of umt_jax by CPU time: compiling, a training step, generation.

    python compare_commits.py BEFORE AFTER [--rounds=5] [--preset=musicnet]

BEFORE and AFTER are folders of checkouts. Each has a process. Both run on one core and take turns,
so that other work on the machine slows both alike. Prints medians, and the median of the ratios.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time

SAMPLES = 1600
"""Of the one segment of a step; generation is a latent frame of 800."""


def serve(preset: str) -> None:
    """Does what each line of standard input names; prints the CPU seconds that it took."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from experiments.speed import presets, training_processes
    from umt_jax.config import Config
    from umt_jax.data import dataset
    from umt_jax.generation import generate
    from umt_jax.generation.engines import choose
    from umt_jax.training import train_step

    training = dataclasses.replace(
        presets.training(preset), domain_batch=1, segment_samples=SAMPLES, confusion_weight=0.0
    )
    config = Config(domains=("any",), model=presets.model(preset), training=training)
    state, nets, optimizers = training_processes.initial_state(config)
    codes = np.random.default_rng(0).integers(256, size=(1, 1, SAMPLES)).astype(np.uint8)
    batch = dataset.Batch(codes=codes, augmented=codes)
    compiled: dict[str, object] = {}

    def compile_step() -> None:
        jax.clear_caches()

        # A function of its own each time: JAX keeps what it traced by function.
        def step(state, batch):
            return train_step.train_step(state, batch, networks=nets, optimizers=optimizers)

        compiled["step"] = jax.jit(step, donate_argnums=0).lower(state, batch).compile()

    def step() -> None:
        nonlocal state
        state, metrics = compiled["step"](state, batch)
        jax.block_until_ready((state, metrics))

    def generator(name: str):
        engine = choose.choose(name)
        weights = generate.pack(nets.init(jax.random.key(0)).decoders, config.model, engine)
        cache = generate.init_cache(config.model, 1)
        caches = jax.tree.map(lambda leaf: leaf[None].copy(), cache)
        latents = jax.random.normal(jax.random.key(1), (1, 1, config.model.latent_channels))
        keys = jax.random.split(jax.random.key(2), (1, 1))

        def run() -> None:
            nonlocal caches
            caches, codes = generate.generate(
                weights, caches, latents, keys, jnp.float32(1), config=config.model, engine=engine
            )
            codes.block_until_ready()

        return run

    actions = {"compile": compile_step, "step": step}
    for name in ("scan", "native"):
        actions[name] = generator(name)
    for name in ("compile", "step", "scan", "native"):  # Once before anything is timed.
        actions[name]()
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.process_time()
        actions[line.strip()]()
        print(time.process_time() - start, flush=True)


def main() -> None:
    """Starts both processes, lets them take turns, prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkouts", nargs=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--preset", default="musicnet")
    args = parser.parse_args()
    core = max(os.sched_getaffinity(0))
    processes = [
        subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "serve", args.preset],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.path.abspath(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        for folder in args.checkouts
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for action, repeats in (("step", 1), ("scan", 1), ("native", 3), ("compile", 1)):
        rounds = []
        for index in range(args.rounds):
            seconds = [0.0, 0.0]
            for turn in range(2 * repeats):
                which = (turn + index) % 2
                print(action, file=processes[which].stdin, flush=True)
                seconds[which] += float(processes[which].stdout.readline()) / repeats
            rounds.append(seconds)
            print(json.dumps([action, seconds]), file=sys.stderr, flush=True)
        before, after = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(b / a for a, b in rounds)
        low, high = min(b / a for a, b in rounds), max(b / a for a, b in rounds)
        print(
            f"{action}: {before:.2f} s, {after:.2f} s, ratio {ratio:.3f} ({low:.3f} to {high:.3f})"
        )


if __name__ == "__main__":
    serve(sys.argv[2]) if sys.argv[1] == "serve" else main()
