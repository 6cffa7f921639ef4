"""The plug-in in hosts of LV2: one of the test's own, through ctypes, and Debian's lv2apply."""

import ctypes
import os
import shutil
import struct
import subprocess

import core_library
import numpy as np
import pytest
import soundfile
from tones import glide

from experiments.speed.lv2_host import (
    DOMAIN,
    DROPOUTS,
    FREEWHEEL,
    LATENCY,
    LEVEL,
    TEMPERATURE,
    URI,
    WET,
    Instance,
    Pair,
)

RATE_HZ = 16_000  # Of the tiny model.
MODEL = f"{URI.decode()}#model"
ATOM, PATCH = "http://lv2plug.in/ns/ext/atom#", "http://lv2plug.in/ns/ext/patch#"
URID, STATE = "http://lv2plug.in/ns/ext/urid#", "http://lv2plug.in/ns/ext/state#"
WORKER = "http://lv2plug.in/ns/ext/worker#"
_POINTER, _SIZE, _NUMBER = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32
_MAP = ctypes.CFUNCTYPE(_NUMBER, _POINTER, ctypes.c_char_p)
_SCHEDULE = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _NUMBER, _POINTER)
_STORE = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _NUMBER, _POINTER, _SIZE, _NUMBER, _NUMBER)
_RETRIEVE = ctypes.CFUNCTYPE(_POINTER, _POINTER, _NUMBER, _POINTER, _POINTER, _POINTER)


@pytest.fixture(scope="module")
def bundle(plugins):
    """The bundle, with a tiny model in it."""
    return plugins / "lv2" / "umt.lv2"


class Host:
    """A host that keeps state and has a worker, which works when it is told to."""

    def __init__(self):
        self.numbers, self.state, self.asked, self.kept = {}, {}, [], []
        callbacks = {
            f"{URID}map": _MAP(self._number),
            f"{WORKER}schedule": _SCHEDULE(self._schedule),
        }
        features = [Pair(self._text(uri), self._struct(call)) for uri, call in callbacks.items()]
        addresses = [ctypes.addressof(feature) for feature in features]
        self.features = (_POINTER * (len(features) + 1))(*addresses, None)
        self.kept += features

    def _text(self, text):
        self.kept.append(ctypes.c_char_p(text.encode()))
        return ctypes.cast(self.kept[-1], _POINTER).value

    def _struct(self, call):
        self.kept += [call, Pair(None, ctypes.cast(call, _POINTER))]
        return ctypes.addressof(self.kept[-1])

    def _number(self, handle, uri):
        return self.numbers.setdefault(uri.decode(), len(self.numbers) + 1)

    def number(self, uri):
        return self._number(None, uri.encode())

    def _schedule(self, handle, size, data):
        self.asked.append(ctypes.string_at(data, size))
        return 0

    def _functions(self, instance, interface):
        find = ctypes.CFUNCTYPE(_POINTER, ctypes.c_char_p)(instance.descriptor.extension_data)
        return Pair.from_address(find(interface.encode()))

    def work(self, instance):
        """Does what was asked for, and gives the plug-in what came of it."""
        functions = self._functions(instance, f"{WORKER}interface")
        respond_type = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _NUMBER, _POINTER)
        answers = []
        respond = respond_type(
            lambda _, size, data: answers.append(ctypes.string_at(data, size)) or 0
        )
        work_type = ctypes.CFUNCTYPE(
            ctypes.c_int, _POINTER, respond_type, _POINTER, _NUMBER, ctypes.c_char_p
        )
        answer_type = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _NUMBER, ctypes.c_char_p)
        while self.asked:
            data = self.asked.pop(0)
            assert work_type(functions.first)(instance.handle, respond, None, len(data), data) == 0
            while answers:
                data = answers.pop(0)
                assert answer_type(functions.second)(instance.handle, len(data), data) == 0

    def save(self, instance):
        functions = self._functions(instance, f"{STATE}interface")

        def store(handle, key, value, size, kind, flags):
            self.state[key] = (
                ctypes.create_string_buffer(ctypes.string_at(value, size), size),
                kind,
            )
            return 0

        save = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _STORE, _POINTER, _NUMBER, _POINTER)
        return save(functions.first)(instance.handle, _STORE(store), None, 0, None)

    def restore(self, instance):
        functions = self._functions(instance, f"{STATE}interface")

        def retrieve(handle, key, size, kind, flags):
            if key not in self.state:
                return None
            value, found = self.state[key]
            _SIZE.from_address(size).value = len(value)
            _NUMBER.from_address(kind).value = found
            return ctypes.addressof(value)

        restore = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _RETRIEVE, _POINTER, _NUMBER, _POINTER)
        return restore(functions.second)(instance.handle, _RETRIEVE(retrieve), None, 0, None)

    def message(self, path):
        """Returns a sequence with one event: to set the model's file."""

        def atom(kind, body):
            return struct.pack("<II", len(body), self.number(kind)) + body

        def entry(key, value):
            padded = value + b"\0" * (-len(value) % 8)
            return struct.pack("<II", self.number(key), 0) + padded

        named = struct.pack("<I", self.number(MODEL))
        body = struct.pack("<II", 0, self.number(f"{PATCH}Set"))
        body += entry(f"{PATCH}property", atom(f"{ATOM}URID", named))
        body += entry(f"{PATCH}value", atom(f"{ATOM}Path", str(path).encode() + b"\0"))
        event = struct.pack("<q", 0) + atom(f"{ATOM}Object", body)
        return ctypes.create_string_buffer(
            atom(f"{ATOM}Sequence", struct.pack("<II", 0, 0) + event)
        )


