"""Measures of content: does an output play the notes it was given?

All compare two sounds, or a sound with the notes of its score, over the same seconds.
"""

import functools
import warnings
from collections.abc import Sequence

import librosa
import mir_eval
import numpy as np

from data_prep import midi
from experiments.evaluation import transcription
from umt_jax.audio import sound_files
from umt_jax.shapes import Bool, Float, Waveform

_FRAMES_PER_S = 100
_ONSET_TOLERANCE_S = 0.05
_PITCH_TOLERANCE_CENTS = 50.0
_FEATURE_RATE_HZ = 22_050  # At which librosa's defaults are meant.


class Listened:
    """A clip of a sound, and what was heard in it.

    Attributes:
        waveform: The clip, [T].
        sample_rate_hz: Its rate.
        notes: Its notes, in seconds from its start.
        pitch: Its pitch, taken as a single line.
    """

    def __init__(
        self,
        waveform: Waveform,
        sample_rate_hz: int,
        notes: Sequence[midi.Note],
        pitch: transcription.PitchTrack,
    ) -> None:
        """Takes a clip and its notes and pitch."""
        self.waveform, self.sample_rate_hz = waveform, sample_rate_hz
        self.notes, self.pitch = list(notes), pitch

    @functools.cached_property
    def chroma(self) -> Float[np.ndarray, "P N"]:
        """Strength of each of the 12 pitch classes over time."""
        # Concert pitch: of noise no tuning can be estimated.
        return librosa.feature.chroma_cqt(
            y=self._at_feature_rate(), sr=_FEATURE_RATE_HZ, tuning=0.0
        )

    @functools.cached_property
    def onset_strength(self) -> Float[np.ndarray, "N"]:
        """Onset strength over time."""
        return librosa.onset.onset_strength(y=self._at_feature_rate(), sr=_FEATURE_RATE_HZ)

    def _at_feature_rate(self) -> Float[np.ndarray, "T"]:
        return sound_files.resample(
            self.waveform, from_hz=self.sample_rate_hz, to_hz=_FEATURE_RATE_HZ
        )


def listen(
    waveform: Waveform, sample_rate_hz: int, spans: Sequence[tuple[int, int]]
) -> list[Listened]:
    """Transcribes a sound as a whole and returns its clips.

    What is quieter than `transcription.GATE_DBFS` is silence, in every sound alike.

    Args:
        waveform: A piece, [T].
        sample_rate_hz: Its rate.
        spans: First sample of each clip, and the one after its last.
    """
    gated = transcription.gate(waveform, sample_rate_hz)
    notes = transcription.notes(gated, sample_rate_hz)
    pitch = transcription.pitch_track(gated, sample_rate_hz)
    clips = []
    for first, end in spans:
        start_s, end_s = first / sample_rate_hz, end / sample_rate_hz
        clips.append(
            Listened(
                waveform[first:end],
                sample_rate_hz,
                cut(notes, start_s, end_s),
                pitch.cut(start_s, end_s),
            )
        )
    return clips


def cut(notes: Sequence[midi.Note], start_s: float, end_s: float) -> list[midi.Note]:
    """Returns the notes that sound between two times, in seconds from the first.

    What sounds already has an onset below zero, which tells it from what begins at the cut.
    """
    return [
        note._replace(onset_s=note.onset_s - start_s, offset_s=min(note.offset_s, end_s) - start_s)
        for note in notes
        if note.onset_s < end_s and note.offset_s > start_s
    ]


def roll(notes: Sequence[midi.Note], seconds: float) -> Bool[np.ndarray, "N 128"]:
    """Returns which of MIDI's pitches sound in each hundredth of a second."""
    sounding = np.zeros((round(seconds * _FRAMES_PER_S), 128), bool)
    for note in notes:
        first, end = (max(0, round(time * _FRAMES_PER_S)) for time in note[:2])
        sounding[first:end, note.pitch] = True
    return sounding


def frame_f1(found: Bool[np.ndarray, "N 128"], expected: Bool[np.ndarray, "N 128"]) -> float:
    """Returns the F1 of two piano rolls: of what sounds in one, how much sounds in the other."""
    # sklearn's f1_score and jaccard_score are the same, and take 25 times as long; there are some
    # thousand clips. mir_eval.multipitch refuses pitches above 5 kHz.
    total = found.sum() + expected.sum()
    return 2 * float((found & expected).sum()) / float(total) if total else 1.0


def jaccard_distance(
    found: Bool[np.ndarray, "N 128"], expected: Bool[np.ndarray, "N 128"]
) -> float:
    """Returns the mean over frames of 1 - |both| / |either|; frames of silence in both are none.

    "JD" of the literature on musical style transfer.
    """
    either = (found | expected).sum(axis=1)
    both = (found & expected).sum(axis=1)
    heard = either > 0
    return float(np.mean(1 - both[heard] / either[heard])) if heard.any() else 0.0


