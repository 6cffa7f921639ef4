"""Cuts a recording into segments that are generated side by side, and joins their sound.

A segment begins before its turn, on its own latents, so that its decoder has a past when the turn
comes: the warm-up. Its sound is thrown away, but for the last of it, which fades in while the
segment before fades out.
"""

import collections
import contextlib
import dataclasses
import tempfile
from collections.abc import Iterable, Iterator
from types import TracebackType

import numpy as np

from umt_jax.shapes import Array, Float

FADE_SECONDS = 0.02
"""Length of a cross-fade."""

_READ_SAMPLES = 16_384

Window = tuple[Float[Array, "_ Z"], int]
"""Latents, [F, Z], and how many samples they stand for."""


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of one recording, generated as one stream.

    Attributes:
        recording: Which of the recordings, counted from 0.
        windows: Its latents, the warm-up's included. May raise what reading the recording raises.
        index: Which of the recording's segments, counted from 0.
        first_sample: Where in the recording it begins, warm-up included.
        discard_samples: How much of its beginning is not heard.
        fade_samples: How much of what follows overlaps the end of the segment before.
        next_fade_samples: How much of its end overlaps the next one.
        is_last: Whether it is the recording's last.
    """

    recording: int
    windows: Iterator[Window]
    index: int = 0
    first_sample: int = 0
    discard_samples: int = 0
    fade_samples: int = 0
    next_fade_samples: int = 0
    is_last: bool = True


def cut(
    recording: int,
    windows: Iterable[Window],
    *,
    num_segments: int,
    warm_up_frames: int,
    fade_samples: int,
    pool_samples: int,
) -> Iterator[Segment]:
    """Yields a recording's segments, whose parts that are heard have about one length.

    Args:
        recording: Which.
        windows: Its latents; read to their end.
        num_segments: How many. Fewer where the recording is so short that one would be shorter
            than a window or than its warm-up.
        warm_up_frames: Latent frames generated before each segment but the first.
        fade_samples: Length of the cross-fades; no more than the warm-up.
        pool_samples: Audio samples of a latent frame.
    """
    try:
        encoded = list(windows)
    except (ValueError, OSError) as error:
        yield Segment(recording, _raise(error))
        return
    if not encoded:
        yield Segment(recording, iter(()))
        return
    window_frames = len(encoded[0][0])
    latents = np.concatenate([window for window, _ in encoded])
    num_samples = sum(samples for _, samples in encoded)
    shortest = max(window_frames, warm_up_frames)
    count = max(1, min(num_segments, len(latents) // shortest))
    bounds = [len(latents) * index // count for index in range(count + 1)]
    for index, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        warm_up = warm_up_frames if index else 0
        fade = fade_samples if index else 0
        first_sample = (start - warm_up) * pool_samples
        yield Segment(
            recording,
            _windows(
                latents[start - warm_up : end],
                min(end * pool_samples, num_samples) - first_sample,
                window_frames,
                pool_samples,
            ),
            index=index,
            first_sample=first_sample,
            discard_samples=warm_up * pool_samples - fade,
            fade_samples=fade,
            next_fade_samples=fade_samples if end < len(latents) else 0,
            is_last=end == len(latents),
        )


def _windows(latents, num_samples, window_frames, pool_samples) -> Iterator[Window]:
    for start in range(0, len(latents), window_frames):
        window = latents[start : start + window_frames]
        yield window, min(len(window) * pool_samples, num_samples - start * pool_samples)


def _raise(error: Exception) -> Iterator[Window]:
    raise error
    yield


class Joiner:
    """Puts the sound of recordings' segments in order, with cross-fades between them.

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

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
