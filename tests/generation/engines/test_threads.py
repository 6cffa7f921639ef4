"""Threads share out the work of the native engine; what they give together is what one gives."""

import jax
import numpy as np
import pytest
from conftest import sizes

from umt_jax.config import Config, TrainingConfig
from umt_jax.generation import generate
from umt_jax.generation.engines import choose, native
from umt_jax.model import networks
from umt_jax.processes import cores

# Wide enough that every product has several panels, on processors of any width, of uneven number.
WIDE = sizes(encoder=(1, 2, 8), latents=8, pool=32, decoder=(2, 5, 72, 136), sample_rate_hz=8000)


@pytest.fixture(scope="module")
def wide_decoders():
    """Decoders of three domains, with biases and a loud present, so that samples differ."""
    training = TrainingConfig(confusion_weight=0.0, segment_samples=WIDE.pool_samples)
    config = Config(domains=("a", "b", "c"), model=WIDE, training=training)
    decoders = networks.Networks(config).init(jax.random.key(3)).decoders
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: leaf + rng.normal(scale=0.1, size=leaf.shape).astype(np.float32), decoders
    )


def _generate(decoders, engine, num_streams, temperature, num_domains=3):
    decoders = networks.select(decoders, list(range(num_domains)))
    weights = generate.pack(decoders, WIDE, engine)
    cache = generate.init_cache(WIDE, num_streams)
    caches, codes = generate.generate(
        weights,
        jax.tree.map(lambda leaf: np.stack([leaf] * num_domains), cache),
        np.random.default_rng(1).normal(size=(num_streams, 5, 8)).astype(np.float32),
        jax.random.split(jax.random.key(7), (num_domains, num_streams)),
        np.float32(temperature),
        np.float32(0.9) if temperature else None,
        config=WIDE,
        engine=engine,
    )
    return np.asarray(codes), np.asarray(caches.rows)


@pytest.mark.parametrize(
    ("weights", "temperature", "num_streams", "num_domains"),
    [
        ("float32", 0, 1, 1),
        ("bfloat16", 1, 1, 1),
        ("float32", 1, 4, 1),
        ("bfloat16", 0, 4, 3),
        ("float32", 1, 5, 2),
        ("int8", 1, 1, 1),
        ("int8", 0, 5, 2),
    ],
)
def test_any_number_of_threads_gives_the_samples_of_one(
    wide_decoders, weights, temperature, num_streams, num_domains
):
    def by(threads):
        engine = native.NativeEngine(weights, threads=threads)
        return _generate(wide_decoders, engine, num_streams, temperature, num_domains)

    codes, rows = by(1)
    assert len(np.unique(codes)) > 5
    for threads in (2, 7):  # More than this machine's cores: they wait for each other.
        other_codes, other_rows = by(threads)
        np.testing.assert_array_equal(other_codes, codes)
        # What layers were given is the same, too, bit for bit.
        np.testing.assert_array_equal(other_rows.view(np.int32), rows.view(np.int32))


def test_the_number_that_is_found_while_generating_changes_nothing(wide_decoders, monkeypatch):
    by_one, _ = _generate(wide_decoders, native.NativeEngine(threads=1), 1, 1, 1)
    monkeypatch.setattr(cores, "usable", lambda: 4)
    # 5 latent frames at a time: by one, two and four threads, three times, then by the fastest.
    for _ in range(3):
        codes, _ = _generate(wide_decoders, native.NativeEngine(), 1, 1, 1)
        np.testing.assert_array_equal(codes, by_one)


def test_more_threads_than_cores_are_refused_with_what_is_allowed(monkeypatch):
    monkeypatch.setattr(cores, "usable", lambda: 2)
    assert choose.choose(threads=2) == native.NativeEngine(threads=2)
    for threads in (0, 3):
        with pytest.raises(ValueError, match=rf"threads={threads} .* may use 2 core\(s\)\. Use 1"):
            choose.choose(threads=threads)
    with pytest.raises(ValueError, match="threads=2 needs engine=native"):
        choose.choose("scan", threads=2)
    with pytest.raises(ValueError, match="threads=2 needs engine=native"):
        choose.choose(taps=3, threads=2)
