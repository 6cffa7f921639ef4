import numpy as np
import pytest

from umt_jax import parallel_segments

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
        parallel_segments.cut(
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
