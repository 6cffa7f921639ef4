import jax
import numpy as np
import pytest
from conftest import TINY_MODEL

from umt_jax.core import frames
from umt_jax.generation import generate
from umt_jax.generation.engines import choose, native, scan


def test_a_cpu_with_a_compiler_generates_natively():
    assert choose.choose() == choose.choose("native") == native.NativeEngine()
    assert choose.choose(weights="int8") == native.NativeEngine("int8")
    assert choose.choose("scan") == choose.choose(taps=3) == scan.ScanEngine()


def test_without_a_compiler_auto_is_scan_and_says_what_is_missing(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(frames, "library", frames.library.__wrapped__)
    with caplog.at_level("WARNING", logger="absl"):
        assert choose.choose() == scan.ScanEngine()
    (record,) = caplog.records
    assert "there is no C++ compiler. Install g++" in record.getMessage()
    with pytest.raises(OSError, match="Install g"):
        choose.choose("native")


def test_a_compiler_that_fails_is_named_with_its_reason(monkeypatch, tmp_path):
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\necho 'a.cc:1: error: no such thing' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(OSError, match=r"cannot compile .*native\.cc: a\.cc:1: error: no su"):
        native.library.__wrapped__()
    assert not list((tmp_path / "cache").rglob("*.*"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"name": "cuda"}, "engine=cuda is not known. Use one of auto, scan, native, pallas"),
        ({"weights": "int4"}, "weights=int4 is not known. Use float32, bfloat16 or int8"),
        ({"name": "pallas"}, "engine=pallas needs a tpu; this is a cpu. Use auto"),
        ({"name": "scan", "weights": "bfloat16"}, r"bfloat16 needs engine=native \(.*\) or pal"),
        ({"name": "scan", "weights": "int8"}, r"int8 needs engine=native \(.*\); this is scan"),
    ],
)
def test_engines_that_are_not_there_are_named_with_those_that_are(flags, message):
    with pytest.raises(ValueError, match=message):
        choose.choose(**flags)


@pytest.fixture(scope="module")
def sixteen_streams(tiny_parameters):
    """Latents and keys of 16 streams, and the codes that the scan engine gives for them."""
    latents = np.random.default_rng(0).normal(size=(16, 2, TINY_MODEL.latent_channels))
    latents, keys = latents.astype(np.float32), jax.random.split(jax.random.key(7), (3, 16))
    engine = scan.ScanEngine(block_samples=1)
    weights = generate.pack(tiny_parameters.decoders, TINY_MODEL, engine)
    return latents, keys, _generate(weights, latents, keys, engine)


def _generate(weights, latents, keys, engine):
    cache = generate.init_cache(TINY_MODEL, len(latents))
    caches = jax.tree.map(lambda leaf: np.stack([leaf] * 3), cache)
    return generate.generate(
        weights, caches, latents, keys, np.float32(1), config=TINY_MODEL, engine=engine
    )[1]


@pytest.mark.parametrize("num_streams", [1, 2, 3, 4, 5, 7, 16])
def test_the_native_engine_takes_any_number_of_streams(
    tiny_parameters, sixteen_streams, num_streams
):
    # Each number is split into rows of a register block, and over threads, in its own way.
    latents, keys, expected = sixteen_streams
    engine = native.NativeEngine()
    weights = generate.pack(tiny_parameters.decoders, TINY_MODEL, engine)
    codes = _generate(weights, latents[:num_streams], keys[:, :num_streams], engine)
    np.testing.assert_array_equal(codes, expected[:, :num_streams])


@pytest.mark.parametrize("type_", ["bfloat16", "int8"])
def test_streams_of_rounded_products_give_together_the_codes_that_each_gives_alone(
    tiny_parameters, sixteen_streams, type_
):
    latents, keys, _ = sixteen_streams
    engine = native.NativeEngine(type_)
    weights = generate.pack(tiny_parameters.decoders, TINY_MODEL, engine)
    together = _generate(weights, latents, keys, engine)
    alone = [_generate(weights, latents[i : i + 1], keys[:, i : i + 1], engine) for i in range(4)]
    np.testing.assert_array_equal(np.concatenate(alone, axis=1), together[:, :4])


def test_bfloat16_weights_give_the_codes_of_rounded_weights(rng, tiny_parameters):
    if native.library().umt_bfloat16_depth() > 1:
        pytest.skip("This processor's products round inputs as well: see test_approximations.py.")
    latents = rng.normal(size=(1, 4, TINY_MODEL.latent_channels)).astype(np.float32)
    keys = jax.random.split(jax.random.key(7), (3, 1))
    exact = tiny_parameters.decoders
    rounded = generate.round_kernels(exact, "bfloat16")
    codes = []
    for decoders, type_ in ((exact, "bfloat16"), (rounded, "float32")):
        engine = native.NativeEngine(type_)
        weights = generate.pack(decoders, TINY_MODEL, engine)
        codes.append(_generate(weights, latents, keys, engine))
    np.testing.assert_array_equal(*codes)
