#!/usr/bin/env bash
# librosa 0.11.0 and 1.0.0: `griffinlim(random_state=0)` draws other phases in each.
#
# Expected: 1.0.0 renames `random_state` to `rng` and still takes the old name, with a FutureWarning, for the same sound.
# Seen: the same call, the same seed, another sound. 0.11.0 reads an integer as the seed of a `numpy.random.RandomState`, 1.0.0, under
# both names, as that of `numpy.random.default_rng`. A `RandomState(0)` handed over in its place is taken by both, and gives in both
# what 0.11.0 gave for 0.
#
# Last run: 2026-11-30, Python 3.13.0:
#   librosa 0.11.0, random_state=0: as RandomState(0)
#   librosa 1.0.0, random_state=0: FutureWarning, as default_rng(0)
#   both, RandomState(0): the same sound
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/seeds.py" <<'PYTHON_CODE'
import sys
import warnings

import librosa
import numpy as np

spectrum = np.random.default_rng(1).random((257, 10)).astype(np.float32)


def sound(**random):
    return librosa.griffinlim(spectrum, n_iter=2, hop_length=100, n_fft=512, **random)


def name(found):
    # What the seed would give as either generator's first phases, by the version's own transforms.
    for label, generator in (("RandomState(0)", np.random.RandomState(0)), ("default_rng(0)", np.random.default_rng(0))):
        angles = np.exp(2j * np.pi * generator.random(size=spectrum.shape)).astype(np.complex64)
        once = librosa.istft(spectrum * angles, hop_length=100, n_fft=512)
        if np.allclose(found, once, atol=1e-5):
            return label
    return "neither"


warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as caught:
    found = librosa.griffinlim(spectrum, n_iter=0, hop_length=100, n_fft=512, random_state=0)
said = "FutureWarning, " if any(warning.category is FutureWarning for warning in caught) else ""
print(f"librosa {librosa.__version__}, random_state=0: {said}as {name(found)}")
warnings.simplefilter("ignore")
np.save(sys.argv[1], sound(random_state=np.random.RandomState(0)))
PYTHON_CODE
for version in 0.11.0 1.0.0; do
  "${PYTHON:-python3.13}" -m venv "$folder/$version"
  "$folder/$version/bin/pip" -qq --disable-pip-version-check install "librosa==$version" numpy==2.3.5
  "$folder/$version/bin/python" "$folder/seeds.py" "$folder/$version.npy" 2>/dev/null | tee -a "$folder/seen"
done
"$folder/1.0.0/bin/python" - "$folder"/0.11.0.npy "$folder"/1.0.0.npy <<'PYTHON_CODE' | tee -a "$folder/seen"
import sys

import numpy as np

first, second = map(np.load, sys.argv[1:])
print("both, RandomState(0):", "the same sound" if np.allclose(first, second, atol=1e-4) else "another sound")
PYTHON_CODE
diff - "$folder/seen" <<'SEEN'
librosa 0.11.0, random_state=0: as RandomState(0)
librosa 1.0.0, random_state=0: FutureWarning, as default_rng(0)
both, RandomState(0): the same sound
SEEN
