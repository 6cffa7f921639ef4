"""Files that are no model, refused by the core and by Python, in a sentence."""

import json
import re

import core_library
import numpy as np
import pytest

from umt_jax.checkpoints import model_file
from umt_jax.core import library


@pytest.fixture(scope="module")
def core():
    return library.functions()


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory, tiny_config, tiny_parameters):
    folder = tmp_path_factory.mktemp("model")
    return core_library.file_of(folder, tiny_config, tiny_parameters).read_bytes()


def start(file):
    """Returns where the arrays begin."""
    return 8 + int.from_bytes(file[:8], "little")


def changed(file, change):
    """Returns the file with another header."""
    header = json.loads(file[8 : start(file)])
    header = change(header) or header
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + file[start(file) :]


def metadata(**values):
    return lambda header: header["__metadata__"].update(values)


def array(name, **values):
    return lambda header: header[name].update(values)


BIAS, KERNEL = "decoders.logits.bias", "encoder.layers.mix.kernel"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: b"", "no model"),
        (lambda file: b"RIFF" * 100, "format safetensors"),
        (lambda file: b"\xff" * 100, "format safetensors"),
        (lambda file: file[:-1], "does not fit|damaged"),
        (lambda file: file[:500], "cut off|damaged"),
        (lambda file: file[:8] + b"[" * 500 + file[508:], "damaged"),
        (lambda file: changed(file, metadata(format="pt")), "another program"),
        (lambda file: changed(file, lambda h: {"x": h[BIAS]}), "another program"),
        (lambda file: changed(file, metadata(format_version="2")), "newer version"),
        (lambda file: changed(file, lambda h: h.pop(BIAS) and None), f"{BIAS} is missing"),
        (lambda file: changed(file, array(KERNEL, shape=[1, 2])), "does not fit|damaged"),
        (lambda file: changed(file, array(BIAS, data_offsets=[0, 2**62])), "damaged"),
        (lambda file: changed(file, array(BIAS, data_offsets=[-4, 8])), "damaged"),
        (lambda file: changed(file, array(BIAS, dtype="I32")), f"{BIAS} is missing"),
        (lambda file: file[: start(file)] + b"\xff" * 4 + file[start(file) + 4 :], "finite"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(core, tmp_path, tiny_file, change, message):
    file = change(tiny_file)
    model, error = library.load(file)
    assert model is None
    assert re.search(message, error), error
    path = tmp_path / "model.safetensors"
    path.write_bytes(file)
    with pytest.raises(ValueError) as refused:
        model_file.read_config(path)
        model_file.read_arrays(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pool_samples": "0"}, "lacks a size"),
        ({"residual_channels": "-3"}, "lacks a size"),
        ({"decoder_layers": "31"}, "lacks a size"),
        ({"encoder_channels": "7e3"}, "lacks a size"),
        ({"encoder_channels": "1000000"}, "does not fit"),
        ({"decoder_taps": "3"}, "two taps"),
        ({"mu_law": "a-law"}, "does not know"),
        ({"temperature": "nan"}, "not allowed"),
        ({"top_p": "0"}, "not allowed"),
        ({"rms_dbfs": "20"}, "not allowed"),
        ({"domains": ""}, "no domain"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_the_core(core, tiny_file, values, message):
    model, error = library.load(changed(tiny_file, metadata(**values)))
    assert model is None and message in error, error


def test_a_model_of_more_memory_than_allowed_is_refused(core, tiny_file):
    model, error = library.load(tiny_file, most_bytes=10_000)
    assert model is None and "MB of memory, more than" in error


def test_no_change_of_a_byte_in_the_header_breaks_the_core(core, tiny_file, rng):
    for position in rng.integers(0, start(tiny_file), 500):
        file = bytearray(tiny_file)
        file[position] ^= 1 << rng.integers(8)
        model, error = library.load(bytes(file))
        assert (model is None) == (error != "")
        if model:
            waveform = np.zeros(500, np.float32)
            assert core_library.Stream(core, model).translate(waveform).size == 500
            core.umt_model_free(model)
