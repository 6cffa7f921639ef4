import numpy as np
import pytest

from umt_jax import seams

POOL, WINDOW = 10, 5


def windows(num_frames, num_samples, rng):
    latents = rng.normal(size=(num_frames, 2)).astype(np.float32)
    return latents, [
        (
            latents[start : start + WINDOW],
            min(num_samples - start * POOL, len(latents[start : start + WINDOW]) * POOL),
        )
        for start in range(0, num_frames, WINDOW)
    ]


def cut(encoded, num_segments, *, warm_up_frames=2, fade_samples=6):
    return list(
        seams.cut(
            7,
            encoded,
            num_segments=num_segments,
            warm_up_frames=warm_up_frames,
            fade_samples=fade_samples,
            pool_samples=POOL,
        )
    )


def test_segments_cover_the_recording_and_begin_their_warm_up_earlier(rng):
    latents, encoded = windows(23, 225, rng)
    segments = cut(encoded, 4)
    parts = [list(segment.windows) for segment in segments]
    assert [segment.first_sample for segment in segments] == [0, 30, 90, 150]
    assert [segment.discard_samples for segment in segments] == [0, 14, 14, 14]
    assert [segment.is_last for segment in segments] == [False, False, False, True]
    for segment, part, (start, end) in zip(
        segments, parts, [(0, 5), (3, 11), (9, 17), (15, 23)], strict=True
    ):
        assert segment.recording == 7
        np.testing.assert_array_equal(np.concatenate([w for w, _ in part]), latents[start:end])
        assert sum(n for _, n in part) == min(end * POOL, 225) - start * POOL
        assert all(len(window) == WINDOW for window, _ in part[:-1])


@pytest.mark.parametrize(("num_frames", "expected"), [(1, 1), (9, 1), (10, 2), (14, 2), (15, 3)])
def test_no_segment_is_shorter_than_a_window(rng, num_frames, expected):
    assert len(cut(windows(num_frames, num_frames * POOL, rng)[1], 3)) == expected


def test_no_segment_is_shorter_than_its_warm_up(rng):
    assert len(cut(windows(20, 200, rng)[1], 3, warm_up_frames=9)) == 2


def test_a_recording_that_cannot_be_read_is_one_segment_that_says_so():
    def broken():
        yield np.zeros((WINDOW, 2), np.float32), WINDOW * POOL
        raise OSError("is gone")

    (segment,) = cut(broken(), 3)
    with pytest.raises(OSError, match="is gone"):
        next(segment.windows)
    (empty,) = cut([], 3)
    assert list(empty.windows) == []


def test_a_cross_fade_is_a_straight_line_from_one_sound_to_the_other():
    old, new = np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(
        seams.cross_fade(old, new, first=0, fade_samples=4), [[0.125, 0.375, 0.625, 0.875]]
    )
    np.testing.assert_array_equal(
        seams.cross_fade(old[:, :1], new[:, :1], first=2, fade_samples=4), [[0.625]]
    )


# In order, in reverse, and side by side, in blocks of several sizes.
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), None])
@pytest.mark.parametrize("block", [1, 4, 50])
def test_joined_segments_are_the_sounds_with_their_fades_however_they_arrive(rng, order, block):
    _, encoded = windows(15, 143, rng)
    segments = cut(encoded, 3)
    sounds = [
        rng.normal(size=(2, sum(n for _, n in segment.windows))).astype(np.float32)
        for segment in segments
    ]
    heard = []

    def blocks(index):
        for start in range(0, sounds[index].shape[1], block):
            yield index, sounds[index][:, start : start + block]

    with seams.Joiner(2) as joiner:

        def receive(index, waveforms):
            heard.extend(joiner.add(segments[index], waveforms))

        if order is None:
            streams = [list(blocks(index)) for index in range(3)]
            for step in range(max(map(len, streams))):
                for stream in streams:
                    if step < len(stream):
                        receive(*stream[step])
                    if step + 1 == len(stream):
                        heard.extend(joiner.end(segments[stream[0][0]]))
        else:
            for index in order:
                for piece in blocks(index):
                    receive(*piece)
                heard.extend(joiner.end(segments[index]))
        assert not joiner.unfinished
    expected = np.zeros((2, 143), np.float32)
    expected[:, :50] = sounds[0]
    for index, start in ((1, 50), (2, 100)):
        ramp = (np.arange(6, dtype=np.float32) + 0.5) / 6
        old = expected[:, start - 6 : start].copy()
        new = sounds[index][:, 20 - 6 : 20]
        expected[:, start - 6 : start] = old + ramp * (new - old)
        stop = min(start + 50, 143)
        expected[:, start:stop] = sounds[index][:, 20:]
    np.testing.assert_array_equal(np.concatenate(heard, axis=1), expected)


def test_sound_that_waits_is_thrown_away_when_the_run_ends_early(rng):
    segments = cut(windows(15, 150, rng)[1], 3)
    with seams.Joiner(1) as joiner:
        assert list(joiner.add(segments[1], np.ones((1, 30), np.float32))) == []
        assert joiner.unfinished == {7}
