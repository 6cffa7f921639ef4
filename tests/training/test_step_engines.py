"""Which engine trains where, and what is said where it cannot."""

import dataclasses
import types

import jax
import pytest

from umt_jax.model import native_layers
from umt_jax.processes import cores
from umt_jax.training import sharding, step_engines


@pytest.fixture(autouse=True)
def all_is_heard(caplog):
    caplog.set_level("INFO", logger="absl")


def threads(name, config, num_devices=1, partitioning="jit", **training):
    devices = jax.devices()[:num_devices]
    mesh = sharding.make_mesh(1, config.training.domain_batch, devices, layout=(1, num_devices))
    training = dataclasses.replace(config.training, **training)
    config = dataclasses.replace(config, training=training)
    return step_engines.native_threads(name, config, mesh, partitioning)


def test_cores_are_shared_out_among_devices(tiny_config, monkeypatch):
    monkeypatch.setattr(cores, "usable", lambda: 7)
    assert threads("auto", tiny_config) == 7
    assert threads("native", tiny_config, 2, "pmap") == 3
    monkeypatch.setattr(cores, "usable", lambda: 1)
    assert threads("auto", tiny_config, 2, "pmap") == 1
    assert threads("xla", tiny_config) == 0


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            {"num_devices": 4},
            r"XLA itself splits each step over 4 devices\. Use partitioning=pmap",
        ),
        ({"remat": "layer"}, r"as remat=layer asks\. Use none\."),
    ],
)
def test_what_keeps_it_from_running_is_said(tiny_config, caplog, case, message):
    with pytest.raises(ValueError, match=rf"engine=native cannot run: .*{message}"):
        threads("native", tiny_config, **case)
    assert threads("auto", tiny_config, **case) == 0
    assert "Training with engine=xla" in caplog.text


def test_more_taps_than_it_has_are_xlas(tiny_config):
    model = dataclasses.replace(tiny_config.model, decoder_taps=9)
    with pytest.raises(ValueError, match="at most 8 samples, and decoder_taps=9"):
        threads("native", dataclasses.replace(tiny_config, model=model))


def test_without_a_compiler_it_says_what_to_install(tiny_config, monkeypatch, caplog):
    def library():
        raise OSError("there is no C++ compiler. Install g++ (Debian: apt install g++).")

    monkeypatch.setattr(native_layers, "library", library)
    with pytest.raises(ValueError, match=r"cannot run: there is no C\+\+ compiler\. Install g\+\+"):
        threads("native", tiny_config)
    assert threads("auto", tiny_config) == 0
    assert "Install g++" in caplog.text


def test_accelerators_train_by_xla_without_a_word(tiny_config, monkeypatch, caplog):
    monkeypatch.setattr(step_engines, "jax", types.SimpleNamespace(default_backend=lambda: "gpu"))
    assert threads("auto", tiny_config) == 0
    assert not caplog.text
    with pytest.raises(ValueError, match="it needs a cpu, and this is a gpu"):
        threads("native", tiny_config)
