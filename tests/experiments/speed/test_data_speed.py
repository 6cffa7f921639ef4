"""The benchmarks of the data side measure what they say."""

import itertools
import types

import pytest

from experiments.speed import build_speed, input_speed
from umt_jax.data import dataset


def test_rates_of_the_input_pipeline_agree_with_one_another(prepared_dir, monkeypatch):
    monkeypatch.setattr(input_speed, "_SECONDS", 0.05)
    training = input_speed.TrainingConfig(segment_samples=500, domain_batch=3)
    monkeypatch.setattr(input_speed.presets, "training", lambda preset: training)
    prepared = dataset.Dataset(str(prepared_dir), ["Cello", "Piano"])
    rate = input_speed.measure(prepared, "demo", 1, num_rounds=1)
    rate_hz = input_speed.presets.model("demo").sample_rate_hz
    assert rate.examples_per_s == pytest.approx(rate.batches_per_s * 2 * 3)
    assert rate.audio_per_s == pytest.approx(rate.examples_per_s * 500 / rate_hz)
    assert rate.mb_per_s == pytest.approx(rate.examples_per_s * 1000 / 1e6)
    assert len(input_speed.table([rate], 1e9).splitlines()) == 3


def test_the_musicnet_step_takes_no_more_than_its_products_allow():
    # Encoder and decoder multiply each sample with about 7.5 million weights.
    taken = input_speed.most_taken("musicnet", 1e12)
    assert taken == pytest.approx(1e12 / (3 * 2 * 7.5e6 * 12_000), rel=0.05)


def test_the_build_is_timed_as_a_whole_and_by_phase(tmp_path, monkeypatch):
    monkeypatch.setattr(build_speed, "_SECONDS", 6.0)
    looks = itertools.count()  # Each look at this clock is two seconds after the last.
    clock = types.SimpleNamespace(perf_counter=lambda: 2 * next(looks))
    monkeypatch.setattr(build_speed, "time", clock)
    speed = build_speed.measure("flac", tmp_path, num_rounds=3)
    phases = ["scan", "decode", "augment", "mu-law", "write"]
    assert speed == build_speed.Speed("flac", dict.fromkeys(phases, 3.0), whole=3.0)
    assert next(looks) == 2 * 3 * len([*phases, "whole"])
    assert build_speed.table([speed]).splitlines()[-1].startswith("| flac ")
