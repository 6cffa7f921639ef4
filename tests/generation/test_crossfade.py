import numpy as np
import pytest
from small_segments import cut, windows

from umt_jax.generation import crossfade


def test_a_cross_fade_is_a_straight_line_from_one_sound_to_the_other():
    old, new = np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(
        crossfade.cross_fade(old, new, first=0, fade_samples=4), [[0.125, 0.375, 0.625, 0.875]]
    )
    np.testing.assert_array_equal(
        crossfade.cross_fade(old[:, :1], new[:, :1], first=2, fade_samples=4), [[0.625]]
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

    with crossfade.Joiner(2) as joiner:

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
    with crossfade.Joiner(1) as joiner:
        assert list(joiner.add(segments[1], np.ones((1, 30), np.float32))) == []
        assert joiner.unfinished == {7}
