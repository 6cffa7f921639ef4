import dataclasses
import math
import re

import numpy as np
import pytest
import soundfile
from etils import epath

from data_prep import tracks
from data_prep.settings import Recipe
from umt_jax.audio.level import Loudness

RECIPE = Recipe(sample_rate_hz=2000, segment_samples=1024)
T = RECIPE.segment_samples


def track(name, num_samples, sha256=None):
    file = tracks.SoundFile(path=epath.Path(name), name=name, sha256=sha256 or name)
    return tracks.Track(file=file, loudness=Loudness(num_samples=num_samples, energy=1.0, peak=1.0))


def spans(stretches):
    """Which samples of which track are in each split."""
    return [
        (part.track.file.name, split, part.start_sample, part.start_sample + part.num_segments * T)
        for split, parts in stretches.items()
        for part in parts
    ]


@pytest.mark.parametrize("num_tracks", [7, 10, 16, 40, 101])
def test_of_many_tracks_some_are_held_out_whole(num_tracks):
    given = [track(f"{i}.wav", 5 * T) for i in range(num_tracks)]
    stretches = tracks.split(given, RECIPE)
    names = [name for name, *_ in spans(stretches)]
    assert sorted(names) == sorted(item.file.name for item in given), "none is in two splits"
    shares = [abs(count / num_tracks - 0.1) for count in range(num_tracks)]
    assert len(stretches["test"]) == len(stretches["validation"]) == int(np.argmin(shares[1:])) + 1
    assert all(part.num_segments == 5 for parts in stretches.values() for part in parts)


def seconds(stretches):
    """Returns the share of each split in all the music that is in one."""
    counts = {name: sum(p.num_segments for p in parts) for name, parts in stretches.items()}
    return {name: count / sum(counts.values()) for name, count in counts.items()}


@pytest.mark.parametrize(
    "minutes",
    [
        [60, 2],
        [2, 60, 2],
        [60, *[3] * 20],
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20],
        [5] * 3,
        [5] * 4,
        [5] * 6,
        [30, 30, 1, 1, 1, 1],
    ],
    ids=str,
)
def test_shares_of_the_splits_are_those_of_the_music_not_of_its_tracks(minutes):
    # Whatever the hashes of the names, of which these are some.
    for names in ("abcdefghijklmnopqrstu", "zyxwvutsrqponmlkjihgf", "qwertyuiopasdfghjklzx"):
        given = [
            track(name, 60 * RECIPE.sample_rate_hz * length)
            for name, length in zip(names, minutes, strict=False)
        ]
        shares = seconds(tracks.split(given, RECIPE))
        assert 0.7 <= shares["train"] <= 0.9
        assert 0.05 <= shares["validation"] <= 0.2 and 0.05 <= shares["test"] <= 0.2


def test_splits_of_music_of_any_lengths_have_a_gap_between_them():
    rng = np.random.default_rng(0)
    for _ in range(50):
        lengths = rng.integers(T, 60 * T, size=rng.integers(3, 9))
        assert_apart([track(f"{i}.wav", int(length)) for i, length in enumerate(lengths)])


def test_of_tracks_too_short_to_be_cut_one_is_held_out_for_each_split():
    given = [track(name, length * T) for name, length in (("a", 3), ("b", 1), ("c", 2), ("d", 3))]
    held_out = {split: name for name, split, *_ in spans(tracks.split(given, RECIPE))}
    assert (held_out["test"], held_out["validation"]) == ("b", "c")


def test_the_order_in_which_tracks_come_does_not_matter():
    given = [track(f"{i}.wav", 5 * T) for i in range(20)]
    assert tracks.split(given, RECIPE) == tracks.split(given[::-1], RECIPE)


@pytest.mark.parametrize("lengths", [[3 * T + 4000], [100 * T + 5], [31 * T, 57 * T], [40 * T, T]])
def test_one_or_two_tracks_are_cut_in_time_with_a_gap(lengths):
    assert_apart([track(f"{i}.wav", length) for i, length in enumerate(lengths)])


def assert_apart(given, recipe=RECIPE):
    """Splits tracks, and checks that each has some of them and no two meet."""
    stretches = tracks.split(given, recipe)
    assert all(part.num_segments for part in sum(stretches.values(), [])) and all(
        stretches.values()
    )
    lengths = {item.file.name: item.num_samples for item in given}
    cut = sorted((name, start, end, split) for name, split, start, end in spans(stretches))
    for (name, _, end, split), (next_name, next_start, _, next_split) in zip(
        cut, cut[1:], strict=False
    ):
        if name == next_name:
            assert split != next_split
            assert next_start - end >= RECIPE.sample_rate_hz, "the gap is a second"
    for name, start, end, _ in cut:
        assert 0 <= start < end <= lengths[name]
    # The same whatever the order in which they come.
    assert tracks.split(given[::-1], recipe) == stretches


