"""Baseline without a model: transcribes the notes of a source and plays them by a synthesizer.

A baseline, for music whose instruments a sound font has. A single line is written down by the
pitch tracker, other music by basic-pitch.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
import tqdm

from data_prep import instruments, midi
from experiments.evaluation import decoys, pieces, transcription
from experiments.evaluation.measuring import Pair
from experiments.evaluation.pieces import Music
from umt_jax.shapes import Waveform


def outputs(
    music: Music, pairs: Sequence[Pair], soundfont: pathlib.Path
) -> dict[Pair, dict[str, Waveform]]:
    """Transcribes the sources of pairs and renders them as their targets, by piece.

    Args:
        music: Recordings of instruments that the sound font has.
        pairs: Which to play.
        soundfont: An .sf2 file.
    """
    heard = {
        source: {
            piece: transcribe(waveform, music.sample_rate_hz, is_line=music.is_one_line)
            for piece, waveform in music.recordings[source].items()
        }
        for source in dict.fromkeys(source for source, _ in pairs)
    }
    return {
        (source, target): {
            piece: render(
                notes,
                target,
                soundfont=soundfont,
                sample_rate_hz=music.sample_rate_hz,
                num_samples=len(music.recordings[source][piece]),
            )
            for piece, notes in heard[source].items()
        }
        for source, target in tqdm.tqdm(pairs, desc="Rendering", unit="pair")
    }


def transcribe(waveform: Waveform, sample_rate_hz: int, *, is_line: bool) -> list[midi.Note]:
    """Returns the notes heard in a sound, [T]."""
    levelled = transcription.gate(decoys.at_level(waveform), sample_rate_hz)
    listen = transcription.line if is_line else transcription.notes
    return listen(levelled, sample_rate_hz)


def render(
    notes: Sequence[midi.Note],
    domain: str,
    *,
    soundfont: pathlib.Path,
    sample_rate_hz: int,
    num_samples: int,
) -> Waveform:
    """Plays notes at their own times, [T]; silence if there are none.

    Raises:
        ValueError: The domain is no instrument, or the sound font cannot play it.
    """
    if not notes:
        return np.zeros(num_samples, np.float32)
    (instrument,) = instruments.check_names([domain])
    played = instruments.play(
        notes,
        program=instruments.PROGRAMS[instrument],
        soundfont=soundfont,
        sample_rate_hz=sample_rate_hz,
    )
    return pieces.place(
        played,
        first_s=min(note.onset_s for note in notes) - instruments.LEAD_S,
        sample_rate_hz=sample_rate_hz,
        num_samples=num_samples,
    )
