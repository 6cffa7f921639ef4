"""A folder of sound files as recorders, messengers, `cat` and people make them, good and bad.

Every good one is whole and holds a tone of `SECONDS`. Made at each call, out of nothing but tones.
"""

import io
import os
import socket
import struct

import av
import numpy as np
from tones import RATE_HZ, encoded, tone

SECONDS = 1.0


def by_pyav(samples, rate_hz, kind, codec):
    target = io.BytesIO()
    with av.open(target, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate_hz, 0
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return bytearray(target.getvalue())


def wav(samples, subtype="PCM_16"):
    return encoded(samples, format="WAV", subtype=subtype)


def wav_that_says(size):
    content = wav(tone(SECONDS))
    at = content.index(b"data") + 4
    (true,) = struct.unpack_from("<I", content, at)
    struct.pack_into("<I", content, at, size(true))
    return content


def flac_of_unknown_length():
    content = encoded(tone(SECONDS), format="FLAC")
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    return content


def with_rate(content, rate_hz):
    struct.pack_into("<II", content, 24, rate_hz, 2 * rate_hz)
    return content


def without_decoder(m4a):
    """Renames the codec of the only sound to one that FFmpeg has no decoder for."""
    for name, other in ((b"mp4a", b"apac"), (b"esds", b"free")):
        at = m4a.index(name)
        m4a[at : at + 4] = other
    return m4a


def good():
    """Returns the content of good files by name."""
    half = SECONDS / 2
    m4a = by_pyav(tone(SECONDS, 44_100), 44_100, "mp4", "aac")
    mp3 = encoded(tone(SECONDS, 44_100), 44_100, format="MP3")
    plain, flac = wav(tone(SECONDS)), encoded(tone(SECONDS), format="FLAC")
    opus = {"rate_hz": 48_000, "format": "OGG", "subtype": "OPUS"}
    return {
        "plain.wav": plain,
        "plain.flac": flac,
        "plain.ogg": encoded(tone(SECONDS), format="OGG", subtype="VORBIS"),
        "plain.mp3": mp3,
        "plain.aiff": encoded(tone(SECONDS), format="AIFF"),
        "plain.snd": encoded(tone(SECONDS), format="AU"),
        "ending.wave": plain,
        "float.wav": wav(tone(SECONDS), "FLOAT"),
        "stereo.wav": wav(np.stack([tone(SECONDS), tone(SECONDS)], axis=1)),
        "never_finished.wav": wav_that_says(lambda true: 0),
        "one_too_large.wav": wav_that_says(lambda true: true + 1),
        "placeholder.wav": wav_that_says(lambda true: 2_000_000_000),
        "unknown_length.flac": flac_of_unknown_length(),
        "two_parts.opus": b"".join(encoded(tone(half, 48_000, hz), **opus) for hz in (440, 660)),
        "joined.wav": wav(tone(half)) + wav(tone(half)),
        "called.mp3": m4a,
        "ringtone.m4r": m4a,
        "Op.1: Allegro.m4a": m4a,
        "Suite No. 1, BWV 1007.wav": plain,
        "bell\a and\nline.wav": plain,
        os.fsdecode(b"caf\xe9.flac"): flac,
        "音" * 40 + ".wav": plain,
    }


def bad():
    """Returns the content of bad files by name."""
    m4a = by_pyav(tone(SECONDS, 44_100), 44_100, "mp4", "aac")
    cancelling = np.stack([tone(SECONDS), -tone(SECONDS)], axis=1)
    return {
        "empty.wav": b"",
        "text.wav": b"not a sound " * 100,
        "text.flac": b"a line of text\n",
        "zeros.mp3": bytes(20_000),
        "playlist.mp3": b"#EXTM3U\n/etc/hostname\n",
        "cut_off.wav": wav(tone(SECONDS))[:-1001],
        "not_finite.wav": wav(np.full(RATE_HZ, np.nan, np.float32), "FLOAT"),
        "scale_of_16_bits.wav": wav(tone(SECONDS) * 32_767, "FLOAT"),
        "cancelling.wav": wav(cancelling),
        "one_hertz.wav": with_rate(wav(tone(SECONDS)), 1),
        "spatial.m4a": without_decoder(m4a),
    }


PASSED_OVER = ("pipe.wav", "dead.wav", "socket.wav", "device.wav")


def write(folder):
    """Writes all of them, and what is no file or no sound."""
    folder.mkdir(parents=True)
    for name, content in (good() | bad()).items():
        (folder / name).write_bytes(bytes(content))
    # A file that opens, and whose content cannot be read.
    (folder / "unreadable.wav").symlink_to("/proc/self/mem")
    os.mkfifo(folder / "pipe.wav")
    (folder / "dead.wav").symlink_to(folder / "missing.wav")
    (folder / "device.wav").symlink_to("/dev/zero")
    here = os.getcwd()
    os.chdir(folder)  # Names of sockets are short.
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.wav")
    finally:
        os.chdir(here)
    (folder / "folder.wav").mkdir()
    (folder / "again").symlink_to(folder)
    (folder / "notes.txt").write_text("no sound")


def write_closed(folder):
    """Makes folders that are not to be entered, a sound in each; returns their names."""
    modes = {"locked": 0o000, "listed": 0o444}
    for name, mode in modes.items():
        (folder / name).mkdir()
        (folder / name / "inside.wav").write_bytes(bytes(wav(tone(SECONDS))))
        (folder / name).chmod(mode)
    return list(modes)
