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

# Without the total: it is a guess from the files' headers, and tqdm drops it once it is exceeded.
_BAR_FORMAT = "{l_bar}{bar}| {n:.1f} s of sound [{elapsed}<{remaining}]"


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
        others = f" and {len(existing) - 1} more exist" if len(existing) > 1 else " exists"
        raise FileExistsError(
            f"{existing[0]}{others} already. Pass --overwrite to replace what exists, or another "
            "--output."
        )
    return planned


def define_flags() -> None:
    """Declares this command's flags."""
    flags.DEFINE_string(
        "checkpoint", None, "Folder of a training run (its --workdir).", required=True
    )
    flags.DEFINE_integer(
        "step", None, "Step of the checkpoint to use. Default: the best by validation loss."
    )
    flags.DEFINE_list(
        "input", None, "Sound files, and folders of them, separated by commas.", required=True
    )
    flags.DEFINE_list(
        "domain", None, "Domains to translate to, separated by commas, or 'all'.", required=True
    )
    flags.DEFINE_string("output", None, "Folder to write to; made if need be.", required=True)
    flags.DEFINE_float(
        "temperature",
        1.0,
        "Scale of the randomness; 0 takes the likeliest code every time.",
        lower_bound=0.0,
    )
    flags.DEFINE_integer("seed", 0, "Decides the random numbers.", lower_bound=0)
    flags.DEFINE_string(
        "engine",
        "auto",
        "What generates: 'scan' runs everywhere, 'native' is faster on a CPU and needs a C++ "
        "compiler, 'auto' takes native where it can run.",
    )
    flags.DEFINE_string(
        "weights",
        "float32",
        "Type in which the native engine keeps the weights. 'bfloat16' is faster where a few "
        "recordings are translated at once, and rounds.",
    )
    flags.DEFINE_enum("format", "wav", ["wav", "flac", "ogg"], "Format of the output.")
    flags.DEFINE_bool("overwrite", False, "Replace outputs that exist.")
    flags.DEFINE_integer(
        "streams",
        8,
        "Recordings translated at once. More are faster in total, and each is done later.",
        lower_bound=1,
    )


def main() -> None:
    """Translates as the flags say."""
    args = flags.FLAGS
    for name in ("input", "domain"):
        if not args[name].value:
            raise ValueError(f"--{name} is empty. {args[name].help}")
    config = checkpoint.read_config(args.checkpoint, args.step)
    domains = config.domains if args.domain == ["all"] else tuple(dict.fromkeys(args.domain))
    translator.check_domains(domains, config.domains)
    inputs = find_inputs(args.input)
    outputs = plan_outputs(
        [place for _, place in inputs], domains, args.output, args.format, args.overwrite
    )
    for path in sorted({path.parent for paths in outputs for path in paths}):
        path.mkdir(parents=True, exist_ok=True)
    model = translator.load(
        args.checkpoint,
        domains=domains,
        step=args.step,
        engine=args.engine,
        weights=args.weights,
    )
    translate_files(
        model,
        [file for file, _ in inputs],
        outputs,
        temperature=args.temperature,
        seed=args.seed,
        num_streams=args.streams,
    )


def translate_files(
    model: translator.Translator,
    files: Sequence[Path],
    outputs: Sequence[Sequence[Path]],
    *,
    temperature: float,
    seed: int,
    num_streams: int,
) -> None:
    """Writes every file's translations into all of the model's domains.

    A file that cannot be read leaves no output and does not stop the others.

    Raises:
        ValueError: Some files could not be read; says which, after the others are written.
    """
    rate_hz = model.sample_rate_hz
    total_seconds = len(model.domains) * sum(audio.duration_seconds(file) for file in files)
    pieces = model.translate_recordings(
        (audio.read_blocks(file, sample_rate_hz=rate_hz) for file in files),
        temperature=temperature,
        seed=seed,
        num_streams=min(num_streams, len(files)),
    )
    failures: list[str] = []
    num_samples, started = 0, time.monotonic()
    with (
        tqdm.tqdm(total=total_seconds, bar_format=_BAR_FORMAT, disable=None) as progress,
        _Outputs(outputs, rate_hz) as under_way,
    ):
        for piece in pieces:
            under_way.write(piece)
            if piece.error:
                failures.append(str(piece.error))
            num_samples += piece.waveforms.size
            progress.update(piece.waveforms.size / rate_hz)
    seconds = time.monotonic() - started
    made_seconds = num_samples / rate_hz
    print(
        f"{made_seconds:.1f} s of sound in {seconds:.1f} s, "
        f"{made_seconds / seconds:.2f} times real time."
    )
    if failures:
        raise ValueError(
            f"{len(failures)} of {len(files)} inputs could not be translated: "
            + "; ".join(failures)
        )


class _Outputs:
    """The files being written: those of a recording appear when its last piece has come."""

    def __init__(self, outputs: Sequence[Sequence[Path]], sample_rate_hz: int) -> None:
        self._outputs, self._sample_rate_hz = outputs, sample_rate_hz
        self._writers: dict[int, list[audio.SoundFileWriter]] = {}
        self._open: dict[int, contextlib.ExitStack] = {}

    def __enter__(self) -> "_Outputs":
        return self

    def write(self, piece: translator.Piece) -> None:
        """Appends a piece to its recording's files; drops them all if it ends in an error."""
        recording = piece.recording
        if recording not in self._open:
            self._open[recording] = contextlib.ExitStack()
            self._writers[recording] = [
                self._open[recording].enter_context(
                    audio.SoundFileWriter(path, sample_rate_hz=self._sample_rate_hz)
                )
                for path in self._outputs[recording]
            ]
        for writer, waveform in zip(self._writers[recording], piece.waveforms, strict=True):
            writer.write(waveform)
        if piece.is_last:
            del self._writers[recording]
            self._close(recording, piece.error)

    def __exit__(self, error_type: object, error: BaseException | None, traceback: object) -> None:
        """Drops what is not complete."""
        for recording in list(self._open):
            self._close(recording, error)

    def _close(self, recording: int, error: BaseException | None) -> None:
        self._open.pop(recording).__exit__(type(error) if error else None, error, None)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
