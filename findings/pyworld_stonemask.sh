#!/usr/bin/env bash
# pyworld 0.3.5: refining a right pitch with StoneMask deletes it above a twelfth of the sample rate.
#
# Expected: `stonemask` makes an f0 that `dio` found more exact, or leaves it.
# Seen: on steady tones of eight harmonics the median of `dio` is right within 3 cents up to key 95 (1,976 Hz) at
# 8, 11.025, 16, 22.05 and 44.1 kHz, and `stonemask` returns 0, which means unvoiced, in every frame of every tone above
# a twelfth of the sample rate: from key 77 on at 8 kHz (698 Hz; 76 is 659 Hz and stays), 82 at 11.025 kHz,
# 89 at 16 kHz, 94 at 22.05 kHz. It says nothing. So the usual pair of calls finds no soprano in telephone sound, nor a
# flute's upper octave in 16 kHz; there, leave StoneMask out.
# Beside it: `import pyworld` needs `pkg_resources`, which setuptools 82 no longer has.
#
# Last run: 2026-11-29, Python 3.11.7, from nothing:
#   pyworld 0.3.5
#   8000 Hz: first key deleted 77, 698 Hz; a twelfth is 667 Hz; dio is off by 2.6 cents at most
#   11025 Hz: first key deleted 82, 932 Hz; a twelfth is 919 Hz; dio is off by 0.4 cents at most
#   16000 Hz: first key deleted 89, 1397 Hz; a twelfth is 1333 Hz; dio is off by 0.2 cents at most
#   22050 Hz: first key deleted 94, 1865 Hz; a twelfth is 1838 Hz; dio is off by 0.1 cents at most
#   44100 Hz: none deleted up to 1976 Hz; a twelfth is 3675 Hz; dio is off by 0.0 cents at most
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install pyworld==0.3.5 numpy==2.4.6 setuptools==80.9.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON_CODE'
from importlib import metadata

import numpy as np
import pyworld

print("pyworld", metadata.version("pyworld"))
for rate_hz, first_deleted in {8000: 77, 11025: 82, 16000: 89, 22050: 94, 44100: None}.items():
    deleted, worst_cents = [], 0.0
    for key in range(60, 96):
        frequency_hz = 440 * 2 ** ((key - 69) / 12)
        time_s = np.arange(rate_hz) / rate_hz
        harmonics = [k for k in range(1, 9) if k * frequency_hz < rate_hz / 2]
        tone = 0.3 * sum(np.sin(2 * np.pi * frequency_hz * k * time_s) / k for k in harmonics)
        f0_hz, times_s = pyworld.dio(tone, rate_hz, f0_ceil=2200)
        error_cents = abs(1200 * np.log2(np.median(f0_hz) / frequency_hz))
        worst_cents = max(worst_cents, error_cents)
        refined_hz = pyworld.stonemask(tone, f0_hz, times_s, rate_hz)
        voiced = refined_hz[f0_hz > 0] > 0
        assert voiced.all() or not voiced.any()
        if not voiced.any():
            deleted.append(key)
    twelfth = f"a twelfth is {rate_hz / 12:.0f} Hz"
    if deleted:
        assert deleted == list(range(deleted[0], 96))
        name = f"first key deleted {deleted[0]}, {440 * 2 ** ((deleted[0] - 69) / 12):.0f} Hz"
    else:
        name = "none deleted up to 1976 Hz"
    print(f"{rate_hz} Hz: {name}; {twelfth}; dio is off by {worst_cents:.1f} cents at most")
    assert worst_cents < 5
    assert (deleted[0] if deleted else None) == first_deleted
PYTHON_CODE
