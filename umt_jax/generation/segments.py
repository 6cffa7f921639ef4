"""Cuts a recording into segments that are generated side by side.

A segment begins before its turn, on its own latents, so that its decoder has a past when the turn
comes: the warm-up. Its sound is thrown away, but for the last of it, which fades in while the
segment before fades out (`seams`).
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np

from umt_jax.config import ModelConfig
from umt_jax.shapes import Array, Float

FADE_SECONDS = 0.02
"""Length of a cross-fade."""

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


def warm_up_frames(config: ModelConfig) -> int:
    """Returns the latent frames of a warm-up: the decoder's receptive field, at most a second."""
    past = min(config.decoder_receptive_field, config.sample_rate_hz)
    return math.ceil(past / config.pool_samples)


def fade_samples(config: ModelConfig) -> int:
    """Returns the length of a cross-fade, which lies within the warm-up."""
    warm_up = warm_up_frames(config) * config.pool_samples
    return min(round(FADE_SECONDS * config.sample_rate_hz), warm_up)


def segment_bounds(num_frames: int, *, num_segments: int, shortest: int) -> list[int]:
    """Returns the latent frames at which segments begin, and the end of the last.

    Args:
        num_frames: Latent frames of the recording.
        num_segments: How many segments there shall be.
        shortest: Fewest latent frames of one; where they would be shorter, there are fewer.
    """
    count = max(1, min(num_segments, num_frames // shortest))
    return [num_frames * index // count for index in range(count + 1)]


def windows_of(
    latents: Float[Array, "F Z"], num_samples: int, *, window_frames: int, pool_samples: int
) -> Iterator[Window]:
    """Cuts latents that stand for `num_samples` samples into windows."""
    for start in range(0, len(latents), window_frames):
        window = latents[start : start + window_frames]
        yield window, min(len(window) * pool_samples, num_samples - start * pool_samples)


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
    bounds = segment_bounds(
        len(latents), num_segments=num_segments, shortest=max(window_frames, warm_up_frames)
    )
    for index, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        warm_up = warm_up_frames if index else 0
        fade = fade_samples if index else 0
        first_sample = (start - warm_up) * pool_samples
        yield Segment(
            recording,
            windows_of(
                latents[start - warm_up : end],
                min(end * pool_samples, num_samples) - first_sample,
                window_frames=window_frames,
                pool_samples=pool_samples,
            ),
            index=index,
            first_sample=first_sample,
            discard_samples=warm_up * pool_samples - fade,
            fade_samples=fade,
            next_fade_samples=fade_samples if end < len(latents) else 0,
            is_last=end == len(latents),
        )


def _raise(error: Exception) -> Iterator[Window]:
    raise error
    yield
