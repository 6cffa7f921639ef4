"""A stretch of a track -> its examples.

An example is a segment in mu-law codes beside versions of it in other pitch and timbre. Waveforms
are cut first, then augmented, then encoded, so that every version is quantised once.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from data_prep import augment, timbre
from data_prep.settings import Recipe
from data_prep.tracks import Stretch, Track
from umt_jax import storage
from umt_jax.audio import mu_law, sound_files
from umt_jax.shapes import Waveform

Example = dict[str, Any]
"""`codes` uint8 [T], `augmented` uint8 [A, T], `track` str, `start_sample` int."""


def examples_of_stretch(stretch: Stretch, *, domain: str, recipe: Recipe) -> Iterator[Example]:
    """Makes the examples of consecutive segments, one block of the track in memory at a time.

    Pure: the same arguments give the same examples in any process, whatever else is built.

    Raises:
        ValueError: The file is no longer what it was when it was scanned.
    """
    track = stretch.track
    num_segments = 0
    for start_sample, segment in _cut(stretch, recipe):
        segment = _gain(track, recipe) * segment
        place = (recipe.seed, domain, track.file.name, start_sample)
        variants = [
            _variant(segment, recipe, variant, _generator(*place, variant))
            for variant in range(recipe.num_augmented)
        ]
        yield {
            "codes": mu_law.encode(segment, recipe.mu_law),
            "augmented": mu_law.encode(np.stack(variants), recipe.mu_law),
            "track": track.file.name,
            "start_sample": start_sample,
        }
        num_segments += 1
    if num_segments != stretch.num_segments:
        raise ValueError(f"{track.file.path} changed while it was read. Start again.")


def _variant(
    segment: Waveform, recipe: Recipe, variant: int, generator: np.random.Generator
) -> Waveform:
    """Returns the version of a segment of that number: of pitch alone, or of timbre as well."""
    rate_hz = recipe.sample_rate_hz
    changed = augment.modulate_pitch(segment, sample_rate_hz=rate_hz, generator=generator)
    if variant < recipe.num_variants:
        return changed
    return timbre.change_timbre(changed, sample_rate_hz=rate_hz, generator=generator)


def _cut(stretch: Stretch, recipe: Recipe) -> Iterator[tuple[int, Waveform]]:
    """Yields the segments of a stretch, each with the sample of the track at which it starts."""
    with storage.local_copy(stretch.track.file.path) as path:
        yield from _cut_blocks(
            sound_files.read_blocks(path, sample_rate_hz=recipe.sample_rate_hz), stretch, recipe
        )


def _cut_blocks(
    blocks: Iterable[Waveform], stretch: Stretch, recipe: Recipe
) -> Iterator[tuple[int, Waveform]]:
    T = recipe.segment_samples
    start, end = stretch.start_sample, stretch.start_sample + stretch.num_segments * T
    position = 0
    waiting = np.zeros(0, np.float32)
    for block in blocks:
        wanted = block[max(0, stretch.start_sample - position) :]
        waiting = np.concatenate([waiting, wanted])
        position += len(block)
        while start < end and len(waiting) >= T:
            yield start, waiting[:T]
            start, waiting = start + T, waiting[T:]
        if start == end:
            return


def _gain(track: Track, recipe: Recipe) -> np.float32:
    return track.loudness.gain(recipe.rms_dbfs)


def _generator(*name: str | int) -> np.random.Generator:
    """Returns random numbers that depend on these names only, and on no process or order."""
    digest = hashlib.sha256(repr(name).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
