"""The music of an evaluation: recordings of every domain, and what is known of their notes.

Three layouts are read: exact pairs as `data_prep.render` writes them, the test split of prepared
domains, which has no pairs, and folders of somebody else's outputs.
"""

import csv
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import soundfile

from data_prep import midi
from umt_jax.audio import level, mu_law, sound_files
from umt_jax.config import domain_name
from umt_jax.data import dataset
from umt_jax.shapes import Waveform

SHORTEST_CLIP_S = 3.0
_SILENCE = 1e-4  # As RMS.
_MOST_MISSING_S = 0.5  # Systems may lose as much at an end.


@dataclasses.dataclass(frozen=True)
class Music:
    """Sounds to translate, and their true translations.

    Attributes:
        sample_rate_hz: Of all waveforms.
        recordings: By domain and piece, [T].
        notes: By piece, in seconds from the start; empty if they are not known.
        paired: Whether all domains play the same pieces, in time with one another.
        spans: First sample of each clip and the one after its last, by domain and piece.
        left_out: What is too short or silent to be a clip, in words.
    """

    sample_rate_hz: int
    recordings: Mapping[str, Mapping[str, Waveform]]
    notes: Mapping[str, Sequence[midi.Note]]
    paired: bool
    spans: Mapping[str, Mapping[str, Sequence[tuple[int, int]]]]
    left_out: tuple[str, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.recordings)

    @property
    def is_one_line(self) -> bool:
        """Whether the notes are known, and all pieces are single lines."""
        return bool(self.notes) and all(map(midi.is_one_line, self.notes.values()))

    @property
    def num_clips(self) -> int:
        """Number of clips of all domains, or of one of them in pairs."""
        counted = list(self.spans.values())[: 1 if self.paired else None]
        return sum(len(clips) for by_piece in counted for clips in by_piece.values())

    def first_clips(self, number: int) -> "Music":
        """Returns the same pieces, each of which ends with the clip of that number."""
        spans = {
            domain: {piece: clips[:number] for piece, clips in by_piece.items()}
            for domain, by_piece in self.spans.items()
        }
        recordings = {
            domain: {
                piece: waveform[: spans[domain][piece][-1][1]]
                for piece, waveform in by_piece.items()
            }
            for domain, by_piece in self.recordings.items()
        }
        return dataclasses.replace(self, spans=spans, recordings=recordings)


def make_music(
    recordings: Mapping[str, Mapping[str, Waveform]],
    notes: Mapping[str, Sequence[midi.Note]],
    *,
    sample_rate_hz: int,
    paired: bool,
    clip_s: float,
) -> Music:
    """Cuts recordings into clips, and leaves out pieces that have none.

    A clip of a pair is left out if any of its recordings is silent there.

    Raises:
        ValueError: A domain is left without a clip.
    """
    groups = (
        [tuple(recordings)] if paired else [(domain,) for domain in recordings]
    )  # Domains that share their clips.
    kept: dict[str, dict[str, Waveform]] = {domain: {} for domain in recordings}
    spans: dict[str, dict[str, list[tuple[int, int]]]] = {domain: {} for domain in recordings}
    left_out: list[str] = []
    for group in groups:
        for piece in recordings[group[0]]:
            together = [recordings[domain][piece] for domain in group]
            num_samples = min(map(len, together))
            place = piece if paired else f"{group[0]}/{piece}"
            clips, reasons = _cut(
                [waveform[:num_samples] for waveform in together], sample_rate_hz, clip_s
            )
            left_out += [f"{place}: {reason}" for reason in reasons]
            if clips:
                for domain, waveform in zip(group, together, strict=True):
                    kept[domain][piece] = np.asarray(waveform[:num_samples], np.float32)
                    spans[domain][piece] = clips
    empty = [domain for domain, of_domain in kept.items() if not of_domain]
    if empty:
        raise ValueError(
            f"{', '.join(empty)} has no piece with a clip of at least {SHORTEST_CLIP_S:g} s that "
            f"is not silent. Left out: {'; '.join(left_out) or 'nothing, there are none'}."
        )
    return Music(sample_rate_hz, kept, notes, paired, spans, tuple(left_out))


def _cut(
    together: Sequence[Waveform], rate_hz: int, clip_s: float
) -> tuple[list[tuple[int, int]], list[str]]:
    """Returns the clips of recordings that belong together, and why others were left out."""
    clips, reasons = [], []
    num_samples, step = len(together[0]), round(clip_s * rate_hz)
    for first in range(0, max(1, num_samples), step):
        end = min(first + step, num_samples)
        where = f"{first / rate_hz:.1f} to {end / rate_hz:.1f} s"
        if (end - first) / rate_hz < SHORTEST_CLIP_S:
            reasons.append(f"{where} is shorter than {SHORTEST_CLIP_S:g} s")
        elif min(level.rms(sound[first:end]) for sound in together) < _SILENCE:
            reasons.append(f"{where} is silent")
        else:
            clips.append((first, end))
    return clips, reasons


