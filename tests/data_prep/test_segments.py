import dataclasses

import numpy as np
import pytest
import soundfile
from etils import epath

from data_prep import augment, segments, tracks
from data_prep.settings import Recipe
from umt_jax.audio import mu_law

RECIPE = Recipe(sample_rate_hz=8000, segment_samples=2048, num_variants=2)
T = RECIPE.segment_samples


@pytest.fixture
def track(tmp_path, rng):
    """A quarter of a minute of noise at the recipe's rate, so that decoding changes nothing."""
    noise = rng.uniform(-0.5, 0.5, size=15 * 8000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, 8000, subtype="FLOAT")
    scanned = tracks.scan(
        tracks.identify(epath.Path(tmp_path / "a.wav"), folder=epath.Path(tmp_path)), RECIPE
    )
    return noise, scanned


def examples(track, *, start_sample=0, num_segments=3, domain="X", **settings):
    stretch = tracks.Stretch(track=track, start_sample=start_sample, num_segments=num_segments)
    recipe = dataclasses.replace(RECIPE, **settings)
    return list(segments.examples_of_stretch(stretch, domain=domain, recipe=recipe))


def test_examples_are_consecutive_segments_in_codes(track):
    noise, scanned = track
    # Begins in the first block that is read and ends in the second.
    made = examples(scanned, start_sample=77_777, num_segments=20)
    assert [example["start_sample"] for example in made] == [77_777 + i * T for i in range(20)]
    for example in made:
        start = example["start_sample"]
        np.testing.assert_array_equal(
            example["codes"], mu_law.encode(noise[start : start + T], "rounded")
        )
        assert example["track"] == "a.wav"
        assert example["codes"].dtype == example["augmented"].dtype == np.uint8
        assert example["augmented"].shape == (2, T)


def test_each_variant_differs_from_the_segment_in_one_slice(track):
    for example in examples(track[1]):
        for variant in example["augmented"]:
            changed = np.flatnonzero(variant != example["codes"])
            assert T // 8 < len(changed) <= changed[-1] + 1 - changed[0] <= T // 2
        assert (example["augmented"][0] != example["augmented"][1]).any()


def test_variants_depend_on_nothing_but_seed_domain_track_place_and_number(track):
    (reference,) = examples(track[1], start_sample=2 * T, num_segments=1)
    np.testing.assert_array_equal(examples(track[1])[2]["augmented"], reference["augmented"])
    more = examples(track[1], start_sample=2 * T, num_segments=1, num_variants=5)
    np.testing.assert_array_equal(more[0]["augmented"][:2], reference["augmented"])
    for change in ({"domain": "Y"}, {"seed": 1}):
        (other,) = examples(track[1], start_sample=2 * T, num_segments=1, **change)
        np.testing.assert_array_equal(other["codes"], reference["codes"])
        assert (other["augmented"] != reference["augmented"]).any()


def test_variants_of_another_timbre_follow_those_of_pitch_alone(track):
    (plain,) = examples(track[1], num_segments=1)
    (more,) = examples(track[1], num_segments=1, timbre_variants=3)
    assert more["augmented"].shape == (5, T)
    np.testing.assert_array_equal(more["codes"], plain["codes"])
    np.testing.assert_array_equal(more["augmented"][:2], plain["augmented"])
    for variant in more["augmented"][2:]:
        assert np.mean(variant != more["codes"]) > 0.8  # Not in one slice alone.


def test_loudness_is_that_of_the_whole_track(track):
    made = examples(track[1], num_segments=58, rms_dbfs=-20.0)
    waveform = mu_law.decode(np.concatenate([example["codes"] for example in made]), "rounded")
    assert 20 * np.log10(np.sqrt(np.mean(waveform**2))) == pytest.approx(-20, abs=0.1)


def test_a_track_that_became_shorter_is_an_error(track):
    with pytest.raises(ValueError, match="a.wav changed while it was read"):
        examples(track[1], num_segments=59)


def test_effects_compile_without_a_warning():
    augment.compile_effects()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"segment_samples": 1000}, "segment_samples=1000 must be at least 1024"),
        ({"num_variants": 0}, "num_variants=0 must be at least 1"),
        ({"timbre_variants": -1}, "timbre_variants=-1 must be 0 or more"),
        ({"sample_rate_hz": 16}, "sample_rate_hz=16 must be at least 1000"),
        ({"rms_dbfs": 3.0}, "rms_dbfs=3 must lie between -60 and 0"),
        ({"rms_dbfs": float("nan")}, "rms_dbfs=nan must lie"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**settings)
