import jax
import numpy as np
import pytest
from conftest import PREPARED, TINY_MODEL, track_codes

import umt_jax
from experiments.speed import approximations
from umt_jax.audio import mu_law, sound_files
from umt_jax.generation import generate
from umt_jax.generation.engines import native
from umt_jax.model import networks

RATE_HZ = PREPARED.sample_rate_hz


def test_total_variation_is_the_most_by_which_any_set_of_codes_changes_its_probability(rng):
    p, q = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(5))
    sets = [[code for code in range(5) if mask >> code & 1] for mask in range(32)]
    expected = max(abs(p[codes].sum() - q[codes].sum()) for codes in sets)
    distance = approximations.total_variation(
        np.log(p).astype(np.float32), (np.log(q) + 3).astype(np.float32)
    )
    np.testing.assert_allclose(distance, expected, rtol=1e-5, atol=1e-6)


def test_a_click_at_a_seam_ranks_above_all_places_and_no_click_as_any_place(rng):
    whole = (0.1 * rng.normal(size=4 * RATE_HZ)).astype(np.float32)
    seams = [RATE_HZ, 2 * RATE_HZ, 3 * RATE_HZ]
    ranks = approximations.seam_ranks(whole, whole, seams, RATE_HZ)
    assert 0.05 < ranks.mean() < 0.95
    clicks = whole.copy()
    for seam in seams:
        clicks[seam : seam + 5] += 1
    np.testing.assert_array_equal(approximations.seam_ranks(whole, clicks, seams, RATE_HZ), 1)
    # The clicks are not where the seams are said to be.
    elsewhere = [seam + RATE_HZ // 2 for seam in seams]
    assert approximations.seam_ranks(whole, clicks, elsewhere, RATE_HZ).max() < 1


def test_seams_are_where_the_segments_bounds_are():
    # 100 frames of 10 samples, in 4; a second is 1,600 frames of this model, its past shorter.
    model = umt_jax.Config(domains=("a", "b"), model=TINY_MODEL).model
    assert approximations.seam_samples(model, 40_000, 4) == [10_000, 20_000, 30_000]
    assert approximations.seam_samples(model, 9, 4) == []


@pytest.fixture
def recording(tmp_path):
    waveform = mu_law.decode(track_codes("Cello", "train", 0), "rounded")
    path = tmp_path / "song.wav"
    sound_files.write(path, np.tile(waveform, 8), sample_rate_hz=RATE_HZ)
    return path


def test_the_rounded_pass_without_rounding_is_the_teacher_forced_one(
    rng, tiny_networks, tiny_parameters
):
    latents = rng.normal(size=(12, TINY_MODEL.latent_channels)).astype(np.float32)
    codes = rng.integers(0, 256, 12 * TINY_MODEL.pool_samples).astype(np.uint8)
    decoder = networks.select(tiny_parameters.decoders, 1)
    exact = networks.decode_one(tiny_networks, decoder, codes, latents)
    logits = approximations.rounded_logits(decoder, codes, latents, TINY_MODEL, np.float32)
    np.testing.assert_allclose(logits, exact, atol=1e-5)


@pytest.mark.parametrize("type_", approximations.ROUNDED)
def test_the_rounded_pass_scores_highest_what_the_engine_chooses(rng, tiny_parameters, type_):
    if type_ == "bfloat16" and native.library().umt_bfloat16_depth() == 1:
        pytest.skip("This processor does not multiply bfloat16.")
    engine = native.NativeEngine(type_)
    weights = generate.pack(tiny_parameters.decoders, TINY_MODEL, engine)
    cache = generate.init_cache(TINY_MODEL, 1)
    latents = rng.normal(size=(12, TINY_MODEL.latent_channels)).astype(np.float32)
    _, codes = generate.generate(
        weights,
        jax.tree.map(lambda leaf: np.stack([leaf] * 3), cache),
        latents[None],
        jax.random.split(jax.random.key(0), (3, 1)),
        np.float32(0),
        config=TINY_MODEL,
        engine=engine,
    )
    decoder = networks.select(tiny_parameters.decoders, 1)
    codes = np.asarray(codes[1, 0])
    logits = approximations.rounded_logits(decoder, codes, latents, TINY_MODEL, type_)
    np.testing.assert_array_equal(np.argmax(logits, axis=-1), codes)


def test_a_trained_model_is_measured_and_seams_of_one_without_a_long_past_change_nothing(
    trained_dir, recording
):
    translator = umt_jax.load(str(trained_dir))
    waveform = sound_files.read(recording, sample_rate_hz=RATE_HZ)
    distances = approximations.rounding_distances(str(trained_dir), translator, waveform)
    assert list(distances) == [
        (weights, domain) for domain in translator.domains for weights in approximations.ROUNDED
    ]
    for distance, is_other in distances.values():
        assert 0 < distance.mean() < 0.05
        assert is_other.mean() < 0.5
    ranks, apart, natural = approximations.measure_seams(translator, waveform, "Cello", 3)
    assert len(ranks) == 2
    # This decoder's past lies within the warm-up, and a sample's noise depends on its place alone.
    assert apart == 0 < natural
    with pytest.raises(ValueError, match="too short for segments"):
        approximations.measure_seams(translator, waveform[:1000], "Cello", 3)
