"""Decoys of `experiments.evaluate`, and distances to the true pair."""

import numpy as np
import pytest
from played_scale import RATE_HZ, played

from experiments.evaluation import decoys, likeness, measuring, pieces


def test_eq_transfer_has_the_long_term_spectrum_of_the_target():
    source, target = played("Piano"), played("Flute")
    moved = decoys.eq_transfer(source, target, RATE_HZ)

    def bands_db(sound):
        power = np.abs(np.fft.rfft(sound)) ** 2
        return 10 * np.log10([band.mean() for band in np.array_split(power[: len(power) // 2], 12)])

    before = np.abs(bands_db(source) - bands_db(target))
    after = np.abs(bands_db(moved) - bands_db(target))
    assert before.max() > 5
    assert after.max() < 2


def test_wrong_content_is_other_music_of_the_same_sound():
    targets = [np.arange(10.0), np.arange(10.0, 30.0)]
    np.testing.assert_array_equal(decoys.wrong_content(targets, 0), np.arange(15.0, 25.0))
    wrong = [*np.arange(25.0, 30.0), *np.arange(15.0)]
    np.testing.assert_array_equal(decoys.wrong_content(targets, 1), wrong)


def test_levels_are_the_same_and_silence_stays_silent(rng):
    quiet = decoys.at_level(rng.normal(0, 1e-3, 1000))
    loud = decoys.at_level(rng.normal(0, 1.0, 1000))
    np.testing.assert_allclose(np.std(quiet), np.std(loud), rtol=0.05)
    assert np.abs(decoys.at_level(np.full(1000, 1e-7))).max() < 1e-3


def test_distances_are_zero_to_itself_and_those_of_a_gain_otherwise(rng):
    sound = rng.normal(0, 0.1, 2 * RATE_HZ).astype(np.float32)
    none = likeness.log_mel_distances(sound, sound, RATE_HZ)
    assert none == {"log_mel_l1": 0, "log_spectral_distance": 0}
    louder = likeness.log_mel_distances(2 * sound, sound, RATE_HZ)
    np.testing.assert_allclose(louder["log_spectral_distance"], 20 * np.log10(2), rtol=1e-3)
    np.testing.assert_allclose(louder["log_mel_l1"], 2 * np.log(2), rtol=1e-3)


@pytest.mark.parametrize("lag_s", [-0.06, 0.0, 0.04])
def test_a_lag_is_found_and_removed(lag_s):
    source = played("Piano")
    lag = round(lag_s * RATE_HZ)
    late = np.roll(source, lag)
    np.testing.assert_allclose(measuring.lag_seconds(late, source, RATE_HZ), lag_s, atol=0.005)
    aligned = measuring.align(late, source, RATE_HZ)
    assert len(aligned) == len(source)
    np.testing.assert_allclose(measuring.lag_seconds(aligned, source, RATE_HZ), 0.0, atol=0.005)


def test_silence_is_not_moved():
    silence = np.zeros(2 * RATE_HZ, np.float32)
    assert measuring.lag_seconds(silence, played("Piano")[: len(silence)], RATE_HZ) == 0


@pytest.mark.parametrize("paired", [True, False])
def test_of_its_own_domain_other_music_is_wrong_and_nothing_is_to_be_equalized(paired):
    pieces_of_domain = {"a": played("Piano"), "b": played("Piano")[::-1].copy()}
    music = pieces.make_music(
        {"Piano": pieces_of_domain, "Flute": {"a": played("Flute"), "b": played("Flute")}},
        {},
        sample_rate_hz=RATE_HZ,
        paired=paired,
        clip_s=3.0,
    )
    sounds = measuring.Measuring(music, lambda piece: None, {}).decoys(("Piano", "Piano"), "a")
    oracles = {decoys.ORACLE, decoys.MU_LAW_ORACLE} if paired else set()
    assert set(sounds) == {decoys.IDENTITY, decoys.WRONG_CONTENT, decoys.NOISE} | oracles
    np.testing.assert_array_equal(sounds[decoys.IDENTITY], pieces_of_domain["a"])
    wrong = sounds[decoys.WRONG_CONTENT]
    assert wrong.shape == pieces_of_domain["a"].shape
    assert abs(np.corrcoef(wrong, pieces_of_domain["a"])[0, 1]) < 0.5
