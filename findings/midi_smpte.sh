#!/usr/bin/env bash
# mido 1.3.3: MIDI files timed in SMPTE frames last a negative number of seconds.
#
# Expected: a file whose header divides time into frames of a second and ticks of a frame (the second of the
# two forms of division of a Standard MIDI File) has the length that follows, or is refused with an error.
# Seen: the division is taken as a signed number of ticks per quarter note (25 frames of 40 ticks, which is
# a millisecond a tick, is -6360), so that `length` and the times of iteration are negative, without a warning.
#
# Last run: 2026-11-29, Python 3.11.7, from nothing:
#   mido 1.3.3
#   25 frames/s, 40 ticks/frame: ticks_per_beat -6360, length -0.079 s (expected 1.000 s), note off
#     after -0.079 s
#   30 frames/s, 80 ticks/frame: ticks_per_beat -7600, length -0.066 s (expected 0.417 s), note off
#     after -0.066 s
#   24 frames/s, 4 ticks/frame: ticks_per_beat -6140, length -0.081 s (expected 10.417 s), note off
#     after -0.081 s
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install mido==1.3.3
"$folder/venv/bin/python" - <<'PYTHON_CODE'
import importlib.metadata
import io
import struct
import warnings

import mido

warnings.simplefilter("error")
print("mido", importlib.metadata.version("mido"))
# A note of 1,000 ticks: 0x87 0x68 is 1,000 as a variable-length quantity.
track = bytes([0, 0x90, 60, 100, 0x87, 0x68, 0x80, 60, 0, 0, 0xFF, 0x2F, 0])
for frames_per_second, ticks_per_frame in ((25, 40), (30, 80), (24, 4)):
    header = struct.pack(">IHHbB", 6, 0, 1, -frames_per_second, ticks_per_frame)
    data = b"MThd" + header + b"MTrk" + struct.pack(">I", len(track)) + track
    midi = mido.MidiFile(file=io.BytesIO(data))
    times_s = [message.time for message in midi]
    expected_s = 1000 / (frames_per_second * ticks_per_frame)
    print(
        f"{frames_per_second} frames/s, {ticks_per_frame} ticks/frame: "
        f"ticks_per_beat {midi.ticks_per_beat}, length {midi.length:.3f} s "
        f"(expected {expected_s:.3f} s), note off after {times_s[1]:.3f} s"
    )
    assert midi.ticks_per_beat == ticks_per_frame - 256 * frames_per_second
    assert midi.length < 0 and times_s[1] < 0
PYTHON_CODE
