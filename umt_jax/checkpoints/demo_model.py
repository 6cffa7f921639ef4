"""The model that ships with this package, for those who have none yet."""

from pathlib import Path

from absl import flags

from umt_jax import path_flags

flags.disclaim_key_flags()  # They are flags of the command, whose --help lists them.

_FOLDER = Path(__file__).parents[1] / "pretrained" / "demo"


def define_flags() -> None:
    """Declares --checkpoint and --step, for commands that play a model."""
    path_flags.define(
        "checkpoint",
        None,
        "Folder of a training run (its --workdir), or a model file (.safetensors). Default: the "
        "model that ships with umt_jax.",
    )
    flags.DEFINE_integer(
        "step", None, "Step of the checkpoint to use. Default: the best by validation loss."
    )


def chosen() -> str:
    """Returns --checkpoint or, where it is not given, the folder of the shipped model.

    Raises:
        FileNotFoundError: It is not given, and this copy of the package came without one.
    """
    if flags.FLAGS.checkpoint:
        return flags.FLAGS.checkpoint
    try:
        return path()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} --checkpoint=DIR names it.") from error


def path() -> str:
    """Returns the folder of the shipped model, as `umt_jax.load` takes it.

    Raises:
        FileNotFoundError: This copy of the package came without it.
    """
    if not _FOLDER.is_dir():
        raise FileNotFoundError(
            f"No model ships with this copy of umt_jax: {_FOLDER} is not there. Name the folder of "
            "a training run instead; `make demo` makes one, demo/run."
        )
    return str(_FOLDER)
