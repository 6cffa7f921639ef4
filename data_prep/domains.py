"""Folders of sound files -> datasets: each file is scanned, then split, then cut into examples."""

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path

from absl import logging
from tqdm import tqdm

from data_prep import augment, builder, datasets, segments, tracks, workers
from data_prep.recipe import Recipe
from data_prep.tracks import SPLITS, Domain, SoundFile, Stretch
from umt_jax import audio


def find_domains(audio_dir: Path, *, data_dir: Path) -> dict[str, Path]:
    """Returns the folder of each domain.

    The name of a domain is that of its folder, with "_" for characters that flags and file names
    do not take everywhere.

    Raises:
        FileNotFoundError: There is no such folder, or no domain in it.
        ValueError: Two domains would have one name.
    """
    if not audio_dir.is_dir():
        raise FileNotFoundError(f"--audio_dir={audio_dir} is not a folder.")
    folders: dict[str, Path] = {}
    for folder in sorted(audio_dir.iterdir()):
        if (
            not folder.is_dir()
            or folder.name.startswith(".")
            or folder.resolve() == data_dir.resolve()
        ):
            continue
        name = re.sub(r"[^A-Za-z0-9_-]", "_", folder.name)
        for other in folders:
            if other.lower() == name.lower():
                raise ValueError(
                    f"Folders {folders[other].name!r} and {folder.name!r} of {audio_dir} would "
                    f"both be the domain {name}. Rename one of them."
                )
        folders[name] = folder
    if not folders:
        raise FileNotFoundError(
            f"{audio_dir} holds no folders. Each domain is a folder of sound files in it, such as "
            f"{audio_dir / 'Bach_Solo_Cello' / 'suite_1.wav'}."
        )
    strays = [path.name for path in audio.find_sound_files(audio_dir) if path.parent == audio_dir]
    if strays:
        logging.warning("Left out, as they are in no domain's folder: %s", ", ".join(strays))
    return folders


def identify_files(folder: Path) -> list[SoundFile]:
    """Returns the sound files of a domain's folder.

    Raises:
        ValueError: It has none.
    """
    paths = audio.find_sound_files(folder)
    if not paths:
        raise ValueError(
            f"{folder} holds no sound files. Each folder in --audio_dir is a domain: fill this one "
            "or remove it."
        )
    # Hashing releases the interpreter, so that threads will do.
    with futures.ThreadPoolExecutor() as pool:
        return list(pool.map(functools.partial(tracks.identify, folder=folder), paths))


def scan(
    pool: futures.Executor, files: Mapping[str, Sequence[SoundFile]], recipe: Recipe
) -> list[Domain]:
    """Decodes every file once, to learn what each split of each domain gets.

    Raises:
        ValueError: Nothing is left for a split of a domain.
    """
    calls = [
        functools.partial(tracks.scan, file, recipe)
        for of_domain in files.values()
        for file in of_domain
    ]
    results = iter(
        tqdm(workers.in_order(pool, calls), "Reading", len(calls), unit=" files", disable=None)
    )
    scanned = {name: list(itertools.islice(results, len(files[name]))) for name in files}
    return [tracks.plan_domain(name, scanned[name], recipe) for name in files]


def write(
    pool: futures.Executor,
    domains: Sequence[Domain],
    recipe: Recipe,
    *,
    data_dir: Path,
    staging: Path,
) -> None:
    """Makes the examples of all domains in worker processes and writes each domain in turn."""
    num_segments = [
        {split: sum(part.num_segments for part in domain.stretches[split]) for split in SPLITS}
        for domain in domains
    ]
    # One line of work for all domains, in which the workers go on to the next domain while the
    # last track of one is still in the making.
    examples = iter(
        tqdm(
            _examples(pool, domains, recipe, staging=staging),
            "Writing",
            sum(sum(of_split.values()) for of_split in num_segments),
            unit=" segments",
            disable=None,
        )
    )
    for domain, of_split in zip(domains, num_segments, strict=True):
        shards = {split: builder.shards(examples, of_split[split], recipe) for split in SPLITS}
        built = builder.write_dataset(domain, shards, recipe, data_dir=staging)
        datasets.install(built, data_dir, staging=staging)


def _examples(
    pool: futures.Executor, domains: Sequence[Domain], recipe: Recipe, *, staging: Path
) -> Iterator[segments.Example]:
    """Yields the examples of all domains, split after split."""
    stretches: list[Stretch] = []
    calls: list[Callable[[], Path]] = []
    for domain in domains:
        for split in SPLITS:
            for stretch in domain.stretches[split]:
                stretches.append(stretch)
                path = staging / f"{len(calls)}.examples"
                calls.append(
                    functools.partial(
                        segments.write_examples,
                        stretch,
                        domain=domain.name,
                        recipe=recipe,
                        path=path,
                    )
                )
    for stretch, path in zip(stretches, workers.in_order(pool, calls), strict=True):
        yield from segments.read_examples(stretch, recipe=recipe, path=path)


def build(
    audio_dir: Path, data_dir: Path, recipe: Recipe, *, num_workers: int, overwrite: bool
) -> list[str]:
    """Brings the datasets of all domains up to date.

    Returns:
        The domains that were built.
    """
    folders = find_domains(audio_dir, data_dir=data_dir)
    existing = datasets.read_metadata(data_dir)
    datasets.check_settings(existing, recipe, rebuilt=folders if overwrite else ())
    files = {name: identify_files(folder) for name, folder in folders.items()}
    files = {
        name: of_domain
        for name, of_domain in files.items()
        if not datasets.is_up_to_date(existing.get(name), of_domain, recipe)
    }
    if files:
        with datasets.staging(data_dir) as staging:
            logging.info("Compiling librosa's effects: up to a minute, once in an installation.")
            augment.compile_effects()
            with workers.worker_pool(num_workers, preload=segments.__name__) as pool:
                domains = scan(pool, files, recipe)
                write(pool, domains, recipe, data_dir=data_dir, staging=staging)
    return list(files)
