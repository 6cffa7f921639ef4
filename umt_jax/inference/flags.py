"""The flags of `python -m umt_jax.infer`, and which of them go together."""

import os
from pathlib import Path

from absl import flags

from umt_jax import path_flags
from umt_jax.audio import sound_files
from umt_jax.checkpoints import demo_model
from umt_jax.inference import generation_flags

flags.disclaim_key_flags()  # They are flags of the command, whose --help lists them.

_LATENCIES = ("high", "low")


def define_flags() -> None:
    """Declares this command's flags."""
    demo_model.define_flags()
    path_flags.define_list(
        "input",
        None,
        "Sound files, .npz files of --save_latents, and folders of them, separated by commas, "
        "or --input again for each; or "
        "'-', raw samples on standard input.",
        required=True,
    )
    flags.DEFINE_integer(
        "input_rate",
        None,
        "Samples per second of --input=-. Default: the model's rate.",
        lower_bound=1,
    )
    flags.DEFINE_string(
        "latency",
        "high",
        "Of --input=-: high encodes half a second at once; low encodes each latent frame as soon "
        "as the sound behind it that the encoder needs is there, in C++ and on one core, for one "
        "domain. The samples are the same.",
    )
    flags.DEFINE_list("domain", None, "Domains to translate to, separated by commas, or 'all'.")
    path_flags.define(
        "output",
        None,
        "Folder to write to, made if need be; or, for one translation, a file that ends in one of "
        "the formats, as cello.wav; or '-', raw samples at the model's rate on standard output.",
    )
    path_flags.define(
        "save_latents",
        None,
        "Folder for the latents of each input, an .npz file each, which --input takes in place of "
        "the sound. Goes without --domain and --output, too.",
    )
    generation_flags.define_sampling()
    generation_flags.define_outputs()
    flags.DEFINE_bool(
        "resume",
        False,
        "Go on with a run that was stopped: outputs that exist are whole and stay as they are, "
        "whatever they were made with. A recording whose output is not there is begun again.",
    )
    flags.DEFINE_integer(
        "streams",
        8,
        "Recordings, or segments of them, translated at once. More are faster in total, and each "
        "is done later.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "parallel_segments",
        1,
        "Cut each long recording into so many segments, translated at once. An approximation: what "
        "a segment knows of the one before is the latents of up to a second, and a cross-fade "
        "of 20 ms hides the seam.",
        lower_bound=1,
    )
    generation_flags.define_engine(weights=True)


def output_file(args: flags.FlagValues) -> Path | None:
    """Returns the one file that --output names, or None if it is a folder or standard output.

    Raises:
        ValueError: --format says another format.
    """
    path = Path(args.output or "")
    extension = path.suffix[1:].lower()
    if extension not in sound_files.WRITTEN_FORMATS or path.is_dir():
        return None
    if args["format"].present and args.format != extension:
        raise ValueError(
            f"--output={path} is to be a file of another format than --format={args.format}. Leave "
            "--format out, or name a folder."
        )
    return path


def check_flags(args: flags.FlagValues) -> None:
    """Raises `ValueError` for flags that cannot go together."""
    for name in ("input", "domain"):
        if args[name].value == []:
            raise ValueError(f"--{name} is empty. {args[name].help}")
    if (args.domain is None) != (args.output is None):
        raise ValueError("--domain and --output go together: what to translate to, and where.")
    if args.domain is None and args.save_latents is None:
        raise ValueError(
            "Nothing is asked for. Name --domain and --output to translate, --save_latents to keep "
            "latents, or all three."
        )
    if args.save_latents is not None and args.input == ["-"]:
        raise ValueError(
            "--save_latents keeps latents of files; --input=- has no name and no end. Leave one "
            "out."
        )
    if args.overwrite and args.resume:
        raise ValueError(
            "--overwrite makes all outputs again, --resume none that exists. Pass one."
        )
    if "-" in args.input and len(args.input) > 1:
        raise ValueError("--input=- is standard input, and goes alone. Write a file - as ./-.")
    if args.input == ["-"] and args.parallel_segments > 1:
        raise ValueError(
            "--parallel_segments cuts recordings whose end is known; --input=- has none. Leave it "
            "out."
        )
    if args.latency not in _LATENCIES:
        raise ValueError(f"--latency={args.latency} is not known. Use {' or '.join(_LATENCIES)}.")
    if args.latency == "low":
        _check_low_latency(args)
    if args.input != ["-"] and args.input_rate is not None:
        raise ValueError("--input_rate is for --input=-. Sound files say their rate themselves.")
    if args.output == "-" and os.isatty(1):
        raise ValueError("--output=- would write samples to a terminal. Pipe it into something.")


def _check_low_latency(args: flags.FlagValues) -> None:
    if args.input != ["-"]:
        raise ValueError(
            "--latency=low is for --input=-, sound that comes while it is translated. Leave it out."
        )
    if args.engine not in ("auto", "native"):
        raise ValueError(
            f"--latency=low plays in C++, not with --engine={args.engine}. Leave one of them out."
        )
    if args.threads not in (None, 1):
        raise ValueError(
            f"--latency=low plays by one thread, not by --threads={args.threads}. Leave one of "
            "them out."
        )
    if args.weights != "float32":
        raise ValueError(
            f"--latency=low keeps weights in float32, not --weights={args.weights}. Leave one of "
            "them out."
        )
