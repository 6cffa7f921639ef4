"""Translates sound files: each input, whole, into each domain asked for.

    python -m umt_jax.infer --checkpoint=runs/demo --input=song.mp3 --domain=all --output=out

writes `out/song.<Domain>.wav` for every domain. With one input and one --domain,
--output=cello.wav writes that file. Folders are searched for sound files, and their
subfolders reappear in the output. --save_latents=DIR keeps their latents, which --input accepts as
well. `-` is standard input or output: signed 16-bit little-endian mono samples without a header,
translated as they come. Sound files that are piped in (wav, flac and others) are translated once
the pipe is closed:

    ... | python -m umt_jax.infer --checkpoint=runs/demo --input=- --domain=Cello --output=- | ...

--latency=low translates them a latent frame at a time, not half a second.

Without --checkpoint the model that ships with umt_jax translates.
"""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tqdm
from absl import flags

from umt_jax import command_line, storage, translator
from umt_jax.audio import pcm, sound_files
from umt_jax.checkpoints import demo_model, reading
from umt_jax.config import Config, SamplingConfig
from umt_jax.data import latent_file
from umt_jax.generation import scheduler, validation
from umt_jax.generation.segments import Window
from umt_jax.inference import flags as infer_flags
from umt_jax.inference import generation_flags, low_latency, planning, writers

# Without the total: it is a guess from the files' headers, and tqdm drops it once it is exceeded.
_BAR_FORMAT = "{l_bar}{bar}| {n:.1f} s of sound [{elapsed}<{remaining}]"
_NOBODY_READS = "Ended: whatever read --output=- has closed it."


def main() -> None:
    """Translates as the flags say."""
    args = flags.FLAGS
    infer_flags.check_flags(args)
    command_line.use_compilation_cache()
    workdir = demo_model.chosen()
    config = reading.read_config(workdir, args.step)
    sampling = generation_flags.sampling(config.sampling)
    jobs, unwritten = _plan(args, config.domains)
    planning.check_formats(jobs, config.model.sample_rate_hz)
    if not jobs and not unwritten:
        command_line.say("Nothing is left to do: all outputs exist.")
        return
    passed_over = [sound_files.passed_over(name) for name in args.input if Path(name).is_dir()]
    standard_output = pcm.take_standard_output() if args.output == "-" else None
    if not jobs:
        raise ValueError(_summary([], unwritten, "", 0))
    domains = [name for name in config.domains if any(name in job.outputs for job in jobs)]
    if args.latency == "low":
        _translate_at_low_latency(args, workdir, jobs, domains, sampling, standard_output)
        return
    model = translator.load(
        workdir,
        domains=domains,
        step=args.step,
        engine=args.engine if domains else "scan",
        weights=args.weights,
        threads=args.threads if domains else None,
    )
    jobs, dropped = planning.make_folders(jobs)
    unwritten += dropped
    left, failures = save_latents(model, jobs)
    try:
        failures += translate(
            model,
            left,
            sampling=sampling,
            seed=args.seed,
            num_streams=args.streams,
            parallel_segments=args.parallel_segments,
            standard_input=pcm.Reader(0, sample_rate_hz=args.input_rate or model.sample_rate_hz),
            standard_output=standard_output,
        )
    except BrokenPipeError:
        command_line.say(_NOBODY_READS, error=True)
    for line in filter(None, passed_over):
        command_line.say(line)
    failures.outputs[:0] = unwritten
    _end(jobs, failures, "translated" if domains else "encoded")


def _end(jobs: Sequence[planning.Job], failures: "Failures", done: str) -> None:
    """Says what was written; raises `ValueError` for what was not."""
    _say_what_was_written([path for path in planning.files_of(jobs) if path.exists()])
    if failures.inputs or failures.outputs:
        raise ValueError(_summary(failures.inputs, failures.outputs, done, len(jobs)))


def _say_what_was_written(paths: Sequence[Path]) -> None:
    if len(paths) == 1:
        command_line.say(f"Written: {paths[0]}")
    elif paths:
        folders = ", ".join(sorted({str(path.parent) for path in paths}))
        command_line.say(f"Written: {len(paths)} files in {folders}")


@dataclasses.dataclass
class Failures:
    """Errors of files that were read or written, one sentence each."""

    inputs: list[str] = dataclasses.field(default_factory=list)
    outputs: list[str] = dataclasses.field(default_factory=list)

    def __iadd__(self, other: "Failures") -> "Failures":
        """Adds those of another part of the work."""
        return Failures(self.inputs + other.inputs, self.outputs + other.outputs)


def _summary(unread: Sequence[str], unwritten: Sequence[str], done: str, num_inputs: int) -> str:
    sentences = []
    if unread:
        sentences.append(
            f"{len(unread)} of {num_inputs} inputs could not be {done}: " + "; ".join(unread)
        )
    if unwritten:
        what = "output" if len(unwritten) == 1 else "outputs"
        sentences.append(f"{len(unwritten)} {what} could not be written: " + "; ".join(unwritten))
    return ". ".join(sentences)


