import numpy as np
import pytest
from small_segments import POOL, WINDOW, cut, windows


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
