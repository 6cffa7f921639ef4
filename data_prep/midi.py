"""The scores in this folder, and any other MIDI files, as notes and excerpts."""

import collections
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

EMBEDDED = pathlib.Path(__file__).parent / "scores"
"""This folder: scores in the public domain or CC0, which README.md lists."""

_FRAMES_PER_SECOND = {24: 24, 25: 25, 29: 30_000 / 1001, 30: 30}
"""Rates of SMPTE time by what a file's header calls them: 29 is that of NTSC."""

_DRUM_CHANNEL = 9  # MIDI's channel 10, counted from 0: its keys are drums, not pitches.


class Note(NamedTuple):
    """One key pressed once.

    Attributes:
        onset_s: Seconds from the start of the score.
        offset_s: Seconds from the start of the score; after the onset.
        pitch: MIDI key, 0..127; 69 is 440 Hz.
        velocity: 1..127.
    """

    onset_s: float
    offset_s: float
    pitch: int
    velocity: int


def find(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the MIDI files under `folder` by piece, which is the file's name without suffix.

    Raises:
        FileNotFoundError: There is no such folder, or no MIDI file in it.
        ValueError: Two files name the same piece.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. Name one of .mid files.")
    files: dict[str, pathlib.Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (".mid", ".midi"):
            continue
        if path.stem in files:
            raise ValueError(f"{files[path.stem]} and {path} name the same piece. Rename one.")
        files[path.stem] = path
    if not files:
        raise FileNotFoundError(f"There is no .mid or .midi file in {folder}.")
    return files


def read(path: pathlib.Path) -> list[Note]:
    """Returns all notes of a MIDI file, of all tracks but drums, by onset and pitch.

    Tempo changes are followed, but where ticks divide the frames of film or video (SMPTE time),
    which no tempo changes. Pedals, bends and controllers are not read. No two notes of one pitch
    overlap, as on a keyboard: of those that start together the longest stays, and a note that still
    sounds when its key is struck again ends there.

    Raises:
        ValueError: The file cannot be read, or holds no notes.
    """
    import mido  # Needed by this command alone, so not among the project's dependencies.

    if not path.is_file():  # To open a pipe or a device could take forever.
        raise ValueError(f"{path} is not a file. Take it out of the folder.")
    try:
        midi = mido.MidiFile(path, clip=True)
        if midi.type == 2:
            raise ValueError("its tracks do not sound together (MIDI type 2)")
        messages = list(_timed(midi))
    except (OSError, EOFError, ValueError, IndexError, mido.KeySignatureError) as error:
        raise ValueError(f"{path} cannot be read as a MIDI file: {error}.") from error

    now_s = 0.0
    pressed = collections.defaultdict(list)  # (channel, pitch) -> onsets and velocities.
    strokes = []
    for message in messages:
        now_s += message.time
        if message.type not in ("note_on", "note_off") or message.channel == _DRUM_CHANNEL:
            continue
        key = (message.channel, message.note)
        if message.type == "note_on" and message.velocity > 0:
            pressed[key].append((now_s, message.velocity))
        elif pressed[key]:
            onset_s, velocity = pressed[key].pop(0)
            strokes.append(Note(onset_s, now_s, message.note, velocity))
    for (_, pitch), held in pressed.items():
        strokes += [Note(onset_s, now_s, pitch, velocity) for onset_s, velocity in held]

    notes = _one_key_per_pitch(strokes)
    if not notes:
        raise ValueError(f"{path} holds no notes besides drums. Take it out of the folder.")
    return notes


def _timed(midi: Any) -> Iterable[Any]:
    """Returns the messages of all tracks in order, each with the seconds since the one before.

    Raises:
        ValueError: Its header divides time in no way that MIDI knows.
    """
    import mido

    # 16 bits, signed: ticks in a quarter note; or frames in a second, negative, in the upper byte
    # and ticks in a frame in the lower one, which mido takes for ticks in a quarter note, too.
    division = midi.ticks_per_beat
    if division > 0:
        return midi
    frames, ticks_per_frame = -(division >> 8), division & 0xFF
    if frames not in _FRAMES_PER_SECOND or not ticks_per_frame:
        raise ValueError(
            f"its header divides time by {division & 0xFFFF:#06x}, which means nothing"
        )
    seconds_per_tick = 1 / (_FRAMES_PER_SECOND[frames] * ticks_per_frame)
    return [
        message.copy(skip_checks=True, time=message.time * seconds_per_tick)
        for message in mido.merge_tracks(midi.tracks)
    ]


def _one_key_per_pitch(strokes: list[Note]) -> list[Note]:
    """Removes the overlaps of notes of one pitch; see `read`."""
    by_pitch: dict[int, list[Note]] = collections.defaultdict(list)
    for note in sorted(strokes, key=lambda note: (note.onset_s, -note.offset_s)):
        if note.offset_s <= note.onset_s:
            continue
        earlier = by_pitch[note.pitch]
        if earlier and earlier[-1].onset_s == note.onset_s:
            continue
        if earlier and earlier[-1].offset_s > note.onset_s:
            earlier[-1] = earlier[-1]._replace(offset_s=note.onset_s)
        earlier.append(note)
    return sorted(
        (note for notes in by_pitch.values() for note in notes),
        key=lambda note: (note.onset_s, note.pitch),
    )


def is_one_line(notes: Sequence[Note]) -> bool:
    """Whether no two notes sound together (for more than the rounding of a table)."""
    ordered = sorted(notes)
    return all(a.offset_s <= b.onset_s + 1e-3 for a, b in zip(ordered, ordered[1:], strict=False))


def melody(notes: list[Note]) -> list[Note]:
    """Returns the top line of a score, one note at a time.

    A note is part of it if nothing higher sounds when it starts; it ends where the next begins.
    """
    line: list[Note] = []
    # Of notes that start together the highest comes first, and hides the others.
    for note in sorted(notes, key=lambda note: (note.onset_s, -note.pitch)):
        if line and note.onset_s < line[-1].offset_s:
            if note.pitch <= line[-1].pitch:
                continue
            line[-1] = line[-1]._replace(offset_s=note.onset_s)
        line.append(note)
    return line


def cut(notes: list[Note], excerpt_s: float) -> list[list[Note]]:
    """Divides a score into excerpts of about `excerpt_s` seconds; every note is in one of them.

    A note belongs to the excerpt in which it starts and is never shortened: it sounds past the
    cut in its own excerpt and is missing from the next. Cuts are onsets, within a quarter of an
    excerpt of equal spacing, and there those across which the fewest notes are held.
    """
    onsets = np.array([note.onset_s for note in notes])
    offsets = np.sort([note.offset_s for note in notes])
    num_excerpts = max(1, round((offsets[-1] - onsets[0]) / excerpt_s))
    step_s = (offsets[-1] - onsets[0]) / num_excerpts
    candidates = np.unique(onsets)
    # Held across t: begun before t and not ended at t; a millisecond forgives rounded ticks.
    held = np.searchsorted(onsets, candidates) - np.searchsorted(offsets, candidates + 1e-3)

    cuts = []
    for ideal_s in onsets[0] + step_s * np.arange(1, num_excerpts):
        distance = np.abs(candidates - ideal_s)
        allowed = np.flatnonzero(distance <= step_s / 4)
        if allowed.size:
            cuts.append(candidates[min(allowed, key=lambda i: (held[i], distance[i]))])
    bounds = [0, *np.searchsorted(onsets, cuts), len(notes)]
    return [notes[first:last] for first, last in zip(bounds, bounds[1:], strict=False)]


def from_zero(notes: list[Note]) -> list[Note]:
    """Returns the notes moved in time so that the first starts at 0 s."""
    start_s = notes[0].onset_s
    return [
        note._replace(onset_s=note.onset_s - start_s, offset_s=note.offset_s - start_s)
        for note in notes
    ]
