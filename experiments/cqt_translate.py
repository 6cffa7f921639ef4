r"""Translates recordings by a CycleGAN on constant-Q frames, and makes sound of them twice.

    python -m experiments.cqt_translate --gan=runs/gan --checkpoint=runs/cqt_decoder \
        --input=pairs --output=translated

reads `<Domain>/<piece>.wav` of both domains and writes

    translated/wavenet/<Source>/<piece>.<Target>.wav       by the decoders of --checkpoint
    translated/griffin_lim/<Source>/<piece>.<Target>.wav   by phases that are estimated

as `experiments.evaluate --outputs=NAME=translated/wavenet` reads them. --checkpoint is a run of
`experiments.train --encoder_kind=cqt` with the same constant-Q transform; without it there is no
folder `wavenet`. A domain as itself is what the transform and back alone do, without a generator.
"""

import json
import pathlib
import time
from collections.abc import Mapping, Sequence

import numpy as np
import tqdm
from absl import flags

from experiments.cqt import checkpoint, settings, sound, step
from experiments.cqt.settings import GanConfig
from umt_jax import command_line, path_flags, translator
from umt_jax.audio import level, sound_files
from umt_jax.checkpoints import reading
from umt_jax.config import Config, TrainingConfig
from umt_jax.generation import scheduler, streams
from umt_jax.inference import generation_flags
from umt_jax.model import cqt, networks
from umt_jax.shapes import Array, Float
from umt_jax.translator import Translator

WAVENET, GRIFFIN_LIM = "wavenet", "griffin_lim"
"""Folders of the two ways back to sound."""

_FRAMES_AT_ONCE = 400
"""Recordings are filled up to a multiple of it: for each length a generator is compiled anew."""

_OF_TRANSFORM = (*settings.TRANSFORM_FIELDS, "sample_rate_hz", "mu_law", "rms_dbfs")


def define_flags() -> None:
    """Declares this command's flags."""
    path_flags.define("gan", None, "Folder of a run of experiments.cqt_cyclegan.", required=True)
    path_flags.define("checkpoint", None, "Folder of a run with --encoder_kind=cqt; may be absent.")
    path_flags.define("input", None, "Folder of <Domain>/<piece>.wav.", required=True)
    path_flags.define_output_folder()
    flags.DEFINE_float("max_s", None, "At most so many seconds of each piece.", lower_bound=1)
    generation_flags.define_sampling()
    generation_flags.define_engine()


def main() -> None:
    """Translates as the flags say."""
    args = flags.FLAGS
    command_line.use_compilation_cache()
    config = checkpoint.read_config(args.gan)
    model = _decoders(args, config) if args.checkpoint else None
    recordings = {
        domain: _read(pathlib.Path(args.input) / domain, config, args.max_s)
        for domain in config.domains
    }
    output, seconds = (
        pathlib.Path(args.output),
        dict.fromkeys(("frames", WAVENET, GRIFFIN_LIM), 0.0),
    )
    translate = FrameTranslator(args.gan)
    for source, by_piece in recordings.items():
        for target in tqdm.tqdm(config.domains, desc=f"{source} as", unit="domain"):
            started = time.monotonic()
            frames = [translate(waveform, source, target) for waveform in by_piece.values()]
            seconds["frames"] += time.monotonic() - started

            started = time.monotonic()
            phased = sound.griffin_lim(frames, config.model, seed=args.seed)
            seconds[GRIFFIN_LIM] += time.monotonic() - started
            _write(output / GRIFFIN_LIM / source, target, by_piece, phased, config)
            if model:
                started = time.monotonic()
                played = _play(model, frames, target, args)
                seconds[WAVENET] += time.monotonic() - started
                _write(output / WAVENET / source, target, by_piece, played, config)
    _report(output, seconds, recordings, config)


class FrameTranslator:
    """Waveforms -> frames of either domain.

    Attributes:
        config: Of the CycleGAN.
    """

    def __init__(self, gan: str) -> None:
        """Reads the generators of a run."""
        self.config = checkpoint.read_config(gan)
        self._generators = checkpoint.read_generators(gan)
        training = TrainingConfig(segment_samples=self.config.training.segment_samples)
        whole = Config(domains=self.config.domains, model=self.config.model, training=training)
        self._encoder = streams.WindowEncoder(networks.Networks(whole), {})

    def __call__(
        self, waveform: Float[np.ndarray, "_"], source: str, target: str
    ) -> Float[Array, "F Z"]:
        """Returns the frames of a recording as another domain, or as they are for its own."""
        levelled = level.bring_to(waveform, self.config.model.rms_dbfs)
        windows = [frames for frames, _ in self._encoder.encode([levelled])]
        frames = np.concatenate(windows)
        if source == target:
            return frames
        missing = -len(frames) % _FRAMES_AT_ONCE
        silence = np.asarray(cqt.scaled(np.zeros((missing, frames.shape[1]), np.float32)))
        filled = np.concatenate([frames, silence])[np.newaxis]
        generator = self._generators[self.config.domains.index(target)]
        return np.asarray(step.translate(generator, filled, self.config.training))[0, : len(frames)]


