"""Folders of sound files -> datasets: each file is scanned, then split, then cut into examples."""

import functools
import itertools
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence

from absl import logging
from etils import epath
from tqdm import tqdm

from data_prep import augment, shards, staging, tfds_files, tracks
from data_prep.process_workers import RunAll
from data_prep.settings import Recipe
from data_prep.tracks import SPLITS, Domain, SoundFile
from umt_jax import command_line
from umt_jax.audio import sound_files
from umt_jax.config import DATASET_NAME, domain_name


def find_domains(audio_dir: epath.Path, *, data_dir: epath.Path) -> dict[str, epath.Path]:
    """Returns the folder of each domain.

    The name of a domain is that of its folder, with "_" for what is neither a letter of any script
    nor a digit: flags and file names do not take it everywhere.

    Raises:
        FileNotFoundError: There is no such folder, or no domain in it.
        ValueError: Two domains would have one name.
    """
    if not audio_dir.is_dir():
        raise FileNotFoundError(f"--audio_dir={audio_dir} is not a folder.")
    folders: dict[str, epath.Path] = {}
    entries = sorted(audio_dir.iterdir())
    for folder in _domain_folders(audio_dir, data_dir):
        name = _name(folder)
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
    strays = [
        path.name for path in entries if sound_files.is_sound_file(path.name) and not path.is_dir()
    ]
    if strays:
        names = command_line.printable(", ".join(strays))
        logging.warning("Left out, as they are in no domain's folder: %s", names)
    return folders


def _name(folder: epath.Path) -> str:
    return "".join(
        character if character in "_-" or unicodedata.category(character)[0] in "LMN" else "_"
        for character in domain_name(folder.name)
    )


def named_as_built(
    folders: Mapping[str, epath.Path], existing: Mapping[str, staging.Metadata]
) -> dict[str, epath.Path]:
    """Returns the folders, those under their older names whose domains were built under them.

    Before names kept all their letters, they kept those of ASCII alone. Runs that were trained on
    such a domain know it by that name.
    """
    older: dict[str, list[str]] = {}
    for name, folder in folders.items():
        as_before = re.sub(r"[^A-Za-z0-9_-]", "_", folder.name)
        if as_before == name or as_before not in existing or name in existing:
            continue
        built_from = [*existing[as_before]["tracks"], *existing[as_before]["left_out"]]
        available = {path.relative_to(folder).as_posix() for path in tracks.find(folder)}
        if available & {file["name"] for file in built_from}:
            older.setdefault(as_before, []).append(name)
    renamed = {}
    for as_before, names in older.items():
        if len(names) == 1 and as_before not in folders:
            renamed[names[0]] = as_before
            logging.info(
                "Folder %s stays the domain %s, as an earlier version named it. Without %s "
                "in --data_dir it would be %s.",
                folders[names[0]].name,
                *(as_before, f"{DATASET_NAME}/{as_before}", names[0]),
            )
        else:
            logging.warning(
                "Domain %s, as an earlier version named it, was made of one of the folders %s, "
                "which are domains of their own now. Remove %s from --data_dir.",
                *(as_before, " and ".join(names), f"{DATASET_NAME}/{as_before}"),
            )
    return {renamed.get(name, name): folder for name, folder in folders.items()}


def _domain_folders(audio_dir: epath.Path, data_dir: epath.Path) -> list[epath.Path]:
    return [
        folder
        for folder in sorted(audio_dir.iterdir())
        if folder.is_dir()
        and not folder.name.startswith(".")
        and os.path.realpath(folder) != os.path.realpath(data_dir)
    ]


def passed_over(audio_dir: epath.Path, data_dir: epath.Path) -> list[str]:
    """Returns a line for each domain with files or others in its folder that it is not made of."""
    lines = map(sound_files.passed_over, _domain_folders(audio_dir, data_dir))
    return [line for line in lines if line]


