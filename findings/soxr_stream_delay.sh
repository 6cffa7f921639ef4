#!/usr/bin/env bash
# soxr 1.1.0: a stream holds back up to 0.18 s of sound, in bursts; with vr=True a fifth of that, steadily,
# and delay() then says less than it is.
#
# Expected: a streaming resampler of quality HQ is late by the half length of its filter, some 10 ms, steadily; a
# better quality is later; `delay()` is how much was taken and not yet given.
# Seen, in blocks of 10 ms: `ResampleStream(48000, 8000, 1)` gives nothing for 158 ms and from then on
# holds back between 13 and 158 ms, so that whoever plays it needs the worst of these as slack; 8000 to
# 48000 Hz up to 175 ms. VHQ is not later than HQ, and HQ from 44100 Hz holds back half of what it does from 48000 Hz.
# With vr=True, made for rates that change, every quality holds back the same 27.5 and 30 ms and
# never more nor less; but `delay()` always says 100 samples, be that 12.5 ms or 2.1 ms, where
# without vr it counts what is held back at that moment exactly.
#
# Last run: 2026-11-29, Python 3.11.7, from nothing:
#   soxr 1.1.0
#   vr=False 48000 to 8000 Hz LQ: 3.1 to 39.6 ms held back; at the end 20.1 ms, delay() says 20.1 ms
#   vr=False 48000 to 8000 Hz HQ: 13.2 to 158.0 ms held back; at the end 100.6 ms, delay() says 100.6 ms
#   vr=False 48000 to 8000 Hz VHQ: 17.6 to 153.0 ms held back; at the end 81.3 ms, delay() says 81.2 ms
#   vr=False 44100 to 8000 Hz LQ: 3.5 to 43.6 ms held back; at the end 39.7 ms, delay() says 39.8 ms
#   vr=False 44100 to 8000 Hz HQ: 14.2 to 79.7 ms held back; at the end 70.0 ms, delay() says 70.0 ms
#   vr=False 44100 to 8000 Hz VHQ: 18.6 to 168.6 ms held back; at the end 37.6 ms, delay() says 37.6 ms
#   vr=False 8000 to 48000 Hz LQ: 4.7 to 57.3 ms held back; at the end 26.5 ms, delay() says 26.5 ms
#   vr=False 8000 to 48000 Hz HQ: 14.2 to 175.0 ms held back; at the end 111.7 ms, delay() says 111.7 ms
#   vr=False 8000 to 48000 Hz VHQ: 21.7 to 170.0 ms held back; at the end 83.3 ms, delay() says 83.3 ms
#   vr=True 48000 to 8000 Hz LQ: 27.5 to 27.5 ms held back; at the end 27.5 ms, delay() says 12.5 ms
#   vr=True 48000 to 8000 Hz HQ: 27.5 to 27.5 ms held back; at the end 27.5 ms, delay() says 12.5 ms
#   vr=True 48000 to 8000 Hz VHQ: 27.5 to 27.5 ms held back; at the end 27.5 ms, delay() says 12.5 ms
#   vr=True 44100 to 8000 Hz LQ: 30.0 to 30.0 ms held back; at the end 30.0 ms, delay() says 12.5 ms
#   vr=True 44100 to 8000 Hz HQ: 30.0 to 30.0 ms held back; at the end 30.0 ms, delay() says 12.5 ms
#   vr=True 44100 to 8000 Hz VHQ: 30.0 to 30.0 ms held back; at the end 30.0 ms, delay() says 12.5 ms
#   vr=True 8000 to 48000 Hz LQ: 30.0 to 30.0 ms held back; at the end 30.0 ms, delay() says 2.1 ms
#   vr=True 8000 to 48000 Hz HQ: 30.0 to 30.0 ms held back; at the end 30.0 ms, delay() says 2.1 ms
#   vr=True 8000 to 48000 Hz VHQ: 30.0 to 30.0 ms held back; at the end 30.0 ms, delay() says 2.1 ms
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install soxr==1.1.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON_CODE'
import numpy as np
import soxr

print("soxr", soxr.__version__)
noise = 0.1 * np.random.default_rng(0).standard_normal(96_000).astype(np.float32)


def held_back_ms(from_hz, to_hz, quality, vr):
    """Returns least and most held back after half a second, and what delay() says at the end."""
    stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality=quality, vr=vr)
    block, given, held = from_hz // 100, 0, []
    for fed in range(block, 2 * from_hz, block):
        given += len(stream.resample_chunk(noise[fed - block : fed]))
        held.append(1000 * (fed / from_hz - given / to_hz))
    return min(held[50:]), max(held[50:]), held[-1], 1000 * stream.delay() / to_hz


most = {}
for vr in (False, True):
    for from_hz, to_hz in ((48000, 8000), (44100, 8000), (8000, 48000)):
        for quality in ("LQ", "HQ", "VHQ"):
            least, greatest, last, said = held_back_ms(from_hz, to_hz, quality, vr)
            most[vr, from_hz, quality] = greatest
            print(
                f"vr={vr} {from_hz} to {to_hz} Hz {quality}: {least:.1f} to {greatest:.1f} ms held back; "
                f"at the end {last:.1f} ms, delay() says {said:.1f} ms"
            )
            if vr:
                assert greatest - least < 0.2 and 25 < least < 32 and said < 13
            else:
                assert greatest > 5 * least and abs(last - said) < 1
assert most[False, 48000, "HQ"] > 140 and most[False, 8000, "HQ"] > 160
assert most[False, 48000, "VHQ"] <= most[False, 48000, "HQ"]
assert most[False, 44100, "HQ"] < 0.6 * most[False, 48000, "HQ"]
PYTHON_CODE
