"""Draws the inputs, latents and outputs of a model.

    python -m experiments.pictures --input=song.wav --output=pictures
    python -m experiments.pictures --checkpoint=RUN --data_dir=data --output=pictures

Of each input: its latents as lines over time, and the log-mel spectrograms and rainbowgrams of it
and its translations. Of prepared data: a test excerpt of each domain and its translations, as a
table of spectrograms; and, of several domains, a map of the latents of test segments before and
after training, with how often a fresh classifier tells their domains.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from experiments.evaluation import checkpoint_scores
from umt_jax import command_line, path_flags, storage, translator
from umt_jax.audio import mu_law, sound_files
from umt_jax.checkpoints import checkpoint, demo_model, reading
from umt_jax.config import Config
from umt_jax.data import dataset
from umt_jax.inference import generation_flags, planning
from umt_jax.model import networks
from umt_jax.plots import latent_map, rainbowgram, spectrograms
from umt_jax.shapes import Waveform

_SEGMENTS = {"train": 64, "test": 32}
"""How many segments of each domain the probe learns from, and is asked about, at most."""

_MAP_FRAMES = 300
"""Latent frames of each domain on the map."""


def define_flags() -> None:
    """Declares this command's flags."""
    demo_model.define_flags()
    path_flags.define_list("input", [], "Sound files, and folders of them, separated by commas.")
    flags.DEFINE_list("domain", ["all"], "Domains to translate to, or 'all'.")
    path_flags.define("data_dir", None, "Folder of the prepared domains of this model.")
    path_flags.define_output_folder()
    flags.DEFINE_float("seconds", 6.0, "How much of each sound is drawn.", lower_bound=0.1)
    generation_flags.define_sampling()
    flags.DEFINE_bool("overwrite", False, "Replace pictures that exist.")
    generation_flags.define_engine()


def main() -> None:
    """Draws as the flags say."""
    args = flags.FLAGS
    if not args.input and args.data_dir is None:
        raise ValueError("Nothing to draw. Name sounds with --input, --data_dir, or both.")
    command_line.use_compilation_cache()
    workdir = demo_model.chosen()
    config = reading.read_config(workdir, args.step)
    generation_flags.sampling(config.sampling)  # Says what is wrong, if anything is.
    prepared = None
    if args.data_dir is not None:
        prepared = dataset.Dataset(args.data_dir, config.trained_domains)
        prepared.check(config)
    inputs = planning.find_inputs(args.input, [args.output])
    domains = None if args.domain == ["all"] else args.domain
    model = translator.load(
        workdir, domains=domains, step=args.step, engine=args.engine, threads=args.threads
    )
    for path, place in inputs:
        waveform = sound_files.read(path, sample_rate_hz=model.sample_rate_hz)
        for name, figure in sound_pictures(waveform, place.name, model, args):
            save(figure, Path(args.output, place.with_name(f"{place.name}.{name}.png")), args)
    if prepared is not None:
        save(translation_table(prepared, model, args), Path(args.output, "translations.png"), args)
        if len(config.trained_domains) > 1:
            parameters = checkpoint.restore_parameters(workdir, args.step)
            figure = domain_map(prepared, config, parameters)
            save(figure, Path(args.output, "latent_map.png"), args)


def sound_pictures(
    waveform: Waveform, name: str, model: translator.Translator, args: flags.FlagValues
) -> Iterator[tuple[str, Figure]]:
    """Yields the pictures of one sound and its translations, each by what it shows."""
    rate_hz = model.sample_rate_hz
    waveform = waveform[: round(args.seconds * rate_hz)]
    latents = model.encode(waveform, rate_hz)
    yield "latents", spectrograms.latent_lines(latents, model.frame_rate_hz, f"Latents of {name}")
    sounds = {name: waveform} | translations(waveform, model, args)
    yield "log_mel", spectrograms.log_mel_row(sounds, rate_hz)
    yield "rainbowgram", rainbowgram.row(sounds, rate_hz)


def translations(
    waveform: Waveform, model: translator.Translator, args: flags.FlagValues
) -> dict[str, Waveform]:
    """Returns a waveform's translations into all the model's domains, by title."""
    (by_domain,) = model.translate_many(
        [waveform],
        temperature=args.temperature,
        top_p=args.top_p,
        guide_strength=args.guide_strength,
        seed=args.seed,
    )
    return {f"as {domain}": translated for domain, translated in by_domain.items()}


def translation_table(
    prepared: dataset.Dataset, model: translator.Translator, args: flags.FlagValues
) -> Figure:
    """Draws a test excerpt of each domain next to its translations."""
    num_samples = round(args.seconds * model.sample_rate_hz)
    rows: dict[str, Mapping[str, Waveform]] = {}
    excerpts = prepared.excerpts("test", num_samples)
    for domain, codes in zip(model.config.trained_domains, excerpts, strict=True):
        waveform = mu_law.decode(codes, model.config.model.mu_law)
        rows[domain] = {"source": waveform} | translations(waveform, model, args)
    return spectrograms.log_mel_matrix(rows, model.sample_rate_hz, seconds=args.seconds)


def domain_map(
    prepared: dataset.Dataset, config: Config, parameters: networks.NetworkParameters
) -> Figure:
    """Draws latents of test segments before and after training, with the result of the probe."""
    train, test = (
        checkpoint_scores.split_segments(prepared, config, split, most)
        for split, most in _SEGMENTS.items()
    )
    nets = networks.Networks(config)
    encode = jax.jit(nets.encode)
    projections = []
    for title, weights in (
        ("Untrained encoder", nets.init(jax.random.key(config.training.seed))),
        ("Trained encoder", parameters),
    ):
        # A segment of each domain at a time, for the sake of large models.
        by_segment = [np.asarray(encode(weights.encoder, codes)) for codes in test.swapaxes(0, 1)]
        frames = np.concatenate(by_segment, axis=1)  # [K, N F, Z]
        chosen = np.random.default_rng(0).permutation(frames.shape[1])[:_MAP_FRAMES]
        right = checkpoint_scores.probe_accuracy(weights, config, train=train, test=test)
        chance = 100 / len(test)
        projections.append(
            (
                f"{title}: a probe tells {100 * right:.0f} %\nof test segments (chance: "
                f"{chance:.0f} %)",
                latent_map.project(frames[:, chosen].reshape(-1, frames.shape[-1])),
            )
        )
    labels = np.repeat(np.arange(len(test)), len(chosen))
    return latent_map.draw(projections, labels, config.trained_domains)


def save(figure: Figure, path: Path, args: flags.FlagValues) -> None:
    """Writes a picture, which appears when it is complete, and says where."""
    if path.exists() and not args.overwrite:
        raise FileExistsError(f"{path} exists already. Pass --overwrite, or another --output.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage.whole_file(path) as incomplete:
        incomplete.write_bytes(spectrograms.to_png(figure))
    command_line.say(f"{path}")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