@pytest.mark.parametrize("blocks", [[32], [4096], [1, 777, 0, 4096, 64]])
def test_at_the_model_s_rate_samples_are_those_of_the_core(bundle, blocks):
    waveform = glide(20_000)
    instances = [Instance(bundle, RATE_HZ, ports={DOMAIN: domain}) for domain in (0, 2)]
    for instance, domain in zip(instances, (0, 2), strict=True):
        out = instance.run(waveform, blocks)
        latency = int(instance.controls[LATENCY].value)
        expected = core_library.played(bundle / "model.safetensors", waveform, domain)[
            : len(waveform) - latency
        ]
        assert len(expected) > 10_000
        assert not out[:latency].any()
        np.testing.assert_array_equal(out[latency:], expected)
        assert instance.controls[DROPOUTS].value == 0
    for instance in instances:
        instance.close()


@pytest.mark.parametrize("rate_hz", [44_100, 48_000, 96_000])
@pytest.mark.parametrize("block", [32, 4096])
def test_at_other_rates_nothing_is_missed_and_the_input_is_as_late_as_is_reported(
    bundle, rate_hz, block
):
    waveform = glide(rate_hz, rate_hz)
    instance = Instance(bundle, rate_hz)
    out = instance.run(waveform, [block])
    latency = int(instance.controls[LATENCY].value)
    assert instance.controls[DROPOUTS].value == 0
    assert out[latency + rate_hz // 10 :].any()
    instance.close()
    dry = Instance(bundle, rate_hz, ports={WET: 0, LEVEL: -20})
    out = dry.run(waveform, [block])
    np.testing.assert_allclose(out[latency:], 0.1 * waveform[:-latency], rtol=1e-6)
    assert not out[:latency].any()
    dry.close()


def test_numbers_that_are_none_are_silence_and_controls_that_are_none_do_no_harm(bundle):
    waveform = glide(8000)
    waveform[3000:3100] = 0
    clean = Instance(bundle, RATE_HZ)
    expected = clean.run(waveform, [256])
    clean.close()
    waveform[3000:3100:2], waveform[3001:3100:2] = np.nan, -np.inf
    instance = Instance(bundle, RATE_HZ)
    np.testing.assert_array_equal(instance.run(waveform, [256]), expected)
    nan = float("nan")
    instance.set({DOMAIN: nan, TEMPERATURE: nan, WET: nan, LEVEL: nan})
    assert np.isfinite(instance.run(glide(4000), [256])).all()
    instance.set({DOMAIN: 99, TEMPERATURE: -5, WET: 7, LEVEL: 500})
    assert np.isfinite(instance.run(np.full(4000, 1e-40, np.float32), [256])).all()
    instance.close()


def test_a_missing_or_damaged_model_is_silence_and_a_line(bundle, tmp_path, capfd):
    for name, text, line in (
        ("missing", None, "umt_jax: There is no file {}."),
        ("damaged", b"RIFF" * 100, "umt_jax: {}: It is no model in the format safetensors, or"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copyfile(bundle / "umt.so", folder / "umt.so")
        if text:
            (folder / "model.safetensors").write_bytes(text)
        instance = Instance(folder, RATE_HZ)
        assert line.format(f"{folder}/model.safetensors") in capfd.readouterr().err
        assert not instance.run(glide(2000), [256]).any()
        assert instance.controls[LATENCY].value == 0
        instance.close()
    with_no_rate = Instance(bundle, 8000)
    with_no_rate.close()
    assert with_no_rate.descriptor.instantiate(None, 0.0, b"", None) is None
    assert "names no sample rate, but 0 Hz" in capfd.readouterr().err


def test_a_model_may_change_or_go_while_it_plays(bundle, tmp_path):
    place = tmp_path / "place"
    shutil.copytree(bundle, place)
    waveform = glide(8000)
    other, instance = Instance(bundle, RATE_HZ), Instance(place, RATE_HZ)
    first = instance.run(waveform[:4096], [256])
    (place / "model.safetensors").write_bytes(b"")
    (place / "model.safetensors").unlink()
    out = np.concatenate([first, instance.run(waveform[4096:], [256])])
    np.testing.assert_array_equal(out, other.run(waveform, [256]))
    assert out.any()
    instance.close()
    other.close()


def test_a_player_that_is_too_slow_is_silence_counted(bundle):
    """A host that does not wait, and asks for a minute at once."""
    instance = Instance(bundle, RATE_HZ, ports={FREEWHEEL: 0})
    out = instance.run(glide(60 * RATE_HZ), [4096])
    assert instance.controls[DROPOUTS].value > 0 and np.isfinite(out).all()
    # What comes too late is left out: the delay is the same again.
    instance.set({FREEWHEEL: 1})
    instance.run(np.zeros(6 * RATE_HZ, np.float32), [4096])
    before = instance.controls[DROPOUTS].value
    instance.run(glide(RATE_HZ), [4096])
    assert instance.controls[DROPOUTS].value == before
    instance.close()


@pytest.mark.skipif(
    shutil.which("lv2apply") is None, reason="needs lv2apply (Debian: apt install lilv-utils)"
)
@pytest.mark.parametrize("rate_hz", [44_100, 48_000, 96_000])
def test_lv2apply_translates_a_file(bundle, tmp_path, rate_hz):
    soundfile.write(tmp_path / "in.wav", glide(rate_hz // 2, rate_hz), rate_hz)
    command = ["lv2apply", "-i", "in.wav", "-o", "out.wav", "-c", "freewheel", "1", URI.decode()]
    environment = {**os.environ, "LV2_PATH": str(bundle.parent)}
    finished = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    out, written_hz = soundfile.read(tmp_path / "out.wav")
    assert (len(out), written_hz) == (rate_hz // 2, rate_hz) and out.any()


def test_a_session_keeps_its_model(bundle, tmp_path, capfd):
    waveform, host = glide(8000), Host()
    first = Instance(bundle, RATE_HZ, features=host.features)
    expected = first.run(waveform, [256])
    assert host.save(first) == 0
    ((value, kind),) = host.state.values()
    assert value.raw == f"{bundle}/model.safetensors\0".encode()
    assert kind == host.numbers[f"{ATOM}Path"]
    first.close()
    shutil.copyfile(bundle / "umt.so", tmp_path / "umt.so")
    second = Instance(tmp_path, RATE_HZ, features=host.features)
    assert "There is no file" in capfd.readouterr().err
    assert host.restore(second) == 0
    np.testing.assert_array_equal(second.run(waveform, [256]), expected)
    second.close()
    assert capfd.readouterr().err == ""


def test_another_model_is_loaded_by_the_host_s_worker_while_it_plays(bundle, tmp_path, capfd):
    waveform, host = glide(8000), Host()
    shutil.copyfile(bundle / "umt.so", tmp_path / "umt.so")
    instance = Instance(tmp_path, RATE_HZ, features=host.features)
    assert not instance.run(waveform, [256]).any()
    capfd.readouterr()
    path = bundle / "model.safetensors"
    instance.tell(host.message(path))
    assert not instance.run(waveform[:256], [256]).any() and len(host.asked) == 1
    instance.tell(None)
    host.work(instance)
    other = Instance(bundle, RATE_HZ)
    np.testing.assert_array_equal(instance.run(waveform, [256]), other.run(waveform, [256]))
    other.close()
    assert capfd.readouterr().err == ""
    instance.tell(host.message(tmp_path / "none"))
    instance.run(waveform[:256], [256])
    instance.tell(None)
    host.work(instance)
    assert capfd.readouterr().err == f"umt_jax: There is no file {tmp_path / 'none'}.\n"
    assert not instance.run(waveform, [256]).any()
    instance.close()
