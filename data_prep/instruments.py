"""Instruments of a sound font: notes -> waveform."""

import importlib.util
import math
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from data_prep import midi
from umt_jax import path_flags
from umt_jax.audio import level, sound_files
from umt_jax.shapes import Waveform

# General MIDI programs, counted from 0.
PROGRAMS = {
    "Piano": 0,
    "Harpsichord": 6,
    "Vibraphone": 11,
    "Marimba": 12,
    "Organ": 19,
    "Accordion": 21,
    "Guitar": 24,
    "Violin": 40,
    "Cello": 42,
    "Harp": 46,
    "Strings": 48,
    "Choir": 52,
    "Trumpet": 56,
    "Horn": 60,
    "Brass": 61,
    "Saxophone": 65,
    "Oboe": 68,
    "Bassoon": 70,
    "Clarinet": 71,
    "Flute": 73,
    "Pan_Flute": 75,
    "Fiddle": 110,
}

LEVEL_DBFS = -23.0
"""RMS of every recording: low enough that the peaks of all instruments above fit."""

LEAD_S = 0.1
"""Silence before the first note."""

TAIL_S = 1.0
"""From the end of the last note to the end of the recording."""

SYNTHESIS_RATE_HZ = 48_000
"""The synthesizer interpolates linearly, without a filter: at 16 kHz it would alias audibly."""

_FADE_S = 0.05
_PEAK_LIMIT = 0.99


def check_names(names: Sequence[str]) -> list[str]:
    """Returns the names as `PROGRAMS` writes them; upper or lower case is the same.

    Raises:
        ValueError: One is not in `PROGRAMS`, or none is given, or one twice.
    """
    known = {name.lower(): name for name in PROGRAMS}
    unknown = [name for name in names if name.lower() not in known]
    if unknown or not names:
        raise ValueError(
            f"--instruments={','.join(names)}: there is no {' or '.join(unknown) or 'name'}. "
            f"Choose from {', '.join(PROGRAMS)}."
        )
    instruments = [known[name.lower()] for name in names]
    if len(set(instruments)) < len(instruments):
        raise ValueError(f"--instruments={','.join(names)} names an instrument twice.")
    return instruments


def define_soundfont() -> None:
    """Declares --soundfont, which `find_soundfont` takes, for commands that render."""
    path_flags.define("soundfont", None, "An .sf2 file; TimGM6mb of pretty_midi if not given.")


def find_soundfont(soundfont: str | None) -> pathlib.Path:
    """Returns the sound font's path: the one given, or the one inside pretty_midi.

    Raises:
        ValueError: A package is missing.
        FileNotFoundError: There is no such sound font.
    """
    for package in ("mido", "tinysoundfont", "pretty_midi"):
        if package == "pretty_midi" and soundfont:
            continue
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f"Rendering needs the package {package}. Type: pip install 'mido>=1.3' && "
                "pip install --no-deps tinysoundfont==0.3.7 pretty_midi==0.2.11.post0"
            )
    if soundfont:
        path = pathlib.Path(soundfont)
    else:
        # Found, not imported: pretty_midi's own dependencies are not installed.
        spec = importlib.util.find_spec("pretty_midi")
        assert spec is not None and spec.origin is not None
        path = pathlib.Path(spec.origin).with_name("TimGM6mb.sf2")
    if not path.is_file():
        raise FileNotFoundError(f"There is no sound font {path}. Name an .sf2 with --soundfont=.")
    return path


def play(
    notes: Sequence[midi.Note], *, program: int, soundfont: pathlib.Path, sample_rate_hz: int
) -> Waveform:
    """Plays notes with one instrument.

    Args:
        notes: The first of them sounds `LEAD_S` after the start, whatever its onset.
        program: General MIDI program, counted from 0.
        soundfont: An .sf2 file.
        sample_rate_hz: Rate of the waveform.

    Returns:
        Mono, float32, [T], with an RMS of `LEVEL_DBFS`, or lower where peaks would clip. T depends
        on the notes alone, not on the instrument.

    Raises:
        ValueError: The sound font cannot be read, has no such program or gives silence.
    """
    synthesizer = _synthesizer(soundfont, program)
    events = []  # (sample, 0 for the end or 1 for the start of a note, pitch, velocity)
    for note in midi.from_zero(list(notes)):
        events.append((_sample(LEAD_S + note.onset_s), 1, note.pitch, note.velocity))
        events.append((_sample(LEAD_S + note.offset_s), 0, note.pitch, 0))
    duration_s = max(event[0] for event in events) / SYNTHESIS_RATE_HZ + TAIL_S
    num_samples = math.ceil(duration_s * sample_rate_hz)

    blocks, now = [], 0
    for sample, is_start, pitch, velocity in [*sorted(events), (_sample(duration_s), 0, 0, 0)]:
        if sample > now:
            blocks.append(_generate(synthesizer, sample - now))
            now = sample
        if is_start:
            synthesizer.noteon(0, pitch, velocity)
        else:
            synthesizer.noteoff(0, pitch)
    waveform = sound_files.resample(
        np.concatenate(blocks), from_hz=SYNTHESIS_RATE_HZ, to_hz=sample_rate_hz
    )
    waveform = np.pad(waveform, (0, max(0, num_samples - len(waveform))))[:num_samples]
    num_faded = round(_FADE_S * sample_rate_hz)
    waveform[-num_faded:] *= np.linspace(1, 0, num_faded, dtype=np.float32)
    if not np.any(waveform):
        raise ValueError(f"--soundfont={soundfont} plays program {program} as silence.")
    return at_level(waveform)


def tones(
    keys: Iterable[int], *, program: int, soundfont: pathlib.Path, velocity: int, seconds: float
) -> Iterator[tuple[int, Waveform]]:
    """Yields keys held alone, each with its start: float32, [T], at `SYNTHESIS_RATE_HZ`.

    Raises:
        ValueError: The sound font cannot be read or has no such program.
    """
    synthesizer = _synthesizer(soundfont, program)
    for key in keys:
        synthesizer.sounds_off()
        _generate(synthesizer, _sample(_FADE_S))  # What the voices of the last key fade out in.
        synthesizer.noteon(0, key, velocity)
        yield key, _generate(synthesizer, _sample(seconds))


def _synthesizer(soundfont: pathlib.Path, program: int) -> Any:
    """Returns a new synthesizer: nothing of an earlier recording is left in its voices."""
    import tinysoundfont  # Needed by these commands alone, so not among the dependencies.

    synthesizer = tinysoundfont.Synth(samplerate=SYNTHESIS_RATE_HZ)
    try:
        synthesizer.program_select(0, synthesizer.sfload(str(soundfont)), 0, program)
    except RuntimeError as error:
        raise ValueError(
            f"--soundfont={soundfont} cannot play program {program}: {error}"
        ) from error
    return synthesizer


def _generate(synthesizer: Any, num_samples: int) -> Waveform:
    stereo = np.frombuffer(synthesizer.generate(num_samples), np.float32)
    return stereo.reshape(-1, 2).mean(axis=1)


def _sample(time_s: float) -> int:
    return round(time_s * SYNTHESIS_RATE_HZ)


def at_level(waveform: Waveform) -> Waveform:
    """Scales to `LEVEL_DBFS`, or to the largest level at which no peak clips."""
    gain = min(
        10 ** (LEVEL_DBFS / 20) / level.rms(waveform), _PEAK_LIMIT / np.max(np.abs(waveform))
    )
    return (waveform * gain).astype(np.float32)
