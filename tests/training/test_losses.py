import numpy as np
import reference

from umt_jax.model.decoder import cross_entropy
from umt_jax.training import losses


def test_reconstruction_is_the_mean_cross_entropy_over_samples(rng):
    logits = rng.normal(size=(2, 3, 256)).astype(np.float32)
    codes = rng.integers(256, size=(2, 3)).astype(np.uint8)
    expected = [
        np.mean([reference.cross_entropy(logits[b, t], codes[b, t]) for t in range(3)])
        for b in range(2)
    ]
    np.testing.assert_allclose(
        losses.reconstruction(cross_entropy(logits, codes)), expected, rtol=1e-5
    )


def test_uniform_logits_cost_log_256_nats():
    nats = cross_entropy(np.zeros((4, 256), np.float32), np.arange(4, dtype=np.uint8))
    np.testing.assert_allclose(nats, np.full(4, np.log(256)), rtol=1e-6)


def test_classification_and_accuracy_are_means_over_segments(rng):
    logits = np.array([[[2.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 0.5]]], np.float32)
    domain = np.array([[0, 0], [1, 1]])
    expected = np.mean(
        [reference.cross_entropy(logits[k, b], domain[k, b]) for k in range(2) for b in range(2)]
    )
    np.testing.assert_allclose(losses.classification(logits, domain), expected, rtol=1e-5)
    assert losses.accuracy(logits, domain) == 0.5
