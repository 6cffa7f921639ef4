"""What a listener would write down: notes by basic-pitch, pitch of a single line by SwiftF0.

Both networks come inside their packages and run with ONNX Runtime.
"""

import functools
import logging
from typing import Any

import numpy as np
import swift_f0

from data_prep import scores
from umt_jax import audio
from umt_jax.shapes import Float, Waveform

# The defaults of basic-pitch's own command.
_ONSET_THRESHOLD, _FRAME_THRESHOLD = 0.5, 0.3
_SHORTEST_NOTE_FRAMES = 11
_OVERLAP_FRAMES = 30
_LOWEST_PITCH = 21
# The network reads its input as one by one; its output's names are those of the exported graph.
_INPUT = "serving_default_input_2:0"
_OUTPUTS = {"note": "StatefulPartitionedCall:1", "onset": "StatefulPartitionedCall:2"}


def notes(waveform: Waveform, sample_rate_hz: int) -> list[scores.Note]:
    """Returns the notes of a waveform [T], by onset and pitch; none of silence."""
    basic_pitch, session = _basic_pitch()
    constants = basic_pitch.constants
    at_rate = audio.resample(waveform, from_hz=sample_rate_hz, to_hz=constants.AUDIO_SAMPLE_RATE)
    overlap = _OVERLAP_FRAMES * constants.FFT_HOP
    window, hop = constants.AUDIO_N_SAMPLES, constants.AUDIO_N_SAMPLES - overlap
    padded = np.pad(at_rate, (overlap // 2, window))
    starts = range(0, overlap // 2 + len(at_rate), hop)
    windows = [padded[start : start + window, None][None] for start in starts]
    parts = [session.run(list(_OUTPUTS.values()), {_INPUT: part}) for part in windows]
    # Frames near the ends of a window know too little of their surroundings.
    edge = _OVERLAP_FRAMES // 2
    num_frames = int(len(at_rate) * constants.ANNOTATIONS_FPS / constants.AUDIO_SAMPLE_RATE)
    output = {
        name: np.concatenate([part[index][0, edge:-edge] for part in parts])[:num_frames]
        for index, name in enumerate(_OUTPUTS)
    }
    if not output["note"].max(initial=0) > _FRAME_THRESHOLD:
        return []
    events = basic_pitch.note_creation.output_to_notes_polyphonic(
        output["note"],
        output["onset"],
        onset_thresh=_ONSET_THRESHOLD,
        frame_thresh=_FRAME_THRESHOLD,
        min_note_len=_SHORTEST_NOTE_FRAMES,
        infer_onsets=True,
        max_freq=None,
        min_freq=None,
    )
    times_s = basic_pitch.note_creation.model_frames_to_time(num_frames + 1)
    found = [
        scores.Note(float(times_s[first]), float(times_s[end]), int(pitch), _velocity(loudness))
        for first, end, pitch, loudness in events
    ]
    return sorted(found, key=lambda note: (note.onset_s, note.pitch))


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
    return basic_pitch, onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def pitch_hz(
    waveform: Waveform, sample_rate_hz: int
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Returns times in seconds and the pitch at each in Hz, as if there were always one."""
    found = _pitch_detector().detect(waveform, sample_rate_hz)
    return found.timestamps, found.pitch_hz


@functools.cache
def _pitch_detector() -> swift_f0.SwiftF0:
    return swift_f0.SwiftF0()
