#!/usr/bin/env bash
# librosa 0.11.0: effects.pitch_shift changes the level by the sign of the shift.
#
# Expected: a shift of a thousandth of a semitone leaves a sound as loud as it was, up as down.
# Seen: any shift upwards, however small, makes a tone 0.8 dB and white noise 2.6 dB quieter. Shifts
# downwards leave a tone as it is (0.0 dB); small ones take 0.2 dB from noise. The level of sounds
# shifted by a data augmentation so tells the sign of the shift.
# Why, as far as can be seen from outside: with silence before the tone nothing is lost, nor with
# center=False. Of a sound that starts at once the first frame is half padding, so that its partials'
# phases do not advance like those of a steady sound. A stretch (which a shift upwards begins with)
# uses that first advance twice, and the bins of a partial stay out of step with each other to the end.
# Downwards it is used once. So is it in librosa 1.0.0, whose phase vocoder is another.
#
# Last run: 2026-11-28, Python 3.11.7, from nothing:
#   librosa 0.11.0, dB: tone up -0.84 -0.84 -0.84; tone down +0.00 +0.00 +0.00; noise +-0.001 -2.62 -0.23;
#   silence, tone up -0.00 -0.00 +0.00; tone up, center=False -0.00 -0.00 -0.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install librosa==0.11.0
"$folder/venv/bin/python" - <<'PYTHON_CODE'
import librosa
import numpy as np

RATE_HZ, SECONDS = 16000, 4
time_s = np.arange(SECONDS * RATE_HZ) / RATE_HZ
tone = (0.3 * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)
noise = (0.1 * np.random.default_rng(0).standard_normal(len(tone))).astype(np.float32)
silence = np.zeros(RATE_HZ // 4, np.float32)


def change_db(sound, semitones, **arguments):
    """Returns how much louder the middle of a sound is once shifted."""
    shifted = librosa.effects.pitch_shift(sound, sr=RATE_HZ, n_steps=semitones, **arguments)
    assert len(shifted) == len(sound)
    middle = slice(RATE_HZ, -RATE_HZ)
    power = [np.mean(np.square(y[middle], dtype=np.float64)) for y in (shifted, sound)]
    return 10 * np.log10(power[0] / power[1])


up, down = (0.001, 0.1, 0.5), (-0.001, -0.1, -0.5)
seen = {
    "tone up": [change_db(tone, shift) for shift in up],
    "tone down": [change_db(tone, shift) for shift in down],
    "noise +-0.001": [change_db(noise, shift) for shift in (0.001, -0.001)],
    "silence, tone up": [change_db(np.concatenate([silence, tone]), shift) for shift in up],
    "tone up, center=False": [change_db(tone, shift, center=False) for shift in up],
}
print(
    f"librosa {librosa.__version__}, dB:",
    "; ".join(f"{name} " + " ".join(f"{db:+.2f}" for db in dbs) for name, dbs in seen.items()),
)
assert all(-1.0 < db < -0.7 for db in seen["tone up"]), "upward shifts of a tone"
assert all(abs(db) < 0.05 for db in seen["tone down"]), "downward shifts of a tone"
assert seen["noise +-0.001"][0] < -2.3 and seen["noise +-0.001"][1] > -0.4, "noise"
assert all(abs(db) < 0.05 for db in seen["silence, tone up"]), "with silence before"
assert all(abs(db) < 0.05 for db in seen["tone up, center=False"]), "without padding"
PYTHON_CODE