def _plan(
    args: flags.FlagValues, all_domains: Sequence[str]
) -> tuple[list[planning.Job], list[str]]:
    """Returns what to translate and to write, by the flags, and what cannot be written."""
    wanted = all_domains if args.domain == ["all"] else args.domain or ()
    domains = tuple(dict.fromkeys(validation.checked_domains(wanted, all_domains)))
    sources: list[tuple[Path | None, Path]] = [(None, Path("stdin"))]
    if args.input != ["-"]:
        sources = list(planning.find_inputs(args.input, [args.output, args.save_latents]))
    if args.output == "-" and (len(sources) > 1 or len(domains) > 1):
        raise ValueError(
            f"--output=- takes one translation, not {len(sources)} inputs in {len(domains)} "
            "domains. Name one --input and one --domain."
        )
    encoded = [path for path, _ in sources if path and latent_file.is_latent_file(path)]
    if args.save_latents and encoded:
        raise ValueError(f"{encoded[0]} holds latents already. Leave out it, or --save_latents.")
    file = infer_flags.output_file(args)
    if file is not None and (len(sources) > 1 or len(domains) > 1):
        raise ValueError(
            f"--output={file} is one file, not enough for {len(sources)} inputs in {len(domains)} "
            "domains. Name a folder, or one --input and one --domain."
        )
    jobs = planning.plan(sources, domains, args.output, args.format, latents=args.save_latents)
    if file is not None:
        jobs = [dataclasses.replace(job, outputs={domains[0]: file}) for job in jobs]
    jobs, unwritten = planning.writable(jobs)
    if args.resume:
        return planning.unfinished(jobs), unwritten
    if not args.overwrite:
        planning.check_absent(jobs)
    return jobs, unwritten


def save_latents(
    model: translator.Translator, jobs: Sequence[planning.Job]
) -> tuple[list[planning.Job], Failures]:
    """Writes the latents that jobs ask for.

    Returns:
        The jobs that have more to do, from those files; and what is wrong with recordings that
        cannot be read, whose jobs are dropped, and with files that cannot be written: their
        recordings are encoded once more.

    Raises:
        OSError: The disk is full.
    """
    left, failures = [], Failures()
    seconds = sum(_seconds(job.source, model) for job in jobs if job.latents)
    with tqdm.tqdm(total=seconds, bar_format=_BAR_FORMAT, disable=None) as progress:
        for job in jobs:
            if job.latents is None:
                left.append(job)
                continue
            assert job.source is not None
            parts, num_samples = [], 0
            try:
                for latents, count in _windows(model, job.source, None):
                    parts.append(latents)
                    num_samples += count
                    progress.update(count / model.sample_rate_hz)
            except (ValueError, OSError) as error:
                failures.inputs.append(command_line.message(error))
                continue
            try:
                model.save_latents(
                    job.latents,
                    np.concatenate(parts),
                    source=command_line.printable(job.source.name),
                    num_samples=num_samples,
                )
            except OSError as error:
                if storage.is_of_full_disk(error):
                    raise
                failures.outputs.append(
                    f"{job.latents} could not be written: {error.strerror or error}"
                )
                left.append(dataclasses.replace(job, latents=None))
                continue
            left.append(planning.from_latents(job))
    return [job for job in left if job.outputs], failures


def translate(
    model: translator.Translator,
    jobs: Sequence[planning.Job],
    *,
    sampling: SamplingConfig,
    seed: int,
    num_streams: int,
    parallel_segments: int = 1,
    standard_input: pcm.Reader | None = None,
    standard_output: int | None = None,
) -> Failures:
    """Writes the translations of every job's recording.

    Returns:
        What is wrong with recordings that cannot be read: these leave no output, and do not stop
        the others. And with outputs that cannot be written.

    Raises:
        OSError: The disk is full.
        BrokenPipeError: Nobody reads standard output any more.
    """
    if not jobs:
        return Failures()
    is_live = any(job.source is None or None in job.outputs.values() for job in jobs)
    if is_live:
        command_line.say(
            f"The translation comes {model.latency_seconds:.2f} s behind its source.", error=True
        )
    seconds_there = (_seconds(job.source, model) for job in jobs)
    pieces = model.generate_recordings(
        (_windows(model, job.source, standard_input) for job in jobs),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        guide_strength=sampling.guide_strength,
        seed=seed,
        num_streams=min(num_streams, parallel_segments * len(jobs)),
        parallel_segments=parallel_segments,
    )
    progress = tqdm.tqdm(
        total=len(model.domains) * sum(seconds_there),
        bar_format=_BAR_FORMAT,
        disable=True if is_live else None,
    )
    outputs = writers.Outputs(jobs, model.domains, model.sample_rate_hz, standard_output)
    return _write(pieces, outputs, progress, model.sample_rate_hz, standard_input)


