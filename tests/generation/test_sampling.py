import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from umt_jax.generation import sampling


@pytest.fixture(scope="module")
def draw():
    """Draws from logits and uniform numbers, [B, Q], as one compiled program."""

    @jax.jit
    def draw(logits, uniforms, temperature, top_p):
        noise = -temperature * jnp.log(-jnp.log(uniforms))
        nucleus = sampling.Nucleus(temperature=temperature, top_p=top_p)
        return sampling.draw(logits, noise, nucleus)[..., 0]

    def of_floats(logits, uniforms, temperature, top_p):
        arrays = (logits, uniforms, temperature, top_p)
        return np.asarray(draw(*(np.asarray(array, np.float32) for array in arrays)))

    return of_floats


def uniforms_of(rng, *shape):
    return rng.uniform(1e-6, 1 - 1e-6, size=shape)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
def test_codes_are_the_highest_scores_of_the_sorted_nucleus(rng, draw, temperature, top_p):
    # From sharp to flat distributions.
    logits = (rng.normal(size=(400, 256)) * rng.uniform(0.1, 8, size=(400, 1))).astype(np.float32)
    uniforms = uniforms_of(rng, *logits.shape)
    codes = draw(logits, uniforms, temperature, top_p)
    scores = logits - temperature * np.log(-np.log(uniforms))
    for row, score, code in zip(logits, scores, codes, strict=True):
        kept, _ = reference.nucleus(row.astype(np.float64), temperature, top_p)
        assert code == np.where(kept, score, -np.inf).argmax()


def test_codes_follow_the_renormalised_distribution_of_the_nucleus(rng, draw):
    temperature, top_p, num_draws = 0.7, 0.8, 40_000
    logits = np.float32(rng.normal(size=16) * 1.5)
    kept, expected = reference.nucleus(logits.astype(np.float64), temperature, top_p)
    assert 3 < kept.sum() < 12
    rows = np.broadcast_to(logits, (num_draws, 16))
    codes = draw(rows, uniforms_of(rng, *rows.shape), temperature, top_p)
    counts = np.bincount(codes, minlength=16)
    assert not counts[~kept].any()
    # Six standard deviations of a share of so many draws.
    bound = 6 * np.sqrt(expected * (1 - expected) / num_draws)
    assert (np.abs(counts / num_draws - expected)[kept] < bound[kept]).all()


def test_the_code_that_reaches_the_bound_is_kept_and_the_next_is_not(rng, draw):
    logits = np.log(np.array([0.125, 0.5, 0.25, 0.125]))
    # Whatever is drawn, among those allowed: every order of the uniform numbers' sizes.
    rows, uniforms = np.broadcast_to(logits, (5000, 4)), uniforms_of(rng, 5000, 4)
    for top_p, allowed in ((0.4, {1}), (0.6, {1, 2}), (0.74, {1, 2}), (0.8, {0, 1, 2})):
        assert set(draw(rows, uniforms, 1.0, top_p).tolist()) == allowed


def test_of_codes_that_are_as_likely_the_lower_are_kept(rng, draw):
    # Four alike have the probability 1/4 each.
    rows = np.broadcast_to(np.array([-50.0, 1.0, 1.0, -50.0, 1.0, 1.0]), (5000, 6))
    uniforms = uniforms_of(rng, 5000, 6)
    for top_p, allowed in ((0.2, {1}), (0.3, {1, 2}), (0.6, {1, 2, 4}), (0.8, {1, 2, 4, 5})):
        assert set(draw(rows, uniforms, 1.0, top_p).tolist()) == allowed


def test_at_temperature_0_the_likeliest_code_is_drawn_and_of_several_the_first(rng, draw):
    logits = rng.integers(5, size=(200, 32)).astype(np.float32)
    codes = draw(logits, uniforms_of(rng, 200, 32), 0.0, 0.9)
    np.testing.assert_array_equal(codes, logits.argmax(axis=-1))


def test_without_a_nucleus_the_highest_score_of_all_is_drawn(rng):
    logits, noise = rng.normal(size=(2, 50, 256)).astype(np.float32)
    codes = sampling.draw(jnp.asarray(logits), jnp.asarray(noise), None)[:, 0]
    np.testing.assert_array_equal(codes, (logits + noise).argmax(axis=-1))
