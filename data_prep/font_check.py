"""Which keys an instrument of a sound font plays as they are written.

    python -m data_prep.font_check --soundfont=FILE

prints a table of the keys that are silent, out of tune or in another octave. Fonts have such
faults: a key that no sample covers, a sample tuned wrongly. `docs/reference/sound_fonts.md` lists
those of two fonts.
`data_prep.render` measures the keys that its scores ask for.
"""

import functools
import math
import pathlib
from collections.abc import Collection, Iterable, Mapping

import librosa
import numpy as np
from absl import flags

from data_prep import instruments
from umt_jax import command_line
from umt_jax.audio import sound_files
from umt_jax.shapes import Waveform

KEYS = range(21, 109)
"""MIDI numbers of a piano's keys, beyond which scores hardly go."""

TOLERANCE_CENTS = 15.0
"""Further off, a key is out of tune: what a trained ear notices, and a third of what the pitch
measures of `experiments.evaluate` forgive."""

_VELOCITY = 90
# As long as a melody's longest notes: some samples drift later.
_SECONDS = 1.0
_ATTACK_S = 0.05
_SILENCE_DBFS = -70.0
_FADED = 0.1  # Of the loudest frame's RMS: what is quieter is the end of a struck or plucked tone.
_FRAME_S = 0.02

# YIN: a period is looked for beyond an octave lower and higher, and is many samples long. Frames
# further off than any vibrato are astray, and this share of them is more than a slip.
_SEARCHED_RATIO = 2.6
_MIN_PERIOD_SAMPLES = 50
_ASTRAY_CENTS, _ASTRAY_SHARE = 50.0, 0.25

# Partials: how far from its place one is looked for, what share of all power must be in tune, and
# what share between the partials makes an octave low, or without it at the odd ones an octave high.
_PARTIAL_CENTS = 70.0
_IN_TUNE_SHARE, _OCTAVE_SHARE = 0.5, 0.05
_NUM_PARTIALS = 20

_NOTE_NAMES = "C C# D D# E F F# G G# A A# B".split()


def measure(
    domain: str, soundfont: pathlib.Path, keys: Iterable[int] = KEYS
) -> dict[int, float | None]:
    """Measures how far keys of an instrument are from their pitch.

    Args:
        domain: A name of `instruments.PROGRAMS`.
        soundfont: An .sf2 file.
        keys: MIDI keys.

    Returns:
        Cents by key over the first second of a held tone, whole octaves included; None for a key
        that is silent.

    Raises:
        ValueError: The sound font cannot be read or has no such instrument.
    """
    tones = instruments.tones(
        keys,
        program=instruments.PROGRAMS[domain],
        soundfont=soundfont,
        velocity=_VELOCITY,
        seconds=_SECONDS,
    )
    return {
        key: deviation_cents(tone, key=key, sample_rate_hz=instruments.SYNTHESIS_RATE_HZ)
        for key, tone in tones
    }


def deviation_cents(tone: Waveform, *, key: int, sample_rate_hz: int) -> float | None:
    """Returns how many cents a tone [T] is above the pitch of a key; None if it is silent.

    By YIN, which needs no package besides librosa. Trackers slip: on struck bars and bass strings,
    whose partials are no multiples of one pitch, and on organs. So where YIN finds a fault, and the
    partials are where those of the key belong, it is the partials' deviation.
    """
    tone = np.asarray(tone)
    levels = librosa.feature.rms(
        y=tone,
        frame_length=2 * round(_FRAME_S * sample_rate_hz),
        hop_length=round(_FRAME_S * sample_rate_hz),
        pad_mode="constant",
    )[0]
    if np.max(levels) < 10 ** (_SILENCE_DBFS / 20):
        return None
    written_hz = float(librosa.midi_to_hz(key))
    by_yin = _yin_cents(tone, levels, written_hz, sample_rate_hz)
    if is_true(by_yin):
        return by_yin
    by_partials = _partials_cents(tone, written_hz, sample_rate_hz)
    return by_yin if by_partials is None else by_partials


def _yin_cents(tone, levels, written_hz, sample_rate_hz):
    """Returns the median of the frames; of those that are astray where these are many."""
    # YIN interpolates badly between few samples: at 16 kHz it is 10 to 20 cents sharp from key 91.
    factor = max(1, math.ceil(_MIN_PERIOD_SAMPLES * written_hz / sample_rate_hz))
    rate_hz = factor * sample_rate_hz
    lowest_hz = written_hz / _SEARCHED_RATIO
    pitches_hz = librosa.yin(
        sound_files.resample(tone, from_hz=sample_rate_hz, to_hz=rate_hz),
        fmin=lowest_hz,
        fmax=min(written_hz * _SEARCHED_RATIO, 0.25 * rate_hz),
        sr=rate_hz,
        # A power of two that holds two of the longest periods.
        frame_length=max(2048, 2 ** math.ceil(math.log2(2.2 * rate_hz / lowest_hz))),
        hop_length=factor * round(_FRAME_S * sample_rate_hz),
    )
    after_attack = np.arange(len(levels)) * _FRAME_S >= _ATTACK_S
    sounding = after_attack & (levels >= _FADED * np.max(levels))
    cents = 1200 * np.log2(pitches_hz[: len(levels)][sounding] / written_hz)
    astray = np.abs(cents) > _ASTRAY_CENTS
    return float(np.median(cents[astray] if np.mean(astray) >= _ASTRAY_SHARE else cents))


