"""Translates sound files: each input, whole, into each domain asked for.

    python -m umt_jax.infer --checkpoint=runs/demo --input=song.mp3 --domain=all --output=out

writes out/song.<Domain>.wav for every domain. Folders are searched for sound files, and keep their
subfolders in the output. `-` stands for standard input or output, signed 16-bit little-endian mono
samples without a header, translated as they come:

    ... | python -m umt_jax.infer --checkpoint=runs/demo --input=- --domain=Cello --output=- | ...
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import tqdm
from absl import flags

from umt_jax import audio, checkpoint, command_line, outputs, pcm, places, translator

# Without the total: it is a guess from the files' headers, and tqdm drops it once it is exceeded.
_BAR_FORMAT = "{l_bar}{bar}| {n:.1f} s of sound [{elapsed}<{remaining}]"


def define_flags() -> None:
    """Declares this command's flags."""
    flags.DEFINE_string(
        "checkpoint", None, "Folder of a training run (its --workdir).", required=True
    )
    flags.DEFINE_integer(
        "step", None, "Step of the checkpoint to use. Default: the best by validation loss."
    )
    flags.DEFINE_list(
        "input",
        None,
        "Sound files, and folders of them, separated by commas; or '-', raw samples on standard "
        "input.",
        required=True,
    )
    flags.DEFINE_integer(
        "input_rate",
        None,
        "Samples per second of --input=-. Default: the model's rate.",
        lower_bound=1,
    )
    flags.DEFINE_list(
        "domain", None, "Domains to translate to, separated by commas, or 'all'.", required=True
    )
    flags.DEFINE_string(
        "output",
        None,
        "Folder to write to, made if need be; or '-', raw samples at the model's rate on standard "
        "output.",
        required=True,
    )
    flags.DEFINE_float(
        "temperature",
        1.0,
        "Scale of the randomness; 0 takes the likeliest code every time.",
        lower_bound=0.0,
    )
    flags.DEFINE_integer("seed", 0, "Decides the random numbers.", lower_bound=0)
    flags.DEFINE_enum("format", "wav", ["wav", "flac", "ogg"], "Format of the output.")
    flags.DEFINE_bool("overwrite", False, "Replace outputs that exist.")
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
    flags.DEFINE_string("engine", "auto", "What generates: auto, scan, native or pallas.")
    flags.DEFINE_string(
        "weights", "float32", "Type in which native and pallas keep weights: float32 or bfloat16."
    )


def main() -> None:
    """Translates as the flags say."""
    args = flags.FLAGS
    _check_flags(args)
    command_line.use_compilation_cache()
    config = checkpoint.read_config(args.checkpoint, args.step)
    jobs = _plan(args, config.domains)
    if not jobs:
        print("Nothing is left to do: all outputs exist.")
        return
    standard_output = pcm.take_standard_output() if args.output == "-" else None
    model = translator.load(
        args.checkpoint,
        domains=[name for name in config.domains if any(name in job.outputs for job in jobs)],
        step=args.step,
        engine=args.engine,
        weights=args.weights,
    )
    for folder in sorted({path.parent for path in places.files_of(jobs)}):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        translate(
            model,
            jobs,
            temperature=args.temperature,
            seed=args.seed,
            num_streams=args.streams,
            parallel_segments=args.parallel_segments,
            standard_input=pcm.Reader(0, sample_rate_hz=args.input_rate or model.sample_rate_hz),
            standard_output=standard_output,
        )
    except BrokenPipeError:
        print("Ended: whatever read --output=- has closed it.", file=sys.stderr)


def _check_flags(args: flags.FlagValues) -> None:
    """Raises `ValueError` for flags that cannot go together."""
    for name in ("input", "domain"):
        if not args[name].value:
            raise ValueError(f"--{name} is empty. {args[name].help}")
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
    if args.input != ["-"] and args.input_rate is not None:
        raise ValueError("--input_rate is for --input=-. Sound files say their rate themselves.")
    if args.output == "-" and os.isatty(1):
        raise ValueError("--output=- would write samples to a terminal. Pipe it into something.")


def _plan(args: flags.FlagValues, all_domains: Sequence[str]) -> list[places.Job]:
    """Returns what to translate and to write, by the flags."""
    domains = all_domains if args.domain == ["all"] else tuple(dict.fromkeys(args.domain))
    translator.check_domains(domains, all_domains)
    sources: list[tuple[Path | None, Path]] = [(None, Path("stdin"))]
    if args.input != ["-"]:
        sources = list(places.find_inputs(args.input, args.output))
    if args.output == "-":
        if len(sources) > 1 or len(domains) > 1:
            raise ValueError(
                f"--output=- takes one translation, not {len(sources)} inputs in {len(domains)} "
                "domains. Name one --input and one --domain."
            )
        return [places.Job(sources[0][0], {domains[0]: None})]
    jobs = places.plan(sources, domains, args.output, args.format)
    if args.resume:
        return places.unfinished(jobs)
    if not args.overwrite:
        places.check_absent(jobs)
    return jobs


def translate(
    model: translator.Translator,
    jobs: Sequence[places.Job],
    *,
    temperature: float,
    seed: int,
    num_streams: int,
    parallel_segments: int = 1,
    standard_input: pcm.Reader | None = None,
    standard_output: int | None = None,
) -> None:
    """Writes the translations of every job's recording.

    A recording that cannot be read leaves no output and does not stop the others.

    Raises:
        ValueError: Some could not be read; says which, after the others are written.
        BrokenPipeError: Nobody reads standard output any more.
    """
    rate_hz = model.sample_rate_hz
    is_live = any(job.source is None or None in job.outputs.values() for job in jobs)
    if is_live:
        print(
            f"The translation comes {model.latency_seconds:.2f} s behind its source.",
            file=sys.stderr,
            flush=True,
        )
    seconds_there = (audio.duration_seconds(job.source) for job in jobs if job.source)
    pieces = model.translate_recordings(
        (_blocks(job, standard_input, rate_hz) for job in jobs),
        temperature=temperature,
        seed=seed,
        num_streams=min(num_streams, parallel_segments * len(jobs)),
        parallel_segments=parallel_segments,
    )
    failures: list[str] = []
    num_samples, started = 0, time.monotonic()
    with (
        tqdm.tqdm(
            total=len(model.domains) * sum(seconds_there),
            bar_format=_BAR_FORMAT,
            disable=True if is_live else None,
        ) as progress,
        outputs.Outputs(jobs, model, standard_output) as under_way,
    ):
        for piece in pieces:
            under_way.write(piece)
            if piece.error:
                failures.append(str(piece.error))
            num_samples += piece.waveforms.size
            progress.update(piece.waveforms.size / rate_hz)
    # The time it takes, not that in which the source plays.
    waited = standard_input.waited_seconds if standard_input else 0.0
    seconds = time.monotonic() - started - waited
    made_seconds = num_samples / rate_hz
    print(
        f"{made_seconds:.1f} s of sound in {seconds:.1f} s, "
        f"{made_seconds / seconds:.2f} times real time."
    )
    if failures:
        raise ValueError(
            f"{len(failures)} of {len(jobs)} inputs could not be translated: " + "; ".join(failures)
        )


def _blocks(job, standard_input, rate_hz):
    """Returns a recording's blocks at the given rate."""
    if job.source is None:
        return audio.resample_blocks(standard_input.decode(), to_hz=rate_hz)
    return audio.read_blocks(job.source, sample_rate_hz=rate_hz)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
