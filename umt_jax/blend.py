r"""Mixes sounds in the space of latents, or decoders over time.

    python -m umt_jax.blend --input=a.wav,b.wav --domain=Cello --output=DIR
    python -m umt_jax.blend --input=a.wav,b.wav,c.wav,d.wav --grid=3 \
        --domain=Cello --output=DIR
    python -m umt_jax.blend --input=a.wav --morph=Piano,Cello --output=DIR

The first goes from one sound to another, or mixes them evenly (--schedule). The second writes the
mixtures of a grid with the sounds at its corners. The third goes from one domain's decoder to the
other's. Inputs are sound files, which are brought to one level, or latents that
`umt_jax.infer --save_latents` has kept, whose level is what it was.
Without --checkpoint=RUN the model that ships with the package plays.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import tqdm
from absl import flags

from umt_jax import command_line, path_flags, translator
from umt_jax.audio import sound_files
from umt_jax.checkpoints import demo_model, reading
from umt_jax.config import SamplingConfig
from umt_jax.data import latent_file
from umt_jax.generation import blending, validation
from umt_jax.inference import generation_flags, planning, writers
from umt_jax.shapes import Array, Float


def define_flags() -> None:
    """Declares this command's flags."""
    demo_model.define_flags()
    path_flags.define_list(
        "input", None, "Sound files or .npz files of latents, separated by commas.", required=True
    )
    flags.DEFINE_list("domain", None, "Domains to play the mixtures, or 'all'.")
    path_flags.define_output_folder()
    flags.DEFINE_enum(
        "schedule",
        "paper",
        blending.SCHEDULES,
        "paper: 3.5 s of the first, 1.5 s from it to the second, then the second to its end. ramp: "
        "from the first to the second over all the time that both last. constant: --weight.",
    )
    flags.DEFINE_float(
        "weight", None, "With --schedule=constant: weight of the second. Default: 0.5."
    )
    flags.DEFINE_integer(
        "grid", None, "Rows and columns of a grid of constant mixtures of four sounds, 2 or more."
    )
    flags.DEFINE_list(
        "morph", None, "Two domains: one sound, from the first's decoder to the second's."
    )
    generation_flags.define_sampling()
    generation_flags.define_outputs()
    flags.DEFINE_integer("streams", 8, "Mixtures generated at once.", lower_bound=1)
    generation_flags.define_engine()


def main() -> None:
    """Mixes as the flags say."""
    args = flags.FLAGS
    check_flags(args)
    command_line.use_compilation_cache()
    workdir = demo_model.chosen()
    config = reading.read_config(workdir, args.step)
    sampling, all_domains = generation_flags.sampling(config.sampling), config.domains
    wanted = args.morph or args.domain
    wanted = all_domains if wanted == ["all"] else wanted
    domains = tuple(dict.fromkeys(validation.checked_domains(wanted, all_domains)))
    # Morphing computes samples in its own way.
    engine = "scan" if args.morph else args.engine
    model = translator.load(
        workdir, domains=domains, step=args.step, engine=engine, threads=args.threads
    )
    sounds = read_latents(args.input, model)
    mixtures = mix(sounds, model.frame_rate_hz, args)
    labels = ["-to-".join(domains)] if args.morph else model.domains
    jobs = planning.plan(
        [(None, Path(name)) for name in mixtures], labels, args.output, args.format
    )
    planning.check_formats(jobs, config.model.sample_rate_hz)
    _, unwritten = planning.writable(jobs)
    if unwritten:
        raise ValueError(unwritten[0])
    if not args.overwrite:
        planning.check_absent(jobs)
    Path(args.output).mkdir(parents=True, exist_ok=True)
    if args.morph:
        write_morph(model, sounds, jobs[0], sampling, args)
    else:
        unwritten = write_mixtures(model, list(mixtures.values()), jobs, sampling, args)
    for path in planning.files_of(jobs):
        if path.exists():
            command_line.say(str(path))
    if unwritten:
        raise ValueError("; ".join(unwritten))


def check_flags(args: flags.FlagValues) -> None:
    """Raises `ValueError` for flags that cannot go together."""
    if args.grid is not None and args.morph:
        raise ValueError("--grid mixes sounds, --morph decoders. Pass one.")
    if bool(args.morph) == bool(args.domain):
        raise ValueError(
            "Name what plays: --domain for mixtures of sounds, or --morph=FROM,TO for one sound."
        )
    if args.morph and len(set(args.morph)) != 2:
        raise ValueError(f"--morph={','.join(args.morph)} is not two domains, as in --morph=A,B.")
    expected, purpose = 2, "a blend goes from one to another"
    if args.morph:
        expected, purpose = 1, "--morph plays one"
    elif args.grid is not None:
        expected, purpose = 4, "--grid has one at each corner"
    if len(args.input) != expected:
        raise ValueError(
            f"--input names {len(args.input)} sounds, but {purpose}: name {expected}, with commas."
        )
    if args.weight is not None and (args.schedule != "constant" or args.grid is not None):
        raise ValueError("--weight is for --schedule=constant, without --grid.")


