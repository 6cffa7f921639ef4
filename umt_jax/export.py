r"""Copies the best checkpoint of a run without its optimizers, in a twelfth of the space, to share.

    python -m umt_jax.export --checkpoint=runs/mine --output=mine

The copy holds weights in float16, and the run's record of its losses. It tells nothing of where it
was made, and only with --recordings the names of the sound files behind it. It is given as
--checkpoint to translate with and to evaluate, and as --init_from to train further. What
--temperature, --top_p and --guide_strength say is kept in it: whoever plays the model without
saying otherwise has that sampling.

    python -m umt_jax.export --format=safetensors --output=mine.safetensors --licence=CC0-1.0

writes one file instead, which umt_jax takes as --checkpoint too, and programs read that never heard
of JAX: its header holds sizes, domains, licence and source. Without --checkpoint the model that
ships with umt_jax is exported.
"""

from absl import flags

from umt_jax import command_line, path_flags, storage
from umt_jax.checkpoints import checkpoint, demo_model, folder_lock, model_file, reading
from umt_jax.config import SamplingConfig
from umt_jax.inference import generation_flags
from umt_jax.model import networks


def define_flags() -> None:
    """Declares this command's flags."""
    path_flags.define(
        "checkpoint",
        None,
        "Folder of a training run. Default: the model that ships with umt_jax.",
    )
    path_flags.define("output", None, "Folder, or file, to make.", required=True)
    flags.DEFINE_enum(
        "format",
        "folder",
        ["folder", "safetensors"],
        "folder: a run, to translate with and to train further; safetensors: one file, to "
        "translate with.",
    )
    flags.DEFINE_string("licence", "", "Of the weights, for the header of one file.")
    flags.DEFINE_string("source", "", "Who made the model and of what, for the same header.")
    flags.DEFINE_integer("step", None, "Which of its checkpoints; the best if not given.")
    flags.DEFINE_bool("recordings", False, "Keep the names of the recordings behind the model.")
    flags.DEFINE_bool(
        "guides",
        True,
        "Keep what decoders follow (experiments.guides). Without guides a model is smaller, and "
        "plays more wrong notes.",
    )
    generation_flags.define_sampling(seed=False)


def main() -> None:
    """Exports as the flags say."""
    args = flags.FLAGS
    workdir = demo_model.chosen()
    sampling = generation_flags.sampling(reading.read_config(workdir, args.step).sampling)
    export = _export_file if args.format == "safetensors" else _export_folder
    step, loss = export(args, workdir, sampling)
    is_guided = args.guides and sampling.guide_strength
    guided = f", guide_strength {sampling.guide_strength:g}" if is_guided else ""
    command_line.say(
        f"Exported step {step}, {loss:.3f} nats per sample in validation, to {args.output}.",
        f"It is played at temperature {sampling.temperature:g}, top_p {sampling.top_p:g}{guided}.",
    )


def _export_folder(
    args: flags.FlagValues, workdir: str, sampling: SamplingConfig
) -> tuple[int, float]:
    for name in ("licence", "source"):
        if args[name].value:
            raise ValueError(f"--{name} is for --format=safetensors; a folder has no place for it.")
    with folder_lock.held(args.output, purpose="an export"):
        step, loss = checkpoint.export(
            workdir,
            args.output,
            args.step,
            sampling=sampling,
            recordings=args.recordings,
            guides=args.guides,
        )
        checkpoint.copy_record(workdir, args.output)
    return step, loss


def _export_file(
    args: flags.FlagValues, workdir: str, sampling: SamplingConfig
) -> tuple[int, float]:
    if not model_file.is_model_file(args.output):
        raise ValueError(f"--output={args.output} must end in {model_file.SUFFIX}.")
    if args.recordings:
        raise ValueError("--recordings is for --format=folder; one file has no place for them.")
    if storage.path(args.output).exists():
        raise FileExistsError(f"--output={args.output} exists already. Name another file.")
    config, parameters, step, loss = checkpoint.to_share(
        workdir, args.step, sampling=sampling, guides=args.guides
    )
    storage.path(args.output).parent.mkdir(parents=True, exist_ok=True)
    arrays = networks.by_name(parameters)
    model_file.write(args.output, config, arrays, licence=args.licence, source=args.source)
    return step, loss


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
