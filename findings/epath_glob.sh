#!/usr/bin/env bash
# etils 1.15.0: `epath.Path.glob` takes brackets in the folder's own name for a pattern.
#
# Expected: `folder.glob("*.wav")` gives files of that folder, as `pathlib.Path.glob` does; only the argument
# is a pattern.
# Seen: of a folder "take [1]" it gives the files of the folder "take 1" beside it, and without such a
# neighbour nothing, though the files are there and `iterdir` gives them. No error, no warning.
#
# Last run: 2026-11-29, Python 3.11.7, from nothing:
#   etils 1.15.0
#   take 1: epath glob ['take 1/of take 1.wav'], iterdir ['take 1/of take 1.wav'], pathlib glob
#     ['take 1/of take 1.wav']
#   take [1]: epath glob ['take 1/of take 1.wav'], iterdir ['take [1]/of take [1].wav'], pathlib
#     glob ['take [1]/of take [1].wav']
#   take [2]: epath glob [], iterdir ['take [2]/of take [2].wav'], pathlib glob ['take [2]/of take
#     [2].wav']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install 'etils[epath]==1.15.0'
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON_CODE'
import importlib.metadata
import pathlib

from etils import epath

print("etils", importlib.metadata.version("etils"))
for name in ("take [1]", "take 1", "take [2]"):
    pathlib.Path(name).mkdir()
    pathlib.Path(name, f"of {name}.wav").touch()


def names(paths):
    """Returns the sorted paths as text."""
    return sorted(str(path) for path in paths)


for name, expected in {
    "take 1": ["take 1/of take 1.wav"],
    "take [1]": ["take 1/of take 1.wav"],
    "take [2]": [],
}.items():
    by_epath = names(epath.Path(name).glob("*.wav"))
    by_iterdir = names(epath.Path(name).iterdir())
    by_pathlib = names(pathlib.Path(name).glob("*.wav"))
    print(f"{name}: epath glob {by_epath}, iterdir {by_iterdir}, pathlib glob {by_pathlib}")
    assert by_pathlib == by_iterdir == [f"{name}/of {name}.wav"]
    assert by_epath == expected
PYTHON_CODE
