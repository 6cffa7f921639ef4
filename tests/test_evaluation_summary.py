"""Scores, intervals and tables of `experiments.evaluate`."""

import csv
import io

import numpy as np
import played_scale  # noqa: F401 (skips these tests where the evaluators are not installed)

from experiments.evaluation import decoys, measuring, summary, tables


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
    return measuring.PairResults(clips, values, dict.fromkeys(means, 1.0))


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