def _partials_cents(tone, written_hz, sample_rate_hz):
    """Returns the mean deviation of the partials in tune, weighted by power; None if too few are.

    None as well where the tone has partials in between, as if it were an octave low, or none but
    even ones, as if it were an octave high.
    """
    tone = tone[round(_ATTACK_S * sample_rate_hz) :]
    num_bins = 2 ** math.ceil(math.log2(4 * len(tone)))  # Four bins for each that is resolved.
    power = np.abs(np.fft.rfft(tone * np.hanning(len(tone)), num_bins)) ** 2
    bin_hz = sample_rate_hz / num_bins
    powers, cents = np.zeros((2, 2 * _NUM_PARTIALS))  # Of multiples of half the written pitch.
    for half in range(2 * _NUM_PARTIALS):
        place_hz = (half + 1) * written_hz / 2
        reach_hz = min(place_hz * (2 ** (_PARTIAL_CENTS / 1200) - 1), written_hz / 5)
        first, last = (round((place_hz + sign * reach_hz) / bin_hz) for sign in (-1, 1))
        if last >= len(power) - 1:
            break
        powers[half] = np.sum(power[first : last + 1])
        peak = first + int(np.argmax(power[first : last + 1]))
        before, at, after = np.log(power[peak - 1 : peak + 2] + 1e-30)
        curvature = before - 2 * at + after
        offset = 0.5 * (before - after) / curvature if curvature < 0 else 0.0
        cents[half] = 1200 * np.log2((peak + np.clip(offset, -0.5, 0.5)) * bin_hz / place_hz)
    between, partials = powers[0::2], powers[1::2]
    in_tune = np.where(np.abs(cents[1::2]) <= TOLERANCE_CENTS, partials, 0)
    if (
        np.sum(in_tune) < _IN_TUNE_SHARE * np.sum(power)
        or np.sum(between) > _OCTAVE_SHARE * np.sum(power)
        or np.sum(partials[0::2]) < _OCTAVE_SHARE * np.sum(partials)
    ):
        return None
    return float(np.average(cents[1::2], weights=in_tune))


def is_true(cents: float | None) -> bool:
    """Whether a key so far off sounds as it is written."""
    return cents is not None and abs(cents) <= TOLERANCE_CENTS


@functools.lru_cache(maxsize=256)
def playable_keys(domain: str, soundfont: pathlib.Path) -> frozenset[int]:
    """Returns the keys, of `KEYS`, that an instrument of a sound font plays as they are written.

    Takes a second, once in a process for each instrument and font.

    Raises:
        ValueError: The sound font cannot be read or has no such instrument.
    """
    return frozenset(key for key, cents in measure(domain, soundfont).items() if is_true(cents))


def describe(measured: Mapping[int, float | None]) -> str:
    """Returns in words what is wrong with the keys that are false: "64 (E4) silent"."""
    by_fault: dict[str, list[int]] = {}
    for key, cents in sorted(measured.items()):
        if not is_true(cents):
            by_fault.setdefault(_fault(cents), []).append(key)
    parts = []
    for fault, keys in by_fault.items():
        if fault in ("flat", "sharp"):
            sizes = sorted(round(abs(measured[key] or 0)) for key in keys)
            span = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
            fault = f"{span} cents {fault}"
        parts.append(f"{name_keys(keys)} {fault}")
    return "; ".join(parts)


def name_keys(keys: Collection[int]) -> str:
    """Returns keys as runs: "60-62 (C4-D4), 64 (E4)"."""
    runs: list[list[int]] = []
    for key in sorted(keys):
        if runs and key == runs[-1][-1] + 1:
            runs[-1].append(key)
        else:
            runs.append([key])
    return ", ".join(
        f"{run[0]} ({_note(run[0])})"
        if len(run) == 1
        else f"{run[0]}-{run[-1]} ({_note(run[0])}-{_note(run[-1])})"
        for run in runs
    )


def _note(key: int) -> str:
    return f"{_NOTE_NAMES[key % 12]}{key // 12 - 1}"


def _fault(cents: float | None) -> str:
    if cents is None:
        return "silent"
    octaves = round(cents / 1200)
    if octaves and abs(cents - 1200 * octaves) <= 50:
        return f"an octave {'high' if octaves > 0 else 'low'}"
    return "sharp" if cents > 0 else "flat"


def define_flags() -> None:
    """Declares this command's flags."""
    instruments.define_soundfont()
    flags.DEFINE_list("instruments", list(instruments.PROGRAMS), "Which to measure.")


def main() -> None:
    """Measures as the flags say and prints the table."""
    args = flags.FLAGS
    soundfont = instruments.find_soundfont(args.soundfont)
    domains = instruments.check_names(args.instruments)
    command_line.say(f"| {soundfont.name} | false keys of {KEYS[0]} to {KEYS[-1]} |", "|---|---|")
    for domain in domains:
        keys = describe(measure(domain, soundfont)) or "none"
        command_line.say(f"| {domain} | {keys} |")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
