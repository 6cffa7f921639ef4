r"""Copies the best checkpoint of a run without its optimizers, in a twelfth of the space, to share.

    python -m umt_jax.export --checkpoint=runs/mine --output=mine

The copy holds weights in float16, and the run's record of its losses. It tells nothing of where it
was made, and only with --recordings the names of the sound files behind it. It is given as
--checkpoint to translate with and to evaluate, and as --init_from to train further. What
--temperature and --top_p say is kept in it: whoever plays the model without saying otherwise has
that sampling.
"""

from absl import flags

from umt_jax import command_line, path_flags, storage
from umt_jax.checkpoints import checkpoint, folder_lock
from umt_jax.inference import generation_flags

_RECORD = "metrics.jsonl"


def define_flags() -> None:
    """Declares this command's flags."""
    path_flags.define("checkpoint", None, "Folder of a training run.", required=True)
    path_flags.define("output", None, "Folder to make.", required=True)
    flags.DEFINE_integer("step", None, "Which of its checkpoints; the best if not given.")
    flags.DEFINE_bool("recordings", False, "Keep the names of the recordings behind the model.")
    generation_flags.define_sampling(seed=False)


def main() -> None:
    """Exports as the flags say."""
    args = flags.FLAGS
    own = checkpoint.read_config(args.checkpoint, args.step).sampling
    sampling = generation_flags.sampling(own)
    with folder_lock.held(args.output, purpose="an export"):
        step, loss = checkpoint.export(
            args.checkpoint, args.output, args.step, sampling=sampling, recordings=args.recordings
        )
        record = storage.path(args.checkpoint) / _RECORD
        if record.exists():
            with storage.whole_file(storage.path(args.output) / _RECORD) as copy:
                copy.write_bytes(record.read_bytes())
    command_line.say(
        f"Exported step {step}, {loss:.3f} nats per sample in validation, to {args.output}.",
        f"It is played at temperature {sampling.temperature:g}, top_p {sampling.top_p:g}.",
    )


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
