r"""Makes a sharded dataset out of folders of sound files, one folder for each domain.

    python -m data_prep.build --audio_dir=music --data_dir=data

Each folder in --audio_dir is a domain, and each sound file anywhere in it a track: wav, flac, mp3,
ogg, opus, aiff, and with `pip install "umt_jax[av]"` m4a and whatever else FFmpeg reads. Files that
cannot be used are left out and named at the end; the exit status is 1 if some cannot be read. Run
it again after adding folders or files: only what changed is built.

Both folders may be on gs://, s3:// or whatever else `etils.epath` knows. --beam_runner has workers
of Apache Beam do the work instead of this machine (`pip install "umt_jax[beam]"`):

    python -m data_prep.build --audio_dir=gs://mine/music --data_dir=gs://mine/data \
        --beam_runner=DataflowRunner --beam_options="--project=mine --region=europe-west1 ..."
"""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from absl import flags
from etils import epath

from data_prep import domains, process_workers, staging
from data_prep.process_workers import RunAll
from data_prep.settings import Recipe
from data_prep.tracks import LEAST_TRAIN, SPLIT_VERSION, SPLITS
from umt_jax import command_line, config_flags, path_flags, storage, text_tables
from umt_jax.config import DATASET_NAME


def define_flags() -> None:
    """Declares the flags of this command, and only when it is the command that runs."""
    defaults = Recipe()
    path_flags.define(
        "audio_dir", None, "Folder with one folder of sound files for each domain.", required=True
    )
    path_flags.define("data_dir", None, "Folder of the datasets.", required=True)
    config_flags.define(defaults, leave_out=("splits",))
    # What it was called in earlier versions.
    flags.DEFINE_alias("loudness_dbfs", "rms_dbfs")
    flags.DEFINE_list(
        "splits",
        [f"{share:g}" for share in defaults.splits],
        config_flags.help_by_field(Recipe)["splits"],
    )
    flags.DEFINE_integer(
        "num_workers", os.cpu_count() or 1, "Worker processes; all cores by default.", lower_bound=1
    )
    flags.DEFINE_string(
        "beam_runner",
        None,
        "Runner of Apache Beam that does the work: DirectRunner, DataflowRunner, FlinkRunner, "
        "SparkRunner. Left out: --num_workers processes of this machine do.",
    )
    flags.DEFINE_string("beam_options", "", "Options of that runner, as its own command line.")
    flags.DEFINE_bool(
        "overwrite", False, "Rebuild domains that --data_dir has with other settings."
    )


def recipe_from_flags() -> Recipe:
    """Returns the settings of the command line.

    Raises:
        ValueError: A value is out of range.
    """
    values = flags.FLAGS.flag_values_dict()
    try:
        values["splits"] = tuple(map(float, values["splits"]))
    except ValueError as error:
        raise ValueError(
            f"--splits={','.join(values['splits'])} are not numbers. Give shares, such as "
            "--splits=0.8,0.1,0.1."
        ) from error
    return Recipe(**{field.name: values[field.name] for field in dataclasses.fields(Recipe)})


def table(metadata: Mapping[str, staging.Metadata], *, built: Collection[str]) -> list[str]:
    """Returns lines: what each domain holds, and below that the files that were left out."""
    heads, rows = ("domain", "tracks", "minutes", *SPLITS, ""), []
    left_out = []
    warnings = [line for item in metadata.items() for line in little_to_train_on(*item)]
    for name, domain in metadata.items():
        seconds = sum(track["seconds"] for track in domain["tracks"])
        counts = [sum(t["num_segments"][split] for t in domain["tracks"]) for split in SPLITS]
        status = "built" if name in built else "up to date"
        rows.append((name, len(domain["tracks"]), f"{seconds / 60:.1f}", *counts, status))
        left_out += [f"  {name}/{file['name']} {file['reason']}" for file in domain["left_out"]]
    lines = text_tables.aligned(heads, rows, last="left").splitlines()
    lines += ["" for _ in warnings[:1]] + warnings
    if left_out:
        lines += ["", f"Left out ({len(left_out)}):", *left_out]
    return lines


