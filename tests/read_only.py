"""An installation that cannot be written, for a user without a home.

The folders in which numba would keep its files are blocked by files of their names, which stops
even root, as which tests may run.
"""

import os
import shutil
from pathlib import Path

import librosa

_ROOT = Path(__file__).parent.parent
_CACHES = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "MPLCONFIGDIR")


def sealed_environment(folder):
    """Returns the environment of a user who can write below `folder`/temporary alone."""
    (folder / "temporary").mkdir()
    package = folder / "librosa"
    shutil.copytree(
        Path(librosa.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    for init in package.rglob("__init__.py"):
        init.with_name("__pycache__").touch()
    environment = {name: value for name, value in os.environ.items() if name not in _CACHES}
    return environment | {
        "HOME": "/dev/null",
        "PYTHONPATH": f"{folder}:{_ROOT}",
        "TMPDIR": str(folder / "temporary"),
    }
