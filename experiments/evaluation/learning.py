"""Training data of the judge and the probes: music of every domain that is not in the test."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence

from data_prep import midi
from experiments.evaluation import judge_music, timbre
from experiments.evaluation.options import Options
from experiments.evaluation.pieces import Music
from umt_jax.data import dataset
from umt_jax.shapes import Waveform

_SOUNDS_PER_FONT, _SOUNDS_PER_DOMAIN, _SOUNDS_FOR_PROBES = 16, 32, 150


@dataclasses.dataclass(frozen=True)
class Learned:
    """Music that is not in the test, from which the judge of timbre learns.

    Attributes:
        sounds: By domain; empty where the pieces of the test judge one another.
        words: What it is.
        left_out: What sound fonts could not play of it.
    """

    sounds: Mapping[str, Sequence[Waveform]]
    words: str
    left_out: Sequence[str] = ()


def for_judge(
    options: Options,
    music: Music,
    soundfonts: Sequence[pathlib.Path],
    held_out: Collection[str],
) -> Learned:
    """Returns music of each domain that is not in the test.

    Raises:
        ValueError: There is none.
    """
    if options.audio_dir:
        return Learned({}, "the sources and targets of the other pieces")
    if soundfonts:
        excerpts = judge_music.choose_excerpts(
            held_out=held_out, melody=_is_melody(music), number=_SOUNDS_PER_FONT
        )
        sounds, left_out = _rendered(music.domains, excerpts, soundfonts, music.sample_rate_hz)
        names = " and ".join(font.name for font in soundfonts)
        return Learned(sounds, f"other scores, rendered with {names}", left_out)
    if not options.data_dir:
        raise ValueError(
            f"--pairs={options.pairs} has domains that cannot be rendered, and the judge of timbre "
            f"needs music of {', '.join(music.domains)} that is not in the test. Name prepared "
            "recordings of theirs with --data_dir."
        )
    sounds = judge_music.prepared(
        dataset.Dataset(options.data_dir, music.domains),
        sample_rate_hz=music.sample_rate_hz,
        sounds_per_domain=_SOUNDS_PER_DOMAIN,
    )
    return Learned(sounds, f"the training split in {options.data_dir}")


def _is_melody(music: Music) -> bool:
    return music.is_one_line or not music.notes


def _rendered(
    domains: Sequence[str],
    excerpts: Sequence[list[midi.Note]],
    soundfonts: Sequence[pathlib.Path],
    rate_hz: int,
) -> tuple[dict[str, list[Waveform]], list[str]]:
    """Returns excerpts as every domain and font plays them, and what a font could not play."""
    sounds: dict[str, list[Waveform]] = {domain: [] for domain in domains}
    left_out = []
    for domain, font in itertools.product(domains, soundfonts):
        played, false = judge_music.rendered(
            domain, excerpts, soundfont=font, sample_rate_hz=rate_hz
        )
        sounds[domain] += played
        left_out += [f"to learn from: {false}"] if false else []
    for domain in domains:
        if not sounds[domain]:
            raise ValueError(
                f"No sound font plays a note of {domain} as it is written ({'; '.join(left_out)}), "
                "so that nothing is known of its timbre. Name another --soundfont or "
                "--second_soundfont, or leave it out of --pairs."
            )
    return sounds, left_out


def for_probes(
    options: Options,
    music: Music,
    soundfonts: Sequence[pathlib.Path],
    held_out: Collection[str],
) -> dict[str, list[Waveform]]:
    """Returns music of each domain, not in the test, from which probes learn to read pitch."""
    if options.data_dir:
        return judge_music.prepared(
            dataset.Dataset(options.data_dir, music.domains),
            sample_rate_hz=music.sample_rate_hz,
            sounds_per_domain=_SOUNDS_FOR_PROBES,
        )
    excerpts = judge_music.choose_excerpts(
        held_out=held_out, melody=True, number=_SOUNDS_FOR_PROBES
    )
    sounds, _ = _rendered(
        music.domains, judge_music.transposed(excerpts), soundfonts[:1], music.sample_rate_hz
    )
    return sounds


def judges(
    options: Options, music: Music, learned: Mapping[str, Sequence[Waveform]]
) -> Callable[[str], timbre.Judge]:
    """Returns the judge of each piece: one for all, or for each one that has not heard it."""
    if learned:
        examples = timbre.examples(learned, music.sample_rate_hz, seed=options.seed)
        judge = timbre.fit(examples)
        return lambda piece: judge
    by_piece = {
        piece: timbre.examples(sounds, music.sample_rate_hz, seed=options.seed)
        for piece, sounds in judge_music.of_pieces(music.recordings, music.sample_rate_hz).items()
    }

    @functools.cache
    def judge_of(piece: str) -> timbre.Judge:
        return timbre.fit(
            {
                kind: [
                    example
                    for other, of_kinds in by_piece.items()
                    if other != piece
                    for example in of_kinds[kind]
                ]
                for kind in by_piece[piece]
            }
        )

    return judge_of
