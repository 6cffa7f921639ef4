"""Which sound files a command reads, and where what it makes of them goes."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from umt_jax import audio


@dataclasses.dataclass(frozen=True)
class Job:
    """One recording to translate.

    Attributes:
        source: Its sound file; None for standard input.
        outputs: By domain, what to write; None for standard output.
    """

    source: Path | None
    outputs: dict[str, Path | None]


def find_inputs(inputs: Sequence[str], output: str) -> list[tuple[Path, Path]]:
    """Returns each sound file and its place in the output, a relative path without extension.

    Of a folder that `output` lies in, all but what is in `output`.

    Raises:
        FileNotFoundError: An input is not there, or a folder has no sound file.
    """
    found = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            files = _outside(audio.find_sound_files(path), path, Path(output))
            if not files:
                raise FileNotFoundError(f"--input={name} is a folder without any sound file.")
            found += [(file, file.relative_to(path)) for file in files]
        elif path.is_file():
            found.append((path, Path(path.name)))
        else:
            raise FileNotFoundError(f"--input={name} is neither a file nor a folder.")
    return _without_collisions(found)


def _outside(files: list[Path], folder: Path, output: Path) -> list[Path]:
    """Drops what lies in `output`, if that is a folder within `folder`."""
    if folder.resolve() not in output.resolve().parents:
        return files
    return [file for file in files if output.resolve() not in file.resolve().parents]


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


def plan(
    sources: Sequence[tuple[Path | None, Path]],
    domains: Sequence[str],
    output: str,
    extension: str,
) -> list[Job]:
    """Returns what to write: for each source and its place, a file for each domain."""

    def outputs(place: Path) -> dict[str, Path | None]:
        return {
            domain: Path(output) / place.with_name(f"{place.name}.{domain}.{extension}")
            for domain in domains
        }

    return [Job(source, outputs(place)) for source, place in sources]


def files_of(jobs: Sequence[Job]) -> list[Path]:
    """Returns all files to write."""
    return [path for job in jobs for path in job.outputs.values() if path]


def unfinished(jobs: Sequence[Job]) -> list[Job]:
    """Returns the jobs without the outputs that exist, which are whole."""
    left = []
    for job in jobs:
        existing = {path for path in files_of([job]) if path.exists()}
        outputs = {name: path for name, path in job.outputs.items() if path not in existing}
        if outputs:
            left.append(Job(job.source, outputs))
    return left


def check_absent(jobs: Sequence[Job]) -> None:
    """Raises `FileExistsError` if an output is there already."""
    existing = [path for path in files_of(jobs) if path.exists()]
    if existing:
        others = f" and {len(existing) - 1} more exist" if len(existing) > 1 else " exists"
        raise FileExistsError(
            f"{existing[0]}{others} already. Pass --overwrite to replace what exists, --resume to "
            "make what is missing, or another --output."
        )
