"""Scores, intervals and tables of `experiments.evaluate`."""

import csv
import dataclasses
import io

import numpy as np
import played_scale  # noqa: F401 (skips these tests where the evaluators are not installed)

from experiments.evaluation import decoys, measuring, pitch_probe, summary, tables


def results(rng, num_clips=40):
    """Systems with known means, and clips that vary together."""
    per_clip = rng.normal(0, 0.05, num_clips)
    means = {
        "translation": (0.6, 0.5),
        decoys.IDENTITY: (0.9, 0.1),
        decoys.EQ_TRANSFER: (0.85, 0.2),
        decoys.MIXTURE: (0.5, 0.4),
        decoys.WRONG_CONTENT: (0.2, 0.9),
        decoys.NOISE: (0.1, 0.3),
        decoys.MU_LAW_ORACLE: (0.9, 0.89),
        decoys.ORACLE: (0.9, 0.9),
    }
    values = {
        system: {"frame_f1": f1 + per_clip, "target_probability": p + per_clip}
        for system, (f1, p) in means.items()
    }
    clips = tuple(("piece", index) for index in range(num_clips))
    return measuring.PairResults(clips, values, dict.fromkeys(means, 1.0), {})


def test_scores_run_from_the_worst_decoy_to_the_oracle(rng):
    overall, _ = summary.summarise({("a", "b"): results(rng)})
    # Floors: noise in content, identity in timbre.
    found = overall["translation"]
    np.testing.assert_allclose(found["content"].mean, 0.5 / 0.8)
    np.testing.assert_allclose(found["timbre"].mean, 0.4 / 0.8)
    np.testing.assert_allclose(found["headline"].mean, 2 * 0.625 * 0.5 / 1.125)
    # All clips move together, and so do floor and ceiling: the scores do not vary.
    np.testing.assert_allclose(found["headline"].low, found["headline"].high)
    assert overall[decoys.ORACLE]["headline"] == summary.Estimate(1.0, 1.0, 1.0)
    assert overall[decoys.IDENTITY]["headline"].mean == 0
    assert overall[decoys.NOISE]["headline"].mean == 0


def test_intervals_are_those_of_the_normal_approximation(rng):
    found = summary.summarise({("a", "b"): results(rng)}, resamples=4000)[0]["translation"]
    values = results(np.random.default_rng(0)).values["translation"]["frame_f1"]
    error = 1.96 * np.std(values) / np.sqrt(len(values))
    np.testing.assert_allclose(found["frame_f1"].high - found["frame_f1"].mean, error, rtol=0.1)


def test_a_measure_that_says_nothing_of_a_clip_is_averaged_over_the_others(rng):
    of_pair = results(rng, num_clips=4)
    of_pair.values["translation"]["pitch_accuracy"] = np.array([np.nan, 0.2, 0.4, np.nan])
    overall, _ = summary.summarise({("a", "b"): of_pair})
    np.testing.assert_allclose(overall["translation"]["pitch_accuracy"].mean, 0.3)


def test_without_pairs_the_source_and_other_music_are_the_ceilings(rng):
    of_pair = results(rng)
    for system in (decoys.ORACLE, decoys.MU_LAW_ORACLE):
        del of_pair.values[system]
        del of_pair.frechet[system]
    for by_name in of_pair.values.values():
        by_name["frame_f1_to_source"] = by_name.pop("frame_f1")
    overall, _ = summary.summarise({("a", "b"): of_pair})
    assert overall[decoys.IDENTITY]["content"].mean == 1
    assert overall[decoys.WRONG_CONTENT]["timbre"].mean == 1
    assert max(overall[decoy]["headline"].mean for decoy in decoys.FALSE) < 0.5


def test_the_table_of_clips_has_every_value(rng):
    of_pair = results(rng, num_clips=3)
    rows = list(csv.DictReader(io.StringIO(tables.clips_csv({("a", "b"): of_pair}))))
    assert len(rows) == 3 * len(of_pair.values)
    for row in rows:
        expected = of_pair.values[row["system"]]["frame_f1"][int(row["clip"])]
        np.testing.assert_allclose(float(row["frame_f1"]), expected, rtol=1e-4)


def in_pieces(of_pair, clips_per_piece):
    """Says that clips are of pieces of so many clips each, in turn."""
    clips = tuple(divmod(index, clips_per_piece) for index in range(len(of_pair.clips)))
    names = tuple((f"piece {piece}", index) for piece, index in clips)
    return dataclasses.replace(of_pair, clips=names)


def width(estimate):
    return estimate.high - estimate.low


