#!/usr/bin/env bash
# numba 0.68.1 and librosa 0.11.0: whether `NUMBA_DISABLE_JIT=1` breaks librosa depends on what ran before.
#
# Expected: with `NUMBA_DISABLE_JIT=1`, which numba offers for finding faults, Python runs the decorated functions
# itself, only slower, whatever ran before.
# Seen: `vectorize` and `guvectorize` compile all the same, as modules are imported. One that calls a function of
# `jit`, which is a plain function then, ends with an AttributeError about 'get_call_template': in a fresh
# installation librosa 0.11.0 computes not even a mel spectrogram. A single run without the variable leaves compiled
# functions beside librosa, and from then on the same calls work with it and give the same numbers. So tests that set
# it pass wherever somebody has worked, and fail in a fresh checkout.
#
# Last run: 2026-11-29, Python 3.11.7, from nothing:
#   NUMBA_DISABLE_JIT=1: feature.melspectrogram AttributeError: 'function' object has no attribute 'get_call_template'
#   NUMBA_DISABLE_JIT=1: util.localmax AttributeError: 'function' object has no attribute 'get_call_template'
#   NUMBA_DISABLE_JIT=0: feature.melspectrogram 655187.06
#   NUMBA_DISABLE_JIT=0: util.localmax 441.00
#   NUMBA_DISABLE_JIT=1: feature.melspectrogram 655187.06
#   NUMBA_DISABLE_JIT=1: util.localmax 441.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install librosa==0.11.0 numba==0.68.1 numpy==2.4.6
export HOME=$folder
unset NUMBA_CACHE_DIR XDG_CACHE_HOME
cat > "$folder/call.py" <<'PYTHON_CODE'
import sys

import numpy as np
import librosa

y = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)
calls = {
    "feature.melspectrogram": lambda: librosa.feature.melspectrogram(y=y, sr=22050).sum(),
    "util.localmax": lambda: librosa.util.localmax(y).sum(),
}
disabled, fails = sys.argv[1:]
for name, call in calls.items():
    try:
        found = f"{call():.2f}"
    except AttributeError as error:
        found = f"AttributeError: {error}"
    print(f"NUMBA_DISABLE_JIT={disabled}: {name} {found}")
    assert ("get_call_template" in found) == (fails == "fails")
PYTHON_CODE
for run in "1 fails" "0 works" "1 works"; do
  set -- $run
  NUMBA_DISABLE_JIT=$1 "$folder/venv/bin/python" "$folder/call.py" "$1" "$2"
done
