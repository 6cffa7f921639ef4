"""The packages that lie side by side in an installation: umt_jax, experiments, data_prep.

The last two have everyday names. A folder of such a name in the working folder, or another
installed package, hides them from Python.
"""

import importlib.util
import sys
from pathlib import Path

NAMES = ("umt_jax", "experiments", "data_prep")

ROOT = Path(__file__).parent.parent
"""The folder that they lie in."""


def check(name: str) -> None:
    """Raises `ImportError` if another package of this name is found first."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # It is being run as a program and was not imported.
        return
    places = [] if spec is None else [*(spec.submodule_search_locations or ()), spec.origin]
    found = [place for place in places if place]
    own = ROOT / name
    if own.resolve() not in [Path(place).resolve() for place in found]:
        where = found[0] if found else "nowhere"
        message = (
            f"umt_jax needs its own package {name!r}, {own}, but Python finds {where}. Rename that "
            "folder or module, or work in another folder."
        )
        if sys.argv[:1] == ["-m"]:  # Python is looking for the module of a command.
            sys.exit(f"error: {message}")
        raise ImportError(message)
