"""The plug-in in a host of CLAP of the project's own, which follows the protocol through ctypes."""

import shutil

import core_library
import numpy as np
import pytest
from tones import glide

from experiments.speed.clap_host import RESCAN_ALL, RESCAN_VALUES, Instance

DOMAIN, TEMPERATURE, WET, LEVEL, MODEL, DROPOUTS = range(6)
RATE_HZ = 16_000  # Of the tiny model.
STATE = b"umt_jax 1\nDomain=%d\nTemperature=%s\nDry/wet=1\nOutput level=0\nModel file=%s"


@pytest.fixture(scope="module")
def folder(plugins):
    """The folder of the plug-in, with a tiny model in it."""
    return plugins / "clap" / "umt_jax"


def open_in(folder, rate_hz=RATE_HZ, *, values=None, **options):
    """Returns an active instance at temperature 0."""
    instance = Instance(folder / "umt.clap", **options)
    instance.flush({TEMPERATURE: 0, **(values or {})})
    assert instance.activate(rate_hz)
    return instance


def another(folder, into, name="model.safetensors"):
    """Copies the plug-in and its model, under another name, into a folder."""
    into.mkdir(exist_ok=True)
    shutil.copyfile(folder / "umt.clap", into / "umt.clap")
    shutil.copyfile(folder / "model.safetensors", into / name)
    return into


@pytest.mark.parametrize("blocks", [[32], [4096], [1, 777, 4096, 64]])
def test_at_the_model_s_rate_samples_are_those_of_the_core(folder, blocks):
    waveform = glide(20_000)
    instances = [open_in(folder, values={DOMAIN: domain}) for domain in (0, 2)]
    for instance, domain in zip(instances, (0, 2), strict=True):
        with instance:
            out, latency = instance.run(waveform, blocks), instance.latency
            expected = core_library.played(folder / "model.safetensors", waveform, domain)
            expected = expected[: len(waveform) - latency]
            assert len(expected) > 10_000
            assert not out[:latency].any()
            np.testing.assert_array_equal(out[latency:], expected)
            assert instance.value(DROPOUTS) == 0


