"""Files as recorders, messengers and `cat` make them, against the length that they were made of."""

import io
import os
import struct

import numpy as np
import pytest
from tones import RATE_HZ, encoded, tone

from umt_jax.audio import decoding, sound_files, sound_parts


def wav(seconds, subtype="PCM_16"):
    return encoded(tone(seconds), format="WAV", subtype=subtype)


def mp3(seconds, rate_hz=44_100, frequency_hz=440.0):
    return encoded(tone(seconds, rate_hz, frequency_hz), rate_hz, format="MP3")


def put(content, offset, kind, value):
    content[offset : offset + struct.calcsize(kind)] = struct.pack(kind, value)
    return content


def seconds_of(path, content):
    path.write_bytes(bytes(content))
    return len(sound_files.read(path, sample_rate_hz=RATE_HZ)) / RATE_HZ


def with_data_size(content, size):
    return put(content, content.index(b"data") + 4, "<I", size(len(content) - 44))


@pytest.mark.parametrize(
    "size",
    [
        lambda true: 0,
        lambda true: true + 1,
        lambda true: 2_000_000_000,
        lambda true: 0x7FFFF000,
        lambda true: 0xFFFFFFFF,
    ],
    ids=["never_finished", "one_too_large", "round", "largest_of_sox", "largest"],
)
def test_a_wav_whose_header_was_not_finished_is_read_to_its_end(tmp_path, size):
    assert seconds_of(tmp_path / "a.wav", with_data_size(wav(3), size)) == 3


def test_a_wav_that_lacks_one_sample_is_cut_off(tmp_path):
    with pytest.raises(sound_files.SoundFileError, match="is cut off: its end is missing"):
        seconds_of(tmp_path / "a.wav", wav(3)[:-2])


def test_an_empty_wav_with_a_chunk_behind_its_sound_holds_no_samples(tmp_path):
    content = with_data_size(wav(1)[:44], lambda true: 0) + b"LIST\4\0\0\0INFO"
    with pytest.raises(sound_files.SoundFileError, match="holds no samples"):
        seconds_of(tmp_path / "a.wav", content)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_an_au_file_of_unknown_length_is_read_to_its_end(tmp_path, size):
    content = encoded(tone(3), format="AU", subtype="PCM_16")
    assert seconds_of(tmp_path / "a.au", put(content, 8, ">I", size)) == 3


def test_an_au_file_that_lacks_a_sample_is_cut_off(tmp_path):
    with pytest.raises(sound_files.SoundFileError, match="is cut off"):
        seconds_of(tmp_path / "a.au", encoded(tone(3), format="AU", subtype="PCM_16")[:-2])


@pytest.mark.parametrize("size", [0, 2_000_000_000, "one_more"])
def test_an_aiff_whose_header_was_not_finished_is_read_to_its_end(tmp_path, size):
    content = encoded(tone(3), format="AIFF", subtype="PCM_16")
    at = content.index(b"SSND") + 4
    true = struct.unpack(">I", content[at : at + 4])[0]
    put(content, at, ">I", true + 1 if size == "one_more" else size)
    if size != "one_more":
        put(content, content.index(b"COMM") + 10, ">I", 0)
    assert seconds_of(tmp_path / "a.aiff", content) == 3


def flac_to_a_pipe(content):
    """Returns a FLAC whose header does not say how long it is."""
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    return content


@pytest.mark.parametrize("tag", [b"", b"TAG" + bytes(125)])
@pytest.mark.parametrize("seconds", [0.01, 3.0, 10.3])
def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path, seconds, tag):
    content = flac_to_a_pipe(encoded(tone(seconds), format="FLAC")) + tag
    assert seconds_of(tmp_path / "a.flac", content) == pytest.approx(seconds, abs=1e-4)


@pytest.mark.parametrize("num_missing", [1, 100, 30_000])
def test_a_flac_of_unknown_length_that_is_cut_off_is_refused(tmp_path, rng, num_missing):
    noise = rng.uniform(-0.5, 0.5, 3 * RATE_HZ).astype(np.float32)
    content = flac_to_a_pipe(encoded(noise, format="FLAC"))
    with pytest.raises(sound_files.SoundFileError, match="is cut off: .* last frame"):
        seconds_of(tmp_path / "a.flac", content[:-num_missing])


