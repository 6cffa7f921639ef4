#!/usr/bin/env bash
# numba 0.68.1: with an empty XDG_CACHE_HOME the cache of compiled functions lands in the working folder.
#
# Expected: an XDG_CACHE_HOME that is empty counts as not set ("either not set or empty", XDG Base Directory
# Specification), so that the cache of a module whose own folder cannot be written lies in ~/.cache/numba.
# Seen: unset, it does; empty, a folder `numba` appears in whatever folder the program was started in.
#
# Last run: 2026-11-29, Python 3.11.7, from nothing:
#   numba 0.68.1, cache with XDG_CACHE_HOME unset: home/.cache/numba; empty:
#     work/numba/source_17ef57b3d3be1b6e276ac70b9f450c2fb1cfec9a
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install numba==0.68.1 numpy==2.4.6
mkdir "$folder/source"
cat >"$folder/source/doubling.py" <<'PYTHON_CODE'
import numba


@numba.njit(cache=True)
def double(x):
    """Returns twice a number."""
    return 2 * x
PYTHON_CODE
# A file in the place of the folder __pycache__ keeps out root as well, whom permissions do not.
touch "$folder/source/__pycache__"

# Prints where the cache is after a run: "cache_of NAME ENVIRONMENT..." with arguments of env.
cache_of() {
  local name=$1
  shift
  mkdir -p "$folder/$name/home" "$folder/$name/work"
  (
    cd "$folder/$name/work"
    env -u NUMBA_CACHE_DIR -u IPYTHONDIR "$@" HOME="$folder/$name/home" PYTHONPATH="$folder/source" \
      "$folder/venv/bin/python" -c "import doubling; assert doubling.double(3) == 6"
    cd ..
    find . -name '*.nbi' | cut -d/ -f2-4
  )
}
unset_place=$(cache_of unset -u XDG_CACHE_HOME)
empty_place=$(cache_of empty XDG_CACHE_HOME=)
echo "numba 0.68.1, cache with XDG_CACHE_HOME unset: $unset_place; empty: $empty_place"
[[ $unset_place == home/.cache/numba ]]
[[ $empty_place == work/numba/* ]]
