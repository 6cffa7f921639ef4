"""AAC, in which browsers play a sound that is still being made."""

import io

import av
import numpy as np

from umt_jax.shapes import Waveform

# The lower rates of the format are those of HE-AAC too, and some players guess wrong.
_SAMPLE_RATE_HZ = 48_000
_FRAME_SAMPLES = 1024
_BITS_PER_SECOND = 128_000


class Encoder:
    """Encodes a waveform that comes in pieces to frames that play without gaps (ADTS)."""

    def __init__(self, sample_rate_hz: int) -> None:
        """Takes the rate of the waveform."""
        self._sample_rate_hz, self._num_samples = sample_rate_hz, 0
        self._written = io.BytesIO()
        self._container = av.open(
            self._written, "w", format="adts", container_options={"flush_packets": "1"}
        )
        self._stream = self._container.add_stream("aac", rate=_SAMPLE_RATE_HZ, layout="mono")
        self._stream.bit_rate = _BITS_PER_SECOND

    def encode(self, waveform: Waveform) -> bytes:
        """Returns the frames that another piece [T] completes, perhaps none."""
        samples = np.ascontiguousarray(waveform[None], np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = self._sample_rate_hz, self._num_samples
        self._num_samples += waveform.shape[-1]
        return self._take(self._stream.encode(frame))

    def finish(self) -> bytes:
        """Returns the last frames, which end with up to two frames of silence."""
        return self._take(self._stream.encode(None))

    def _take(self, packets):
        for packet in packets:
            self._container.mux(packet)
        frames = self._written.getvalue()
        self._written.seek(0)
        self._written.truncate()
        return frames


def seconds(frames: bytes) -> float:
    """Returns how long whole frames of `Encoder` play."""
    count, position = 0, 0
    while position < len(frames):
        # 13 bits of the header give a frame's length, the header included.
        high, middle, low = frames[position + 3 : position + 6]
        position += (high & 3) << 11 | middle << 3 | low >> 5
        count += 1
    return count * _FRAME_SAMPLES / _SAMPLE_RATE_HZ
