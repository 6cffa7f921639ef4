r"""Copies the best checkpoint of a run without its optimizers, in a twelfth of the space, to share.

    python -m umt_jax.export --checkpoint=runs/mine --output=mine

The copy holds weights in float16. It is given as --checkpoint to translate with, and as --init_from
to train further.
"""

from absl import flags

from umt_jax import checkpoint, command_line


def define_flags() -> None:
    """Declares this command's flags."""
    flags.DEFINE_string("checkpoint", None, "Folder of a training run.", required=True)
    flags.DEFINE_string("output", None, "Folder to make.", required=True)
    flags.DEFINE_integer("step", None, "Which of its checkpoints; the best if not given.")


def main() -> None:
    """Exports as the flags say."""
    args = flags.FLAGS
    step, loss = checkpoint.export(args.checkpoint, args.output, args.step)
    print(f"Exported step {step}, {loss:.3f} nats per sample in validation, to {args.output}.")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
