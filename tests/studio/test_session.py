"""What the studio makes of sounds."""

import io

import matplotlib.image
import numpy as np
import pytest
import soundfile

import umt_jax
from umt_jax.audio import sound_files
from umt_jax.generation import blending
from umt_jax.studio import session

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def studio(tiny_config, tiny_parameters):
    model = umt_jax.Translator(tiny_config, tiny_parameters, engine="scan")
    return session.Studio(model, max_seconds=3.0)


@pytest.fixture
def sounds(tmp_path, rng):
    """Paths of two sounds, 0.75 s and, softer, 0.6 s."""
    paths = []
    for name, num_samples, level in (("a", 12_000, 0.1), ("b", 9_600, 0.02)):
        paths.append(str(tmp_path / f"{name}.wav"))
        soundfile.write(paths[-1], level * rng.normal(size=num_samples), RATE_HZ)
    return paths


def whole(take):
    return np.concatenate([progress.piece for progress in session.play(take)], axis=-1)


def read(path):
    return sound_files.read(path, sample_rate_hz=RATE_HZ)


def test_translations_are_those_of_the_translator_in_its_order(studio, sounds):
    take = studio.translate(sounds[0], ["Piano", "Flute", "Cello"], temperature=1.0, seed=5)
    assert take.domains == ("Cello", "Flute", "Piano")
    made = whole(take)
    for domain, waveform in zip(take.domains, made, strict=True):
        expected = studio.model.translate(read(sounds[0]), RATE_HZ, domain=domain, seed=5)
        np.testing.assert_array_equal(waveform, expected)


def test_blends_run_from_the_first_sound_to_the_second(studio, sounds):
    settings = {"domain": "Piano", "temperature": 0.0, "seed": 0}
    at_one_level = blending.match_levels([read(path) for path in sounds])
    for weight, sound in zip((0.0, 1.0), at_one_level, strict=True):
        made = whole(studio.blend(*sounds, weight=weight, **settings))
        expected = studio.model.translate(sound[:9600], RATE_HZ, domain="Piano", temperature=0.0)
        np.testing.assert_array_equal(made, expected[None])
    halves = [studio.model.encode(sound[:9600], RATE_HZ) for sound in at_one_level]
    made = whole(studio.blend(*sounds, weight=0.5, **settings))
    expected = studio.model.generate((halves[0] + halves[1]) / 2, domain="Piano", temperature=0.0)
    np.testing.assert_array_equal(made, expected[None, :9600])


def test_no_domain_is_refused(studio, sounds):
    with pytest.raises(ValueError, match="Choose at least one"):
        studio.translate(sounds[0], [], temperature=1.0, seed=0)


def test_time_left_is_that_of_the_pieces_after_the_first(monkeypatch):
    # The first one takes a minute, each of the others two seconds.
    clock = iter([60.0, 62.0, 64.0, 66.0])
    monkeypatch.setattr(session.time, "monotonic", lambda: next(clock))
    pieces = iter([np.zeros((2, 100), np.float32)] * 4)
    take = session.Take({}, ("A", "B"), "name", 400, pieces)
    progress = list(session.play(take))
    assert [p.num_samples for p in progress] == [100, 200, 300, 400]
    assert [p.seconds_left for p in progress] == [None, 4.0, 2.0, 0.0]


def test_small_pieces_are_joined_to_the_length_asked_for():
    whole = np.arange(700.0, dtype=np.float32)[None]
    pieces = iter(np.split(whole, [100, 250, 300, 310, 600], axis=-1))
    progress = list(session.play(session.Take({}, ("A",), "name", 700, pieces), at_least=240))
    assert [p.num_samples for p in progress] == [250, 600, 700]
    np.testing.assert_array_equal(np.concatenate([p.piece for p in progress], axis=-1), whole)


def test_files_hold_the_sounds_and_pictures_in_one_scale(tmp_path, rng):
    source = 0.1 * rng.normal(size=8000).astype(np.float32)
    made = np.stack([source / 2, np.zeros_like(source)])
    take = session.Take({"Source": source}, ("Flute", "Piano"), "my song", 8000, iter([]))
    sources, tracks = session.write(take, made, tmp_path, sample_rate_hz=RATE_HZ)
    assert [track.title for track in sources + tracks] == ["Source", "Flute", "Piano"]
    for track, waveform in zip(sources + tracks, [source, *made], strict=True):
        assert track.sound == tmp_path / f"my song.{track.title}.wav"
        written, rate_hz = soundfile.read(track.sound)
        assert rate_hz == RATE_HZ
        np.testing.assert_allclose(written, waveform, atol=1e-4)
    images = [
        matplotlib.image.imread(io.BytesIO(track.picture.read_bytes()))
        for track in sources + tracks
    ]
    assert images[0].shape == images[1].shape == images[2].shape
    # By one scale silence is all dark, and half the amplitude a little darker.
    lightness = [image[..., :3].mean() for image in images]
    assert lightness[0] > lightness[1] > lightness[2]