def test_a_long_track_is_cut_eight_to_one_to_one():
    stretches = tracks.split([track("a.wav", 1000 * T + 4000)], RECIPE)
    counts = {split: parts[0].num_segments for split, parts in stretches.items()}
    assert counts == {"train": 800, "validation": 100, "test": 100}


@pytest.mark.parametrize(
    "splits", [(0.5, 0.25, 0.25), (0.9, 0.05, 0.05), (0.6, 0.1, 0.3), (0.1, 0.8, 0.1)], ids=str
)
def test_splits_have_the_shares_that_are_asked_for(splits):
    recipe = dataclasses.replace(RECIPE, splits=splits)
    for minutes in ([60], [47, 31], [5] * 40):
        given = [track(str(i), 60 * 2000 * length) for i, length in enumerate(minutes)]
        assert list(seconds(tracks.split(given, recipe)).values()) == pytest.approx(
            splits, abs=0.02
        )


def test_of_every_cut_track_something_is_left_whatever_the_shares():
    rng = np.random.default_rng(1)
    for _ in range(200):
        splits = tuple(rng.dirichlet([0.5] * 3) * 0.97 + 0.01)
        recipe = dataclasses.replace(RECIPE, splits=splits)
        given = [
            track(str(i), int(n)) for i, n in enumerate(rng.integers(3.5 * T + 4000, 30 * T, 2))
        ]
        assert_apart(given, recipe)


@pytest.mark.parametrize("splits", [(0.8, 0.2), (0.8, 0.2, 0.0), (0.8, 0.1, 0.2), (math.nan,) * 3])
def test_shares_that_are_no_whole_are_refused(splits):
    with pytest.raises(ValueError, match=r"splits=.* must be three shares above 0 whose sum is 1"):
        Recipe(splits=splits)


@pytest.mark.parametrize("lengths", [[], [2 * T], [3 * T], [3 * T + 3999], [2 * T, 2 * T]])
def test_too_little_music_for_three_splits_is_an_error(lengths):
    given = [track(f"{i}.wav", length) for i, length in enumerate(lengths)]
    with pytest.raises(ValueError, match="needs three tracks, or one of 3.5 s or more"):
        tracks.split(given, RECIPE)


def test_copies_are_left_out():
    given = [track(name, 5 * T, sha256=name[0]) for name in ("b2", "c", "a", "b1", "d")]
    domain = tracks.plan_domain("X", given, RECIPE)
    assert [item.file.name for item in domain.tracks] == ["a", "b1", "c", "d"]
    assert [(item.file.name, item.reason) for item in domain.left_out] == [
        ("b2", "is a copy of b1")
    ]


def test_a_domain_that_ends_up_with_nothing_says_why():
    file = tracks.SoundFile(path=epath.Path("a.wav"), name="a.wav", sha256="0")
    left_out = tracks.LeftOut(file=file, reason="is silent")
    with pytest.raises(ValueError, match=r"Domain X needs .* it has 0\. Left out: a.wav is silent"):
        tracks.plan_domain("X", [left_out], RECIPE)


@pytest.mark.parametrize(
    ("waveform", "reason"),
    [
        (np.zeros(4000), "is silent"),
        (np.full(4000, 0.0005), "is silent"),
        (np.full(1023, 0.5), r"is shorter \(0.51 s\) than one segment \(0.51 s\)"),
        (np.full(4000, np.nan), "holds samples that are not finite numbers"),
        (np.zeros(0), "holds no samples"),
    ],
)
def test_files_that_cannot_be_used_are_left_out_with_the_reason(tmp_path, waveform, reason):
    soundfile.write(tmp_path / "a.wav", waveform, 2000, subtype="FLOAT")
    scanned = tracks.scan(
        tracks.identify(epath.Path(tmp_path / "a.wav"), folder=epath.Path(tmp_path)), RECIPE
    )
    assert isinstance(scanned, tracks.LeftOut)
    assert re.fullmatch(reason, scanned.reason)


def test_a_track_is_known_by_name_content_length_and_level(tmp_path):
    (tmp_path / "disc 1").mkdir()
    path = tmp_path / "disc 1" / "a.wav"
    soundfile.write(path, np.tile([0.5, -0.5], 1000), 2000, subtype="FLOAT")
    scanned = tracks.scan(tracks.identify(epath.Path(path), folder=epath.Path(tmp_path)), RECIPE)
    assert isinstance(scanned, tracks.Track)
    assert scanned.file.name == "disc 1/a.wav" and len(scanned.file.sha256) == 64
    assert scanned.num_samples == 2000 and scanned.loudness.rms == pytest.approx(0.5)
