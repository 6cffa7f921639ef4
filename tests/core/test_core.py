"""The core against `Translator`: the same samples for the same seed."""

import ctypes
import dataclasses
import subprocess
import sys
from pathlib import Path

import core_library
import jax
import numpy as np
import plugin_build
import pytest
from conftest import random_parameters
from tones import glide

import umt_jax
from umt_jax.audio import level
from umt_jax.checkpoints import checkpoint, demo_model
from umt_jax.config import SamplingConfig
from umt_jax.core import compiler, library
from umt_jax.generation import guiding
from umt_jax.model.networks import Networks
from umt_jax.translator import Translator


@pytest.fixture(scope="module")
def core():
    return library.functions()


@pytest.fixture(scope="module")
def shipped(core, tmp_path_factory):
    """The shipped model's file, and what the core loads of it."""
    workdir = demo_model.path()
    config, parameters, *_ = checkpoint.to_share(workdir)
    path = core_library.file_of(tmp_path_factory.mktemp("model"), config, parameters)
    model, error = library.load(path.read_bytes())
    assert error == ""
    yield path, model
    core.umt_model_free(model)


@pytest.mark.parametrize(
    ("domain", "temperature", "top_p", "seed"),
    [(0, 0.0, 1.0, 0), (1, 1.0, 1.0, 7), (2, 0.7, 0.9, 2**32 - 1)],
)
def test_the_core_gives_the_samples_of_translate(core, shipped, domain, temperature, top_p, seed):
    waveform = glide(10_111)  # Ends inside a latent frame.
    model = umt_jax.load(str(shipped[0]), engine="native")
    expected = model.translate(
        waveform,
        8000,
        domain=model.domains[domain],
        temperature=temperature,
        top_p=top_p,
        guide_strength=0.0,
        seed=seed,
    )
    for block in (1, 777, 20_000):
        stream = core_library.Stream(core, shipped[1])
        values = {"domain": domain, "temperature": temperature, "top_p": top_p, "seed": seed}
        assert stream.set(guide_strength=0.0, **values) == 0
        np.testing.assert_array_equal(stream.translate(waveform, block), expected)
        if block > 1:
            core.umt_stream_reset(stream.stream)
            np.testing.assert_array_equal(stream.translate(waveform, block), expected)


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"mu_law": "truncated", "encoder_activation": "tanh", "pool_samples": 7},
        {"encoder_preactivation": True, "pool_samples": 1, "latent_channels": 40},
        {"rms_dbfs": -20.0, "encoder_blocks": 1, "residual_channels": 70, "skip_channels": 3},
    ],
)
def test_the_core_plays_models_of_any_sizes_and_conventions(core, tmp_path, tiny_config, sizes):
    config = dataclasses.replace(
        tiny_config,
        model=dataclasses.replace(tiny_config.model, **sizes),
        training=dataclasses.replace(tiny_config.training, segment_samples=420),
        sampling=SamplingConfig(temperature=0.0),
    )
    parameters = random_parameters(Networks(config))
    translator = Translator(config, parameters, engine="native")
    file = core_library.file_of(tmp_path, config, parameters).read_bytes()
    model, error = library.load(file)
    assert error == ""
    assert core.umt_model_domain(model, 1) == b"Flute"
    assert core.umt_model_domain(model, 3) is None
    waveform = glide(1_003)
    gain = core.umt_model_gain(model, waveform, len(waveform))
    assert gain == level.measure([waveform]).gain(config.model.rms_dbfs)
    stream = core_library.Stream(core, model)
    stream.set(domain=2)
    expected = translator.translate(waveform, config.model.sample_rate_hz, domain="Piano")
    np.testing.assert_array_equal(stream.translate(waveform * np.float32(gain)), expected)
    core.umt_model_free(model)


@pytest.mark.parametrize("pool_samples", [200, 7, 24, 1])
@pytest.mark.parametrize("guide_strength", [0.0, 10.0])
def test_every_sample_comes_as_soon_as_the_latency_says_and_one_not_before(
    core, tmp_path, tiny_config, pool_samples, guide_strength
):
    sizes = {"pool_samples": pool_samples, "encoder_layers": 7, "guide_channels": 3}
    config = dataclasses.replace(
        tiny_config,
        model=dataclasses.replace(tiny_config.model, **sizes),
        training=dataclasses.replace(tiny_config.training, segment_samples=pool_samples * 168),
    )
    parameters = random_parameters(Networks(config))
    model, error = library.load(core_library.file_of(tmp_path, config, parameters).read_bytes())
    assert error == ""
    decoders = jax.tree.map(np.asarray, parameters.decoders)
    stream = core_library.Stream(core, model)
    assert stream.set(guide_strength=guide_strength) == 0
    length = 5000 if pool_samples == 200 else 1500
    waited, num_pulled = [], 0
    for num_pushed, sample in enumerate(glide(length), start=1):
        assert stream.push(np.array([sample], np.float32)) == 1
        count = len(stream.pull(3000))
        waited += [num_pushed - t for t in range(num_pulled, num_pulled + count)]
        num_pulled += count
    reach = config.model.encoder_blocks * 127 + 1
    assert max(waited) == core.umt_stream_latency(stream.stream)
    guides = guiding.Guides(config.model, decoders, [0])
    ahead = pool_samples * guides.ahead_frames if guide_strength else 0
    # A latent frame, and what encoder and guide see behind it, within one hop of samples.
    assert 0 <= max(waited) - (pool_samples + reach + ahead) < 24
    core.umt_model_free(model)


