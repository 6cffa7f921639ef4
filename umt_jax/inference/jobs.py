"""Which files a command reads, and where what it makes of them goes."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from umt_jax.audio import sound_files
from umt_jax.data import latent_file


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
    one of `outputs`, where that is a folder in it.

    Raises:
        FileNotFoundError: An input is not there, or a folder has no such file.
    """
    found = []
    written = [Path(output).resolve() for output in outputs if output]
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            files = _outside(sound_files.find_sound_files(path), path, written)
            files = files or _outside(latent_file.find(path), path, written)
            if not files:
                raise FileNotFoundError(f"--input={name} is a folder without any sound file.")
            found += [(file, file.relative_to(path)) for file in files]
        elif path.is_file():
            found.append((path, Path(path.name)))
        else:
            raise FileNotFoundError(f"--input={name} is neither a file nor a folder.")
    return without_collisions(found)


def _outside(files: list[Path], folder: Path, written: Sequence[Path]) -> list[Path]:
    """Drops what lies in a folder that is written to, if that is one within `folder`."""
    within = {path for path in written if folder.resolve() in path.parents}
    return [file for file in files if within.isdisjoint(file.resolve().parents)]


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


def from_latents(job: Job) -> Job:
    """Returns the job when its latents are there."""
    return Job(job.latents, job.outputs)


def unfinished(jobs: Sequence[Job]) -> list[Job]:
    """Returns the jobs without what they have to write that exists, which is whole."""
    left = []
    for job in jobs:
        existing = {path for path in files_of([job]) if path.exists()}
        outputs = {name: path for name, path in job.outputs.items() if path not in existing}
        rest = Job(job.source, outputs, job.latents)
        if rest.latents in existing:
            rest = from_latents(rest)
        if rest.outputs or rest.latents:
            left.append(rest)
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
