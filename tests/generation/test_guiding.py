"""Guides: networks by NumPy against Flax, windows, and decoders that follow."""

import dataclasses

import jax
import numpy as np
import pytest
from conftest import TINY_MODEL, random_parameters
from scipy import stats
from small_translator import collect

from umt_jax import translator
from umt_jax.audio import mu_law
from umt_jax.config import MOST_GUIDE_STRENGTH, SamplingConfig
from umt_jax.generation import guiding
from umt_jax.model import networks

MODEL = dataclasses.replace(TINY_MODEL, sample_rate_hz=1000, guide_channels=6)
STRENGTH = 0.25


@pytest.fixture(scope="module")
def config(tiny_config):
    return dataclasses.replace(
        tiny_config, model=MODEL, sampling=SamplingConfig(guide_strength=STRENGTH)
    )


@pytest.fixture(scope="module")
def parameters(config):
    return random_parameters(networks.Networks(config))


@pytest.fixture(scope="module")
def guides(parameters):
    decoders = jax.tree.map(np.asarray, parameters.decoders)
    return guiding.Guides(MODEL, decoders, (0, 2))


@pytest.fixture
def latents(rng):
    return rng.normal(size=(213, MODEL.latent_channels)).astype(np.float32)


def windows_of(latents, *sizes):
    ends = np.cumsum(sizes)
    return [(latents[end - size : end], 10 * size) for size, end in zip(sizes, ends, strict=True)]


def test_numpy_predicts_what_flax_does(config, parameters, guides, latents):
    nets = networks.Networks(config)
    found = guides.log_magnitudes(latents)
    for index, domain in enumerate((0, 2)):
        expected = nets.guide(networks.select(parameters.decoders, domain), latents)
        np.testing.assert_allclose(found[index], expected, rtol=1e-4, atol=1e-4)
    # A frame for each hop, in the bins of a transform of 64 ms.
    assert (MODEL.guide_hop_samples, MODEL.guide_fft_samples) == (10, 64)
    assert found.shape == (2, 213, 33)


def test_a_guide_sees_so_far_and_no_further(guides, latents):
    before = guides.log_magnitudes(latents)
    changed = latents.copy()
    changed[50] += 1
    moved = np.abs(guides.log_magnitudes(changed) - before).max(axis=(0, 2)) > 0
    # Whoever sees 10 frames ahead is moved by what lies 10 behind it.
    before, behind = guides.reach_frames
    assert (before, behind) == (122, 10)
    assert np.flatnonzero(moved).tolist() == list(range(50 - behind, 50 + before + 1))


@pytest.mark.parametrize("sizes", [(213,), (50, 150, 13), (1,) * 213, (13, 199, 1)])
def test_windows_are_guided_by_what_the_whole_recording_says(guides, latents, monkeypatch, sizes):
    found = []

    class Waveforms:
        ahead_frames = 4

        def extend(self, magnitudes):
            found.append(magnitudes)
            return np.zeros((2, 10 * (magnitudes.shape[1] - 4)), np.float32)

    monkeypatch.setattr(guides, "_waveforms", Waveforms)
    guided = list(guides.follow(windows_of(latents, *sizes)))
    whole = guides.log_magnitudes(latents)
    whole = np.pad(whole, [(0, 0), (0, 4), (0, 0)], constant_values=np.log(1e-3))
    start = 0
    for window, magnitudes, size in zip(guided, found, sizes, strict=True):
        np.testing.assert_array_equal(window.latents, latents[start : start + size])
        assert (window.num_samples, window.guide.shape) == (10 * size, (2, 10 * size))
        # The end of a window may lie behind the latents that its last frames would see.
        expected = whole[:, start : start + size + 4]
        np.testing.assert_allclose(magnitudes, expected, rtol=1e-4, atol=1e-4)
        start += size


def test_windows_before_an_error_come_first(guides, latents):
    def broken():
        yield from windows_of(latents, 50, 50)
        raise OSError("the disk is gone")

    followed = guides.follow(broken())
    assert [len(next(followed).latents) for _ in range(2)] == [50, 50]
    with pytest.raises(OSError, match="the disk is gone"):
        next(followed)


