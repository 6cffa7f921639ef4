#!/usr/bin/env bash
# scipy 1.17.1: `ndimage.uniform_filter1d` of numbers that are never negative returns negative ones.
#
# Expected: a mean of numbers that are 0 or more is 0 or more.
# Seen: behind a loud stretch the filter of float64 returns values just below 0 where all of its window is exactly 0, so that the
# square root of a smoothed power is not a number. It keeps a running sum, whose rounding errors stay. `convolve1d` with
# the same weights returns exact zeros there.
#
# Last run: 2026-11-30, Python 3.11.7:
#   uniform_filter1d: below 0 behind the sound: True, smallest within 1e-15 of 0: True
#   convolve1d: below 0 behind the sound: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install scipy==1.17.1 numpy==2.3.5
cat > "$folder/filters.py" <<'PYTHON_CODE'
import numpy as np
from scipy import ndimage

seconds = np.arange(8000) / 8000
power = np.where(seconds < 0.5, np.sin(2 * np.pi * 440 * seconds) ** 2, 0.0)
behind = slice(6000, None)  # All of it far behind the sound: the window has 240 samples.
running = ndimage.uniform_filter1d(power, 240)[behind]
each = ndimage.convolve1d(power, np.full(240, 1 / 240))[behind]
assert not power[5000:].any()
print("uniform_filter1d: below 0 behind the sound:", bool((running < 0).any()), end=", ")
print("smallest within 1e-15 of 0:", bool(abs(running.min()) < 1e-15))
print("convolve1d: below 0 behind the sound:", bool((each < 0).any()))
PYTHON_CODE
"$folder/venv/bin/python" "$folder/filters.py" | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
uniform_filter1d: below 0 behind the sound: True, smallest within 1e-15 of 0: True
convolve1d: below 0 behind the sound: False
SEEN
