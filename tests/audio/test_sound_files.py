import os
import pickle
import resource

import numpy as np
import pytest
import soundfile
import soxr

from umt_jax.audio import decoding, sound_files

FORMATS = [
    ("wav", "PCM_16", 44_100),
    ("wav", "FLOAT", 16_000),
    ("flac", "PCM_16", 44_100),
    ("ogg", "VORBIS", 22_050),
    ("opus", "OPUS", 48_000),
    ("mp3", "MPEG_LAYER_III", 44_100),
    ("aiff", "PCM_24", 8_000),
]


def sine(seconds, rate_hz, frequency_hz=440.0):
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * frequency_hz * t)).astype(np.float32)


def write(path, channels, rate_hz, subtype):
    kind = {"opus": "OGG"}.get(path.suffix[1:])
    soundfile.write(path, np.stack(channels, axis=1), rate_hz, subtype=subtype, format=kind)
    return path


def main_frequency(waveform, rate_hz):
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return np.argmax(spectrum) * rate_hz / len(waveform)


@pytest.mark.parametrize(("extension", "subtype", "rate_hz"), FORMATS)
def test_each_format_is_read_as_mono_at_the_wanted_rate(tmp_path, extension, subtype, rate_hz):
    tone = sine(2.0, rate_hz)
    path = write(tmp_path / f"a.{extension}", [tone, 0.5 * tone], rate_hz, subtype)
    waveform = sound_files.read(path, sample_rate_hz=16_000)
    assert waveform.dtype == np.float32 and waveform.shape == (32_000,)
    assert main_frequency(waveform, 16_000) == pytest.approx(440, abs=1)
    middle = waveform[8_000:24_000]
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(0.375, rel=0.02)


def test_files_beyond_libsndfile_are_read_by_pyav(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "a.m4a"
    tone = sine(2.0, 44_100)
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=44_100)
        stream.layout = "mono"
        for start in range(0, len(tone) - 1023, 1024):
            samples = tone[None, start : start + 1024]
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.rate, frame.pts = 44_100, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    waveform = sound_files.read(path, sample_rate_hz=16_000)
    assert len(waveform) == pytest.approx(32_000, abs=1000)
    assert main_frequency(waveform, 16_000) == pytest.approx(440, abs=1)


def test_a_file_for_pyav_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "has_pyav", lambda: False)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x1cftypM4A " * 50)
    with pytest.raises(sound_files.SoundFileError, match=r'a.m4a .* pip install "umt_jax\[av\]"$'):
        sound_files.read(tmp_path / "a.m4a", sample_rate_hz=16_000)


@pytest.mark.parametrize("block_seconds", [0.01, 0.37, 100.0])
def test_blocks_together_are_the_whole_file_resampled_at_once(tmp_path, rng, block_seconds):
    noise = rng.uniform(-0.5, 0.5, size=50_001).astype(np.float32)
    path = write(tmp_path / "a.wav", [noise], 44_100, "FLOAT")
    blocks = list(sound_files.read_blocks(path, sample_rate_hz=16_000, block_seconds=block_seconds))
    whole = soxr.resample(noise, 44_100, 16_000)
    np.testing.assert_allclose(np.concatenate(blocks), whole, rtol=1e-5, atol=1e-5)
    assert max(map(len, blocks)) <= block_seconds * 16_000 + 2_000


def test_resampling_keeps_time_and_batch_axes(rng):
    waveform = rng.uniform(-1, 1, size=(2, 3, 4410)).astype(np.float32)
    resampled = sound_files.resample(waveform, from_hz=44_100, to_hz=16_000)
    assert resampled.shape == (2, 3, 1600) and resampled.dtype == np.float32
    np.testing.assert_array_equal(
        resampled[1, 2], sound_files.resample(waveform[1, 2], from_hz=44_100, to_hz=16_000)
    )
    np.testing.assert_array_equal(sound_files.resample(waveform, from_hz=8, to_hz=8), waveform)


@pytest.mark.parametrize(("extension", "subtype", "rate_hz"), FORMATS)
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_file_that_is_cut_off_is_refused(tmp_path, rng, extension, subtype, rate_hz, kept):
    noise = rng.uniform(-0.5, 0.5, size=10 * rate_hz).astype(np.float32)
    path = write(tmp_path / f"a.{extension}", [noise], rate_hz, subtype)
    content = path.read_bytes()
    path.write_bytes(content[: round(kept * len(content))])
    with pytest.raises(sound_files.SoundFileError, match=f"a.{extension} is (damaged or )?cut off"):
        sound_files.read(path, sample_rate_hz=16_000)


