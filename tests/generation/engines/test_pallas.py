"""What is the Pallas engine's alone; that it generates as the others do is in test_generate.py."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_MODEL

from umt_jax.config import Config, ModelConfig
from umt_jax.generation import generate
from umt_jax.generation.engines import choose, pallas, scan
from umt_jax.model import networks

# The encoder is no part of what is tested.
PAPER = ModelConfig(encoder_blocks=1, encoder_layers=1)
MUSICNET = dataclasses.replace(PAPER, decoder_layers=14)


def _caches(config, num_domains, num_streams):
    cache = generate.init_cache(config, num_streams)
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * num_domains), cache)


def _lower(config, engine, num_streams, top_p=None):
    """Returns two decoders' program for TPUs, as text; allocates nothing."""
    nets = networks.Networks(Config(domains=("Cello", "Piano"), model=config))

    def arguments():
        decoders = nets.init(jax.random.key(0)).decoders
        latents = jnp.zeros((num_streams, 2, config.latent_channels))
        keys = jax.random.split(jax.random.key(0), (2, num_streams))
        caches = _caches(config, 2, num_streams)
        weights = generate.pack(decoders, config, engine)
        return weights, caches, latents, keys, jnp.float32(1), top_p

    traced = generate.generate.trace(*jax.eval_shape(arguments), config=config, engine=engine)
    return traced.lower(lowering_platforms=("tpu",)).as_text()


@pytest.mark.parametrize(
    "config, num_streams, weights, top_p",
    [
        (PAPER, 1, "float32", None),
        (PAPER, 8, "bfloat16", jnp.float32(0.9)),
        (MUSICNET, 1, "float32", None),
    ],
    ids=["paper", "paper_bfloat16_nucleus", "musicnet"],
)
def test_generation_lowers_to_one_kernel_for_tpus(config, num_streams, weights, top_p):
    program = _lower(config, pallas.PallasEngine(weights), num_streams, top_p)
    assert len(re.findall(r"@tpu_custom_call\(", program)) == 1


@pytest.mark.slow  # Interpreted.
def test_bfloat16_weights_give_the_codes_and_the_cache_of_scan_with_rounded_kernels(
    rng, tiny_parameters
):
    decoders = tiny_parameters.decoders
    rounded_decoders = generate.round_kernels(decoders, "bfloat16")
    num_layers = len(TINY_MODEL.decoder_dilations)
    channels, skips = TINY_MODEL.residual_channels, TINY_MODEL.skip_channels
    conditioning = generate.Conditioning(
        gates=rng.normal(size=(3, 2, num_layers, 2 * channels)).astype(np.float32),
        head=rng.normal(size=(3, 2, skips)).astype(np.float32),
    )
    noise = rng.gumbel(size=(60, 3, 2, 256)).astype(np.float32)

    def frame(decoders, engine):
        packed = engine.pack(decoders, TINY_MODEL)
        caches = _caches(TINY_MODEL, 3, 2)
        advance = jax.jit(functools.partial(engine.generate_frame, config=TINY_MODEL))
        return advance(packed, caches, conditioning, noise)

    engine = pallas.PallasEngine("bfloat16", interpret=True)
    caches, codes = frame(decoders, engine)
    expected_caches, expected = frame(rounded_decoders, scan.ScanEngine(block_samples=1))
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_allclose(caches.rows, expected_caches.rows, rtol=1e-4, atol=1e-4)


def test_streams_beyond_vmem_are_refused_with_how_many_fit():
    with pytest.raises(ValueError, match="Use 2 streams or fewer, or engine=scan"):
        _lower(MUSICNET, pallas.PallasEngine(), 3)
    huge = dataclasses.replace(PAPER, decoder_blocks=1, decoder_layers=18)
    with pytest.raises(ValueError, match="Not even one fits. Use engine=scan"):
        _lower(huge, pallas.PallasEngine(), 1)


def test_pallas_is_chosen_on_tpus_alone(monkeypatch):
    with pytest.raises(ValueError, match="engine=pallas needs a tpu; this is a cpu"):
        choose.choose("pallas")
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert choose.choose("pallas", "bfloat16") == pallas.PallasEngine("bfloat16")
    with pytest.raises(ValueError, match="int8 needs engine=native .*; this is pallas, which has"):
        choose.choose("pallas", "int8")