def _decoders(args: flags.FlagValues, config: GanConfig) -> Translator:
    """Returns the CQT autoencoder, whose transform must be the CycleGAN's.

    Raises:
        ValueError: It is not, or its encoder is learned, or a domain is missing.
    """
    model = reading.read_config(args.checkpoint).model
    if model.encoder_kind != "cqt":
        raise ValueError(
            f"--checkpoint={args.checkpoint} has a learned encoder. The frames of a CycleGAN need "
            "decoders that were trained on such frames: experiments.train --encoder_kind=cqt."
        )
    for name in _OF_TRANSFORM:
        theirs, ours = getattr(model, name), getattr(config.model, name)
        if theirs != ours:
            raise ValueError(
                f"--checkpoint={args.checkpoint} has {name}={theirs}, but --gan={args.gan} has "
                f"{ours}. Both need the same constant-Q transform."
            )
    return translator.load(
        args.checkpoint, domains=config.domains, engine=args.engine, threads=args.threads
    )


def _read(
    folder: pathlib.Path, config: GanConfig, max_s: float | None
) -> dict[str, Float[np.ndarray, "_"]]:
    """Returns the recordings of a domain by piece."""
    files = sound_files.find_sound_files(folder) if folder.is_dir() else []
    if not files:
        raise FileNotFoundError(
            f"There are no sound files in {folder}. --input is a folder of folders, one for each "
            f"of {' and '.join(config.domains)}."
        )
    rate_hz = config.model.sample_rate_hz
    most = None if max_s is None else round(max_s * rate_hz)
    return {
        path.relative_to(folder).with_suffix("").as_posix(): np.asarray(
            sound_files.read(path, sample_rate_hz=rate_hz)[:most]
        )
        for path in files
    }


def _play(
    model: Translator, frames: Sequence[Float[Array, "F Z"]], target: str, args: flags.FlagValues
) -> list[Float[np.ndarray, "_"]]:
    """Returns what a decoder makes of the frames of several pieces, at once."""
    parts: list[list[np.ndarray]] = [[] for _ in frames]
    played = model.generate_recordings(
        map(model.windows, frames),
        domains=[target],
        temperature=args.temperature,
        top_p=args.top_p,
        guide_strength=args.guide_strength,
        seed=args.seed,
        num_streams=len(frames),
    )
    for piece in scheduler.raising(played):
        parts[piece.recording].append(piece.waveforms[0])
    return [np.concatenate(of_piece) for of_piece in parts]


def _write(
    folder: pathlib.Path,
    target: str,
    sources: Mapping[str, Float[np.ndarray, "_"]],
    translations: Sequence[Float[np.ndarray, "_"]],
    config: GanConfig,
) -> None:
    """Writes translations, each as long as its source."""
    for (piece, source), waveform in zip(sources.items(), translations, strict=True):
        path = folder / f"{piece}.{target}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sound_files.write(path, waveform[: len(source)], sample_rate_hz=config.model.sample_rate_hz)


def _report(
    output: pathlib.Path,
    seconds: Mapping[str, float],
    recordings: Mapping[str, Mapping[str, Float[np.ndarray, "_"]]],
    config: GanConfig,
) -> None:
    """Says how much faster than real time each part was, and writes it beside the sounds."""
    heard = sum(len(sound) for of_domain in recordings.values() for sound in of_domain.values())
    # Each recording as both domains.
    sound_s = 2 * heard / config.model.sample_rate_hz
    factors = {name: sound_s / taken for name, taken in seconds.items() if taken}
    record = {"seconds_of_sound": sound_s, "seconds": dict(seconds), "times_real_time": factors}
    (output / "times.json").write_text(json.dumps(record, indent=1) + "\n")
    command_line.say(
        *(f"{name}: {factor:.2f} times real time" for name, factor in factors.items()),
        f"Written: {output}, {len(config.domains) ** 2} pairs in each folder.",
    )


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
