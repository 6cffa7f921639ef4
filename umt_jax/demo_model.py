"""The model that ships with this package, for those who have none yet."""

from pathlib import Path

_FOLDER = Path(__file__).parent / "models" / "demo"


def path() -> str:
    """Returns the folder of the shipped model, as `umt_jax.load` takes it.

    Raises:
        FileNotFoundError: This copy of the package came without it.
    """
    if not _FOLDER.is_dir():
        raise FileNotFoundError(
            f"No model ships with this copy of umt_jax: {_FOLDER} is not there. Pass "
            "--checkpoint=DIR, the --workdir of a training run; `make demo` makes one, demo/run."
        )
    return str(_FOLDER)
