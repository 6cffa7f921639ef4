import numpy as np
import pytest

from experiments.evaluation import paper_measures


@pytest.fixture
def contour(rng):
    return 60 + np.cumsum(rng.normal(size=200))


def test_a_contour_transposed_and_late_correlates_with_itself(contour):
    late = np.concatenate([np.full(4, np.nan), contour[:-4]]) + 7
    assert paper_measures.pitch_correlation(late, contour, most_lag=5) == pytest.approx(1)
    assert paper_measures.pitch_correlation(contour, late, most_lag=5) == pytest.approx(1)
    assert paper_measures.pitch_correlation(late, contour, most_lag=3) < 0.999
    assert paper_measures.pitch_correlation(-contour, contour, most_lag=0) == pytest.approx(-1)


def test_correlation_of_pitch_is_pearsons_where_both_are_heard(rng, contour):
    other = contour + rng.normal(size=200)
    other[rng.random(200) < 0.3] = np.nan
    contour[rng.random(200) < 0.3] = np.nan
    both = np.isfinite(other) & np.isfinite(contour)
    expected = np.corrcoef(other[both], contour[both])[0, 1]
    found = paper_measures.pitch_correlation(other, contour, most_lag=0)
    assert found == pytest.approx(expected)


def test_what_is_never_heard_or_never_moves_has_no_correlation(contour):
    silent = np.full(200, np.nan)
    assert np.isnan(paper_measures.pitch_correlation(silent, contour, most_lag=2))
    assert np.isnan(paper_measures.pitch_correlation(np.full(200, 60.0), contour, most_lag=2))
    assert np.isnan(paper_measures.warped_distance(silent, contour))


def slow_warping(found, expected):
    """Dynamic time warping by its definition: the least cost over the length of its path."""
    costs = np.full((len(found) + 1, len(expected) + 1), np.inf)
    lengths = np.zeros_like(costs)
    costs[0, 0] = 0
    for i, a in enumerate(found, start=1):
        for j, b in enumerate(expected, start=1):
            before = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
            best = min(before, key=lambda place: costs[place])
            costs[i, j] = costs[best] + abs(a - b)
            lengths[i, j] = lengths[best] + 1
    return costs[-1, -1] / lengths[-1, -1]


def test_warping_is_its_definition(contour):
    found, expected = contour[:40] + 0.3, np.repeat(contour[:30], 2)
    value = paper_measures.warped_distance(found, expected)
    assert value == pytest.approx(slow_warping(found, expected))


def test_another_speed_costs_nothing_and_a_semitone_costs_one(contour):
    slower = np.repeat(contour, 2)
    assert paper_measures.warped_distance(slower, contour) == pytest.approx(0)
    flat = np.full(50, 60.0)
    assert paper_measures.warped_distance(flat + 1, flat[:30]) == pytest.approx(1)


def test_a_confusion_counts_whom_the_judge_took_for_real():
    probabilities = np.array([[0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.9, 0.0, 0.1]])
    chosen = paper_measures.line_up(probabilities)
    np.testing.assert_array_equal(chosen, [1, 0, 2, 0])
    shares = paper_measures.confusion(chosen, np.array([0, 0, 2, 2]), 3)
    np.testing.assert_allclose(shares[0], [0.5, 0.5, 0])
    np.testing.assert_allclose(shares[2], [0.5, 0, 0.5])
    assert np.isnan(shares[1]).all()


def test_correlations_of_latents_are_means_over_pairs(rng):
    latents = rng.normal(size=(4, 3, 8)) + 5 * rng.normal(size=8)
    found = paper_measures.pitch_correlations(latents)
    centred = latents - latents.mean(axis=(0, 1))
    for values, expected in (
        (latents, found.same_pitch),
        (centred, found.same_pitch_centred),
    ):
        pairs = [
            np.corrcoef(values[p, i], values[p, j])[0, 1]
            for p in range(4)
            for i in range(3)
            for j in range(i)
        ]
        assert expected == pytest.approx(np.mean(pairs))
    pairs = [
        np.corrcoef(centred[p, i], centred[q, i])[0, 1]
        for i in range(3)
        for p in range(4)
        for q in range(p)
    ]
    assert found.same_instrument_centred == pytest.approx(np.mean(pairs))


def test_latents_that_tell_pitch_alone_correlate_across_instruments(rng):
    of_pitch = rng.normal(size=(5, 1, 16))
    found = paper_measures.pitch_correlations(np.broadcast_to(of_pitch, (5, 3, 16)))
    assert found.same_pitch_centred == pytest.approx(1)
    assert found.same_instrument_centred < 0.5
