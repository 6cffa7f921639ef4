"""Training music of the timbre classifier (the judge), none of which is in the test."""

import itertools
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from data_prep import instruments, midi
from experiments.evaluation import fonts
from umt_jax.audio import level, mu_law, sound_files
from umt_jax.data import dataset
from umt_jax.shapes import Waveform

SOUND_S = 6.0
_SILENCE = 1e-4  # As RMS; rests are no examples of an instrument.
_SHIFTS_SEMITONES = (-6, -3, 0, 3, 6)


def choose_excerpts(
    *, held_out: Collection[str], melody: bool, number: int
) -> list[list[midi.Note]]:
    """Returns excerpts spread over the embedded scores that are not held out.

    Args:
        held_out: Pieces of the test.
        melody: Top lines alone, as in the test.
        number: How many.

    Raises:
        ValueError: All scores are held out.
    """
    excerpts = []
    for name, path in midi.find(midi.EMBEDDED).items():
        if name not in held_out:
            notes = midi.read(path)
            excerpts += midi.cut(midi.melody(notes) if melody else notes, 2 * SOUND_S)
    if not excerpts:
        raise ValueError(
            "All embedded scores are in the test, and the judge of timbre has nothing to learn "
            "from. Leave one out of --pairs."
        )
    return [excerpts[place] for place in _spread(len(excerpts), number)]


def transposed(excerpts: Sequence[list[midi.Note]]) -> list[list[midi.Note]]:
    """Returns excerpts moved up or down by up to half an octave in turn, so that all keys occur."""
    return [
        [note._replace(pitch=note.pitch + shift) for note in excerpt]
        for excerpt, shift in zip(excerpts, itertools.cycle(_SHIFTS_SEMITONES), strict=False)
    ]


def rendered(
    domain: str,
    excerpts: Sequence[Sequence[midi.Note]],
    *,
    soundfont: pathlib.Path,
    sample_rate_hz: int,
) -> tuple[list[Waveform], str]:
    """Returns a sound of `SOUND_S` seconds from each excerpt, played by one instrument.

    Without the notes that the sound font plays false, of which the second result tells, if there
    are any. No sound comes of an instrument that has no other.

    Raises:
        ValueError: The domain is no instrument, or the sound font cannot play it.
    """
    (instrument,) = instruments.check_names([domain])
    # All in one recording, with pauses: opening a sound font takes longer than playing.
    together, starts_s, now_s = [], [], 0.0
    for excerpt in excerpts:
        moved = [
            note._replace(onset_s=note.onset_s + now_s, offset_s=note.offset_s + now_s)
            for note in midi.from_zero(list(excerpt))
        ]
        together += moved
        starts_s.append(now_s)
        now_s = max(note.offset_s for note in moved) + instruments.TAIL_S
    together, left_out = fonts.true_notes(together, domain, soundfont)
    if not together:
        return [], left_out
    # The first of them may have been left out.
    lead_s = instruments.LEAD_S - min(note.onset_s for note in together)
    waveform = instruments.play(
        together,
        program=instruments.PROGRAMS[instrument],
        soundfont=soundfont,
        sample_rate_hz=sample_rate_hz,
    )
    firsts = [round(max(0.0, start_s + lead_s) * sample_rate_hz) for start_s in starts_s]
    num_samples = round(SOUND_S * sample_rate_hz)
    return _audible(waveform[first : first + num_samples] for first in firsts), left_out


def prepared(
    data: dataset.Dataset, *, sample_rate_hz: int, sounds_per_domain: int
) -> dict[str, list[Waveform]]:
    """Returns sounds spread over the training split of prepared domains, at a rate."""
    num_samples = round(SOUND_S * data.sample_rate_hz)
    music: dict[str, list[Waveform]] = {}
    for domain in data.description:
        sounds = [
            codes[first : first + num_samples]
            for codes in data.tracks(domain, "train", None).values()
            for first in range(0, len(codes), num_samples)
        ]
        chosen = (sounds[place] for place in _spread(len(sounds), sounds_per_domain))
        music[domain] = _audible(
            sound_files.resample(
                mu_law.decode(codes, data.mu_law),
                from_hz=data.sample_rate_hz,
                to_hz=sample_rate_hz,
            )
            for codes in chosen
        )
    return music


def of_pieces(
    recordings: Mapping[str, Mapping[str, Waveform]], sample_rate_hz: int
) -> dict[str, dict[str, list[Waveform]]]:
    """Cuts recordings into sounds, by piece and domain."""
    num_samples = round(SOUND_S * sample_rate_hz)
    pieces = next(iter(recordings.values()))
    return {
        piece: {
            domain: _audible(
                of_domain[piece][first : first + num_samples]
                for first in range(0, len(of_domain[piece]), num_samples)
            )
            for domain, of_domain in recordings.items()
        }
        for piece in pieces
    }


def _audible(sounds: Iterable[Waveform]) -> list[Waveform]:
    # Nothing at all is left of the last excerpt where all of its notes were left out.
    return [sound for sound in sounds if level.rms(sound) > _SILENCE]


def _spread(num: int, wanted: int) -> list[int]:
    """Returns at most `wanted` of `num` places, at equal distances."""
    return [round(place) for place in np.linspace(0, num - 1, min(num, wanted))]
