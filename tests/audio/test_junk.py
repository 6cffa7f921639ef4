"""What is no sound under the names of sounds: every content under every ending that is read."""

import io
import itertools
import json
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import soundfile
from etils import epath

from data_prep import staging
from umt_jax.audio import decoding, sound_files

EXTENSIONS = sorted(decoding.SOUNDFILE_EXTENSIONS | decoding.PYAV_EXTENSIONS)


def zipped():
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("song.wav", b"RIFF")
    return target.getvalue()


RNG = np.random.default_rng(18)
STARTS = {
    "wav": b"RIFF\x24\0\0\0WAVE",
    "wav_format": b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0",
    "aiff": b"FORM\0\0\0\x2eAIFF",
    "au": b".snd\0\0\0\x18",
    "flac": b"fLaC\0\0\0\x22",
    "ogg": b"OggS\0\2",
    "mp3": b"\xff\xfb\x90\x64",
    "id3": b"ID3\3\0\0\0\0\0\x0a",
    "adts": b"\xff\xf1\x50\x80",
    "ac3": b"\x0b\x77\x12\x34\x00\x40",
    "amr": b"#!AMR\n",
    "mp4": b"\0\0\0\x18ftypM4A ",
    "matroska": b"\x1a\x45\xdf\xa3",
    "caf": b"caff\0\1\0\0",
    "w64": b"riff\x2e\x91\xcf\x11",
    "asf": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
}
CONTENTS = {
    "empty": b"",
    "one_byte": b"\0",
    "zeros": bytes(5000),
    "ones": b"\xff" * 5000,
    "noise": RNG.bytes(5000),
    "text": b"This is not a sound.\n",
    "long_text": b"All work and no play. " * 500,
    "utf16": "not a sound".encode("utf-16"),
    "json": json.dumps({"sound": None}).encode(),
    "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0",
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + RNG.bytes(500),
    "pdf": b"%PDF-1.7\n1 0 obj\n<< >>\nendobj\n",
    "gzip": b"\x1f\x8b\x08\0" + RNG.bytes(100),
    "zip": zipped(),
    "m3u": b"#EXTM3U\nsong.wav\n",
    "pls": b"[playlist]\nFile1=song.wav\n",
    "cue": b'FILE "song.wav" WAVE\n  TRACK 01 AUDIO\n',
    "midi": b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\4\0\xff\x2f\0",
    **STARTS,
    **{f"{name}_and_noise": start + RNG.bytes(3000) for name, start in STARTS.items()},
    **{f"{name}_and_zeros": start + bytes(3000) for name, start in STARTS.items()},
}


@pytest.mark.parametrize("name", CONTENTS)
def test_junk_under_any_ending_is_refused_or_read_without_an_error_but_ours(tmp_path, name):
    for extension in EXTENSIONS:
        path = tmp_path / f"a{extension}"
        path.write_bytes(CONTENTS[name])
        assert 0 <= sound_files.duration_seconds(path) < 1e9
        try:
            blocks = sound_files.read_blocks(path, sample_rate_hz=16_000)
            # Decoders make noise of what looks like theirs, never more than there is.
            assert sum(map(len, itertools.islice(blocks, 100))) < 16_000 * 600
        except sound_files.SoundFileError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
        path.unlink()


def write_pairs(folder, count):
    """Writes so many of the pairs, drawn with a fixed seed, and two sounds; returns all names."""
    pairs = list(itertools.product(CONTENTS, EXTENSIONS))
    drawn = np.random.default_rng(18).permutation(len(pairs))[:count]
    folder.mkdir(parents=True)
    names = {f"{content}{extension}": content for content, extension in (pairs[i] for i in drawn)}
    for name, content in names.items():
        (folder / name).write_bytes(CONTENTS[content])
    rng = np.random.default_rng(0)
    for name in ("good_a.wav", "good_b.wav"):
        soundfile.write(folder / name, 0.1 * rng.normal(size=64_000), 16_000)
    return {*names, "good_a.wav", "good_b.wav"}


def run(*arguments):
    finished = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=600
    )
    assert "Traceback" not in finished.stderr, finished.stderr
    assert finished.returncode == 1
    return finished.stdout, finished.stderr.splitlines()[-1]


@pytest.mark.slow
def test_junk_is_named_once_by_the_commands_and_what_is_good_is_made(tmp_path, trained_dir):
    pytest.importorskip("av")
    folder = tmp_path / "music" / "Piano"
    files = write_pairs(folder, count=600)

    printed, error = run(
        "data_prep.build",
        f"--audio_dir={tmp_path / 'music'}",
        f"--data_dir={tmp_path / 'data'}",
        *("--sample_rate_hz=8000", "--segment_samples=1024", "--num_variants=1"),
        "--num_workers=2",
    )
    (metadata,) = staging.read_metadata(epath.Path(tmp_path / "data")).values()
    used = {track["name"] for track in metadata["tracks"]}
    left_out = {file["name"]: file for file in metadata["left_out"]}
    assert used | left_out.keys() == files and {"good_a.wav", "good_b.wav"} <= used
    for name in left_out:
        assert len(re.findall(rf"^  Piano/{re.escape(name)} ", printed, re.MULTILINE)) == 1, name
    unread = {name for name, file in left_out.items() if not file["could_be_read"]}
    assert len(unread) > 300
    assert error.startswith(f"error: {len(unread)} of {len(files)} files could not be read")

    _, error = run(
        "umt_jax.infer",
        *(f"--checkpoint={trained_dir}", "--engine=scan", f"--input={folder}"),
        *("--domain=Piano", f"--output={tmp_path / 'out'}"),
    )
    written = [path.name for path in (tmp_path / "out").iterdir()]
    assert len(written) == len(files) - len(unread)
    assert error.startswith(f"error: {len(unread)} of {len(files)} inputs could not be translated")
    for name in files:
        assert error.count(f"/{name} ") == (name in unread), name
