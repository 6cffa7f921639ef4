"""Finds the input files of a command and plans the paths of its outputs."""

import collections
import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path

from etils import epath

from umt_jax import command_line, storage
from umt_jax.audio import sound_files
from umt_jax.data import latent_file

# Of names, where a file system does not tell: that of nearly all of them.
_MOST_BYTES = 255

_WAY_WITH_COMMAS = (
    " Commas separate inputs: a name that has one is given alone, in an --input of its own, or in "
    """double quotes within the flag: --input='"a, b.wav",c.wav'."""
)


@dataclasses.dataclass(frozen=True)
class Job:
    """One recording to translate.

    Attributes:
        source: Its sound file, or its latents; None for standard input.
        outputs: By domain, what to write; None for standard output.
        latents: Where to keep its latents, if anywhere.
    """

    source: Path | None
    outputs: dict[str, Path | None]
    latents: Path | None = None


def find_inputs(inputs: Sequence[str], outputs: Sequence[str | None]) -> list[tuple[Path, Path]]:
    """Returns each input file and its place in the output, a relative path without extension.

    Those of a folder are its sound files or, if it has none, its files of latents; not what lies in
    one of `outputs`, where that is a folder in it. Folders in it that cannot be entered are inputs
    as well: reading them says so.

    Raises:
        FileNotFoundError: An input is not there, or a folder has no such file.
        OSError: A folder that is an input cannot be entered.
    """
    found = []
    written = [Path(output).resolve() for output in outputs if output]
    for name in inputs:
        path = Path(name)
        if os.path.isdir(path):
            files = _inputs_below(path, written)
            if not files:
                raise FileNotFoundError(f"--input={name} is a folder without any sound file.")
            found += [(file, file.relative_to(path)) for file in files]
        elif os.path.isfile(path):
            found.append((path, Path(path.name)))
        else:
            way = _WAY_WITH_COMMAS if len(inputs) > 1 else ""
            raise FileNotFoundError(f"--input={name} is neither a file nor a folder.{way}")
    return without_collisions(found)


def _inputs_below(folder: Path, written: Sequence[Path]) -> list[Path]:
    """Returns the inputs in a folder, sorted, without what lies in a folder to write to in it."""
    within = {path for path in written if folder.resolve() in path.parents}

    def outside(paths: Sequence[epath.Path]) -> list[Path]:
        return [Path(p) for p in paths if within.isdisjoint(Path(p).resolve().parents)]

    files, closed = map(outside, storage.files_and_closed_below(folder))
    sounds = [file for file in files if sound_files.is_sound_file(file.name)]
    latents = [file for file in files if latent_file.is_latent_file(file)]
    return (sounds or latents) + closed


def without_collisions(found: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
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
    output: str | None,
    extension: str,
    *,
    latents: str | None = None,
) -> list[Job]:
    """Returns what to write: for each source and its place, a file for each domain.

    Args:
        sources: Each file, and its place.
        domains: What to translate to.
        output: Folder of the translations; `-` for standard output, None only without domains.
        extension: That of the translations, without the dot.
        latents: Folder of the latents, if they are to be kept.
    """

    def path(folder: str | None, place: Path, ending: str) -> Path | None:
        if folder is None or folder == "-":
            return None
        return Path(folder, place.with_name(f"{place.name}.{ending}"))

    return [
        Job(
            source,
            {domain: path(output, place, f"{domain}.{extension}") for domain in domains},
            path(latents, place, "npz"),
        )
        for source, place in sources
    ]


def files_of(jobs: Sequence[Job]) -> list[Path]:
    """Returns all files to write."""
    return [path for job in jobs for path in (job.latents, *job.outputs.values()) if path]


def check_formats(jobs: Sequence[Job], sample_rate_hz: int) -> None:
    """Raises `ValueError` if sound of this rate cannot be written to one of the outputs."""
    for path in (path for job in jobs for path in job.outputs.values() if path):
        sound_files.check_format(path, sample_rate_hz)


def from_latents(job: Job) -> Job:
    """Returns the job when its latents are there."""
    return Job(job.latents, job.outputs)


def writable(jobs: Sequence[Job]) -> tuple[list[Job], list[str]]:
    """Drops files that can never be written where they are to be.

    Returns:
        The jobs that have still something to write, and a sentence about each file dropped: its
        name is too long for the file system, or a folder has it.
    """
    obstacles = {path: _obstacle(path) for path in files_of(jobs)}
    return _without(jobs, {path: reason for path, reason in obstacles.items() if reason})


def make_folders(jobs: Sequence[Job]) -> tuple[list[Job], list[str]]:
    """Makes the folders of all files to write; drops, as `writable` does, those it cannot make.

    Raises:
        OSError: The disk is full, or none of the folders can be made.
    """
    errors: dict[Path, OSError] = {}
    folders = sorted({path.parent for path in files_of(jobs)})
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            errors[folder] = error
            if storage.is_of_full_disk(error):
                raise
    if folders and len(errors) == len(folders):
        raise errors[folders[0]]
    return _without(
        jobs,
        {
            path: f"could not be written: {command_line.message(errors[path.parent])}"
            for path in files_of(jobs)
            if path.parent in errors
        },
    )


def _without(jobs: Sequence[Job], reasons: dict[Path, str]) -> tuple[list[Job], list[str]]:
    left = []
    for job in jobs:
        outputs = {name: path for name, path in job.outputs.items() if path not in reasons}
        rest = Job(job.source, outputs, job.latents if job.latents not in reasons else None)
        if rest.outputs or rest.latents:
            left.append(rest)
    return left, [f"{path} {reason}" for path, reason in reasons.items()]


def _obstacle(path: Path) -> str:
    """Returns why a file cannot be written, completing the sentence that its name begins."""
    num_bytes, most = len(os.fsencode(path.name)), _most_bytes(path.parent)
    if num_bytes > most:
        return (
            f"has a name of {num_bytes} bytes, but the file system takes {most}: shorten that of "
            "the input."
        )
    if os.path.isdir(path):
        return "is a folder, where a file is to be written: move it, or give another --output."
    return ""


@functools.cache
def _most_bytes(folder: Path) -> int:
    """Returns how long names may be in a folder, which may be made yet."""
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError):
        return _MOST_BYTES


def unfinished(jobs: Sequence[Job]) -> list[Job]:
    """Returns the jobs without what they have to write that exists, which is whole."""
    left = []
    for job in jobs:
        existing = {path for path in files_of([job]) if os.path.exists(path)}
        outputs = {name: path for name, path in job.outputs.items() if path not in existing}
        rest = Job(job.source, outputs, job.latents)
        if rest.latents in existing:
            rest = from_latents(rest)
        if rest.outputs or rest.latents:
            left.append(rest)
    return left


def check_absent(jobs: Sequence[Job]) -> None:
    """Raises `FileExistsError` if an output already exists."""
    existing = [path for path in files_of(jobs) if os.path.exists(path)]
    if existing:
        others = f" and {len(existing) - 1} more exist" if len(existing) > 1 else " exists"
        raise FileExistsError(
            f"{existing[0]}{others} already. Pass --overwrite to replace what exists, --resume to "
            "make what is missing, or another --output."
        )
