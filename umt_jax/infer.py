"""Translates sound files: each input, whole, into each domain asked for.

    python -m umt_jax.infer --checkpoint=runs/demo --input=song.mp3 --domain=all --output=out

writes out/song.<Domain>.wav for every domain. Folders are searched for sound files, and keep their
subfolders in the output.
"""

import collections
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import tqdm
from absl import flags

from umt_jax import audio, checkpoint, command_line, translator

CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Folder of a training run (its --workdir).", required=True
)
STEP = flags.DEFINE_integer(
    "step", None, "Step of the checkpoint to use. Default: the one with the best validation loss."
)
INPUT = flags.DEFINE_list(
    "input", None, "Sound files, and folders of sound files, separated by commas.", required=True
)
DOMAIN = flags.DEFINE_list(
    "domain", None, "Domains to translate to, separated by commas, or 'all'.", required=True
)
OUTPUT = flags.DEFINE_string("output", None, "Folder to write to; made if need be.", required=True)
TEMPERATURE = flags.DEFINE_float(
    "temperature", 1.0, "Scale of the randomness; 0 takes the likeliest code every time.", 0.0
)
SEED = flags.DEFINE_integer("seed", 0, "Decides the random numbers.", 0)
FORMAT = flags.DEFINE_enum("format", "wav", ["wav", "flac", "ogg"], "Format of the output.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace outputs that exist.")
STREAMS = flags.DEFINE_integer(
    "streams",
    8,
    "Recordings translated at once. More are faster in total, and later to finish each.",
    lower_bound=1,
)


def find_inputs(inputs: Sequence[str]) -> list[tuple[Path, Path]]:
    """Returns each sound file and its place in the output, a relative path without extension.

    Raises:
        FileNotFoundError: An input is not there, or a folder has no sound file.
    """
    found = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            files = audio.find_sound_files(path)
            if not files:
                raise FileNotFoundError(f"--input={name} is a folder without any sound file.")
            found += [(file, file.relative_to(path)) for file in files]
        elif path.is_file():
            found.append((path, Path(path.name)))
        else:
            raise FileNotFoundError(f"--input={name} is neither a file nor a folder.")
    return _without_collisions(found)


def _without_collisions(found: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    """Drops extensions where that leaves names apart; numbers what would still collide."""
    stems = collections.Counter(place.with_suffix("") for _, place in found)
    taken: set[Path] = set()
    places = []
    for file, place in found:
        candidate = place if stems[place.with_suffix("")] > 1 else place.with_suffix("")
        number = 2
        unique = candidate
        while unique in taken:
            unique = candidate.with_name(f"{candidate.name}-{number}")
            number += 1
        taken.add(unique)
        places.append((file, unique))
    return places


def plan_outputs(
    places: Sequence[Path], domains: Sequence[str], output: str, extension: str, overwrite: bool
) -> list[list[Path]]:
    """Returns, for each input, the file to write for each domain.

    Raises:
        FileExistsError: One is there already and may not be overwritten.
    """
    planned = [
        [Path(output) / place.with_name(f"{place.name}.{domain}.{extension}") for domain in domains]
        for place in places
    ]
    existing = [path for paths in planned for path in paths if path.exists()]
    if existing and not overwrite:
        others = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise FileExistsError(
            f"{existing[0]}{others} exist already. Pass --overwrite to replace them, or another "
            "--output."
        )
    return planned


def main() -> None:
    """Translates as the flags say."""
    config = checkpoint.read_config(CHECKPOINT.value, STEP.value)
    domains = config.domains if DOMAIN.value == ["all"] else tuple(dict.fromkeys(DOMAIN.value))
    translator.check_domains(domains, config.domains)
    inputs = find_inputs(INPUT.value)
    outputs = plan_outputs(
        [place for _, place in inputs], domains, OUTPUT.value, FORMAT.value, OVERWRITE.value
    )
    for path in {path.parent for paths in outputs for path in paths}:
        path.mkdir(parents=True, exist_ok=True)
    model = translator.load(CHECKPOINT.value, domains=domains, step=STEP.value)
    translate_files(model, [file for file, _ in inputs], outputs)


def translate_files(
    model: translator.Translator, files: Sequence[Path], outputs: Sequence[Sequence[Path]]
) -> None:
    """Writes every file's translations into all of the model's domains.

    A file that cannot be read leaves no output and does not stop the others.

    Raises:
        ValueError: Some files could not be read; says which, after the others are written.
    """
    rate_hz = model.sample_rate_hz
    pieces = model.translate_recordings(
        (audio.read_blocks(file, sample_rate_hz=rate_hz) for file in files),
        temperature=TEMPERATURE.value,
        seed=SEED.value,
        num_streams=min(STREAMS.value, len(files)),
    )
    failures: list[str] = []
    started, num_samples = time.monotonic(), 0
    total_seconds = len(model.domains) * sum(audio.duration_seconds(file) for file in files)
    bar_format = "{l_bar}{bar}| {n:.1f}/{total:.1f} s of sound [{elapsed}<{remaining}]"
    with (
        contextlib.ExitStack() as all_writers,
        tqdm.tqdm(total=total_seconds, bar_format=bar_format) as progress,
    ):
        under_way: dict[int, contextlib.ExitStack] = {}
        writers: dict[int, list[audio.SoundFileWriter]] = {}
        for piece in pieces:
            if piece.recording not in under_way:
                stack = all_writers.enter_context(contextlib.ExitStack())
                under_way[piece.recording] = stack
                writers[piece.recording] = [
                    stack.enter_context(audio.SoundFileWriter(path, sample_rate_hz=rate_hz))
                    for path in outputs[piece.recording]
                ]
            for writer, waveform in zip(writers[piece.recording], piece.waveforms, strict=True):
                writer.write(waveform)
            num_samples += piece.waveforms.size
            progress.update(piece.waveforms.size / rate_hz)
            if piece.error:
                failures.append(str(piece.error))
    seconds = time.monotonic() - started
    print(f"{num_samples / rate_hz:.1f} s of sound in {seconds:.1f} s")
    if failures:
        raise ValueError(
            f"{len(failures)} of {len(files)} inputs could not be translated: "
            + "; ".join(failures)
        )


if __name__ == "__main__":
    command_line.run(main)
