#!/usr/bin/env bash
# librosa 1.0.0: plain calls of effects.pitch_shift and effects.time_stretch raise FutureWarnings.
#
# Expected: a call with required arguments alone warns of nothing.
# Seen: two FutureWarnings that `hop_length` and `n_fft` are deprecated, though the caller gave neither:
# time_stretch itself hands both, as None, to phase_vocoder, whose default for "not given" is no longer None.
# They are attributed to librosa's own file. Under `python -W error` (as of many test suites) a plain call
# is an error.
#
# Needs Python 3.12 or newer; exits with 77 where there is none.
# Last run: 2026-11-28, Python 3.13.0:
#   librosa 1.0.0 pitch_shift warns of hop_length n_fft; an error under -W error
#   librosa 1.0.0 time_stretch warns of hop_length n_fft; an error under -W error
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=
shopt -s nullglob
for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 \
  "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python3; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [[ -z $python ]]; then
  echo "skipped: librosa 1.0.0 needs Python 3.12 or newer; name one: PYTHON=/path/to/python3.12 bash $0" >&2
  exit 77
fi
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install librosa==1.0.0
"$folder/venv/bin/python" - <<'PYTHON_CODE'
import warnings

import librosa
import numpy as np

tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32)
for name, call in {
    "pitch_shift": lambda: librosa.effects.pitch_shift(tone, sr=16000, n_steps=1),
    "time_stretch": lambda: librosa.effects.time_stretch(tone, rate=0.9),
}.items():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    named = sorted(str(warning.message).split("`")[1] for warning in caught)
    print(f"librosa {librosa.__version__} {name} warns of", *named, end="; ")
    assert named == ["hop_length", "n_fft"], caught
    assert all(warning.category is FutureWarning for warning in caught)
    assert all("librosa" in warning.filename for warning in caught), "attributed to the caller"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            call()
        except FutureWarning:
            print("an error under -W error")
        else:
            raise SystemExit("no error under -W error")
PYTHON_CODE