@pytest.mark.parametrize("rate_hz", [44_100, 48_000, 96_000])
@pytest.mark.parametrize("block", [32, 4096])
def test_at_other_rates_nothing_is_missed_and_the_input_is_as_late_as_is_reported(
    folder, rate_hz, block
):
    waveform = glide(rate_hz, rate_hz)
    with open_in(folder, rate_hz) as instance:
        out = instance.run(waveform, [block])
        assert instance.value(DROPOUTS) == 0
        assert out[instance.latency + rate_hz // 10 :].any()
    with open_in(folder, rate_hz, values={WET: 0, LEVEL: -20}) as dry:
        out, latency = dry.run(waveform, [block]), dry.latency
        np.testing.assert_allclose(out[latency:], 0.1 * waveform[:-latency], rtol=1e-6)
        assert not out[:latency].any()


def test_a_file_has_one_mono_effect(folder):
    with open_in(folder) as instance:
        assert instance.num_plugins == 1
        described = instance.descriptor
        assert (described.id, described.name) == (b"umt_jax.translator", b"umt_jax")
        assert [described.features[i] for i in range(3)] == [b"audio-effect", b"mono", None]
        for is_input in (True, False):
            assert instance.ports(is_input=is_input) == [(b"mono", 1)]


def test_parameters_have_ranges_and_names(folder):
    with open_in(folder, values={DOMAIN: 1}) as instance:
        assert instance.parameters() == [
            ("Domain", 0, 2, 0),
            ("Temperature", 0, 2, 1),
            ("Dry/wet", 0, 1, 1),
            ("Output level", -60, 12, 0),
            ("Model file", 0, 1, 0),  # Hosts divide by the range.
            ("Dropouts", 0, 1e9, 0),
        ]
        assert [instance.value(param) for param in range(5)] == [1, 0, 1, 0, 0]
        texts = [(DOMAIN, 2, "Piano"), (TEMPERATURE, 0.7, "0.70"), (WET, 0.25, "25.0 %")]
        texts += [(LEVEL, -6.5, "-6.50 dB"), (MODEL, 0, "model.safetensors"), (DROPOUTS, 3, "3")]
        for param, value, text in texts:
            assert instance.text(param, value) == text
            assert instance.value_of(param, text) == value
        assert instance.value_of(DOMAIN, "1") == 1
        with pytest.raises(ValueError, match="'Tuba' is no value"):
            instance.value_of(DOMAIN, "Tuba")
        # What is out of range is brought into it, and what is no number changes nothing.
        instance.flush({DOMAIN: 99, TEMPERATURE: -3, WET: 2, LEVEL: float("nan"), 77: 1})
        assert [instance.value(param) for param in range(5)] == [2, 0, 1, 0, 0]


def test_a_change_is_heard_from_its_sample_on(folder):
    waveform = glide(16_000)
    with open_in(folder, values={WET: 0}) as instance:
        late = np.concatenate([np.zeros(instance.latency), waveform])[8000:16_000]
        assert instance.process(waveform[:8000])[0] == 1
        out = instance.process(waveform[8000:], [(100, LEVEL, -20), (3000, LEVEL, 0)])[1]
        level = np.ones(8000)
        level[100:3000] = 0.1
        np.testing.assert_allclose(out, level * late, rtol=1e-6)


def test_a_reset_forgets_all_sound(folder):
    waveform = glide(12_000)
    with open_in(folder) as fresh:
        expected = fresh.run(waveform, [256])
    with open_in(folder) as instance:
        for length in (5000, 100, 0):
            instance.run(glide(length), [512])
            instance.reset()
        np.testing.assert_array_equal(instance.run(waveform, [256]), expected)


def test_numbers_that_are_none_are_silence(folder):
    waveform = glide(8000)
    waveform[3000:3100] = 0
    with open_in(folder) as clean:
        expected = clean.run(waveform, [256])
    waveform[3000:3100:2], waveform[3001:3100:2] = np.nan, -np.inf
    with open_in(folder) as instance:
        np.testing.assert_array_equal(instance.run(waveform, [256]), expected)
        assert np.isfinite(instance.run(np.full(4000, 1e-40, np.float32), [256])).all()


def test_a_host_that_breaks_the_rules_gets_an_error_and_no_crash(folder, capfd):
    with open_in(folder) as instance:
        assert instance.process(np.zeros(0, np.float32))[0] == 1
        assert instance.process(None, [(0, DOMAIN, 2)], num_frames=64)[0] == 0
        assert instance.value(DOMAIN) == 2
        late = instance.process(glide(64), [(1000, DOMAIN, 1), (0, WET, 0)])
        assert (late[0], instance.value(DOMAIN), instance.value(WET)) == (1, 1, 0)
    with Instance(folder / "umt.clap") as idle:
        assert idle.process(glide(64))[0] == 0
        idle.reset()
        for rate_hz in (0, -1, float("nan")):
            assert not idle.activate(rate_hz)
            assert f"names no sample rate, but {rate_hz:g} Hz" in capfd.readouterr().err
        assert idle.activate(RATE_HZ, 0)


def test_a_missing_or_damaged_model_is_silence_and_a_line(folder, tmp_path, capfd):
    for name, text, line in (
        ("missing", None, "umt_jax: There is no file {}."),
        ("damaged", b"RIFF" * 100, "umt_jax: {}: It is no model in the format safetensors, or"),
    ):
        place = another(folder, tmp_path / name)
        (place / "model.safetensors").unlink()
        if text:
            (place / "model.safetensors").write_bytes(text)
        with open_in(place) as instance:
            assert line.format(f"{place}/model.safetensors") in capfd.readouterr().err
            assert not instance.run(glide(2000), [256]).any()
            assert instance.latency == 0


def test_a_model_may_change_or_go_while_it_plays(folder, tmp_path):
    place = another(folder, tmp_path / "place")
    waveform = glide(8000)
    with open_in(folder) as other:
        expected = other.run(waveform, [256])
    with open_in(place) as instance:
        first = instance.run(waveform[:4000], [256])
        (place / "model.safetensors").write_bytes(b"")
        (place / "model.safetensors").unlink()
        out = np.concatenate([first, instance.run(waveform[4000:], [256])])
    # Turns of blocks begin anew, which changes nothing.
    np.testing.assert_array_equal(out, expected)


def test_a_player_that_is_too_slow_is_silence_counted_and_reported(folder):
    """A host that does not wait, and asks for a minute at once."""
    with open_in(folder, is_rendering=False) as instance:
        out = instance.run(glide(60 * RATE_HZ), [4096])
        assert np.isfinite(out).all()
        assert instance.told[DROPOUTS] == instance.value(DROPOUTS) > 0


def test_a_state_brings_everything_back(folder, tmp_path):
    waveform = glide(8000)
    place = another(folder, tmp_path / "place", "own.safetensors")
    shutil.copyfile(folder / "model.safetensors", place / "model.safetensors")
    with open_in(place, values={DOMAIN: 2, WET: 0.75, LEVEL: -3.3, MODEL: 1}) as instance:
        expected = instance.run(waveform, [256])
        state = instance.save()
    assert state.decode().splitlines()[1:] == [
        "Domain=2",
        "Temperature=0",
        "Dry/wet=0.75",
        "Output level=-3.3",
        f"Model file={place}/own.safetensors",
    ]
    # By another folder's plug-in, which has that model nowhere.
    with Instance(folder / "umt.clap") as second:
        assert second.load(state)
        assert second.rescans == [RESCAN_ALL, RESCAN_VALUES]
        assert second.text(MODEL, second.value(MODEL)) == "own.safetensors"
        assert second.activate(RATE_HZ)
        np.testing.assert_array_equal(second.run(waveform, [256]), expected)
        assert second.save() == state


def test_the_model_beside_the_plugin_is_kept_without_its_folder(folder, tmp_path):
    place = another(folder, tmp_path / "place")
    with open_in(folder) as first:
        state = first.save()
    assert state.endswith(b"Model file=")
    with Instance(place / "umt.clap") as second:
        assert second.load(state) and second.save() == state


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"umt_jax 2\n",
        STATE[:40],
        (STATE % (1, b"warm", b"")),
        (STATE % (1, b"nan", b"")),
        (STATE % (1, b"1", b"")).replace(b"Dry/wet", b"Wet"),
        STATE % (1, b"1", b"x" * 100_000),
        bytes(range(256)) * 9,
    ],
)
def test_a_damaged_state_changes_nothing(folder, state, capfd):
    with open_in(folder, values={DOMAIN: 2}) as instance:
        before = instance.save()
        assert not instance.load(state, bytes_at_once=5000)
        assert instance.save() == before
        assert "umt_jax: The host gives a state that is not this" in capfd.readouterr().err
        assert not instance.load(before, fails=True)


