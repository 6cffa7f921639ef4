"""Sounds as users send them."""

import numpy as np
import pytest
import soundfile

from umt_jax.audio import sound_files
from umt_jax.studio import uploads

RATE_HZ = 8000


def refusal(path, max_seconds=2.0):
    with pytest.raises(ValueError) as error:
        uploads.read(path, sample_rate_hz=RATE_HZ, max_seconds=max_seconds)
    return str(error.value)


def test_a_sound_comes_as_audio_reads_it(tmp_path, rng):
    path = tmp_path / "a.flac"
    soundfile.write(path, 0.1 * rng.normal(size=(30_000, 2)), 44_100)
    waveform = uploads.read(str(path), sample_rate_hz=RATE_HZ, max_seconds=1.0)
    np.testing.assert_array_equal(waveform, sound_files.read(path, sample_rate_hz=RATE_HZ))


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: path.touch(), "a b.wav is empty."),
        (lambda path: path.write_text("no sound " * 99), "a b.wav is "),
        (lambda path: None, "a b.wav is no longer on the server. Send it again."),
        (lambda path: soundfile.write(path, np.zeros(0), 8000), "a b.wav holds no samples."),
        (
            lambda path: soundfile.write(path, np.full(8000, 9e-4), 8000),
            "a b.wav is silent: nothing in it is louder than -60 dB of full scale.",
        ),
        (
            lambda path: soundfile.write(path, np.ones(16_400), 8000),
            "a b.wav is longer than 2 s, the most that is taken here. Cut it first.",
        ),
    ],
)
def test_what_cannot_be_used_gets_a_sentence_without_the_servers_folder(tmp_path, write, sentence):
    path = tmp_path / "a b.wav"
    write(path)
    told = refusal(str(path))
    assert told.startswith(sentence)
    assert str(tmp_path) not in told
    assert "\n" not in told


def test_no_sound_at_all_gets_a_sentence():
    assert refusal(None) == "There is no sound yet. Drop a file, or record something, first."


def test_a_long_file_is_decoded_only_as_far_as_the_limit(tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.ones(60 * RATE_HZ), RATE_HZ)
    read, yielded = sound_files.read_blocks, []

    def counted(*args, **kwargs):
        for block in read(*args, **kwargs):
            yielded.append(len(block))
            yield block

    monkeypatch.setattr(sound_files, "read_blocks", counted)
    assert "longer than 2 s" in refusal(str(path))
    assert sum(yielded) <= 12 * RATE_HZ