def little_to_train_on(name: str, domain: staging.Metadata) -> Iterator[str]:
    """Yields a line if less than 70 % of a domain's music, in segments, is left to train on."""
    segment_s = domain["segment_samples"] / domain["sample_rate_hz"]
    total = sum(track["seconds"] // segment_s for track in domain["tracks"])
    num_train = sum(track["num_segments"]["train"] for track in domain["tracks"])
    if num_train >= LEAST_TRAIN * total:
        return
    share = num_train / total
    advice = "as its tracks are few or short: add more of them."
    if domain.get("splits", Recipe.splits)[0] < LEAST_TRAIN:
        advice = "as --splits asked for."
    if domain.get("split_version", 1) < SPLIT_VERSION:
        advice = (
            "as an earlier version counted tracks, not minutes. It can be trained on as it is; "
            f"to divide it anew, remove {DATASET_NAME}/{name} from --data_dir and build again."
        )
    yield f"Of the music of {name} {share:.0%} is left to train on, {advice}"


def check_all_could_be_read(metadata: Mapping[str, staging.Metadata]) -> None:
    """Raises `ValueError`, which decides the exit status, if recordings of a domain are missing."""
    left_out = [file for domain in metadata.values() for file in domain["left_out"]]
    # Earlier versions did not tell them from what is short, silent or a copy.
    num_unread = sum(not file.get("could_be_read", True) for file in left_out)
    if num_unread:
        total = len(left_out) + sum(len(domain["tracks"]) for domain in metadata.values())
        raise ValueError(
            f"{num_unread} of {total} files could not be read, as said above. The datasets are "
            "complete without them. Repair or remove these files and build again."
        )


@contextlib.contextmanager
def runner_from_flags(data_dir: epath.Path) -> Iterator[RunAll]:
    """Gives the function that makes a build's calls, here or on workers of Apache Beam.

    Raises:
        ValueError: There is no such runner, or Apache Beam is not installed.
    """
    args = flags.FLAGS
    if args.beam_runner is None:
        if args.beam_options:
            raise ValueError("--beam_options are those of a runner: name it with --beam_runner.")
        with process_workers.run_all_here(args.num_workers) as run_all:
            yield run_all
        return
    from data_prep import beam_workers  # Here, since it takes seconds.

    with beam_workers.run_all_with_beam(args.beam_runner, args.beam_options, data_dir) as run_all:
        yield run_all


def check_folders(audio_dir: epath.Path, data_dir: epath.Path) -> None:
    """Checks that the datasets do not go where the recordings are.

    Raises:
        ValueError: --data_dir is --audio_dir, or lies in it, by whatever names and links.
    """
    if not audio_dir.exists():
        return  # Which is said elsewhere.
    if storage.is_local(audio_dir) and storage.is_local(data_dir):
        path = Path(os.path.realpath(data_dir))
        within = any(
            folder.exists() and os.path.samefile(folder, audio_dir)
            for folder in (path, *path.parents)
        )
    else:
        within = audio_dir in (data_dir, *data_dir.parents)
    if within:
        raise ValueError(
            f"--data_dir={data_dir} lies in --audio_dir={audio_dir}, where each folder is a domain "
            "of recordings. Nothing was changed. Give a folder outside of it."
        )


def main() -> None:
    """Builds as the flags say and prints the table."""
    args = flags.FLAGS
    audio_dir, data_dir = storage.path(args.audio_dir), storage.path(args.data_dir)
    check_folders(audio_dir, data_dir)
    recipe = recipe_from_flags()
    try:
        with runner_from_flags(data_dir) as run_all:
            built = domains.build(
                audio_dir, data_dir, recipe, run_all=run_all, overwrite=args.overwrite
            )
    except KeyboardInterrupt:
        sys.exit("Interrupted. Domains that were finished are kept; start again for the others.")
    metadata = staging.read_metadata(data_dir)
    command_line.say(*table(metadata, built=built))
    for line in domains.passed_over(audio_dir, data_dir):
        command_line.say(line)
    command_line.say(f"Written: {data_dir}")
    check_all_could_be_read(metadata)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
