"""Which tracks a domain has, and which of them, or which part of them, each split gets."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Sequence

from etils import epath

from data_prep.settings import Recipe
from umt_jax import storage
from umt_jax.audio import level, sound_files
from umt_jax.audio.level import Loudness

SPLITS = ("train", "validation", "test")

_HELD_OUT = 0.1

# Files that an error message lists.
_NUM_NAMED = 3

# Between the splits of one track. A note and its echo last about as long; more would be lost to
# training, and no gap keeps a melody from coming back.
_GUARD_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundFile:
    """A file in a domain's folder, by its content.

    Attributes:
        path: Where it lies.
        name: Its path inside the folder of the domain, with slashes.
        sha256: Hash of its bytes.
    """

    path: epath.Path
    name: str
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Track:
    """A recording that can be used.

    Attributes:
        file: What it was decoded from.
        loudness: Its length and level at the recipe's sample rate.
    """

    file: SoundFile
    loudness: Loudness

    @property
    def num_samples(self) -> int:
        """Length at the recipe's sample rate."""
        return self.loudness.num_samples


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A file that cannot be used; `reason` completes the sentence that its name begins."""

    file: SoundFile
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stretch:
    """Consecutive segments of one track, all of one split."""

    track: Track
    start_sample: int
    num_segments: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Domain:
    """A domain's files, sorted by name, and what each split gets of them."""

    name: str
    tracks: tuple[Track, ...]
    left_out: tuple[LeftOut, ...]
    stretches: dict[str, list[Stretch]]


def find(folder: epath.Path) -> list[epath.Path]:
    """Returns the sound files in a domain's folder and its subfolders, sorted."""
    return sorted(
        path for path in storage.files_below(folder) if sound_files.is_sound_file(path.name)
    )


def identify(path: epath.Path, *, folder: epath.Path) -> SoundFile:
    """Hashes the content of a file somewhere in a domain's folder."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    # Names that are not UTF-8 come as surrogates, which neither JSON readers nor terminals take.
    name = os.fsencode(path.relative_to(folder).as_posix()).decode(errors="replace")
    return SoundFile(path=path, name=name, sha256=digest.hexdigest())


def scan(file: SoundFile, recipe: Recipe) -> Track | LeftOut:
    """Decodes a file from beginning to end, to find out whether it can be used."""
    try:
        with storage.local_copy(file.path) as path:
            loudness = level.measure(
                sound_files.read_blocks(path, sample_rate_hz=recipe.sample_rate_hz)
            )
    except sound_files.SoundFileError as error:
        return LeftOut(file=file, reason=error.reason)
    if loudness.num_samples < recipe.segment_samples:
        seconds = loudness.num_samples / recipe.sample_rate_hz
        reason = f"is shorter ({seconds:.2f} s) than one segment ({recipe.segment_seconds:.2f} s)"
        return LeftOut(file=file, reason=reason)
    if loudness.is_silent:
        return LeftOut(file=file, reason="is silent")
    return Track(file=file, loudness=loudness)


def plan_domain(name: str, scanned: Iterable[Track | LeftOut], recipe: Recipe) -> Domain:
    """Decides which files of a domain are used, and where.

    Raises:
        ValueError: Nothing is left for one of the splits.
    """
    scanned = sorted(scanned, key=lambda result: result.file.name)
    left_out = [result for result in scanned if isinstance(result, LeftOut)]
    tracks: dict[str, Track] = {}
    for result in scanned:
        if isinstance(result, Track):
            # A copy under a second name could be tested on after its twin was trained on.
            twin = tracks.setdefault(result.file.sha256, result)
            if twin is not result:
                left_out.append(LeftOut(file=result.file, reason=f"is a copy of {twin.file.name}"))
    try:
        stretches = split(list(tracks.values()), recipe)
    except ValueError as error:
        sentences = [f"{result.file.name} {result.reason}" for result in left_out[:_NUM_NAMED]]
        if len(left_out) > _NUM_NAMED:
            sentences.append(f"{len(left_out) - _NUM_NAMED} more")
        named = f" Left out: {'; '.join(sentences)}." if sentences else ""
        raise ValueError(f"Domain {name} {error}.{named}") from error
    return Domain(
        name=name,
        tracks=tuple(tracks.values()),
        left_out=tuple(sorted(left_out, key=lambda result: result.file.name)),
        stretches=stretches,
    )


def split(tracks: Sequence[Track], recipe: Recipe) -> dict[str, list[Stretch]]:
    """Divides a domain's tracks into the splits, by a hash of their names.

    A tenth of the tracks is for testing, a tenth for validation, at least one each. One or two
    tracks are cut in time instead, with a gap between the parts.

    Raises:
        ValueError: A split would be empty.
    """
    if len(tracks) < 3:
        stretches = _split_in_time(tracks, recipe)
    else:
        ordered = sorted(tracks, key=lambda track: _hash(track.file.name))
        num_held_out = max(1, round(_HELD_OUT * len(ordered)))
        of_split = {
            "test": ordered[:num_held_out],
            "validation": ordered[num_held_out : 2 * num_held_out],
            "train": ordered[2 * num_held_out :],
        }
        stretches = {
            name: [_stretch(track, 0, track.num_samples, recipe) for track in of_split[name]]
            for name in SPLITS
        }
    if not all(stretches.values()):
        needed = 3 * recipe.segment_seconds + 2 * _GUARD_SECONDS
        raise ValueError(
            f"needs three tracks, or one of {needed:.1f} s or more, to have a segment for each of "
            f"{', '.join(SPLITS)}; it has {len(tracks)}"
        )
    return {
        name: sorted(parts, key=lambda part: part.track.file.name)
        for name, parts in stretches.items()
    }


def _split_in_time(tracks: Sequence[Track], recipe: Recipe) -> dict[str, list[Stretch]]:
    """Cuts each track into 80 % train, 10 % validation and 10 % test, in this order."""
    stretches: dict[str, list[Stretch]] = {name: [] for name in SPLITS}
    guard = round(_GUARD_SECONDS * recipe.sample_rate_hz)
    for track in tracks:
        num_segments = (track.num_samples - 2 * guard) // recipe.segment_samples
        if num_segments < len(SPLITS):
            # Too short to be cut; what is left over for the other splits decides if that is fine.
            stretches["train"].append(_stretch(track, 0, track.num_samples, recipe))
            continue
        held_out = max(1, round(_HELD_OUT * num_segments)) * recipe.segment_samples
        test_start = track.num_samples - held_out
        validation_start = test_start - guard - held_out
        train_end = validation_start - guard
        stretches["train"].append(_stretch(track, 0, train_end, recipe))
        stretches["validation"].append(
            _stretch(track, validation_start, validation_start + held_out, recipe)
        )
        stretches["test"].append(_stretch(track, test_start, track.num_samples, recipe))
    return stretches


def _stretch(track: Track, start: int, end: int, recipe: Recipe) -> Stretch:
    """The whole segments between two samples; the last, incomplete one is dropped."""
    num_segments = (end - start) // recipe.segment_samples
    return Stretch(track=track, start_sample=start, num_segments=num_segments)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