def test_whole_pieces_are_resampled_where_there_are_enough(rng):
    of_pair = results(rng, num_clips=96)
    of_piece = np.repeat(rng.normal(0, 1, 12), 8)  # All clips of a piece are alike.
    of_pair.values["translation"]["frame_f1"] = of_piece
    by_piece = in_pieces(of_pair, 8)
    found = summary.summarise({("a", "b"): by_piece}, resamples=4000)[0]["translation"]["frame_f1"]
    error = 1.96 * np.std(of_piece) / np.sqrt(12)
    np.testing.assert_allclose(width(found), 2 * error, rtol=0.1)
    assert summary.resampled({("a", "b"): by_piece}) == "pieces"
    # As if clips were independent, the interval is too narrow by the root of eight.
    alone = summary.summarise({("a", "b"): of_pair}, resamples=4000)[0]["translation"]["frame_f1"]
    np.testing.assert_allclose(width(found) / width(alone), np.sqrt(8), rtol=0.1)
    assert summary.resampled({("a", "b"): of_pair}) == "clips"


def test_with_few_pieces_clips_are_resampled(rng):
    few = in_pieces(results(rng, num_clips=40), 8)
    assert summary.resampled({("a", "b"): few}) == "clips"
    many = in_pieces(results(rng, num_clips=48), 8)
    assert summary.resampled({("a", "b"): many, ("b", "a"): few}) == "clips"


def test_a_quarter_of_the_clips_is_half_as_sure(rng):
    whole, quick = (
        summary.summarise({("a", "b"): results(rng, num_clips=number)}, resamples=4000)[0]
        for number in (400, 100)
    )
    ratio = width(quick["translation"]["frame_f1"]) / width(whole["translation"]["frame_f1"])
    np.testing.assert_allclose(ratio, np.sqrt(400 / 100), rtol=0.2)


def test_the_offset_of_a_pair_is_the_median_over_its_frames(rng):
    by_clip = [np.round(rng.normal(1.0, 0.7, size), 2) for size in (30, 1, 0, 56)]
    of_pair = results(rng, num_clips=4)
    of_pair = dataclasses.replace(of_pair, offsets={"translation": by_clip})
    other = dataclasses.replace(of_pair, offsets={"translation": [-frames for frames in by_clip]})
    both = {("a", "b"): of_pair, ("b", "a"): other}
    overall, by_pair = summary.summarise(both)
    expected = np.median(np.concatenate(by_clip))
    found = by_pair["a", "b"]["translation"]["median_offset"]
    np.testing.assert_allclose(found.mean, expected, atol=0.011)
    assert found.low <= found.mean <= found.high
    # Signs do not cancel in the mean.
    size = overall["translation"]["median_offset_size"]
    np.testing.assert_allclose(size.mean, np.abs(expected), atol=0.011)
    assert "median_offset" not in overall["translation"]
    assert "median_offset" not in by_pair["a", "b"][decoys.NOISE]


def test_medians_of_resampled_clips_are_those_of_their_frames(rng):
    by_clip = [np.round(rng.normal(0.0, 3.0, size), 2) for size in (3, 8, 5)]
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 3, 0]])
    found = summary._weighted_medians(by_clip, weights.astype(float))
    for row, median in zip(weights, found, strict=True):
        drawn = [clip for clip, times in zip(by_clip, row, strict=True) for _ in range(times)]
        frames = np.sort(np.concatenate(drawn))
        np.testing.assert_allclose(median, frames[(len(frames) - 1) // 2], atol=1e-9)
    assert np.isnan(summary._weighted_medians([np.empty(0)], np.ones((1, 1)))).all()


def test_frechet_distances_are_in_every_table_without_an_interval(rng):
    overall, by_pair = summary.summarise({("a", "b"): results(rng)})
    for table in (overall, by_pair["a", "b"]):
        assert table[decoys.NOISE]["frechet_distance"].mean == 1
        assert np.isnan(table[decoys.NOISE]["frechet_distance"].low)


def test_own_domains_have_no_normalised_scores_and_need_no_decoys(rng):
    of_pair = results(rng)
    for system in (decoys.IDENTITY, decoys.EQ_TRANSFER, decoys.MIXTURE):
        del of_pair.values[system]
        del of_pair.frechet[system]
    own, _ = summary.summarise({("a", "a"): of_pair}, normalise=False)
    assert set(own["translation"]) == {"frame_f1", "target_probability", "frechet_distance"}
    np.testing.assert_allclose(
        own["translation"]["frame_f1"].mean, of_pair.values["translation"]["frame_f1"].mean()
    )


def test_what_is_lost_is_the_probe_beside_the_pitch_that_is_played(rng):
    def table(pitch):
        return {
            system: {"pitch_accuracy": summary.Estimate(value, value, value)}
            for system, value in (("translation", pitch), (decoys.ORACLE, 0.95))
        }

    by_pair = {("a", "b"): table(0.3), ("a", "c"): table(0.4), ("b", "a"): table(0.8)}
    by_pair["a", "a"] = table(0.6)
    probes = {"a": pitch_probe.ProbeScores(linear=0.8, mlp=0.9, mlp_of_others=0.5, frames=10)}
    (row,) = tables.notes_lost(probes, by_pair).values()
    np.testing.assert_allclose(list(row.values()), [0.8, 0.9, 0.5, 0.6, 0.35, 0.95])