def test_a_wav_recorded_to_a_pipe_does_not_count_as_cut_off(tmp_path):
    path = write(tmp_path / "a.wav", [sine(1.0, 16_000)], 16_000, "PCM_16")
    content = bytearray(path.read_bytes())
    length = content.index(b"data") + 4
    content[length : length + 4] = b"\xff" * 4
    path.write_bytes(content)
    assert len(sound_files.read(path, sample_rate_hz=16_000)) == 16_000


def test_an_mp3_of_unknown_length_is_read_to_its_end(tmp_path, rng):
    # Silent, then loud: libsndfile takes the bit rate of the beginning for that of the whole.
    noise = rng.uniform(-0.5, 0.5, size=10 * 44_100).astype(np.float32)
    noise[: 4 * 44_100] = 0
    path = tmp_path / "a.mp3"
    soundfile.write(path, noise, 44_100, bitrate_mode="VARIABLE", compression_level=0.2)
    content = path.read_bytes()
    path.write_bytes(content[content.index(content[:2], 100) :])
    guess = soundfile.info(path).duration
    assert abs(guess - 10) > 1, "the file does not show the fault"
    assert len(sound_files.read(path, sample_rate_hz=16_000)) == pytest.approx(160_000, abs=1600)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"not a sound " * 99, "is not a sound file|is damaged")],
)
@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.ogg"])
def test_a_file_that_is_no_sound_is_refused(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(sound_files.SoundFileError, match=reason):
        sound_files.read(tmp_path / name, sample_rate_hz=16_000)


def test_a_sound_without_samples_is_refused(tmp_path):
    write(tmp_path / "a.wav", [np.zeros(0)], 16_000, "PCM_16")
    with pytest.raises(sound_files.SoundFileError, match="holds no samples"):
        sound_files.read(tmp_path / "a.wav", sample_rate_hz=16_000)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path, value):
    tone = sine(1.0, 16_000)
    tone[15_000] = value
    write(tmp_path / "a.wav", [tone, tone], 16_000, "FLOAT")
    with pytest.raises(sound_files.SoundFileError, match="not finite"):
        sound_files.read(tmp_path / "a.wav", sample_rate_hz=16_000)


@pytest.mark.parametrize(("scale", "bits"), [(32_767, 16), (2**23 - 1, 24), (1e30, None)])
def test_floats_on_the_scale_of_integers_are_refused_with_their_scale(tmp_path, scale, bits):
    write(tmp_path / "a.wav", [scale * sine(1.0, 16_000)], 16_000, "FLOAT")
    remedy = f"divide them by {2 ** (bits - 1)}, as for {bits}-bit" if bits else "no sound"
    with pytest.raises(sound_files.SoundFileError, match=f"where full scale is 1: .*{remedy}"):
        sound_files.read(tmp_path / "a.wav", sample_rate_hz=16_000)


def test_a_mix_that_exceeds_full_scale_is_read_as_it_is(tmp_path):
    write(tmp_path / "a.wav", [6 * sine(1.0, 16_000)], 16_000, "FLOAT")
    assert sound_files.read(tmp_path / "a.wav", sample_rate_hz=16_000).max() == pytest.approx(
        3, abs=0.01
    )


def test_channels_at_the_largest_float_are_refused_before_their_mean_overflows(tmp_path):
    tone = np.full(16_000, 3e38, np.float32)
    write(tmp_path / "a.wav", [tone, tone], 16_000, "FLOAT")
    with pytest.raises(sound_files.SoundFileError, match="full scale is 1"):
        sound_files.read(tmp_path / "a.wav", sample_rate_hz=16_000)


def test_channels_that_cancel_are_refused_and_a_passage_of_them_is_not(tmp_path):
    tone, rest = sine(12.0, 16_000), np.zeros(16_000 * 12, np.float32)
    write(tmp_path / "a.wav", [tone, -tone], 16_000, "PCM_16")
    with pytest.raises(sound_files.SoundFileError, match="channels cancel each other: turn one"):
        sound_files.read(tmp_path / "a.wav", sample_rate_hz=16_000)
    passage = [np.concatenate([tone, tone]), np.concatenate([tone, -tone])]
    for channels in (passage, [tone, rest], [rest, rest]):
        write(tmp_path / "b.wav", channels, 16_000, "PCM_16")
        assert len(sound_files.read(tmp_path / "b.wav", sample_rate_hz=16_000)) == len(channels[0])


def test_a_rate_of_a_few_hertz_is_refused(tmp_path):
    write(tmp_path / "a.wav", [sine(1.0, 16_000)], 1, "PCM_16")
    with pytest.raises(sound_files.SoundFileError, match="1 samples a second.* true rate"):
        sound_files.read(tmp_path / "a.wav", sample_rate_hz=16_000)


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        sound_files.read(tmp_path / "a.wav", sample_rate_hz=16_000)


