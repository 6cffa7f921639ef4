"""Transcription: notes by basic-pitch, and the pitch of a single line by SwiftF0.

Both networks come inside their packages and run with ONNX Runtime.
"""

import dataclasses
import functools
import logging
from typing import Any

import librosa
import numpy as np
import swift_f0

from data_prep import midi
from experiments.evaluation import recall
from umt_jax.audio import level, sound_files
from umt_jax.shapes import Bool, Float, Waveform

GATE_DBFS = -70.0
"""Blocks of sound quieter than this are silence: more than what one step of 8-bit mu-law around
zero, or a step of 16-bit sound, amounts to. 47 dB below a piece at the level of all pieces."""

_GATE_BLOCK_S = 0.05

# The defaults of basic-pitch's own command.
_FRAME_THRESHOLD = 0.3
_OVERLAP_FRAMES = 30
_OF_NOTES = {
    **{"onset_thresh": 0.5, "frame_thresh": _FRAME_THRESHOLD, "min_note_len": 11},
    **{"infer_onsets": True, "min_freq": None, "max_freq": None},
}

_THREADS = 1  # Networks so small spend more time waiting for a second one than it saves.
_VOICED = 0.5  # SwiftF0's confidence is calibrated to this.
# The network reads its input as one by one; its output's names are those of the exported graph.
_INPUT = "serving_default_input_2:0"
_OUTPUTS = {"note": "StatefulPartitionedCall:1", "onset": "StatefulPartitionedCall:2"}


def gate(waveform: Waveform, sample_rate_hz: int) -> Waveform:
    """Returns a waveform [T] whose blocks of 50 ms are zero where quieter than `GATE_DBFS`.

    basic-pitch scales what it hears to full range, so that it finds notes in a rest that holds
    nothing but rounding noise.
    """
    block = round(_GATE_BLOCK_S * sample_rate_hz)
    blocks = np.pad(waveform, (0, -len(waveform) % block)).reshape(-1, block)
    loud = np.mean(np.square(blocks, dtype=np.float64), axis=1) >= 10 ** (GATE_DBFS / 10)
    return np.where(np.repeat(loud, block)[: len(waveform)], waveform, 0).astype(np.float32)


@recall.recalled
def notes(waveform: Waveform, sample_rate_hz: int) -> list[midi.Note]:
    """Returns the notes of a waveform [T], by onset and pitch; none of silence."""
    basic_pitch, session = _basic_pitch()
    constants = basic_pitch.constants
    at_rate = sound_files.resample(
        waveform, from_hz=sample_rate_hz, to_hz=constants.AUDIO_SAMPLE_RATE
    )
    overlap = _OVERLAP_FRAMES * constants.FFT_HOP
    window, hop = constants.AUDIO_N_SAMPLES, constants.AUDIO_N_SAMPLES - overlap
    padded = np.pad(at_rate, (overlap // 2, window))
    starts = range(0, overlap // 2 + len(at_rate), hop)
    windows = [padded[start : start + window, None][None] for start in starts]
    parts = [session.run(list(_OUTPUTS.values()), {_INPUT: part}) for part in windows]
    # Frames near the ends of a window know too little of their surroundings.
    edge = _OVERLAP_FRAMES // 2
    output = {
        name: np.concatenate([part[index][0, edge:-edge] for part in parts])
        for index, name in enumerate(_OUTPUTS)
    }
    # A window gives more frames than fit between the starts of two: what the package's own count,
    # 86 a second, leaves out of a long sound is its end.
    times_s = _frame_times_s(len(parts), len(parts[0][0][0]) - 2 * edge, hop)
    num_frames = int(np.searchsorted(times_s, len(at_rate) / constants.AUDIO_SAMPLE_RATE))
    output = {name: frames[:num_frames] for name, frames in output.items()}
    if not output["note"].max(initial=0) > _FRAME_THRESHOLD:
        return []
    events = basic_pitch.note_creation.output_to_notes_polyphonic(
        output["note"], output["onset"], **_OF_NOTES
    )
    found = [
        midi.Note(float(times_s[first]), float(times_s[end]), int(pitch), _velocity(loudness))
        for first, end, pitch, loudness in events
    ]
    return sorted(found, key=lambda note: (note.onset_s, note.pitch))


def _frame_times_s(num_windows: int, frames: int, hop: int) -> Float[np.ndarray, "N"]:
    """Returns when each of the joined frames of windows is, and when one more would be, [N + 1]."""
    basic_pitch, _ = _basic_pitch()
    starts = hop * np.arange(num_windows)[:, None]
    samples = (starts + basic_pitch.constants.FFT_HOP * np.arange(frames)).ravel()
    return np.append(samples, hop * num_windows) / basic_pitch.constants.AUDIO_SAMPLE_RATE


def _velocity(loudness: float) -> int:
    return int(np.clip(round(127 * loudness), 1, 127))


@functools.cache
def _basic_pitch() -> tuple[Any, Any]:
    """Returns the package and its network."""
    # It logs, as it is imported, which of the other formats of its network cannot be used.
    logging.disable(logging.WARNING)
    try:
        import basic_pitch
        import basic_pitch.constants
        import basic_pitch.note_creation
    finally:
        logging.disable(logging.NOTSET)
    import onnxruntime

    path = basic_pitch.build_icassp_2022_model_path(basic_pitch.FilenameSuffix.onnx)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _THREADS
    return basic_pitch, onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )


@dataclasses.dataclass(frozen=True)
class PitchTrack:
    """The pitch of a single line over time.

    Attributes:
        times_s: Seconds from the sound's start, [N].
        pitch_hz: As if there were always a pitch, [N].
        voiced: Whether there is one, [N].
    """

    times_s: Float[np.ndarray, "N"]
    pitch_hz: Float[np.ndarray, "N"]
    voiced: Bool[np.ndarray, "N"]

    def cut(self, start_s: float, end_s: float) -> "PitchTrack":
        """Returns what lies between two times, in seconds from the first."""
        inside = (self.times_s >= start_s) & (self.times_s < end_s)
        return PitchTrack(
            self.times_s[inside] - start_s, self.pitch_hz[inside], self.voiced[inside]
        )


@recall.recalled
def pitch_track(waveform: Waveform, sample_rate_hz: int) -> PitchTrack:
    """Returns the pitch of a waveform [T] over time."""
    found = _pitch_detector().detect(waveform, sample_rate_hz)
    return PitchTrack(found.timestamps, found.pitch_hz, found.confidence >= _VOICED)


def line(waveform: Waveform, sample_rate_hz: int) -> list[midi.Note]:
    """Returns the notes of a single line [T], loud ones with a high velocity."""
    found = _pitch_detector().detect(waveform, sample_rate_hz)
    notes = []
    for note in swift_f0.segment_notes(found):
        first, end = (round(time_s * sample_rate_hz) for time_s in (note.start, note.end))
        notes.append((note, level.rms(waveform[first:end])))
    loudest = max((loudness for _, loudness in notes), default=1.0)
    return [
        midi.Note(
            float(note.start),
            float(note.end),
            round(float(librosa.hz_to_midi(note.pitch_hz))),
            _velocity(loudness / max(loudest, 1e-9)),
        )
        for note, loudness in notes
    ]


@functools.cache
def _pitch_detector() -> swift_f0.SwiftF0:
    return swift_f0.SwiftF0(threads=_THREADS)
