#!/usr/bin/env bash
# pedalboard 0.9.26: an MP3 is read with its encoder's delay, which soundfile takes off.
#
# Expected: two readers of the same MP3 give the same samples: the file's header says how many belong to the encoder.
# Seen: `pedalboard.io.AudioFile` gives what soundfile 0.14.0 (libsndfile 1.2.2) gives 1,105 samples later, 25 ms at 44.1 kHz, and 1,656
# frames more; labels in seconds that were made with one reader do not fit the other. Ogg Vorbis and FLAC are the same in both.
#
# Last run: 2026-11-30, Python 3.11.7:
#   mp3: pedalboard 1105 samples later, 1656 frames longer
#   ogg: pedalboard 0 samples later, 0 frames longer
#   flac: pedalboard 0 samples later, 0 frames longer
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install numpy==2.3.5 soundfile==0.14.0 pedalboard==0.9.26
cat > "$folder/delays.py" <<'PYTHON_CODE'
import sys
from pathlib import Path

import numpy as np
import soundfile
from pedalboard.io import AudioFile

RATE_HZ = 44_100
times = np.arange(2 * RATE_HZ) / RATE_HZ
sound = (0.5 * np.sin(2 * np.pi * 1000 * times) * (times >= 0.5)).astype(np.float32)
for suffix in ("mp3", "ogg", "flac"):
    path = str(Path(sys.argv[1], f"tone.{suffix}"))
    soundfile.write(path, sound, RATE_HZ)
    by_soundfile, _ = soundfile.read(path, dtype="float32")
    with AudioFile(path) as file:
        by_pedalboard = file.read(file.frames)[0]
    onsets = [int(np.argmax(np.abs(samples) > 0.1)) for samples in (by_soundfile, by_pedalboard)]
    later, longer = onsets[1] - onsets[0], len(by_pedalboard) - len(by_soundfile)
    assert np.abs(by_pedalboard[later : later + len(by_soundfile)] - by_soundfile).max() < 0.01
    print(f"{suffix}: pedalboard {later} samples later, {longer} frames longer")
PYTHON_CODE
"$folder/venv/bin/python" "$folder/delays.py" "$folder" | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
mp3: pedalboard 1105 samples later, 1656 frames longer
ogg: pedalboard 0 samples later, 0 frames longer
flac: pedalboard 0 samples later, 0 frames longer
SEEN
