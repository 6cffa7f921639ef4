#!/usr/bin/env bash
# librosa 0.11.0: `griffinlim` takes no `length` of as many hops as there are frames.
#
# Expected: a spectrogram of F frames is turned into F * hop samples, a frame for each hop, by `length=F * hop`, as `istft` does with
# the same spectrum and length.
# Seen: `istft` returns them; `griffinlim` raises a ValueError of NumPy, "could not broadcast input array from shape (257,11) into
# shape (257,10)", since the transform of a waveform of that length has one frame more than it began with. Without `length` it returns
# (F - 1) * hop samples. A last frame that is there twice, cut off again by `length`, goes around it.
#
# Last run: 2026-11-30, Python 3.11.7:
#   istft: 1000
#   griffinlim, length=900: 900
#   griffinlim, length=1000: ValueError
#   griffinlim, a frame more, length=1000: 1000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install librosa==0.11.0 numpy==2.3.5
cat > "$folder/lengths.py" <<'PYTHON_CODE'
import librosa
import numpy as np

spectrum = np.random.default_rng(0).random((257, 10)).astype(np.float32)
longer = np.concatenate([spectrum, spectrum[:, -1:]], axis=1)


def samples(magnitudes, length):
    try:
        return len(librosa.griffinlim(magnitudes, n_iter=2, hop_length=100, n_fft=512, length=length, random_state=0))
    except ValueError as error:
        assert "could not broadcast input array from shape (257,11) into shape (257,10)" in str(error), error
        return "ValueError"


print("istft:", len(librosa.istft(spectrum.astype(complex), hop_length=100, n_fft=512, length=1000)))
print("griffinlim, length=900:", samples(spectrum, 900))
print("griffinlim, length=1000:", samples(spectrum, 1000))
print("griffinlim, a frame more, length=1000:", samples(longer, 1000))
PYTHON_CODE
"$folder/venv/bin/python" "$folder/lengths.py" | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
istft: 1000
griffinlim, length=900: 900
griffinlim, length=1000: ValueError
griffinlim, a frame more, length=1000: 1000
SEEN