def test_an_error_survives_the_way_out_of_a_worker(tmp_path):
    error = pickle.loads(pickle.dumps(sound_files.SoundFileError(tmp_path / "a.wav", "is empty")))
    assert str(error) == f"{tmp_path / 'a.wav'} is empty"


def test_sound_files_are_found_in_subfolders_and_sorted(tmp_path):
    for name in ["b.WAV", "a/c.mp3", "a/d/e.m4a", "note.txt", ".hidden.wav", ".git/f.wav"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = sound_files.find_sound_files(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "a/c.mp3",
        "a/d/e.m4a",
        "b.WAV",
    ]
    with pytest.raises(FileNotFoundError):
        sound_files.find_sound_files(tmp_path / "missing")


def test_links_are_followed_once_and_what_is_no_sound_is_told(tmp_path):
    music = tmp_path / "music"
    for path in (music / "a.wav", music / "a.cue", music / "b.cue", tmp_path / "other" / "b.wave"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (music / "README").touch()
    (music / "linked").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(music)
    (music / "dead.flac").symlink_to("nothing.flac")
    (music / "zeros.wav").symlink_to("/dev/zero")
    os.mkfifo(music / "bell\a.wav")
    found = sound_files.find_sound_files(music)
    assert found == [music / "a.wav", music / "linked" / "b.wave"]
    assert sound_files.passed_over(music) == (
        f"Passed over in {music} (6): bell\a.wav (a pipe), dead.flac "
        "(a link to nothing), zeros.wav (a device), 2 with .cue, 1 with no extension."
    )
    assert sound_files.passed_over(tmp_path / "other") == sound_files.passed_over(music).replace(
        *(f"{music} (6): ", f"{tmp_path / 'other'} (6): ")
    ).replace("bell", "back/bell").replace("dead", "back/dead").replace("zeros", "back/zeros")


@pytest.mark.parametrize(
    ("name", "tolerance"), [("a.wav", 1e-4), ("a.flac", 1e-4), ("a.ogg", 0.1), ("a.mp3", 0.1)]
)
def test_what_is_written_can_be_read(tmp_path, name, tolerance):
    tone = sine(100.0, 16_000)
    sound_files.write(tmp_path / name, tone, sample_rate_hz=16_000)
    np.testing.assert_allclose(
        sound_files.read(tmp_path / name, sample_rate_hz=16_000), tone, atol=tolerance
    )
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_samples_beyond_full_scale_are_clipped_when_written(tmp_path):
    sound_files.write(tmp_path / "a.wav", np.array([2.0, -2.0], np.float32), sample_rate_hz=16_000)
    written = sound_files.read(tmp_path / "a.wav", sample_rate_hz=16_000)
    np.testing.assert_allclose(written, [1, -1], atol=1e-4)


def test_a_writer_that_fails_leaves_the_older_file_alone(tmp_path):
    sound_files.write(tmp_path / "a.wav", sine(0.1, 16_000), sample_rate_hz=16_000)
    before = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(RuntimeError, match="the model failed"):
        with sound_files.SoundFileWriter(tmp_path / "a.wav", sample_rate_hz=16_000) as writer:
            writer.write(sine(0.1, 16_000))
            raise RuntimeError("the model failed")
    assert (tmp_path / "a.wav").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_only_finite_samples_and_known_extensions_are_written(tmp_path):
    with pytest.raises(ValueError, match="not finite"):
        sound_files.write(tmp_path / "a.wav", np.array([np.nan]), sample_rate_hz=16_000)
    with pytest.raises(ValueError, match=r"written as \.wav, \.flac, \.ogg, \.mp3\. End"):
        sound_files.write(tmp_path / "a.m4a", np.zeros(9), sample_rate_hz=16_000)
    with pytest.raises(ValueError, match="MP3 has no rate of 1000 Hz, only 8000, "):
        sound_files.write(tmp_path / "a.mp3", np.zeros(9), sample_rate_hz=1000)
    with pytest.raises(FileNotFoundError):
        sound_files.write(tmp_path / "missing" / "a.wav", np.zeros(9), sample_rate_hz=16_000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg"])
def test_a_full_disk_is_an_error_and_leaves_no_file(tmp_path, rng, extension):
    noise = rng.uniform(-1, 1, size=160_000).astype(np.float32)
    # A limit on the size of files fails writes just as a full disk does.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=f"a.{extension} could not be written"):
            sound_files.write(tmp_path / f"a.{extension}", noise, sample_rate_hz=16_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