def read_latents(
    names: Sequence[str], model: translator.Translator
) -> dict[str, Float[Array, "_ Z"]]:
    """Returns the latents of files by what to call them; sounds are brought to one level first.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file cannot be read, a sound is silent, or latents are another encoder's.
    """
    latents = {
        index: model.load_latents(name)
        for index, name in enumerate(names)
        if latent_file.is_latent_file(name)
    }
    sounds = [index for index in range(len(names)) if index not in latents]
    rate_hz = model.sample_rate_hz
    waveforms = [sound_files.read(names[index], sample_rate_hz=rate_hz) for index in sounds]
    for index, waveform in zip(sounds, blending.match_levels(waveforms), strict=True):
        latents[index] = model.encode(waveform, rate_hz)
    found = planning.without_collisions([(Path(name), Path(Path(name).name)) for name in names])
    return {str(place): latents[index] for index, (_, place) in enumerate(found)}


def mix(
    sounds: Mapping[str, Float[Array, "_ Z"]], frame_rate_hz: float, args: flags.FlagValues
) -> dict[str, Float[Array, "_ Z"]]:
    """Returns the mixtures that the flags ask for, by what they are."""
    together, latents = "+".join(sounds), list(sounds.values())
    weight = 0.5 if args.weight is None else args.weight
    schedule = f"constant-{weight:g}" if args.schedule == "constant" else args.schedule
    if args.morph:
        return {f"{together}.{schedule}": latents[0]}
    if args.grid is None:
        blend = blending.blend(
            *latents, schedule=args.schedule, frame_rate_hz=frame_rate_hz, weight=weight
        )
        return {f"{together}.{schedule}": blend}
    return {
        f"{together}.grid-{args.grid}.row-{row}.column-{column}": mixture
        for row, mixtures in enumerate(blending.grid(latents, args.grid), start=1)
        for column, mixture in enumerate(mixtures, start=1)
    }


def write_mixtures(
    model: translator.Translator,
    mixtures: Sequence[Float[Array, "_ Z"]],
    jobs: Sequence[planning.Job],
    sampling: SamplingConfig,
    args: flags.FlagValues,
) -> list[str]:
    """Generates every mixture in every domain, with the same random numbers.

    Returns:
        What is wrong with files that could not be written.
    """
    pieces = model.generate_recordings(
        map(model.windows, mixtures),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        guide_strength=sampling.guide_strength,
        seed=args.seed,
        num_streams=min(args.streams, len(jobs)),
    )
    num_frames = len(model.domains) * sum(map(len, mixtures))
    with (
        tqdm.tqdm(total=num_frames / model.frame_rate_hz, unit=" s of sound", disable=None) as bar,
        writers.Outputs(jobs, model.domains, model.sample_rate_hz, None) as under_way,
    ):
        for piece in pieces:
            under_way.write(piece)
            bar.update(piece.waveforms.size / model.sample_rate_hz)
    return under_way.failures


def write_morph(
    model: translator.Translator,
    sounds: Mapping[str, Float[Array, "_ Z"]],
    job: planning.Job,
    sampling: SamplingConfig,
    args: flags.FlagValues,
) -> None:
    """Generates the one sound that goes from the first decoder to the second."""
    (latents,), (path,) = sounds.values(), planning.files_of([job])
    weights = blending.schedule_weights(
        args.schedule,
        len(latents),
        frame_rate_hz=model.frame_rate_hz,
        weight=0.5 if args.weight is None else args.weight,
    )
    first, second = model.domains
    pieces = model.morph(
        latents,
        domains=(first, second),
        weights=weights,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=args.seed,
    )
    num_seconds = len(latents) / model.frame_rate_hz
    with (
        tqdm.tqdm(total=num_seconds, unit=" s of sound", disable=None) as bar,
        sound_files.SoundFileWriter(path, sample_rate_hz=model.sample_rate_hz) as writer,
    ):
        for waveform in pieces:
            writer.write(waveform)
            bar.update(len(waveform) / model.sample_rate_hz)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