@pytest.mark.parametrize(
    ("extension", "options", "rate_hz"),
    [
        ("wav", {"format": "WAV"}, RATE_HZ),
        ("aiff", {"format": "AIFF"}, RATE_HZ),
        ("au", {"format": "AU"}, RATE_HZ),
        ("flac", {"format": "FLAC"}, RATE_HZ),
        ("ogg", {"format": "OGG", "subtype": "VORBIS"}, RATE_HZ),
        ("opus", {"format": "OGG", "subtype": "OPUS"}, 48_000),
        ("mp3", {"format": "MP3"}, 44_100),
    ],
)
def test_recordings_that_were_joined_are_read_one_after_the_other(
    tmp_path, extension, options, rate_hz
):
    parts = [
        encoded(tone(seconds, rate_hz, hz), rate_hz, **options)
        for seconds, hz in ((2, 440), (1, 660))
    ]
    path = tmp_path / f"a.{extension}"
    assert seconds_of(path, parts[0] + parts[1]) == pytest.approx(3, abs=0.05)
    waveform = sound_files.read(path, sample_rate_hz=RATE_HZ)[-RATE_HZ // 2 :]
    spectrum = np.abs(np.fft.rfft(waveform))
    assert np.argmax(spectrum) * 2 == pytest.approx(660, abs=4)
    with pytest.raises(sound_files.SoundFileError, match="cut off"):
        seconds_of(path, parts[0] + parts[1][: len(parts[1]) * 2 // 3])


def test_joined_recordings_may_have_different_rates(tmp_path):
    parts = [encoded(tone(1, hz), hz, format="FLAC") for hz in (8000, 44_100)]
    assert seconds_of(tmp_path / "a.flac", parts[0] + parts[1]) == pytest.approx(2, abs=1e-3)
    parts = [mp3(1), mp3(1, 22_050)]
    assert seconds_of(tmp_path / "a.mp3", parts[0] + parts[1]) == pytest.approx(2, abs=0.01)


def ape_tag(num_bytes):
    items = struct.pack("<II", num_bytes, 2) + b"Cover Art (Front)\0" + os.urandom(num_bytes)
    ends = [
        b"APETAGEX" + struct.pack("<IIII", 2000, len(items) + 32, 1, flags) + bytes(8)
        for flags in (0xA0000000, 0x80000000)
    ]
    return ends[0] + items + ends[1]


@pytest.mark.parametrize("behind", [ape_tag(500_000), bytes(300_000), b"TAG" + bytes(125)])
def test_a_picture_or_zeros_behind_an_mp3_change_nothing(tmp_path, behind):
    assert seconds_of(tmp_path / "a.mp3", mp3(3) + behind) == pytest.approx(3, abs=1e-3)


def test_an_mp3_without_a_header_loses_nothing_and_is_found_to_be_cut_off(tmp_path):
    content = mp3(3)
    frames = content[content.index(content[:2], 100) :]
    # The decoder's delay is not cut away: nothing says how long it is.
    assert seconds_of(tmp_path / "a.mp3", frames) == pytest.approx(3.03, abs=0.03)
    with pytest.raises(sound_files.SoundFileError, match="last frame is not whole"):
        seconds_of(tmp_path / "a.mp3", frames[:-50])


def test_an_mp3_that_lacks_frames_its_header_counts_is_cut_off(tmp_path):
    content = mp3(3)
    with pytest.raises(
        sound_files.SoundFileError, match=r"cut off: its end is missing; \d+ of \d+ frame"
    ):
        seconds_of(tmp_path / "a.mp3", content[: len(content) * 9 // 10])


def without_last_page_flag(content):
    start = content.rfind(b"OggS")
    page = content[start:]
    page[5] &= ~4
    page[22:26] = bytes(4)
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = checksum << 1 ^ (0x04C11DB7 if checksum & 2**31 else 0)
            checksum &= 2**32 - 1
    page[22:26] = struct.pack("<I", checksum)
    return content[:start] + page


def test_an_ogg_whose_last_page_is_not_marked_is_whole_and_one_without_its_end_is_not(tmp_path):
    content = without_last_page_flag(encoded(tone(3, 48_000), 48_000, format="OGG", subtype="OPUS"))
    assert seconds_of(tmp_path / "a.ogg", content) == pytest.approx(3, abs=1e-3)
    with pytest.raises(sound_files.SoundFileError, match="its last page is not whole"):
        seconds_of(tmp_path / "a.ogg", content[:-1])


def by_pyav(kind, codec, samples, rate_hz=44_100):
    av = pytest.importorskip("av")
    target = io.BytesIO()
    with av.open(target, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate_hz, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return bytearray(target.getvalue())


@pytest.mark.parametrize(("kind", "codec"), [("adts", "aac"), ("ac3", "ac3"), ("mp4", "aac")])
def test_lengths_that_are_guesses_are_no_promises_and_cut_frames_are_found(
    tmp_path, rng, kind, codec
):
    noise = rng.uniform(-0.4, 0.4, 6 * 44_100).astype(np.float32)
    noise[: 2 * 44_100] = 0
    content = by_pyav(kind, codec, noise)
    path = tmp_path / f"a.{kind}"
    assert seconds_of(path, content) == pytest.approx(6, abs=0.1)
    with pytest.raises(sound_files.SoundFileError, match="is (damaged, )?cut off"):
        seconds_of(path, content[:-10_000])
    assert seconds_of(path, content + content) == pytest.approx(12, abs=0.2)


def test_a_name_is_no_address(tmp_path, monkeypatch):
    content = by_pyav("mp4", "aac", tone(1, 44_100))
    path = tmp_path / "Op.1: Allegro.m4a"
    assert seconds_of(path, content) == pytest.approx(1, abs=0.05)
    assert sound_files.duration_seconds(path) == pytest.approx(1, abs=0.05)
    monkeypatch.chdir(tmp_path)
    assert len(sound_files.read("Op.1: Allegro.m4a", sample_rate_hz=RATE_HZ)) > 15_000


@pytest.mark.parametrize(("layout", "num_channels"), [("7.1", 8), ("hexadecagonal", 16)])
@pytest.mark.parametrize(("kind", "codec"), [("wv", "wavpack"), ("mov", "pcm_s16le")])
def test_sound_of_many_channels_is_read_whole(tmp_path, kind, codec, layout, num_channels):
    av = pytest.importorskip("av")
    path = tmp_path / f"a.{kind}"
    expected = np.linspace(0.1, 0.5, num_channels, dtype=np.float32)
    samples = np.tile(np.rint(expected * 32_768).astype(np.int16), 44_100)[None]
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=44_100, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate, frame.pts = 44_100, 0
        container.mux([*stream.encode(frame), *stream.encode(None)])
    blocks = [block for _, block in decoding.decode(path, 10.0)]
    (frames,) = blocks
    np.testing.assert_allclose(frames, np.broadcast_to(expected, (44_100, num_channels)), atol=0.01)


def test_a_block_has_a_bound_whatever_rate_and_channels_a_header_claims():
    assert decoding._block_frames(10.0, 192_000, 2) == 1_920_000
    assert decoding._block_frames(10.0, 10_000_000, 1024) * 1024 <= 2**24
    assert decoding._block_frames(1e-9, 8000, 1) == 1


@pytest.mark.parametrize("rate_hz", [1, 2_000_000_000])
def test_a_rate_that_no_converter_has_is_refused(tmp_path, rate_hz):
    content = put(wav(1), 24, "<I", rate_hz)
    with pytest.raises(
        sound_files.SoundFileError, match=f"says that it has {rate_hz} samples a second"
    ):
        seconds_of(tmp_path / "a.wav", content)


def test_samples_near_the_largest_number_are_refused_before_they_are_added(tmp_path):
    loud = np.full((8000, 2), 3e38, np.float32)
    content = encoded(loud, format="WAV", subtype="FLOAT")
    with pytest.raises(
        sound_files.SoundFileError, match=r"holds samples of 3e\+38, where full scale"
    ):
        seconds_of(tmp_path / "a.wav", content)


def test_a_codec_without_a_decoder_is_named(tmp_path):
    content = by_pyav("mp4", "aac", tone(1, 44_100))
    content[(at := content.index(b"mp4a")) : at + 4] = b"apac"
    content[(at := content.index(b"esds")) : at + 4] = b"free"
    with pytest.raises(sound_files.SoundFileError, match="a codec that FFmpeg cannot decode"):
        seconds_of(tmp_path / "a.m4a", content)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{sound}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {sound}\n",
        "\ufeff#EXTM3U\n{sound}\n",
    ],
)
@pytest.mark.parametrize("name", ["list.wav", "list.m4a"])
def test_a_playlist_opens_no_other_file(tmp_path, text, name):
    (tmp_path / "secret.wav").write_bytes(bytes(wav(3)))
    (tmp_path / name).write_text(text.format(sound=tmp_path / "secret.wav"))
    with pytest.raises(sound_files.SoundFileError, match="is a playlist, not a sound"):
        sound_files.read(tmp_path / name, sample_rate_hz=RATE_HZ)
    assert sound_files.duration_seconds(tmp_path / name) == 0


def test_ffmpeg_may_choose_none_but_the_formats_that_hold_sound(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "list.txt"
    # Behind a comment, so that this module does not know it for what it is.
    path.write_text("# \nffconcat version 1.0\nfile a.wav\n")
    with pytest.raises(sound_files.SoundFileError, match="not sound that is read here"):
        sound_files.read(path, sample_rate_hz=RATE_HZ)
    known = {name for format_name in av.formats_available for name in format_name.split(",")}
    assert set(decoding._DEMUXERS.split(",")) <= known
    assert not {"hls", "concat", "dash", "sdp", "image2"} & set(decoding._DEMUXERS.split(","))


@pytest.mark.parametrize("name", ["pipe.wav", "device.wav", "folder.wav"])
def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path, name):
    path = tmp_path / name
    if name.startswith("pipe"):
        os.mkfifo(path)
    elif name.startswith("device"):
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    assert sound_files.duration_seconds(path) == 0
    with pytest.raises(sound_files.SoundFileError, match=f"is a {name[:-4]}, not a file"):
        sound_files.read(path, sample_rate_hz=RATE_HZ)


def test_a_view_is_the_file_with_its_patches(tmp_path, rng):
    content = bytearray(rng.bytes(1000))
    (tmp_path / "a").write_bytes(content)
    part = sound_parts.Part(100, 900, before=b"before", patches=((3, b"1234567"), (500, b"xyz")))
    expected = bytearray(b"before" + content[100:900])
    expected[3:10], expected[500:503] = b"1234567", b"xyz"
    with (tmp_path / "a").open("rb") as file:
        view = sound_parts.View(file.fileno(), part)
        assert view.read() == expected
        for _ in range(50):
            start, count = rng.integers(0, 850), int(rng.integers(0, 300))
            view.seek(int(start))
            assert view.read(count) == expected[start : start + count]
        assert view.seek(0, os.SEEK_END) == len(expected) and view.read(9) == b""


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "aiff", "au"])
def test_damaged_files_end_in_no_error_but_ours(tmp_path, rng, extension):
    noise = rng.uniform(-0.5, 0.5, 8000).astype(np.float32)
    content = encoded(noise, format=extension)
    for index in range(25):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 6)):
            reach = min(200, len(damaged)) if index % 2 else len(damaged)
            damaged[rng.integers(reach)] = rng.integers(256)
        damaged = (damaged[: rng.integers(1, len(damaged))], damaged, damaged + rng.bytes(99))[
            index % 3
        ]
        try:
            assert seconds_of(tmp_path / f"a.{extension}", damaged) < 3600
        except sound_files.SoundFileError as error:
            assert "\n" not in str(error)
