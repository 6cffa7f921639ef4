import numpy as np
import pytest

from umt_jax.generation import blending

RATE_HZ = 20.0  # 3.5 s are 70 latent frames, 1.5 s are 30.


def latents_of(value, num_frames, channels=3):
    """Returns latents of which frame f, channel z, is 1000 value + f + z / 10."""
    frames, zs = np.arange(num_frames)[:, None], np.arange(channels) / 10
    return (1000 * value + frames + zs).astype(np.float32)


def blend(first, second, schedule, weight=0.5):
    return blending.blend(first, second, schedule=schedule, frame_rate_hz=RATE_HZ, weight=weight)


def test_the_papers_blend_is_the_first_then_a_ramp_then_the_second():
    first, second = latents_of(1, 100), latents_of(2, 100)
    blended = blend(first, second, "paper")
    assert blended.shape == (170, 3)
    np.testing.assert_array_equal(blended[:70], first[:70])
    np.testing.assert_array_equal(blended[100:], second[30:])
    for frame in range(30):  # 1 - t / 1.5 and t / 1.5, at the middle of each frame.
        t = (frame + 0.5) / RATE_HZ
        expected = (1 - t / 1.5) * first[70 + frame] + (t / 1.5) * second[frame]
        np.testing.assert_allclose(blended[70 + frame], expected, rtol=1e-6)


def test_a_long_first_is_left_after_five_seconds():
    first, second = latents_of(1, 400), latents_of(2, 50)
    blended = blend(first, second, "paper")
    np.testing.assert_array_equal(blended, blend(first[:100], second, "paper"))
    assert len(blended) == 70 + 50


@pytest.mark.parametrize(
    ("num_first", "num_second", "hold", "ramp"),
    [(60, 80, 30, 30), (30, 80, 0, 30), (12, 80, 0, 12), (100, 7, 70, 7), (1, 1, 0, 1)],
)
def test_short_sounds_shorten_the_hold_and_then_the_ramp(num_first, num_second, hold, ramp):
    first, second = latents_of(1, num_first), latents_of(2, num_second)
    blended = blend(first, second, "paper")
    assert len(blended) == hold + num_second
    np.testing.assert_array_equal(blended[:hold], first[:hold])
    np.testing.assert_array_equal(blended[hold + ramp :], second[ramp:])
    share = (blended[hold : hold + ramp] - first[hold : hold + ramp]) / (
        second[:ramp] - first[hold : hold + ramp]
    )
    expected = np.broadcast_to((np.arange(ramp)[:, None] + 0.5) / ramp, share.shape)
    np.testing.assert_allclose(share, expected, atol=1e-3)


def test_a_ramp_goes_from_one_to_the_other_as_long_as_both_last():
    first, second = latents_of(1, 40), latents_of(2, 90)
    blended = blend(first, second, "ramp")
    share = (blended - first) / 1000
    np.testing.assert_allclose(share[:, 0], (np.arange(40) + 0.5) / 40, atol=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_a_constant_weight_is_the_same_everywhere(weight):
    first, second = latents_of(1, 90), latents_of(2, 40)
    expected = (1 - weight) * first[:40] + weight * second
    np.testing.assert_allclose(blend(first, second, "constant", weight), expected, rtol=1e-6)


def test_weights_of_a_morph_follow_the_same_schedules():
    def weights(schedule, num_frames, **given):
        return blending.schedule_weights(schedule, num_frames, frame_rate_hz=RATE_HZ, **given)

    paper = weights("paper", 170)
    assert (paper[:70] == 0).all() and (paper[100:] == 1).all()
    np.testing.assert_allclose(np.diff(paper[70:100]), 1 / 30, rtol=1e-4)
    np.testing.assert_allclose(weights("ramp", 4), [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_array_equal(weights("constant", 3, weight=0.25), [0.25] * 3)


def test_corners_of_a_grid_are_the_four_sounds_and_its_middle_their_mean():
    corners = [latents_of(value, num) for value, num in ((1, 9), (2, 8), (3, 7), (4, 20))]
    grid = blending.grid(corners, 3)
    assert grid.shape == (3, 3, 7, 3)
    for (row, column), corner in zip([(0, 0), (0, 2), (2, 0), (2, 2)], corners, strict=True):
        np.testing.assert_allclose(grid[row, column], corner[:7], rtol=1e-6)
    np.testing.assert_allclose(grid[1, 1], np.mean([c[:7] for c in corners], axis=0), rtol=1e-6)
    np.testing.assert_allclose(grid[0, 1], (corners[0][:7] + corners[1][:7]) / 2, rtol=1e-6)
    np.testing.assert_allclose(grid[1, 2], (corners[1][:7] + corners[3][:7]) / 2, rtol=1e-6)


def test_levels_are_the_loudest_ones_unless_that_clips(rng):
    def rms(waveform):
        return np.sqrt(np.mean(np.square(waveform)))

    loud, quiet = (rng.uniform(-peak, peak, 4000).astype(np.float32) for peak in (0.8, 0.02))
    matched = blending.match_levels([quiet, loud])
    np.testing.assert_allclose([rms(waveform) for waveform in matched], rms(loud), rtol=1e-4)
    np.testing.assert_allclose(matched[0] / quiet, rms(loud) / rms(quiet), rtol=1e-4)

    click = np.zeros(4000, np.float32)
    click[7] = 0.5
    matched = blending.match_levels([click, loud])
    np.testing.assert_allclose(rms(matched[0]), rms(matched[1]), rtol=1e-4)
    assert max(np.abs(waveform).max() for waveform in matched) == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: blending.match_levels([np.ones(9, np.float32), np.zeros(9, np.float32)]),
            "Sound 2 of 2 is silent",
        ),
        (
            lambda: blend(latents_of(1, 3), latents_of(2, 3), "constant", 1.5),
            r"weight=1.5 must lie in \[0, 1\]",
        ),
        (
            lambda: blend(latents_of(1, 3), latents_of(2, 3), "cubic"),
            "schedule=cubic is not known. Use paper, ramp, constant",
        ),
        (lambda: blending.grid([latents_of(1, 3)] * 3, 3), "has four sounds"),
        (lambda: blending.grid([latents_of(1, 3)] * 4, 1), "grid=1 must be 2 or more"),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
