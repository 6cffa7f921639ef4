import dataclasses

import jax
import numpy as np
import pytest
import reference
from conftest import TINY_MODEL

from umt_jax import translator
from umt_jax.audio import mu_law
from umt_jax.generation import generate, morph

# Windows of 50 latent frames of 10 samples.
MODEL = dataclasses.replace(TINY_MODEL, sample_rate_hz=1000)
DOMAINS = ("Flute", "Piano")  # The second and the third of the model.
SEED = 5


@pytest.fixture(scope="module")
def model(tiny_config, tiny_parameters):
    config = dataclasses.replace(tiny_config, model=MODEL)
    return translator.Translator(config, tiny_parameters, engine="scan")


@pytest.fixture
def latents(rng):
    # A window and a bit.
    return rng.normal(size=(63, MODEL.latent_channels)).astype(np.float32)


def play(model, latents, weights, temperature=1.0, top_p=1.0, domains=DOMAINS):
    weights = np.broadcast_to(np.asarray(weights, np.float32), (len(latents),))
    pieces = model.morph(
        latents, domains=domains, weights=weights, temperature=temperature, top_p=top_p, seed=SEED
    )
    return np.concatenate(list(pieces))


@pytest.mark.parametrize("temperature, top_p", [(0.0, 1.0), (0.7, 1.0), (0.7, 0.5)])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_weights_of_0_and_1_give_the_plain_decoders(model, latents, weight, temperature, top_p):
    sampling = {"temperature": temperature, "top_p": top_p}
    expected = model.generate(latents, domain=DOMAINS[int(weight)], **sampling, seed=SEED)
    np.testing.assert_array_equal(play(model, latents, weight, **sampling), expected)


def scores_of(model, codes, latents, weights):
    """Returns the logarithm of the mixed distribution of each code given those before, [T, Q]."""
    probabilities = []
    for domain in DOMAINS:
        logits = np.asarray(model.code_logits(codes, latents, domain=domain), np.float64)
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities.append(exponentials / exponentials.sum(axis=-1, keepdims=True))
    weights = np.repeat(weights, MODEL.pool_samples)[:, None]
    return np.log((1 - weights) * probabilities[0] + weights * probabilities[1])


@pytest.mark.parametrize("temperature, top_p", [(0.0, 1.0), (1.0, 1.0), (1.0, 0.6)])
def test_each_code_is_drawn_from_the_mixture_given_all_before_it(
    model, latents, temperature, top_p
):
    weights = np.linspace(0.05, 0.95, len(latents)).astype(np.float32)
    played = play(model, latents, weights, temperature, top_p)
    codes = mu_law.encode(played, "rounded").astype(np.int32)
    scores = scores_of(model, codes, latents, weights)
    kept = scores > -np.inf
    if top_p < 1:
        kept = np.stack([reference.nucleus(row, temperature, top_p)[0] for row in scores])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(SEED), np.array([1, 2]))
    draw = jax.jit(generate.gumbel_noise, static_argnums=2)
    noise = draw(keys[:, None], np.zeros((2, 1), np.uint32), len(codes))[:, :, 0]
    larger = np.repeat(weights >= 0.5, MODEL.pool_samples).astype(int)
    scores += temperature * np.asarray(noise)[np.arange(len(codes)), larger]
    scores = np.where(kept, scores, -np.inf)
    chosen = scores[np.arange(len(codes)), codes]
    # Codes 0 and 1 have the same amplitude.
    audible = codes > 1
    np.testing.assert_allclose(chosen[audible], scores.max(axis=-1)[audible], atol=1e-4)
    assert len(np.unique(codes)) > 3


def test_the_mixture_is_one_of_probabilities(rng):
    first, second = rng.normal(size=(2, 4, 256)).astype(np.float32) * 5
    mixed = np.exp(morph.mix_logits(first, second, np.array(0.3, np.float32)))
    expected = 0.7 * jax.nn.softmax(first) + 0.3 * jax.nn.softmax(second)
    np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(mixed.sum(axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("weights", "domains", "message"),
    [
        (np.zeros(5), DOMAINS, r"weights of shape \(5,\) do not fit latents of shape \(63, 5\)"),
        (np.full(63, 1.1), DOMAINS, r"weights must lie in \[0, 1\]"),
        (np.full(63, np.nan), DOMAINS, r"weights must lie in \[0, 1\]"),
        (np.zeros(63), ("Flute", "Oboe"), "There is no domain 'Oboe'"),
    ],
)
def test_bad_arguments_are_named(model, latents, weights, domains, message):
    with pytest.raises(ValueError, match=message):
        model.morph(latents, domains=domains, weights=weights)
