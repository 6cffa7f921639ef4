"""How much memory a training step needs on one device, by XLA's analysis; nothing is run."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import numpy as np
from absl import flags

from experiments.speed import presets
from umt_jax import command_line, text_tables
from umt_jax.config import Config
from umt_jax.data import dataset
from umt_jax.model import networks
from umt_jax.training import train_state, train_step

REMATS = ("none", "layer", "block")


def define_flags() -> None:
    """Declares the flags of this stage."""
    flags.DEFINE_integer(
        "num_domains", 6, "How many domains; a preset without confusion has one.", 1
    )
    flags.DEFINE_list("microbatches", ["1", "4"], "Parts of the batch, separated by commas.")


def report() -> str:
    """Analyses as the flags say, and returns the section of this stage as Markdown."""
    args = flags.FLAGS
    needed: dict[tuple[str, str, int], dict[str, int]] = {}
    for preset in args.preset:
        training = presets.training(preset)
        num_domains = args.num_domains if training.confusion_weight else 1
        shape = f"{num_domains} x {training.domain_batch} x {training.segment_samples:,}"
        for parts in map(int, args.microbatches):
            if training.domain_batch % parts:
                continue
            row = needed[preset, shape, parts] = {
                remat: step_bytes(
                    Config(
                        domains=tuple(map(str, range(num_domains))),
                        model=presets.model(preset),
                        training=dataclasses.replace(training, remat=remat, microbatches=parts),
                    )
                )
                for remat in REMATS
            }
            command_line.say(table({(preset, shape, parts): row}).splitlines()[-1])
    return "\n\n".join(
        [
            "## Memory of a training step",
            table(needed),
            "GB on one device, state, batch and activations, by XLA's analysis of the compiled "
            "step on this platform; not run.",
        ]
    )


def step_bytes(config: Config) -> int:
    """Returns the bytes of a step's inputs, outputs and temporaries, what is donated counted once.

    Raises:
        RuntimeError: This platform's compiler says nothing about memory.
    """
    nets, optimizers = networks.Networks(config), train_state.make_optimizers(config.training)
    parameters = jax.eval_shape(nets.init, jax.random.key(0))
    state = jax.eval_shape(lambda p: train_state.create(p, optimizers, config), parameters)
    shape = len(config.domains), config.training.domain_batch, config.training.segment_samples
    codes = jax.ShapeDtypeStruct(shape, np.uint8)
    step = functools.partial(train_step.train_step, networks=nets, optimizers=optimizers)
    lowered = jax.jit(step, donate_argnums=0).lower(
        state, dataset.Batch(codes=codes, augmented=codes)
    )
    analysis = lowered.compile().memory_analysis()
    if analysis is None:
        raise RuntimeError(f"XLA does not analyse memory on {jax.default_backend()}.")
    return (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )


def table(needed: Mapping[tuple[str, str, int], Mapping[str, int]]) -> str:
    """Returns the memory of all steps, in GB, as a Markdown table."""
    heads = (
        *("preset", "domains x batch x samples", "--microbatches"),
        *(f"--remat={remat}" for remat in REMATS),
    )
    rows = [
        (*step, *(f"{num_bytes[remat] / 1e9:.3g}" for remat in REMATS))
        for step, num_bytes in needed.items()
    ]
    return text_tables.markdown(heads, rows)