def _write(
    pieces: Iterable[scheduler.Piece],
    outputs: writers.Outputs,
    progress: tqdm.tqdm,
    rate_hz: int,
    standard_input: pcm.Reader | None,
) -> Failures:
    """Writes pieces as they are generated; says how fast that was. Returns as `translate`."""
    failures = Failures()
    num_samples, started = 0, time.monotonic()
    with progress, outputs as under_way:
        for piece in pieces:
            under_way.write(piece)
            if piece.error:
                failures.inputs.append(command_line.message(piece.error))
            num_samples += piece.waveforms.size
            progress.update(piece.waveforms.size / rate_hz)
    # The time it takes, not that in which the source plays.
    waited = standard_input.waited_seconds if standard_input else 0.0
    seconds = time.monotonic() - started - waited
    made_seconds = num_samples / rate_hz
    command_line.say(
        f"{made_seconds:.1f} s of sound in {seconds:.1f} s, "
        f"{made_seconds / seconds:.2f} times real time."
    )
    failures.outputs += under_way.failures
    return failures


def _translate_at_low_latency(
    args: flags.FlagValues,
    workdir: str,
    jobs: list[planning.Job],
    domains: Sequence[str],
    sampling: SamplingConfig,
    standard_output: int | None,
) -> None:
    """Translates standard input, the one job, a latent frame at a time."""
    if len(domains) != 1:
        raise ValueError(
            f"--latency=low plays one domain, not {len(domains)}. Name one, or leave it out."
        )
    config = reading.read_config(workdir, args.step)
    with low_latency.open_player(workdir, args.step) as player:
        low_latency.choose(player, config, domains[0], sampling, args.seed)
        rate_hz = player.sample_rate_hz
        jobs, unwritten = planning.make_folders(jobs)
        input_rate_hz = args.input_rate or rate_hz
        reader = pcm.Reader(0, sample_rate_hz=input_rate_hz)
        delay = low_latency.delay_seconds(player, config)
        delay += sound_files.resampling_delay_seconds(input_rate_hz, rate_hz)
        command_line.say(f"The translation comes {delay:.3f} s behind its source.", error=True)
        if hint := low_latency.hint(config, sampling):
            command_line.say(hint, error=True)
        if reader.is_sound_file():
            raise ValueError(
                "--latency=low takes raw samples as they come, and --input=- brought a sound file. "
                "Leave --latency out: a file is translated once it is there."
            )
        _say_of_level(config)
        blocks = sound_files.resample_blocks(reader.decode(), to_hz=rate_hz)
        pieces = low_latency.translate(player, config, blocks)
        outputs = writers.Outputs(jobs, domains, rate_hz, standard_output)
        failures = Failures(outputs=unwritten)
        try:
            if jobs:
                failures += _write(pieces, outputs, tqdm.tqdm(disable=True), rate_hz, reader)
        except BrokenPipeError:
            command_line.say(_NOBODY_READS, error=True)
    _end(jobs, failures, "translated")


def _say_of_level(config: Config) -> None:
    if config.model.rms_dbfs is not None:
        command_line.say(
            f"The model plays sounds at {config.model.rms_dbfs:g} dBFS. That of the "
            "source is known at its end alone: its gain is decided by the first half second, "
            "then follows what was heard.",
            error=True,
        )


def _windows(
    model: translator.Translator, source: Path | None, standard_input: pcm.Reader | None
) -> Iterator[Window]:
    """Yields a recording's latents, window by window."""
    if source is None:
        assert standard_input is not None
        if standard_input.is_sound_file():
            with standard_input.as_file() as path:
                yield from _windows_of_piped(model, path)
            return
        _say_of_level(model.config)
        blocks = sound_files.resample_blocks(standard_input.decode(), to_hz=model.sample_rate_hz)
        yield from model.encode_blocks(blocks)
    elif latent_file.is_latent_file(source):
        file = latent_file.read(source, encoder=model.encoder_fingerprint, model=model.config.model)
        yield from model.windows(file.latents, file.num_samples)
    else:
        yield from model.encode_blocks(sound_files.SoundFileBlocks(source, model.sample_rate_hz))


def _windows_of_piped(model: translator.Translator, path: Path) -> Iterator[Window]:
    try:
        yield from model.encode_blocks(sound_files.SoundFileBlocks(path, model.sample_rate_hz))
    except sound_files.SoundFileError as error:
        raise sound_files.SoundFileError("--input=-", error.reason) from error


def _seconds(source: Path | None, model: translator.Translator) -> float:
    """Returns how long a source says it is; 0 where it does not."""
    if source is None:
        return 0.0
    if latent_file.is_latent_file(source):
        return latent_file.num_samples(source) / model.sample_rate_hz
    return sound_files.duration_seconds(source)


if __name__ == "__main__":
    infer_flags.define_flags()
    command_line.run(main)