def identify_files(
    run_all: RunAll, folders: Mapping[str, epath.Path]
) -> dict[str, list[SoundFile]]:
    """Returns the sound files of each domain, with a hash of each.

    Raises:
        ValueError: A domain has none.
    """
    paths = {name: tracks.find(folder) for name, folder in folders.items()}
    for name, found in paths.items():
        if not found:
            raise ValueError(
                f"{folders[name]} holds no sound files. Each folder in --audio_dir is a domain: "
                "fill this one or remove it."
            )
    results = run_all(
        [
            functools.partial(tracks.identify, path, folder=folders[name])
            for name, found in paths.items()
            for path in found
        ]
    )
    return {name: list(itertools.islice(results, len(found))) for name, found in paths.items()}


def scan(run_all: RunAll, files: Mapping[str, Sequence[SoundFile]], recipe: Recipe) -> list[Domain]:
    """Decodes every file once, to learn what each split of each domain gets.

    Raises:
        ValueError: Nothing is left for a split of a domain.
    """
    calls = [
        functools.partial(tracks.scan, file, recipe)
        for of_domain in files.values()
        for file in of_domain
    ]
    results = iter(tqdm(run_all(calls), "Reading", len(calls), unit=" files", disable=None))
    scanned = {name: list(itertools.islice(results, len(files[name]))) for name in files}
    return [tracks.plan_domain(name, scanned[name], recipe) for name in files]


def write(
    run_all: RunAll, domains: Sequence[Domain], recipe: Recipe, staged: staging.Staging
) -> None:
    """Writes the shards of all domains, and installs each domain after its last shard."""
    planned = {domain.name: shards.plan(domain, recipe) for domain in domains}
    for name in planned:
        staged.folder(name).mkdir(parents=True, exist_ok=True)
    # One line of work for all domains, in which the workers go on to the next domain while the
    # last shard of one is still in the making.
    results = run_all(
        [
            functools.partial(shards.write, shard, recipe=recipe, folder=staged.folder(name))
            for name, of_domain in planned.items()
            for shard in of_domain
        ]
    )
    num_segments = sum(shard.num_examples for of_domain in planned.values() for shard in of_domain)
    with tqdm(total=num_segments, desc="Writing", unit=" segments", disable=None) as progress:
        for domain in domains:
            lengths: dict[str, list[int]] = {split: [] for split in SPLITS}
            num_bytes = dict.fromkeys(SPLITS, 0)
            for shard in planned[domain.name]:
                num_bytes[shard.split] += next(results)
                lengths[shard.split].append(shard.num_examples)
                progress.update(shard.num_examples)
            folder = staged.folder(domain.name)
            tfds_files.write_information(domain, lengths, num_bytes, recipe, folder=folder)
            staged.install(domain.name)


def build(
    audio_dir: epath.Path,
    data_dir: epath.Path,
    recipe: Recipe,
    *,
    run_all: RunAll,
    overwrite: bool,
) -> list[str]:
    """Brings the datasets of all domains up to date.

    Args:
        audio_dir: Folder with a folder for each domain.
        data_dir: Folder of the datasets.
        recipe: Settings.
        run_all: Makes the calls that read and write much.
        overwrite: Whether domains that were built with other settings are built again.

    Returns:
        The domains that were built.
    """
    existing = staging.read_metadata(data_dir)
    folders = named_as_built(find_domains(audio_dir, data_dir=data_dir), existing)
    staging.check_settings(existing, recipe, rebuilt=folders if overwrite else ())
    files = {
        name: of_domain
        for name, of_domain in identify_files(run_all, folders).items()
        if not staging.is_up_to_date(existing.get(name), of_domain, recipe)
    }
    if files:
        with staging.staging(data_dir) as staged:
            domains = scan(run_all, files, recipe)
            logging.info("Compiling librosa's effects: up to a minute, once in an installation.")
            augment.compile_effects()
            write(run_all, domains, recipe, staged)
    return list(files)
