"""Joins the sound of segments that are generated side by side, with cross-fades between them."""

import collections
import contextlib
import tempfile
from collections.abc import Iterator

import numpy as np

from umt_jax.generation.segments import Segment
from umt_jax.shapes import Float

_READ_SAMPLES = 16_384


class Joiner:
    """Puts the sound of recordings' segments in order.

    Use as a context manager, which closes temporary files: sound of a segment whose turn has not
    come waits on disk.
    """

    def __init__(self, num_domains: int) -> None:
        """Takes how many waveforms a recording has."""
        self._num_domains = num_domains
        self._recordings: dict[int, _Recording] = {}

    def __enter__(self) -> "Joiner":
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Throws away the sound that waits."""
        for recording in self._recordings.values():
            recording.close()

    @property
    def unfinished(self) -> frozenset[int]:
        """Recordings that have begun, and whose last segment is not complete."""
        return frozenset(self._recordings)

    def add(
        self, segment: Segment, waveforms: Float[np.ndarray, "K _"]
    ) -> Iterator[Float[np.ndarray, "K _"]]:
        """Takes a segment's next sound; yields what of its recording can now be heard."""
        yield from self._recording(segment).add(segment, waveforms)

    def end(self, segment: Segment) -> Iterator[Float[np.ndarray, "K _"]]:
        """Takes note that a segment is complete; yields what of its recording can now be heard."""
        recording = self._recording(segment)
        yield from recording.end(segment)
        if recording.is_complete:
            del self._recordings[segment.recording]

    def _recording(self, segment):
        if segment.recording not in self._recordings:
            self._recordings[segment.recording] = _Recording(self._num_domains)
        return self._recordings[segment.recording]


class _Recording:
    """One recording, whose segments arrive side by side."""

    def __init__(self, num_domains):
        self.is_complete = False
        self._turn = 0
        self._waiting: dict[int, _Waiting] = {}
        self._discarded: collections.Counter[int] = collections.Counter()
        # The newest sound, which may have to be faded out, and sound that is being faded out.
        self._held = self._fading = np.zeros((num_domains, 0), np.float32)

    def add(self, segment, waveforms):
        discard = segment.discard_samples - self._discarded[segment.index]
        discard = min(discard, waveforms.shape[1])
        self._discarded[segment.index] += discard
        waveforms = waveforms[:, discard:]
        if segment.index == self._turn:
            yield from self._hear(segment, waveforms)
        else:
            if segment.index not in self._waiting:
                self._waiting[segment.index] = _Waiting(segment)
            self._waiting[segment.index].write(waveforms)

    def end(self, segment):
        if segment.index != self._turn:
            self._waiting[segment.index].has_ended = True
            return
        while not segment.is_last:
            self._fading, self._held = self._held, self._held[:, :0]
            self._turn += 1
            if self._turn not in self._waiting:
                return
            with self._waiting.pop(self._turn) as waiting:
                for waveforms in waiting.read(len(self._held)):
                    yield from self._hear(waiting.segment, waveforms)
            if not waiting.has_ended:
                return
            segment = waiting.segment
        self.is_complete = True

    def close(self):
        for waiting in self._waiting.values():
            waiting.close()

    def _hear(self, segment, waveforms):
        """Yields sound of the segment whose turn it is, but for what may have to be faded out."""
        count = min(self._fading.shape[1], waveforms.shape[1])
        if count:
            position = segment.fade_samples - self._fading.shape[1]
            heard = cross_fade(
                self._fading[:, :count],
                waveforms[:, :count],
                first=position,
                fade_samples=segment.fade_samples,
            )
            waveforms = np.concatenate([heard, waveforms[:, count:]], axis=1)
            self._fading = self._fading[:, count:]
        if not segment.next_fade_samples:
            yield waveforms
            return
        waveforms = np.concatenate([self._held, waveforms], axis=1)
        ready = max(0, waveforms.shape[1] - segment.next_fade_samples)
        self._held = waveforms[:, ready:]
        yield waveforms[:, :ready]


def cross_fade(
    old: Float[np.ndarray, "K T"],
    new: Float[np.ndarray, "K T"],
    *,
    first: int,
    fade_samples: int,
) -> Float[np.ndarray, "K T"]:
    """Returns a stretch of a linear cross-fade; of equal sounds it is that sound, to the bit.

    Args:
        old: What fades out.
        new: What fades in.
        first: How much of the fade comes before this stretch.
        fade_samples: Length of the whole fade.
    """
    ramp = (np.arange(first, first + old.shape[1], dtype=np.float32) + 0.5) / fade_samples
    return old + ramp * (new - old)


class _Waiting(contextlib.AbstractContextManager):
    """Sound of a segment whose turn has not come, in a temporary file."""

    def __init__(self, segment):
        self.segment, self.has_ended = segment, False
        self._file = tempfile.TemporaryFile(prefix="umt_jax.")

    def write(self, waveforms):
        self._file.write(np.ascontiguousarray(waveforms.T, np.float32).tobytes())

    def read(self, num_domains):
        """Yields all of it, [K, T], block by block."""
        self._file.seek(0)
        while block := self._file.read(_READ_SAMPLES * num_domains * 4):
            yield np.frombuffer(block, np.float32).reshape(-1, num_domains).T

    def close(self):
        self._file.close()

    def __exit__(self, *error):
        self.close()
