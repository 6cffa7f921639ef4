r"""Trains guides: what a model's decoders follow, so that they play the notes of the latents.

    python -m experiments.guides --checkpoint=runs/mine --data_dir=data --output=runs/guided

For each domain a small network learns to predict the spectrogram of its recordings from their
latents alone (see `umt_jax.model.guide`), and from those of the same recordings with other dynamics
and another timbre: both come from its own instrument then. Encoder, decoders and classifier stay as
they are. That takes minutes. The output is a run of the same model with guides, to translate with,
to evaluate and to export.
"""

import dataclasses

import jax
import numpy as np
from absl import flags, logging

from data_prep import dynamics, timbre
from experiments.training_run import guide_training
from umt_jax import command_line, path_flags, translator
from umt_jax.audio import mu_law
from umt_jax.checkpoints import checkpoint, demo_model, folder_lock, model_file, reading
from umt_jax.config import Config
from umt_jax.data import dataset
from umt_jax.model import networks
from umt_jax.shapes import Latents, Parameters
from umt_jax.translator import Translator

_VALIDATION_SHARE = 0.05
"""Minutes of validation for each of training."""

_STRETCH_SECONDS = 8
"""How long a recording keeps one changed timbre and dynamics."""


def define_flags() -> None:
    """Declares this command's flags."""
    path_flags.define(
        "checkpoint", None, "Whose decoders get guides. Default: the model that ships."
    )
    path_flags.define(
        "guides_from",
        None,
        "A model with the same encoder, whose guides are taken for the domains that it has. Only "
        "the other domains' guides are trained, and need data.",
    )
    path_flags.define("data_dir", None, "Folder of prepared domains.", required=True)
    path_flags.define("output", None, "Folder of the run to make.", required=True)
    flags.DEFINE_integer("guide_channels", 128, "Width of a guide.", 1)
    flags.DEFINE_float("guide_strength", 10.0, "How closely decoders follow; kept in the model.")
    flags.DEFINE_integer("num_steps", 6000, "Steps for each domain.", 1)
    flags.DEFINE_float("minutes", 100.0, "Most music of each domain to learn from.", 0.1)
    flags.DEFINE_float("learning_rate", 2e-3, "Adam's step size at step 0.", 0)
    flags.DEFINE_integer("seed", 0, "Decides initial weights and crops.", 0)


def main() -> None:
    """Trains as the flags say."""
    args = flags.FLAGS
    logging.set_verbosity(logging.INFO)
    command_line.use_compilation_cache()
    checkpoint.check_is_free(args.output)
    workdir = demo_model.chosen()
    if model_file.is_model_file(workdir):
        raise ValueError(f"--checkpoint={workdir} is one file. Name the folder of a training run.")
    config = with_guides(reading.read_config(workdir), args.guide_channels, args.guide_strength)
    guides = kept(args.guides_from, workdir, config) if args.guides_from else {}
    data = dataset.Dataset(args.data_dir, [name for name in config.domains if name not in guides])
    data.check(config)
    model = translator.load(workdir)
    settings = guide_training.Settings(
        num_steps=args.num_steps, learning_rate=args.learning_rate, seed=args.seed
    )
    with folder_lock.held(args.output, purpose="a training run"):
        for domain in data.description:
            train, validation = (
                examples(model, data, domain, split, 60 * minutes, args.seed)
                for split, minutes in (
                    ("train", args.minutes),
                    ("validation", _VALIDATION_SHARE * args.minutes),
                )
            )
            guides[domain] = guide_training.train(
                config.model, train, validation, settings, name=domain
            )
        _write(args.output, workdir, config, guides, data)
    command_line.say(f"Written: {args.output}, whose decoders follow their guides.")


def with_guides(config: Config, channels: int, strength: float) -> Config:
    """Returns a model's configuration with guides of this width, followed this closely."""
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, guide_channels=channels),
        sampling=dataclasses.replace(config.sampling, guide_strength=strength),
    )