def test_a_state_whose_model_is_gone_is_silence_a_line_and_keeps_its_name(folder, tmp_path, capfd):
    path = tmp_path / "gone.safetensors"
    with Instance(folder / "umt.clap") as instance:
        state = STATE % (2, b"0", str(path).encode())
        assert instance.load(state)
        assert f"umt_jax: There is no file {path}.\n" in capfd.readouterr().err
        assert instance.activate(RATE_HZ)
        assert not instance.run(glide(2000), [256]).any()
        assert instance.save() == state


def test_another_model_is_played_once_the_host_has_restarted_the_plugin(folder, tmp_path):
    place = another(folder, tmp_path / "place", "own.safetensors")
    waveform = glide(8000)
    with open_in(folder) as other:
        expected = other.run(waveform, [256])
    with open_in(place) as instance:  # Its default is missing.
        assert not instance.run(waveform[:512], [256]).any()
        assert [name for name, *_ in instance.parameters()][MODEL] == "Model file"
        assert instance.text(MODEL, 1) == "own.safetensors"
        instance.asked.clear()
        assert instance.process(waveform[:64], [(0, MODEL, 1)])[0] == 1
        assert instance.asked == ["callback"]
        instance.on_main_thread()
        assert instance.asked == ["callback", "restart"] and instance.rescans == []
        instance.deactivate()
        assert instance.rescans == [RESCAN_ALL]
        assert instance.activate(RATE_HZ)
        assert instance.asked == ["callback", "restart", "latency"]
        np.testing.assert_array_equal(instance.run(waveform, [256]), expected)


def test_a_model_is_named_by_the_environment(folder, tmp_path, monkeypatch):
    place = another(folder, tmp_path / "place", "own.safetensors")
    monkeypatch.setenv("UMT_JAX_MODEL", str(place / "own.safetensors"))
    with open_in(folder) as instance:
        assert instance.text(MODEL, 0) == "own.safetensors"
        assert instance.save().endswith(f"Model file={place}/own.safetensors".encode())


def test_two_instances_do_not_hear_each_other(folder):
    waveform = glide(8000)
    with open_in(folder) as alone:
        expected = alone.run(waveform, [256])
    with open_in(folder) as first, open_in(folder, values={DOMAIN: 2}) as second:
        parts = []
        for start in range(0, 8000, 250):
            parts.append(first.process(waveform[start : start + 250].copy())[1])
            second.process(waveform[::-1][start : start + 250].copy())
        np.testing.assert_array_equal(np.concatenate(parts), expected)
