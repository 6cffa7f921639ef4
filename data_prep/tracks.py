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

# Whole tracks are held out if that leaves each split so much of its share, training at most
# `LEAST_TRAIN` of all.
_LEAST_HELD_OUT = 0.5
_LEAST_OF_TRAIN = 0.875

LEAST_TRAIN = 0.7
"""Share of the music that should be left to train on."""

SPLIT_VERSION = 2
"""Grows when the same tracks are divided in another way; 1 counted tracks, not their lengths."""

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
        sha256: Hash of its bytes; "" for what cannot be read.
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
    """A file that cannot be used.

    Attributes:
        file: The file.
        reason: Completes the sentence that its name begins.
        needs: Name of the package that could read it, if it only lacks one.
        could_be_read: Whether it is a sound, and only no use: short, silent or a copy.
    """

    file: SoundFile
    reason: str
    needs: str = ""
    could_be_read: bool = True


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
    """Returns the sound files in a domain's folder and its subfolders, sorted.

    Subfolders that cannot be entered come with them: `scan` leaves them out and says so.

    Raises:
        OSError: `folder` itself cannot be entered.
    """
    files, closed = storage.files_and_closed_below(folder)
    return sorted([path for path in files if sound_files.is_sound_file(path.name)] + closed)


def identify(path: epath.Path, *, folder: epath.Path) -> SoundFile:
    """Hashes the content of a file somewhere in a domain's folder."""
    # Names that are not UTF-8 come as surrogates, which neither JSON readers nor terminals take.
    # Escaped, two of them stay two.
    name = os.fsencode(path.relative_to(folder).as_posix()).decode(errors="backslashreplace")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        digest = ""  # `scan` says why.
    return SoundFile(path=path, name=name, sha256=digest)


def scan(file: SoundFile, recipe: Recipe) -> Track | LeftOut:
    """Decodes a file from beginning to end, to find out whether it can be used.

    Raises:
        OSError: The disk is full, or the file is on another machine and could not be copied.
    """
    try:
        with storage.local_copy(file.path) as path:
            loudness = level.measure(
                sound_files.read_blocks(path, sample_rate_hz=recipe.sample_rate_hz)
            )
    except sound_files.SoundFileError as error:
        return LeftOut(file=file, reason=error.reason, needs=error.needs, could_be_read=False)
    except OSError as error:
        if error.errno is None or storage.is_of_full_disk(error):
            raise
        reason = f"cannot be read ({error.strerror})"
        return LeftOut(file=file, reason=reason, could_be_read=False)
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
    """Divides a domain's tracks into the splits, which get `recipe.splits` of its segments.

    Whole tracks are held out, by a hash of their names, where some have about the length: at least
    half of the share of validation and test, and enough is left to train on. Otherwise tracks are
    cut in time, with a gap between the parts. Where neither can be done, what comes closest is
    taken.

    Raises:
        ValueError: A split would be empty.
    """
    ways = (_split_by_tracks, _split_in_time, _split_off_the_shortest)
    possible = [way(tracks, recipe) for way in ways]
    possible = [stretches for stretches in possible if all(map(_count, stretches.values()))]
    if not possible:
        needed = 3 * recipe.segment_seconds + 2 * _GUARD_SECONDS
        raise ValueError(
            f"needs three tracks, or one of {needed:.1f} s or more, to have a segment for each of "
            f"{', '.join(SPLITS)}; it has {len(tracks)}"
        )
    total = sum(track.num_samples // recipe.segment_samples for track in tracks)
    wanted = dict(zip(SPLITS, recipe.splits, strict=True))

    def rank(stretches):
        """Whether enough is held out, and how much of what is enough is left to train on."""
        shares = {name: _count(parts) / total for name, parts in stretches.items()}
        is_tested = all(
            shares[name] >= _LEAST_HELD_OUT * wanted[name] for name in ("validation", "test")
        )
        return is_tested, min(shares["train"], LEAST_TRAIN, _LEAST_OF_TRAIN * wanted["train"])

    stretches = max(possible, key=rank)  # Of equals the first.
    return {
        name: sorted(parts, key=lambda part: part.track.file.name)
        for name, parts in stretches.items()
    }


def _count(stretches: Sequence[Stretch]) -> int:
    return sum(stretch.num_segments for stretch in stretches)


def _split_by_tracks(tracks: Sequence[Track], recipe: Recipe) -> dict[str, list[Stretch]]:
    """Holds out whole tracks, each if that brings its split closer to its share of the segments."""
    stretches: dict[str, list[Stretch]] = {name: [] for name in SPLITS}
    ordered = sorted(tracks, key=lambda track: _hash(track.file.name))
    whole = [_stretch(track, 0, track.num_samples, recipe) for track in ordered]
    _, *held_out_shares = recipe.splits
    targets = {
        name: share * _count(whole) for name, share in zip(SPLITS[1:], held_out_shares, strict=True)
    }
    for stretch in whole:
        held_out = min(
            ("test", "validation"), key=lambda name: _count(stretches[name]) / targets[name]
        )
        before, target = _count(stretches[held_out]), targets[held_out]
        is_closer = abs(before + stretch.num_segments - target) < abs(before - target)
        stretches[held_out if is_closer else "train"].append(stretch)
    return stretches


def _split_off_the_shortest(tracks: Sequence[Track], recipe: Recipe) -> dict[str, list[Stretch]]:
    """Holds out one track for each split, the shortest ones."""
    ordered = sorted(tracks, key=lambda track: (track.num_samples, _hash(track.file.name)))
    whole = [_stretch(track, 0, track.num_samples, recipe) for track in ordered]
    return {"train": whole[2:], "validation": whole[1:2], "test": whole[:1]}


def _split_in_time(tracks: Sequence[Track], recipe: Recipe) -> dict[str, list[Stretch]]:
    """Cuts tracks into train, validation and test, in this order, the longest tracks first.

    Validation and test get their shares of each track's segments, until they have those of all.
    """
    stretches: dict[str, list[Stretch]] = {name: [] for name in SPLITS}
    guard = round(_GUARD_SECONDS * recipe.sample_rate_hz)
    counts = {track: (track.num_samples - 2 * guard) // recipe.segment_samples for track in tracks}
    total = sum(track.num_samples // recipe.segment_samples for track in tracks)
    shares = dict(zip(SPLITS, recipe.splits, strict=True))
    missing = {name: max(1, round(shares[name] * total)) for name in ("test", "validation")}
    for track in sorted(tracks, key=lambda track: (-track.num_samples, _hash(track.file.name))):
        end, left = track.num_samples, counts[track]
        for name, others in (("test", 2), ("validation", 1)):
            if counts[track] < len(SPLITS):
                break  # Too short to be cut: what the other splits have decides.
            # At least one for each of the others.
            share = min(max(1, round(shares[name] * counts[track])), left - others)
            held_out = min(share, missing[name])
            if held_out:
                start = end - held_out * recipe.segment_samples
                stretches[name].append(_stretch(track, start, end, recipe))
                missing[name], left, end = missing[name] - held_out, left - held_out, start - guard
        stretches["train"].append(_stretch(track, 0, end, recipe))
    return stretches


def _stretch(track: Track, start: int, end: int, recipe: Recipe) -> Stretch:
    """The whole segments between two samples; the last, incomplete one is dropped."""
    num_segments = (end - start) // recipe.segment_samples
    return Stretch(track=track, start_sample=start, num_segments=num_segments)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
