import os

import numpy as np
import pytest

pytest.importorskip("mir_eval")
pytest.importorskip("swift_f0")

from experiments.evaluation import content, musicnn, recall, transcription

RATE_HZ = 16_000
SOUND = np.sin(2 * np.pi * 440 / RATE_HZ * np.arange(2 * RATE_HZ)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    yield tmp_path / "kept"
    recall.keep_in(None)


def counted():
    """Returns a function that listens, and the sounds that it was given."""
    heard = []

    @recall.recalled
    def loudest(waveform, scale=1.0):
        heard.append(waveform)
        return scale * float(np.abs(waveform).max())

    return loudest, heard


def test_a_sound_is_listened_to_once_also_by_the_next_evaluation(folder):
    loudest, heard = counted()
    for _ in range(2):
        recall.keep_in(folder)
        assert loudest(SOUND) == loudest(SOUND.copy()) == pytest.approx(1)
    assert len(heard) == 1
    assert loudest(SOUND / 2) == pytest.approx(0.5)
    assert loudest(SOUND, scale=3.0) == pytest.approx(3)
    assert loudest(SOUND[:-1]) == pytest.approx(1)
    assert len(heard) == 4


def test_without_a_folder_and_with_one_that_cannot_be_written_all_is_listened_to(folder, tmp_path):
    loudest, heard = counted()
    loudest(SOUND), loudest(SOUND)
    (tmp_path / "file").write_text("")
    recall.keep_in(tmp_path / "file" / "kept")
    loudest(SOUND), loudest(SOUND)
    assert len(heard) == 4
    assert os.listdir(tmp_path) == ["file"]


def test_another_version_of_a_package_or_of_the_code_listens_again(folder, monkeypatch):
    loudest, heard = counted()
    recall.keep_in(folder)
    loudest(SOUND)
    recall._version.cache_clear()
    version = recall.importlib.metadata.version
    monkeypatch.setattr(recall.importlib.metadata, "version", lambda name: version(name) + ".1")
    loudest(SOUND)
    assert len(heard) == 2
    recall._version.cache_clear()
    source = recall.inspect.getsource
    monkeypatch.setattr(recall.inspect, "getsource", lambda module: source(module) + "#")
    loudest(SOUND)
    assert len(heard) == 3
    recall._version.cache_clear()


def test_what_is_recalled_is_what_evaluators_heard(folder, monkeypatch):
    def hear():
        (clip,) = content.listen(SOUND, RATE_HZ, [(0, len(SOUND))])
        return clip.notes, clip.pitch, musicnn.embed([SOUND], RATE_HZ, hop_s=1.0)

    anew = hear()
    recall.keep_in(folder)
    first = hear()
    for module, network in ((transcription, "_basic_pitch"), (transcription, "_pitch_detector")):
        monkeypatch.setattr(module, network, lambda: pytest.fail("It listens once more."))
    monkeypatch.setattr(musicnn, "_forward", lambda *_: pytest.fail("It listens once more."))
    recalled = hear()
    for notes, pitch, embeddings in (first, recalled):
        assert notes == anew[0]
        assert notes[0].pitch == 69
        np.testing.assert_array_equal(pitch.pitch_hz, anew[1].pitch_hz)
        np.testing.assert_array_equal(pitch.voiced, anew[1].voiced)
        np.testing.assert_array_equal(embeddings, anew[2])
