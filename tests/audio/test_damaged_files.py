"""Thousands of damaged sound files: no error but ours, no hang, no growth of memory.

Decoders are other people's: a process of its own reads the files, which may crash or be stopped.
"""

import collections
import functools
import io
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from umt_jax.audio import sound_files

NUM_FILES = 5_000
LIMIT_SECONDS = 60.0
"""For one file, most of which take a hundredth of a second: what takes so long is a hang."""

WARM_UP_FILES = 1_000
MOST_GROWTH_BYTES = 64e6
"""From the end of the warm-up on: a quarter of what the process has."""

BY_SOUNDFILE = {
    "aiff": {"format": "AIFF", "subtype": "PCM_16"},
    "au": {"format": "AU", "subtype": "PCM_16"},
    "caf": {"format": "CAF", "subtype": "PCM_16"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "mp3": {"format": "MP3"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "rf64": {"format": "RF64", "subtype": "PCM_16"},
    "w64": {"format": "W64", "subtype": "PCM_16"},
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "wave": {"format": "WAV", "subtype": "FLOAT"},
}
BY_PYAV = {
    "aac": ("adts", "aac"),
    "ac3": ("ac3", "ac3"),
    "m4a": ("mp4", "aac"),
    "m4r": ("ipod", "alac"),
    "mka": ("matroska", "flac"),
    "mp2": ("mp2", "mp2"),
    "tta": ("tta", "tta"),
    "webm": ("webm", "libopus"),
    "wma": ("asf", "wmav2"),
    "wv": ("wv", "wavpack"),
}


@functools.cache
def whole(extension):
    """Returns a file of a quarter of a second: a tone and noise in two channels."""
    rng = np.random.default_rng(7)
    rate_hz = 48_000 if extension in ("opus", "webm") else 44_100
    t = np.arange(rate_hz // 4) / rate_hz
    tone = 0.4 * np.sin(2 * np.pi * 440 * t) + 0.01 * rng.standard_normal((2, len(t)))
    samples = tone.T.astype(np.float32)
    target = io.BytesIO()
    if extension in BY_SOUNDFILE:
        soundfile.write(target, samples, rate_hz, **BY_SOUNDFILE[extension])
        return target.getvalue()
    import av

    container_format, codec = BY_PYAV[extension]
    with av.open(target, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=rate_hz, layout="stereo", bit_rate=128_000)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T), format="fltp", layout="stereo"
        )
        frame.sample_rate, frame.pts = rate_hz, 0
        resampler = av.AudioResampler(
            format=stream.format.name, layout="stereo", rate=rate_hz, frame_size=stream.frame_size
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return target.getvalue()


def damaged(content, rng):
    """Returns a file with bytes changed, cut off, lengthened, left out, or several of these."""
    content = bytearray(content)
    for kind in rng.choice(["flip", "header", "cut", "lengthen", "splice"], rng.integers(1, 4)):
        if kind in ("flip", "header"):
            reach = min(200, len(content)) if kind == "header" else len(content)
            for _ in range(rng.integers(1, 13)):
                content[rng.integers(reach)] = rng.integers(256)
        elif kind == "cut":
            content = content[: rng.integers(1, len(content) + 1)]
        elif kind == "lengthen":
            count = int(rng.integers(1, 3000))
            content += (rng.bytes(count), bytes(count), content[:count])[rng.integers(3)]
        else:
            first, last = sorted(rng.integers(0, len(content), 2))
            missing, twice = content[:first] + content[last:], content[:last] + content[first:]
            content = (missing if rng.integers(2) else twice) or bytearray(1)
    return bytes(content)


def read_all(connection, extensions, num_files):
    """Reads damaged files, and sends after each what came of it and this process's memory."""
    for index in range(num_files):
        extension = extensions[index % len(extensions)]
        content = damaged(whole(extension), np.random.default_rng([18, index]))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"a.{extension}")
            path.write_bytes(content)
            try:
                num_samples = sum(map(len, sound_files.read_blocks(path, sample_rate_hz=16_000)))
                sound_files.duration_seconds(path)
                result = "read" if num_samples < 16_000 * 3600 else f"{num_samples} samples"
            except sound_files.SoundFileError as error:
                result = "refused" if "\n" not in str(error) else repr(error)
            except Exception as error:  # Whatever it is, it is what this test looks for.
                result = repr(error)
        memory_bytes = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
        connection.send((extension, result, memory_bytes))
    connection.close()


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_of_thousands_of_damaged_files_each_is_read_or_refused_in_time_and_memory():
    pytest.importorskip("av")
    extensions = [*BY_SOUNDFILE, *BY_PYAV]
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    reader = context.Process(target=read_all, args=(sending, extensions, NUM_FILES), daemon=True)
    reader.start()
    sending.close()
    counts, memory, slowest = collections.Counter(), [], 0.0
    try:
        for index in range(NUM_FILES):
            started = time.monotonic()
            assert receiving.poll(LIMIT_SECONDS), f"file {index} hangs"
            try:
                extension, result, memory_bytes = receiving.recv()
            except EOFError:
                pytest.fail(f"file {index} ends the process")
            slowest = max(slowest, time.monotonic() - started)
            counts[
                result if result in ("read", "refused") else f"{index} {extension} {result}"
            ] += 1
            memory.append(memory_bytes)
    finally:
        reader.kill()
        reader.join()
    growth = max(memory[WARM_UP_FILES:]) - memory[WARM_UP_FILES]
    print(json.dumps(counts), f"slowest {slowest:.2f} s, {memory[-1] / 1e6:.0f} MB, {growth=}")
    assert set(counts) == {"read", "refused"}
    assert growth < MOST_GROWTH_BYTES