def test_likelihoods_are_those_of_a_normal_distribution():
    guide = np.array([[0, 100], [255, 128]], np.uint8)
    found = guiding.log_likelihoods(guide, STRENGTH)
    expected = stats.norm.logpdf(np.arange(256), guide[..., np.newaxis], 1 / STRENGTH)
    expected -= stats.norm.logpdf(0, 0, 1 / STRENGTH)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("engine", ["native", "scan"])
def test_decoders_follow_as_closely_as_is_said(config, parameters, guides, latents, engine):
    model = translator.Translator(config, parameters, engine=engine)
    guided = list(guides.follow(model.windows(latents)))
    guide = np.concatenate([window.guide[0] for window in guided], axis=-1)
    wanted = mu_law.encode(guide, "rounded")
    free = model.generate(latents, domain="Cello", guide_strength=0.0)
    unguided = dataclasses.replace(config.model, guide_channels=0)
    plain = translator.Translator(
        dataclasses.replace(config, model=unguided),
        parameters.replace(decoders=networks.without_guides(parameters.decoders)),
        engine=engine,
    )
    np.testing.assert_array_equal(free, plain.generate(latents, domain="Cello"))
    closest = model.generate(latents, domain="Cello", guide_strength=MOST_GUIDE_STRENGTH - 0.01)
    np.testing.assert_array_equal(mu_law.encode(closest, "rounded"), wanted)
    # No decoder is asked, so nothing has to be a code.
    alone = model.generate(latents, domain="Cello", guide_strength=MOST_GUIDE_STRENGTH)
    np.testing.assert_array_equal(alone, guide)
    with pytest.raises(ValueError, match="seed="):
        model.generate(latents, domain="Cello", guide_strength=MOST_GUIDE_STRENGTH, seed=2**32)
    own = mu_law.encode(model.generate(latents, domain="Cello"), "rounded")
    off = np.abs(own.astype(float) - wanted)
    # Of a normal distribution of this width alone it would be 3.2.
    assert 1 < off.mean() < 5
    at_zero = model.generate(latents, domain="Cello", temperature=0.0, guide_strength=STRENGTH)
    assert np.abs(mu_law.encode(at_zero, "rounded") - wanted.astype(float)).mean() < off.mean()


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_engines_give_the_same_codes(config, parameters, latents, top_p):
    native, scan = (
        translator.Translator(config, parameters, engine=engine).generate(
            np.stack([latents, -latents]), domain="Piano", top_p=top_p
        )
        for engine in ("native", "scan")
    )
    np.testing.assert_array_equal(native, scan)


def test_recordings_are_guided_as_latents_are(config, parameters, rng):
    model = translator.Translator(config, parameters, engine="native")
    recordings = [rng.uniform(-0.9, 0.9, size=n).astype(np.float32) for n in (1237, 40, 700)]
    found, errors = collect(
        model.translate_recordings(
            ([recording[:333], recording[333:]] for recording in recordings),
            domains=["Piano", "Cello"],
            num_streams=2,
        )
    )
    assert not errors
    for index, recording in enumerate(recordings):
        for row, domain in zip(found[index], ("Piano", "Cello"), strict=True):
            alone = model.translate(recording, 1000, domain=domain)
            np.testing.assert_array_equal(row, alone)
    assert (
        model.latency_seconds
        > translator.Translator(
            dataclasses.replace(config, sampling=SamplingConfig()), parameters, engine="native"
        ).latency_seconds
    )


def test_a_model_without_guides_cannot_follow(tiny_config, tiny_parameters, latents):
    model = translator.Translator(tiny_config, tiny_parameters, engine="native")
    with pytest.raises(ValueError, match=r"guide_strength=0.5: this model has no guides"):
        model.generate(latents, domain="Cello", guide_strength=0.5)
    with pytest.raises(ValueError, match=r"guide_strength=11.0 must lie in 0\.\.10"):
        SamplingConfig(guide_strength=11.0)