def note_f1(found: Sequence[midi.Note], expected: Sequence[midi.Note]) -> float:
    """Returns the F1 of notes that begin in the clip: onset within 50 ms, pitch within 50 cents."""
    found = [note for note in found if note.onset_s >= 0]
    expected = [note for note in expected if note.onset_s >= 0]
    if not found or not expected:
        return float(not found and not expected)

    def arrays(notes):
        intervals = np.array([note[:2] for note in notes])
        return intervals, librosa.midi_to_hz(np.array([note.pitch for note in notes]))

    _, _, f1, _ = mir_eval.transcription.precision_recall_f1_overlap(
        *arrays(expected),
        *arrays(found),
        onset_tolerance=_ONSET_TOLERANCE_S,
        pitch_tolerance=_PITCH_TOLERANCE_CENTS,
        offset_ratio=None,
    )
    return float(f1)


def pitch_offsets(
    pitch: transcription.PitchTrack, notes: Sequence[midi.Note]
) -> Float[np.ndarray, "N"]:
    """Returns how far the pitch is above the note that sounds, in semitones; NaN where none does.

    Frames without a voice are judged too, by the pitch that the tracker finds likeliest.
    """
    expected = np.full(len(pitch.times_s), np.nan)
    for note in notes:
        expected[(pitch.times_s >= note.onset_s) & (pitch.times_s < note.offset_s)] = note.pitch
    return librosa.hz_to_midi(pitch.pitch_hz) - expected


def voiced_offsets(
    pitch: transcription.PitchTrack, notes: Sequence[midi.Note]
) -> Float[np.ndarray, "N"]:
    """Returns `pitch_offsets` of the frames in which both the sound and the score have a pitch."""
    offsets = pitch_offsets(pitch, notes)
    return offsets[pitch.voiced & np.isfinite(offsets)]


def pitch_accuracy(pitch: transcription.PitchTrack, notes: Sequence[midi.Note]) -> float:
    """Returns how often the pitch is within 50 cents of the note that sounds; NaN if none does.

    "Raw pitch accuracy" of the literature on melodies.
    """
    offsets = pitch_offsets(pitch, notes)
    expected = np.isfinite(offsets)
    if not expected.any():
        return float("nan")
    cents = 100 * librosa.hz_to_midi(pitch.pitch_hz)
    with warnings.catch_warnings():
        # A sound without any voice, such as noise, is one of the decoys.
        warnings.filterwarnings("ignore", "Estimated melody has no voiced frames")
        accuracy = mir_eval.melody.raw_pitch_accuracy(
            expected.astype(float),
            np.where(expected, cents - 100 * offsets, 0),
            pitch.voiced.astype(float),
            cents,
            cent_tolerance=_PITCH_TOLERANCE_CENTS,
        )
    return float(accuracy)


def median_offset(pitch: transcription.PitchTrack, notes: Sequence[midi.Note]) -> float:
    """Returns the median of `voiced_offsets`, in semitones; NaN if there are none."""
    offsets = voiced_offsets(pitch, notes)
    return float(np.median(offsets)) if offsets.size else float("nan")


def chroma_cosine(found: Float[np.ndarray, "P N"], expected: Float[np.ndarray, "P N"]) -> float:
    """Returns the mean over frames of the cosine between two chromagrams."""
    num_frames = min(found.shape[1], expected.shape[1])
    found, expected = found[:, :num_frames], expected[:, :num_frames]
    # Silence is like nothing. (By sklearn's paired_cosine_distances it is half like everything.)
    lengths = np.linalg.norm(found, axis=0) * np.linalg.norm(expected, axis=0)
    return float(np.mean(np.sum(found * expected, axis=0) / np.maximum(lengths, 1e-9)))


def correlation(found: Float[np.ndarray, "N"], expected: Float[np.ndarray, "M"]) -> float:
    """Returns Pearson's correlation of two curves; 0 where one of them is constant."""
    num_frames = min(len(found), len(expected))
    found, expected = found[:num_frames], expected[:num_frames]
    if min(np.ptp(found), np.ptp(expected)) < 1e-9:
        return 0.0
    return float(np.corrcoef(found, expected)[0, 1])


def compare(
    output: Listened,
    source: Listened,
    *,
    target: Listened | None,
    notes: Sequence[midi.Note] | None,
    one_line: bool,
) -> dict[str, float]:
    """Returns every measure of content of one clip.

    Args:
        output: What is measured.
        source: What was to be translated.
        target: The true pair, if there is one; JD is the distance to it, else to the source.
        notes: Notes of the score, if they are known, in seconds from the clip's start.
        one_line: Whether the piece is a single line.
    """
    seconds = len(source.waveform) / source.sample_rate_hz
    found, of_source = roll(output.notes, seconds), roll(source.notes, seconds)
    of_target = roll(target.notes, seconds) if target else of_source
    measures = {
        "frame_f1_to_source": frame_f1(found, of_source),
        "note_f1_to_source": note_f1(output.notes, source.notes),
        "jaccard_distance": jaccard_distance(found, of_target),
        "chroma_cosine": chroma_cosine(output.chroma, source.chroma),
        "onset_correlation": correlation(output.onset_strength, source.onset_strength),
    }
    if notes is not None:
        measures["frame_f1"] = frame_f1(found, roll(notes, seconds))
        measures["note_f1"] = note_f1(output.notes, notes)
        if one_line:
            measures["pitch_accuracy"] = pitch_accuracy(output.pitch, notes)
            measures["median_offset"] = median_offset(output.pitch, notes)
    return measures
