r"""Makes decoders of constant-Q frames out of those of another model, to be trained on.

    python -m experiments.cqt_decoder --data_dir=data --domains=Piano,Cello --output=runs/cqt_warm

Frames hold what latents do, in other words: a least-squares map from the frames of training
recordings to their latents is multiplied into all that reads latents. Training then begins with
decoders that make a tone, and takes minutes where fresh ones take hours:

    python -m experiments.train --init_from=runs/cqt_warm --domains=Piano,Cello --data_dir=data \
        --workdir=runs/cqt_decoder
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments.cqt import settings
from umt_jax import command_line, config_flags, path_flags
from umt_jax.audio import mu_law
from umt_jax.checkpoints import checkpoint, demo_model, reading
from umt_jax.config import Config, ModelConfig, TrainingConfig
from umt_jax.data import dataset
from umt_jax.model import cqt, networks
from umt_jax.shapes import Array, Float, Parameters

_OF_TRANSFORM = tuple(name for name in settings.TRANSFORM_FIELDS if name != "pool_samples")
"""What may be chosen: the decoders decide how long a frame is."""

_BATCHES, _SEGMENTS = 20, 16
_RIDGE = 10.0
"""Added to the squares of the map's entries, so that bins without sound do not decide it."""


def define_flags() -> None:
    """Declares this command's flags."""
    path_flags.define("checkpoint", None, "Whose decoders. Default: the model that ships.")
    path_flags.define("data_dir", None, "Folder of prepared domains.", required=True)
    path_flags.define("output", None, "Folder of the run to make.", required=True)
    flags.DEFINE_list("domains", [], "Domains of the model to keep; all if not given.")
    left_out = {field.name for field in dataclasses.fields(settings.TRANSFORM)}
    config_flags.define(settings.TRANSFORM, leave_out=left_out - set(_OF_TRANSFORM))


def main() -> None:
    """Makes the decoders as the flags say."""
    args = flags.FLAGS
    checkpoint.check_is_free(args.output)
    workdir = demo_model.chosen()
    # Guides would not understand frames.
    config = reading.read_config(workdir).without_guides()
    parameters = checkpoint.restore_parameters(workdir)
    domains = tuple(args.domains) or config.domains
    if missing := [domain for domain in domains if domain not in config.domains]:
        raise ValueError(
            f"--domains: the model has no {', '.join(missing)}. Use some of "
            f"{', '.join(config.domains)}."
        )
    transform: dict[str, Any] = {name: args[name].value for name in _OF_TRANSFORM}
    model = dataclasses.replace(config.model, encoder_kind="cqt", **transform)
    data = dataset.Dataset(args.data_dir, domains)
    data.check(config)
    frames, latents = pairs(data, config, parameters.encoder, model)
    kernel, bias, explained = latents_of_frames(frames, latents)
    training = dataclasses.replace(
        config.training, init_from="", freeze_encoder=False, confusion_weight=0.0
    )
    config_of_frames = Config(domains=domains, preset=config.preset, model=model, training=training)
    fresh = networks.Networks(config_of_frames).init(jax.random.key(0))
    decoders = networks.select(
        networks.without_guides(parameters.decoders), [*map(config.domains.index, domains)]
    )
    checkpoint.write_parameters(
        args.output,
        config_of_frames,
        fresh.replace(decoders=reading_frames(decoders, kernel, bias)),
        data.description,
        step=0,
        loss=math.log(mu_law.NUM_LEVELS),  # Of a guess: these were not validated.
    )
    command_line.say(
        f"The map explains {explained:.0%} of the latents' variance in other frames.",
        f"Written: {args.output}, to train on with --init_from.",
    )


def pairs(
    data: dataset.Dataset, config: Config, encoder: Parameters, model: ModelConfig
) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N Z"]]:
    """Returns frames of training segments, and their latents.

    Those whose wavelets see beyond a segment are left out.
    """
    segment_samples = config.training.segment_samples
    training = TrainingConfig(segment_samples=segment_samples, domain_batch=_SEGMENTS)
    nets, margin = networks.Networks(config), cqt.margin_frames(model)
    inside = slice(margin, segment_samples // model.pool_samples - margin)

    @jax.jit
    def both(codes):
        arrays = cqt.encode(codes, model), nets.encode(encoder, codes)
        return [array[..., inside, :].reshape(-1, array.shape[-1]) for array in arrays]

    batches = data.train_batches(training, first_step=0)
    made = [both(jnp.asarray(next(batches).codes)) for _ in range(_BATCHES)]
    frames, latents = map(np.concatenate, zip(*made, strict=True))
    return frames, latents


def latents_of_frames(
    frames: Float[np.ndarray, "N D"], latents: Float[np.ndarray, "N Z"]
) -> tuple[Float[np.ndarray, "D Z"], Float[np.ndarray, "Z"], float]:
    """Returns kernel and bias of the least-squares map, and what it explains.

    The latter is a share of the latents' variance, in a tenth that the map was not made from.
    """
    inputs = np.concatenate([frames, np.ones((len(frames), 1))], axis=1).astype(np.float64)
    tenth = np.arange(len(inputs)) % 10 == 0
    known, targets = inputs[~tenth], latents[~tenth]
    squares = known.T @ known + _RIDGE * np.eye(known.shape[1])
    weights = np.linalg.solve(squares, known.T @ targets)
    errors = latents[tenth] - inputs[tenth] @ weights
    explained = 1 - errors.var() / latents[tenth].var()
    return weights[:-1].astype(np.float32), weights[-1].astype(np.float32), float(explained)


def reading_frames(
    decoders: Parameters, kernel: Float[Array, "D Z"], bias: Float[Array, "Z"]
) -> Parameters:
    """Returns stacked decoders that do with frames as these do with `frames @ kernel + bias`."""

    def after_map(condition):
        return {
            "kernel": jnp.einsum("dz,...zc->...dc", kernel, condition["kernel"]),
            "bias": condition["bias"] + jnp.einsum("z,...zc->...c", bias, condition["kernel"]),
        }

    layers = {**decoders["layers"], "condition": after_map(decoders["layers"]["condition"])}
    return {**decoders, "layers": layers, "condition": after_map(decoders["condition"])}


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
