"""Measures outputs and decoys, clip by clip."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import librosa
import numpy as np

from data_prep import midi
from experiments.evaluation import content, decoys, likeness, timbre
from experiments.evaluation.pieces import Music
from umt_jax.audio import sound_files
from umt_jax.shapes import Float, Waveform

MOST_LAG_S = 0.1
_LAG_RATE_HZ, _LAG_HOP_SAMPLES = 16_000, 64

Pair = tuple[str, str]
"""Source and target domain; the same twice where a domain is played by its own decoder."""

Clip = tuple[str, int]
"""Name of a piece and number of the clip in it."""


@dataclasses.dataclass(frozen=True)
class PairResults:
    """Measurements of one ordered pair of domains.

    Attributes:
        clips: Of which clips, in the order of the values' axis.
        values: By system and measure, one value for each clip, [n]; NaN where it says nothing.
        frechet: By system, the distance of all its clips to the target's training music.
        offsets: By system, how far the pitch is above the score's in each frame of each clip in
            which both have one, in semitones; empty where a score is unknown or no single line.
    """

    clips: tuple[Clip, ...]
    values: Mapping[str, Mapping[str, Float[np.ndarray, "n"]]]
    frechet: Mapping[str, float]
    offsets: Mapping[str, Sequence[Float[np.ndarray, "_"]]]


@dataclasses.dataclass(frozen=True)
class _Heard:
    """The clips of a sound: what was heard in each, and its embeddings."""

    clips: Sequence[content.Listened]
    embeddings: Sequence[Float[np.ndarray, "N E"]]


class Measuring:
    """Measures systems against one music; sounds that several pairs share are listened to once."""

    def __init__(
        self,
        music: Music,
        judge_of: Callable[[str], timbre.Judge],
        other_font: Mapping[str, Mapping[str, Waveform]],
    ) -> None:
        """Listens to nothing yet.

        Args:
            music: The test.
            judge_of: The judge of timbre for a piece.
            other_font: The pieces as another sound font plays them, by domain and piece; may be
                empty.
        """
        self._music, self._judge_of, self._other_font = music, judge_of, other_font
        self._heard: dict[tuple[bytes, tuple[tuple[int, int], ...]], _Heard] = {}

    def measure(self, pair: Pair, outputs: Mapping[str, Mapping[str, Waveform]]) -> PairResults:
        """Measures outputs for one pair of domains, and all decoys beside them.

        Args:
            pair: Source and target domain.
            outputs: By the name of a system, its outputs by piece, as long as the sources.
        """
        clips: list[Clip] = []
        rows: dict[str, list[dict[str, float]]] = {}
        offsets: dict[str, list[np.ndarray]] = {}
        embeddings: dict[str, list[np.ndarray]] = {}
        for piece, spans in self._music.spans[pair[0]].items():
            # In pairs all domains share their clips.
            place = piece if self._music.paired else f"{pair[0]}/{piece}"
            clips += [(place, index) for index in range(len(spans))]
            sounds = self.decoys(pair, piece)
            for system, by_piece in outputs.items():
                # In time with the pair, which a perfect translation is already; attacks differ.
                reference = sounds[decoys.ORACLE if self._music.paired else decoys.IDENTITY]
                sounds[system] = align(by_piece[piece], reference, self._music.sample_rate_hz)
            for system, sound in sounds.items():
                if system == decoys.IDENTITY and pair[0] == pair[1] and self._music.paired:
                    continue  # The oracle is the same sound.
                heard = self._listen(sound, spans)
                embeddings.setdefault(system, []).extend(heard.embeddings)
                rows.setdefault(system, []).extend(self._measure(pair, piece, sounds, heard))
                offsets.setdefault(system, []).extend(self._offsets(pair, piece, heard))
        reference = self._judge_of(piece).references[pair[1]]
        return PairResults(
            tuple(clips),
            {system: _columns(of_clips) for system, of_clips in rows.items()},
            {
                system: timbre.frechet_distance(np.concatenate(windows), reference)
                for system, windows in embeddings.items()
            },
            offsets if any(clip.size for clip in next(iter(offsets.values()))) else {},
        )

    def decoys(self, pair: Pair, piece: str) -> dict[str, Waveform]:
        """Returns the sounds of all decoys for a piece, by name.

        Of a domain's own, where the source is the target, those that are not the same sound.
        """
        music = self._music
        source = music.recordings[pair[0]][piece]
        targets = music.recordings[pair[1]]
        target = targets[piece] if music.paired else np.concatenate(list(targets.values()))
        if music.paired or pair[0] == pair[1]:  # Where the same piece would be the right content.
            wrong = decoys.wrong_content(list(targets.values()), list(targets).index(piece))
        else:
            wrong = np.resize(target, len(source))
        sounds = {
            decoys.IDENTITY: source,
            decoys.EQ_TRANSFER: decoys.eq_transfer(source, target, music.sample_rate_hz),
            decoys.MIXTURE: decoys.mixture(source, wrong),
            decoys.WRONG_CONTENT: wrong,
            decoys.NOISE: decoys.noise(len(source), seed=0),
        }
        if music.paired:
            sounds |= {decoys.MU_LAW_ORACLE: decoys.through_mu_law(target), decoys.ORACLE: target}
        if pair[1] in self._other_font:
            sounds[decoys.OTHER_FONT_ORACLE] = self._other_font[pair[1]][piece]
        if pair[0] == pair[1]:
            for same in (decoys.EQ_TRANSFER, decoys.MIXTURE):
                del sounds[same]
        return sounds

    def _listen(self, sound: Waveform, spans: Sequence[tuple[int, int]]) -> _Heard:
        key = (hashlib.sha256(np.asarray(sound).tobytes()).digest(), tuple(spans))
        if key not in self._heard:
            rate_hz = self._music.sample_rate_hz
            listened = content.listen(decoys.at_level(sound), rate_hz, spans)
            waveforms = [clip.waveform for clip in listened]
            self._heard[key] = _Heard(listened, timbre.embed(waveforms, rate_hz))
        return self._heard[key]

    def _measure(
        self, pair: Pair, piece: str, sounds: Mapping[str, Waveform], heard: _Heard
    ) -> Iterator[dict[str, float]]:
        """Yields the measures of each clip."""
        music, judge = self._music, self._judge_of(piece)
        spans = music.spans[pair[0]][piece]
        notes = self._notes(pair, piece)
        source = self._listen(sounds[decoys.IDENTITY], spans)
        target = self._listen(sounds[decoys.ORACLE], spans) if music.paired else None
        for index, clip in enumerate(heard.clips):
            true_clip = target.clips[index] if target else None
            measures = content.compare(
                clip,
                source.clips[index],
                target=true_clip,
                notes=notes[index] if notes else None,
                one_line=self._is_one_line(piece),
            )
            measures |= judge.measure(heard.embeddings[index], pair[1])
            if true_clip:
                measures |= likeness.log_mel_distances(
                    decoys.at_level(clip.waveform),
                    decoys.at_level(true_clip.waveform),
                    music.sample_rate_hz,
                )
            yield measures

    def _offsets(self, pair: Pair, piece: str, heard: _Heard) -> list[Float[np.ndarray, "_"]]:
        """Returns the offsets of pitch in each clip; none of what is no single line."""
        notes = self._notes(pair, piece)
        if not self._is_one_line(piece):
            return [np.empty(0) for _ in heard.clips]
        return [
            content.voiced_offsets(clip.pitch, of_clip)
            for clip, of_clip in zip(heard.clips, notes, strict=True)
        ]

    def _notes(self, pair: Pair, piece: str) -> list[list[midi.Note]]:
        """Returns the notes of the score in each clip; nothing if they are not known."""
        rate_hz = self._music.sample_rate_hz
        return [
            content.cut(self._music.notes[piece], first / rate_hz, end / rate_hz)
            for first, end in self._music.spans[pair[0]][piece]
            if piece in self._music.notes
        ]

    def _is_one_line(self, piece: str) -> bool:
        notes = self._music.notes.get(piece)
        return notes is not None and midi.is_one_line(notes)


def align(output: Waveform, reference: Waveform, sample_rate_hz: int) -> Waveform:
    """Removes the lag of an output behind another sound, at most 100 ms, or its lead, [T].

    It is the lag at which what begins in one most nearly begins in the other.
    """
    lag_s = lag_seconds(output, reference, sample_rate_hz)
    lag = round(lag_s * sample_rate_hz)
    moved = np.pad(output, (max(0, -lag), max(0, lag)))
    return moved[max(0, lag) :][: len(output)]


def lag_seconds(output: Waveform, reference: Waveform, sample_rate_hz: int) -> float:
    """Returns how much an output comes behind another sound; see `align`."""
    curves = [
        librosa.onset.onset_strength(
            y=sound_files.resample(sound, from_hz=sample_rate_hz, to_hz=_LAG_RATE_HZ),
            sr=_LAG_RATE_HZ,
            hop_length=_LAG_HOP_SAMPLES,
        )
        for sound in (output, reference)
    ]
    most = round(MOST_LAG_S * _LAG_RATE_HZ / _LAG_HOP_SAMPLES)
    found, expected = (curve - curve.mean() for curve in curves)
    middle = expected[most:-most]
    lags = range(-most, most + 1)
    fits = [found[most + lag : most + lag + len(middle)] @ middle for lag in lags]
    # Of equals the smallest, so that silence is not moved.
    best = max(lags, key=lambda lag: (fits[lag + most], -abs(lag)))
    return best * _LAG_HOP_SAMPLES / _LAG_RATE_HZ


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, Float[np.ndarray, "n"]]:
    names = sorted({name for row in rows for name in row})
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