def test_a_stream_takes_no_more_than_it_can_keep(core, shipped):
    stream = core_library.Stream(core, shipped[1])
    waveform = glide(100_000)
    taken = stream.push(waveform)
    assert 0 < taken < len(waveform)
    assert stream.push(waveform[taken:]) == 0
    assert len(stream.pull(200)) == 200
    assert stream.push(waveform[taken:]) > 0


@pytest.mark.parametrize("guide_strength", [0.0, 10.0])
def test_a_domain_begins_anew_with_the_next_latent_frame(core, shipped, guide_strength):
    waveform = glide(8000)
    values = {"temperature": 0.0, "guide_strength": guide_strength}
    alone = core_library.Stream(core, shipped[1])
    alone.set(**values)
    expected = alone.translate(waveform)
    stream = core_library.Stream(core, shipped[1])
    stream.set(**values)
    stream.push(waveform)
    first = stream.pull(350)
    stream.set(domain=1)
    rest = stream.pull(2000)
    np.testing.assert_array_equal(first, expected[:350])
    np.testing.assert_array_equal(rest[:50], expected[350:400])
    assert (rest[50:500] != expected[400:850]).any()


def test_what_is_no_finite_number_counts_as_silence(core, shipped):
    waveform = glide(4000)
    waveform[100:200] = 0
    clean = core_library.Stream(core, shipped[1]).translate(waveform)
    waveform[100:200:2], waveform[101:200:2] = np.nan, -np.inf
    np.testing.assert_array_equal(core_library.Stream(core, shipped[1]).translate(waveform), clean)


@pytest.mark.parametrize(
    "value",
    [
        {"domain": 5},
        {"domain": -1},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"guide_strength": -0.1},
        {"guide_strength": 10.1},
        {"guide_strength": float("nan")},
    ],
)
def test_values_that_are_not_allowed_change_nothing(core, shipped, value):
    waveform = glide(3000)
    stream = core_library.Stream(core, shipped[1])
    assert stream.set(**value) == -1
    expected = core_library.Stream(core, shipped[1]).translate(waveform)
    np.testing.assert_array_equal(stream.translate(waveform), expected)


def test_an_empty_recording_gives_nothing(core, shipped):
    assert core_library.Stream(core, shipped[1]).translate(np.zeros(0)).size == 0


def test_codes_are_those_of_every_16_bit_amplitude(core, tmp_path):
    from umt_jax.audio import mu_law

    source = tmp_path / "codes.cc"
    source.write_text(
        '#include "umt_jax/core/mu_law.h"\n'
        'extern "C" int code(float x, int truncated) { return umt::EncodeMuLaw(x, truncated); }\n'
        'extern "C" float amplitude(int c, int truncated) {\n'
        "  return umt::DecodeMuLaw(c, truncated);\n}\n"
    )
    codes = compiler.load(source)
    codes.code.argtypes = [ctypes.c_float, ctypes.c_int]
    codes.amplitude.restype = ctypes.c_float
    waveform = (np.arange(-(2**15), 2**15) / 2**15).astype(np.float32)
    for convention in ("rounded", "truncated"):
        is_truncated = convention == "truncated"
        encoded = [codes.code(float(amplitude), is_truncated) for amplitude in waveform]
        np.testing.assert_array_equal(encoded, mu_law.encode(waveform, convention))
        decoded = [codes.amplitude(code, is_truncated) for code in range(256)]
        expected = mu_law.decode(np.arange(256), convention)
        np.testing.assert_allclose(decoded, expected, rtol=1e-7, atol=0)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's seccomp, and glibc's malloc")
@pytest.mark.parametrize("rate_hz", [None, 44_100])
def test_the_audio_path_neither_allocates_nor_calls_the_system(shipped, tmp_path, rate_hz):
    """A process that the kernel kills at any call but read, write and exit."""
    program, source = tmp_path / "audio_path", Path(__file__).with_name("audio_path.cc")
    root = Path(compiler.__file__).parents[2]
    command = ["g++", "-std=c++17", "-O1", "-march=native", "-w", f"-I{root}", source]
    command += [library.SOURCE, "-o", program]
    if rate_hz:
        plugin_build.skip_without("speex/speex_resampler.h")
        rate = library.SOURCE.with_name("umt_rate.cc")
        command += [rate, f"-DRATE_HZ={rate_hz}", "-lspeexdsp"]
    subprocess.run(command, check=True)
    finished = subprocess.run([program, shipped[0]], capture_output=True, text=True, check=False)
    count, _, allocations = finished.stdout.partition(" samples, ")
    assert (finished.returncode, allocations) == (0, "0 allocations\n"), finished.stderr
    assert int(count) == 16_000 if rate_hz is None else abs(int(count) - 16_000) < 16
    # That the traps are set: with a call, or an allocation, inside.
    finished = subprocess.run([program, shipped[0], "open"], capture_output=True, check=False)
    assert finished.returncode == -9
    finished = subprocess.run(
        [program, shipped[0], "allocate"], capture_output=True, text=True, check=False
    )
    assert finished.stdout == f"{count} samples, 1 allocations\n"