def kept(guides_from: str, workdir: str, config: Config) -> dict[str, Parameters]:
    """Returns the guides of another model, by domains, for those that a model has, too.

    Args:
        guides_from: Folder of the other model.
        workdir: Folder of the model, which a guide must hear as it heard the other one.
        config: Of the model, with guides.

    Raises:
        ValueError: The other model has no guides, or of other sizes, or another encoder; or all of
            the model's domains, so that nothing is left to train.
    """
    other = reading.read_config(guides_from)
    if not other.model.guide_channels:
        raise ValueError(f"--guides_from={guides_from} has no guides. Name a model that has.")
    if other.model != config.model:
        raise ValueError(
            f"--guides_from={guides_from} has other sizes (guide_channels="
            f"{other.model.guide_channels}). Name a model that --checkpoint was trained from, and "
            "use its --guide_channels."
        )
    theirs, ours = map(checkpoint.restore_parameters, (guides_from, workdir))
    if not jax.tree.all(jax.tree.map(np.array_equal, theirs.encoder, ours.encoder)):
        raise ValueError(
            f"--guides_from={guides_from} has another encoder than the model, so its guides would "
            "not understand these latents. Train with --freeze_encoder, or leave it out."
        )
    found = {
        domain: networks.select(theirs.decoders["guide"], index)
        for index, domain in enumerate(other.domains)
        if domain in config.domains
    }
    if len(found) == len(config.domains):
        raise ValueError(
            f"--guides_from={guides_from} has a guide for each of {','.join(config.domains)}, so "
            "none is left to train. Leave it out to train them anew."
        )
    return found


def examples(
    model: Translator, data: dataset.Dataset, domain: str, split: str, seconds: float, seed: int
) -> guide_training.Examples:
    """Returns latents and spectrograms of a domain's recordings, whole, as translation has them.

    There are two versions of the latents: of the recordings, and of the same with other dynamics
    and another timbre.

    Args:
        model: What encodes.
        data: Prepared domains.
        domain: Which one.
        split: Of the recordings.
        seconds: At most so much of them.
        seed: Decides what is changed.
    """
    pool, generator = model.config.model.pool_samples, np.random.default_rng(seed)
    versions: tuple[list[Latents], list[Latents]] = [], []
    magnitudes = []
    tracks = data.tracks(domain, split, round(seconds * model.sample_rate_hz))
    for codes in tracks.values():
        whole = codes[: len(codes) // pool * pool]
        if not whole.size:
            continue
        waveform = np.asarray(model.level(mu_law.decode(whole, model.config.model.mu_law)))
        heard = (
            waveform,
            np.asarray(model.level(_changed(waveform, model.sample_rate_hz, generator))),
        )
        for latents, version in zip(versions, heard, strict=True):
            latents.append(model.encode(version, model.sample_rate_hz).astype(np.float16))
        magnitudes.append(
            guide_training.log_magnitudes(waveform, model.config.model).astype(np.float16)
        )
    if not magnitudes:
        raise ValueError(f"{domain} has no whole latent frame in its {split} split.")
    return guide_training.Examples(
        np.stack([np.concatenate(latents) for latents in versions]), np.concatenate(magnitudes)
    )


def _changed(waveform, sample_rate_hz, generator):
    """Returns a recording with other dynamics and another timbre, both new in each stretch."""
    length = _STRETCH_SECONDS * sample_rate_hz
    stretches = (waveform[start : start + length] for start in range(0, len(waveform), length))
    options = {"sample_rate_hz": sample_rate_hz, "generator": generator}
    return np.concatenate(
        [
            timbre.change_timbre(dynamics.change_dynamics(stretch, **options), **options)
            for stretch in stretches
        ]
    )


def _write(output, workdir, config, guides, data):
    """Writes the model with its guides, by domains, as the run that it was, at the same step."""
    parameters, step = checkpoint.restore_parameters(workdir), reading.best_step(workdir)
    in_order = (guides[domain] for domain in config.domains)
    stacked = jax.tree.map(lambda *of_domains: np.stack(of_domains), *in_order)
    checkpoint.write_parameters(
        output,
        config,
        parameters.replace(decoders={**parameters.decoders, "guide": stacked}),
        {**reading.read_dataset(workdir, step), **data.description},
        step=step,
        loss=reading.loss(workdir, step),
    )
    checkpoint.copy_record(workdir, output)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