def file_rate_hz(folder: pathlib.Path) -> int:
    """Returns the sample rate of the first sound file in a folder."""
    return soundfile.info(_sound_files(folder)[0]).samplerate


def read_pairs(
    folder: pathlib.Path,
    wanted: Sequence[str] | None,
    *,
    sample_rate_hz: int,
    clip_s: float,
    max_s: float,
) -> Music:
    """Reads <folder>/<Domain>/<piece>.wav and <folder>/<piece>.csv, as `data_prep.render` writes.

    Args:
        folder: The folder.
        wanted: Domains to read, of which those that are there are read; None for all.
        sample_rate_hz: Rate of the waveforms.
        clip_s: Length of clips in seconds.
        max_s: At most so much of each piece, from its start.

    Raises:
        FileNotFoundError: There is no such folder, or it does not hold two domains.
        ValueError: Its domains do not hold the same pieces, or notes of some are missing.
    """
    files = {
        domain_name(path.name): _by_stem(path)
        for path in sorted(folder.iterdir() if folder.is_dir() else [])
        if path.is_dir() and not path.name.startswith(".")
    }
    there = list(files)
    files = {name: files[name] for name in wanted if name in files} if wanted else files
    if len(files) < 2:
        raise FileNotFoundError(
            f"--pairs={folder} must hold folders of two domains or more"
            + (f" out of {', '.join(wanted)}" if wanted else "")
            + f", and holds {', '.join(there) or 'none'}. `python -m data_prep.render` writes them."
        )
    _check_same_names(files, f"--pairs={folder}")
    recordings = {
        domain: {piece: _start(path, sample_rate_hz, max_s) for piece, path in of_domain.items()}
        for domain, of_domain in files.items()
    }
    notes = _read_notes(folder, next(iter(recordings.values())))
    return make_music(recordings, notes, sample_rate_hz=sample_rate_hz, paired=True, clip_s=clip_s)


def read_outputs(
    folder: pathlib.Path, *, sample_rate_hz: int, clip_s: float, max_s: float
) -> tuple[Music, dict[str, Waveform]]:
    """Reads somebody's outputs: source/, output/ and target/, files of one piece named alike.

    Notes may lie in notes/<piece>.csv. Args as `read_pairs`.

    Returns:
        The music, whose domains are `source` and `target`, and the outputs by piece.

    Raises:
        FileNotFoundError: One of the three folders is missing or empty.
        ValueError: They do not hold the same names, or fewer than two; or an output ends before
            what is measured does.
    """
    files = {name: _by_stem(folder / name) for name in ("source", "output", "target")}
    _check_same_names(files, f"--audio_dir={folder}")
    read = {
        name: {piece: _start(path, sample_rate_hz, max_s) for piece, path in of_kind.items()}
        for name, of_kind in files.items()
    }
    outputs = read.pop("output")
    if len(outputs) < 2:
        raise ValueError(
            f"--audio_dir={folder} holds one piece. It takes two or more: the timbre of each is "
            "judged by what was learned from the others."
        )
    notes_dir = folder / "notes"
    notes = _read_notes(notes_dir, outputs) if notes_dir.is_dir() else {}
    music = make_music(read, notes, sample_rate_hz=sample_rate_hz, paired=True, clip_s=clip_s)
    return music, {
        piece: _as_long(outputs[piece], waveform, sample_rate_hz, files["output"][piece])
        for piece, waveform in music.recordings["source"].items()
    }


def read_translations(
    folder: pathlib.Path, name: str, music: Music
) -> dict[tuple[str, str], dict[str, Waveform]]:
    """Reads a system's translations of pairs, <folder>/<Source>/<piece>.<Target>.wav.

    Args:
        folder: The folder.
        name: What the system is called, for errors.
        music: The pairs.

    Returns:
        By source and target and by piece, as long as the source, [T]: all pairs of two domains,
        and each domain as itself if all are there.

    Raises:
        FileNotFoundError: One of a pair of two domains is missing.
        ValueError: One ends before what is measured does.
    """
    pairs = [(source, target) for source in music.domains for target in music.domains]
    files = {
        source: _by_stem(folder / source) if (folder / source).is_dir() else {}
        for source in music.domains
    }
    missing = {
        (source, target): [
            f"{source}/{piece}.{target}"
            for piece in music.recordings[source]
            if f"{piece}.{target}" not in files[source]
        ]
        for source, target in pairs
    }
    across = [path for pair, paths in missing.items() for path in paths if pair[0] != pair[1]]
    if across:
        raise FileNotFoundError(
            f"--outputs={name}={folder} must hold every piece of every domain as every other, "
            f"<Source>/<piece>.<Target>.wav, and lacks {len(across)}: {across[0]}.wav"
            + (", ..." if across[1:] else ".")
        )
    has_own = not any(paths for pair, paths in missing.items() if pair[0] == pair[1])
    return {
        (source, target): {
            piece: _as_long(
                sound_files.read(path, sample_rate_hz=music.sample_rate_hz),
                waveform,
                music.sample_rate_hz,
                path,
            )
            for piece, waveform in music.recordings[source].items()
            for path in [files[source][f"{piece}.{target}"]]
        }
        for source, target in pairs
        if source != target or has_own
    }


