"""How fast recordings become prepared shards, on one core and in each phase."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from etils import epath

from data_prep import augment, domains, segments, tfds_files, tracks
from data_prep.settings import Recipe
from data_prep.tracks import Stretch, Track
from umt_jax import text_tables
from umt_jax.audio import mu_law, sound_files

_SECONDS = 60.0
_RATE_HZ = 44_100


def define_flags() -> None:
    """Declares the flags of this stage."""
    flags.DEFINE_list("formats", ["wav", "flac", "ogg"], "Sound files, separated by commas.")


def report() -> str:
    """Measures as the flags say, and returns the section of this stage as Markdown."""
    args = flags.FLAGS
    augment.compile_effects()
    with tempfile.TemporaryDirectory() as folder:
        speeds = [measure(kind, Path(folder), num_rounds=args.rounds) for kind in args.formats]
    return (
        f"## Build\n\nSeconds of audio per second of one core: mono files of {_SECONDS:.0f} s at "
        f"{_RATE_HZ} Hz, prepared at {Recipe.sample_rate_hz} Hz in segments of a second with "
        f"{Recipe.num_variants} variants. The whole build decodes each file twice.\n\n"
        f"{table(speeds)}"
    )


@dataclasses.dataclass(frozen=True)
class Speed:
    """Seconds of audio that a core gets through in a second, medians of the rounds.

    Attributes:
        kind: Format of the sound files.
        phases: By name of the phase.
        whole: The whole build, in one process.
    """

    kind: str
    phases: dict[str, float]
    whole: float


def measure(kind: str, folder: Path, *, num_rounds: int) -> Speed:
    """Times each phase, and the build of a domain, round after round."""
    path = folder / kind / "Domain" / f"noise.{kind}"
    path.parent.mkdir(parents=True)
    # Chords that fade, not noise, which FLAC and Vorbis could not make smaller.
    t = np.arange(round(_SECONDS * _RATE_HZ)) / _RATE_HZ
    tones = sum(np.sin(2 * np.pi * frequency * t) for frequency in (220.0, 277.2, 329.6))
    sound_files.write(path, (0.2 * tones * (1 - t % 1)).astype(np.float32), sample_rate_hz=_RATE_HZ)
    recipe = Recipe()
    file = tracks.identify(epath.Path(path), folder=epath.Path(path.parent))
    track = tracks.scan(file, recipe)
    assert isinstance(track, Track)
    calls = {**_phases(track, recipe, folder), "": lambda: _build(folder / kind, recipe)}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(num_rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    speeds = {name: _SECONDS / statistics.median(times) for name, times in seconds.items()}
    whole = speeds.pop("")
    return Speed(kind=kind, phases=speeds, whole=whole)


def _phases(track: Track, recipe: Recipe, folder: Path) -> dict[str, Callable[[], object]]:
    T, rate_hz = recipe.segment_samples, recipe.sample_rate_hz
    num_segments = track.num_samples // T
    stretch = Stretch(track=track, start_sample=0, num_segments=num_segments)
    waveform = sound_files.read(track.file.path, sample_rate_hz=rate_hz)[: num_segments * T]
    cut = waveform.reshape(num_segments, T)
    generator = np.random.default_rng(0)
    examples = list(segments.examples_of_stretch(stretch, domain="Domain", recipe=recipe))

    def modulate() -> None:
        for segment in cut:
            for _ in range(recipe.num_variants):
                augment.modulate_pitch(segment, sample_rate_hz=rate_hz, generator=generator)

    def encode() -> None:
        for segment in cut:
            mu_law.encode(segment, recipe.mu_law)
            mu_law.encode(np.stack([segment] * recipe.num_variants), recipe.mu_law)

    return {
        "scan": lambda: tracks.scan(track.file, recipe),
        "decode": lambda: sound_files.read(track.file.path, sample_rate_hz=rate_hz),
        "augment": modulate,
        "mu-law": encode,
        "write": lambda: tfds_files.write_records(folder / "shard", examples, recipe),
    }


def _build(audio_dir: Path, recipe: Recipe) -> None:
    def run_all(calls: Iterable[Callable[[], Any]]) -> Iterator[Any]:
        return (call() for call in calls)

    with tempfile.TemporaryDirectory() as data_dir:
        domains.build(
            epath.Path(audio_dir), epath.Path(data_dir), recipe, run_all=run_all, overwrite=False
        )


def table(speeds: Sequence[Speed]) -> str:
    """Returns all measurements as a Markdown table."""
    names = list(speeds[0].phases)
    rows = [
        [speed.kind, *(f"{times:,.0f}x" for times in (*map(speed.phases.get, names), speed.whole))]
        for speed in speeds
    ]
    return text_tables.markdown(["file", *names, "whole build"], rows)
