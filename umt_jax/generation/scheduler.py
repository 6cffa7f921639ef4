"""Assigns recordings, or segments of them, to streams; a stream that ends takes the next one."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from umt_jax.config import ModelConfig
from umt_jax.generation import crossfade, segments
from umt_jax.generation.guiding import GuidedWindow, Guides
from umt_jax.shapes import Float


@dataclasses.dataclass(frozen=True)
class Piece:
    """The next stretch of one recording's translations.

    Attributes:
        recording: Which of the recordings, counted from 0.
        waveforms: One for each wanted domain, [K, T]; T may be 0.
        is_last: Nothing of this recording follows.
        error: Why it ends early, if it does.
    """

    recording: int
    waveforms: Float[np.ndarray, "K T"]
    is_last: bool = False
    error: ValueError | OSError | None = None


@runtime_checkable
class Generator(Protocol):
    """B streams of latents, each translated by the same K decoders.

    Attributes:
        config: Sizes.
        num_domains: K.
        num_streams: B.
    """

    config: ModelConfig
    num_domains: int
    num_streams: int

    def begin(self, stream: int, seed: int, *, first_sample: int = 0) -> None:
        """Makes a stream new; see `streams.Streams.begin`."""

    def advance(
        self,
        latents: Float[np.ndarray, "B F Z"],
        guide: Float[np.ndarray, "K B _"] | None = None,
    ) -> Iterator[Float[np.ndarray, "K B _"]]:
        """Yields the waveforms of the streams' next latent frames, piece by piece.

        Args:
            latents: Each stream's next latent frames.
            guide: Waveforms that decoders follow, as long as the latent frames; None where they are
                free.
        """


def raising(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yields pieces as they come, and raises the error that ends a recording early."""
    for piece in pieces:
        if piece.error:
            raise piece.error
        yield piece


def generate(
    recordings: Iterable[Iterable[segments.Window]],
    generator: Generator,
    *,
    seed: int,
    parallel_segments: int,
    guides: Guides | None = None,
) -> Iterator[Piece]:
    """Generates from recordings' latents; see `Translator.generate_recordings`.

    Args:
        recordings: Each one's windows.
        generator: What generates.
        seed: Decides the random numbers.
        parallel_segments: In how many segments each recording is cut.
        guides: Those of the generator's decoders; None where they are free.
    """
    if parallel_segments < 1:
        raise ValueError(f"parallel_segments={parallel_segments} must be 1 or more.")
    waiting = _segments(recordings, generator.config, parallel_segments)
    under_way: dict[int, segments.Segment] = {}
    followed: dict[int, Iterator[GuidedWindow]] = {}
    with crossfade.Joiner(generator.num_domains) as joiner:
        while True:
            for stream in [free for free in range(generator.num_streams) if free not in under_way]:
                for segment in itertools.islice(waiting, 1):
                    under_way[stream] = segment
                    followed[stream] = _followed(segment.windows, guides)
                    generator.begin(stream, seed, first_sample=segment.first_sample)
            if not under_way:
                return
            windows = {}
            for stream, segment in list(under_way.items()):
                try:
                    windows[stream] = next(followed[stream])
                except (StopIteration, ValueError, OSError) as end:
                    del under_way[stream]
                    for waveforms in joiner.end(segment):
                        yield Piece(segment.recording, waveforms)
                    if segment.recording not in joiner.unfinished:
                        nothing = np.zeros((generator.num_domains, 0), np.float32)
                        error = None if isinstance(end, StopIteration) else end
                        yield Piece(segment.recording, nothing, is_last=True, error=error)
            if not windows:
                continue
            done = 0
            for generated in generator.advance(*_batch(windows, generator)):
                for stream, window in windows.items():
                    segment, left = under_way[stream], max(0, window.num_samples - done)
                    for waveforms in joiner.add(segment, generated[:, stream, :left]):
                        yield Piece(segment.recording, waveforms)
                done += generated.shape[-1]


def _segments(
    recordings: Iterable[Iterable[segments.Window]], config: ModelConfig, count: int
) -> Iterator[segments.Segment]:
    """Yields what is to be generated as one stream each, in the order of the recordings."""
    for recording, windows in enumerate(recordings):
        if count == 1:
            yield segments.Segment(recording, iter(windows))
        else:
            yield from segments.cut(
                recording,
                windows,
                num_segments=count,
                warm_up_frames=segments.warm_up_frames(config),
                fade_samples=segments.fade_samples(config),
                pool_samples=config.pool_samples,
            )


def _followed(windows: Iterator[segments.Window], guides: Guides | None) -> Iterator[GuidedWindow]:
    return guides.follow(windows) if guides else itertools.starmap(GuidedWindow, windows)


def _batch(windows, generator):
    """Joins streams' windows and guides, [B, F, Z] and [K, B, T], with zeros for idle streams."""
    streams, config = generator.num_streams, generator.config
    frames = max(len(window.latents) for window in windows.values())
    latents = np.zeros((streams, frames, config.latent_channels), np.float32)
    guide = np.zeros((generator.num_domains, streams, frames * config.pool_samples), np.float32)
    is_guided = False
    for stream, window in windows.items():
        latents[stream, : len(window.latents)] = window.latents
        if window.guide is not None:
            guide[:, stream, : window.guide.shape[-1]] = window.guide
            is_guided = True
    return latents, guide if is_guided else None