def read_dataset(prepared: dataset.Dataset, *, clip_s: float, max_s: float) -> Music:
    """Reads the test split of prepared domains, at most `max_s` seconds of each.

    Raises:
        ValueError: A domain has no clip.
    """
    rate_hz = prepared.sample_rate_hz
    recordings = {
        domain: {
            track: mu_law.decode(codes, prepared.mu_law)
            for track, codes in prepared.tracks(domain, "test", round(max_s * rate_hz)).items()
        }
        for domain in prepared.description
    }
    return make_music(recordings, {}, sample_rate_hz=rate_hz, paired=False, clip_s=clip_s)


def _as_long(output: Waveform, source: Waveform, rate_hz: int, path: pathlib.Path) -> Waveform:
    """Returns an output as long as what is measured of its source.

    Raises:
        ValueError: It ends long before, where silence would be taken for its notes.
    """
    if len(source) - len(output) > _MOST_MISSING_S * rate_hz:
        seconds = len(output) / rate_hz
        raise ValueError(
            f"{path} is {seconds:.1f} s long, but {len(source) / rate_hz:.1f} s of its source are "
            f"measured. Give the whole translation, or measure less: --max_s={int(seconds)}, and "
            "with --quick clips of half of that (--clip_s)."
        )
    return fit(output, len(source))


def fit(waveform: Waveform, num_samples: int) -> Waveform:
    """Cuts a sound to a length, or fills it up with silence."""
    return np.pad(waveform, (0, max(0, num_samples - len(waveform))))[:num_samples]


def place(waveform: Waveform, *, first_s: float, sample_rate_hz: int, num_samples: int) -> Waveform:
    """Returns a sound that starts at a time, before zero too, in a recording of a given length."""
    first = round(first_s * sample_rate_hz)
    return fit(np.pad(waveform, (max(0, first), 0))[max(0, -first) :], num_samples)


def _start(path: pathlib.Path, rate_hz: int, max_s: float) -> Waveform:
    return sound_files.read(path, sample_rate_hz=rate_hz)[: round(max_s * rate_hz)]


def _sound_files(folder: pathlib.Path) -> list[pathlib.Path]:
    files = sound_files.find_sound_files(folder)
    if not files:
        raise FileNotFoundError(f"There are no sound files in {folder}.")
    return files


def _by_stem(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in _sound_files(folder)
    }


def _check_same_names(files: Mapping[str, Iterable[str]], where: str) -> None:
    """Raises `ValueError` if the folders do not hold the same pieces."""
    everything = {piece for names in files.values() for piece in names}
    for folder, names in files.items():
        missing = sorted(everything - set(names))
        if missing:
            others = [other for other in files if missing[0] in files[other]]
            raise ValueError(
                f"{where}: {folder} has no {', '.join(missing)}, but {' and '.join(others)} has. "
                "The same piece must have the same file name everywhere."
            )


def _read_notes(folder: pathlib.Path, pieces: Iterable[str]) -> dict[str, list[midi.Note]]:
    """Reads the note lists of all pieces, or none if there are none.

    Raises:
        ValueError: Only some are there, or one is damaged.
    """
    paths = {piece: folder / f"{piece}.csv" for piece in pieces}
    missing = [str(path) for path in paths.values() if not path.is_file()]
    if len(missing) == len(paths):
        return {}
    if missing:
        raise ValueError(f"Notes of some pieces are missing: {', '.join(missing)}.")
    return {piece: _read_note_list(path) for piece, path in paths.items()}


def _read_note_list(path: pathlib.Path) -> list[midi.Note]:
    try:
        with path.open(newline="") as file:
            return [
                midi.Note(
                    float(row["onset_s"]),
                    float(row["offset_s"]),
                    int(row["pitch"]),
                    int(row["velocity"]),
                )
                for row in csv.DictReader(file)
            ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a table of notes with columns {', '.join(midi.Note._fields)}."
        ) from error
