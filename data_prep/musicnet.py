r"""Makes the six domain folders of the published run out of a MusicNet download.

    python -m data_prep.musicnet --musicnet_dir=musicnet --audio_dir=music

--musicnet_dir holds musicnet_metadata.csv and the folders train_data and test_data, as unpacked
from the download. Each recording then appears a second time in a folder of --audio_dir, as a link.
"""

import csv
import os
import shutil
from pathlib import Path
from typing import Literal

from absl import flags

from umt_jax import command_line, path_flags, storage

DOMAINS = {
    ("Bach", "Solo Cello"): "Bach_Solo_Cello",
    ("Beethoven", "Solo Piano"): "Beethoven_Solo_Piano",
    ("Cambini", "Wind Quintet"): "Cambini_Wind_Quintet",
    ("Bach", "Solo Piano"): "Bach_Solo_Piano",
    ("Beethoven", "Accompanied Violin"): "Beethoven_Accompanied_Violin",
    ("Beethoven", "String Quartet"): "Beethoven_String_Quartet",
}
"""Composer and ensemble in the metadata -> domain, in the order of the published weights."""

Link = Literal["hard", "symbolic", "copy"]

_METADATA = "musicnet_metadata.csv"
_COLUMNS = ("id", "composer", "ensemble", "seconds")
_SOUND_FOLDERS = ("train_data", "test_data")


def define_flags() -> None:
    """Declares the flags of this command, and only when it is the command that runs."""
    path_flags.define(
        "musicnet_dir", None, f"Folder with {_METADATA}, train_data and test_data.", required=True
    )
    path_flags.define("audio_dir", None, "Folder to make the domain folders in.", required=True)
    flags.DEFINE_enum(
        "link",
        "hard",
        ["hard", "symbolic", "copy"],
        "How recordings get there: hard links take no space, but cannot cross disks; symbolic "
        "links break when --musicnet_dir moves; copies take as much space again.",
    )


def read_domains(musicnet_dir: Path) -> dict[str, dict[Path, float]]:
    """Returns the recordings of each domain and their seconds, from MusicNet's metadata.

    Raises:
        FileNotFoundError: The metadata or recordings they name are missing.
        ValueError: The metadata are not MusicNet's.
    """
    path = musicnet_dir / _METADATA
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist. --musicnet_dir is the folder with MusicNet's {_METADATA} and "
            f"its folders {' and '.join(_SOUND_FOLDERS)}."
        )
    domains: dict[str, dict[Path, float]] = {name: {} for name in DOMAINS.values()}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]!r}: it is not MusicNet's metadata.")
        for row in reader:
            domain = DOMAINS.get((row["composer"], row["ensemble"]))
            if domain is not None:
                try:
                    seconds = float(row["seconds"])
                except (TypeError, ValueError) as error:
                    line = f"{path}, line {reader.line_num}"
                    raise ValueError(f"{line}: seconds is {row['seconds']!r}.") from error
                domains[domain][_find_recording(musicnet_dir, row["id"])] = seconds
    for name, recordings in domains.items():
        if not recordings:
            raise ValueError(f"{path} names no recording of {name}: it is not MusicNet's metadata.")
    return domains


def _find_recording(musicnet_dir: Path, recording_id: str) -> Path:
    candidates = [musicnet_dir / folder / f"{recording_id}.wav" for folder in _SOUND_FOLDERS]
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{_METADATA} names recording {recording_id}, but neither {candidates[0]} nor "
        f"{candidates[1]} exists. Download MusicNet again."
    )


def place(recording: Path, target: Path, *, link: Link) -> None:
    """Links or copies a recording; one that is already there stays.

    Raises:
        FileExistsError: Something else has that name.
    """
    if target.is_file():
        if target.stat().st_size == recording.stat().st_size:
            return
        raise FileExistsError(f"{target} exists and is not {recording}. Remove it.")
    # Under another name first, so that a copy that is interrupted does not look like a recording.
    with storage.whole_file(target) as incomplete:
        if link == "hard":
            try:
                os.link(recording, incomplete)
            except OSError as error:
                raise OSError(
                    f"{target} cannot be a hard link to {recording} ({error.strerror}). Use "
                    "--link=symbolic or --link=copy."
                ) from error
        elif link == "symbolic":
            incomplete.symlink_to(recording.resolve())
        else:
            shutil.copyfile(recording, incomplete)


def main() -> None:
    """Makes the folders as the flags say and prints what is in each."""
    domains = read_domains(Path(flags.FLAGS.musicnet_dir))
    audio_dir = Path(flags.FLAGS.audio_dir)
    for name, recordings in domains.items():
        (audio_dir / name).mkdir(parents=True, exist_ok=True)
        for recording in recordings:
            place(recording, audio_dir / name / recording.name, link=flags.FLAGS.link)
        minutes = sum(recordings.values()) / 60
        command_line.say(f"{name:<28}  {len(recordings):>3} recordings  {minutes:>6.1f} minutes")
    command_line.say(f"Written: {audio_dir}")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
