#!/usr/bin/env bash
# PyAV 18.1.0: a planar audio frame of 7.1 has nine planes.
#
# Expected: a planar frame has one plane per channel: 8 for 7.1.
# Seen: `len(frame.planes)` is 6 for 5.1, 7 for 6.1 and 9 for 7.1, fltp and s16p alike, and
# `AudioFrame.from_ndarray` of a [8, samples] array raises an IndexError for 7.1. Frames that the AAC decoder
# gives have nine as well. Packed frames (flt) have one plane and are right. So surround sound cannot be
# taken plane by plane without counting the channels. The nature of the ninth plane is left alone here.
# PyAV 19.0.2 (Python 3.12 or newer, seen with 3.13 on 2026-11-29) no longer gives a ninth plane, but
# `planes` and `from_ndarray` of the same frames raise "plane index 8 out of range for 8 planes".
#
# Last run: 2026-11-29, Python 3.11.7, from nothing:
#   PyAV 18.1.0
#   fltp stereo: 2 planes, from_ndarray made
#   fltp 5.1: 6 planes, from_ndarray made
#   fltp 6.1: 7 planes, from_ndarray made
#   fltp 7.1: 9 planes, from_ndarray IndexError: index 8 is out of bounds for axis 0 with size 8
#   s16p stereo: 2 planes, from_ndarray made
#   s16p 5.1: 6 planes, from_ndarray made
#   s16p 6.1: 7 planes, from_ndarray made
#   s16p 7.1: 9 planes, from_ndarray IndexError: index 8 is out of bounds for axis 0 with size 8
#   decoded AAC 7.1 fltp: 9 planes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON_CODE'
import io

import av
import numpy as np

print("PyAV", av.__version__)
for sample_format, dtype in {"fltp": np.float32, "s16p": np.int16}.items():
    for layout, num_channels in {"stereo": 2, "5.1": 6, "6.1": 7, "7.1": 8}.items():
        frame = av.AudioFrame(format=sample_format, layout=layout, samples=100)
        try:
            silence = np.zeros((num_channels, 100), dtype)
            av.AudioFrame.from_ndarray(silence, format=sample_format, layout=layout)
            made = "made"
        except IndexError as error:
            made = f"IndexError: {error}"
        num_planes = len(frame.planes)
        print(f"{sample_format} {layout}: {num_planes} planes, from_ndarray {made}")
        assert num_planes == num_channels + (layout == "7.1")
        assert made.startswith("IndexError") == (layout == "7.1")

file = io.BytesIO()
with av.open(file, "w", format="adts") as container:
    stream = container.add_stream("aac", rate=48000, layout="7.1")
    frame = av.AudioFrame(format="flt", layout="7.1", samples=1024)
    assert len(frame.planes) == 1
    frame.planes[0].update(bytes(frame.planes[0].buffer_size))
    frame.sample_rate, frame.pts = 48000, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
file.seek(0)
with av.open(file) as container:
    frame = next(container.decode(audio=0))
print(f"decoded AAC {frame.layout.name} {frame.format.name}: {len(frame.planes)} planes")
assert frame.layout.nb_channels == 8 and frame.format.name == "fltp" and len(frame.planes) == 9
PYTHON_CODE
