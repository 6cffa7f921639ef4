"""One sound file, decoded a block at a time, or the reason why it cannot be.

soundfile (libsndfile) and PyAV both make the best of a file whose end is missing, and say nothing.
Music that stops in the middle is refused here, which takes one check for each kind of file.
"""

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

SOUNDFILE_EXTENSIONS = frozenset(
    ".aif .aifc .aiff .au .caf .flac .mp3 .oga .ogg .opus .rf64 .w64 .wav".split()
)
PYAV_EXTENSIONS = frozenset(
    ".aac .ac3 .alac .amr .ape .m4a .m4b .mka .mkv .mov .mp4 .webm .wma .wv".split()
)

NEEDS_PYAV = 'is read by PyAV, which is not installed: pip install "umt_jax[av]"'
"""Reason of a `SoundFileError` that an installation cures."""

# Decoders add or drop a few frames at either end of a file. Half a second is more than any of them.
_CUT_OFF_SECONDS = 0.5

# Lengths from here on stand for "not known when the header was written".
_UNKNOWN_BYTES = 0x7FFFF000
_UNKNOWN_FRAMES = 2**62

_OGG_PAGE_BYTES = 65_307
_MP3_TAG_BYTES = 65_536


class SoundFileError(ValueError):
    """A sound file that cannot be used, and why, on one line."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        """Keeps both as `args`, so that the error survives the way out of a worker process."""
        super().__init__(os.fspath(path), reason)
        self.path = Path(path)
        self.reason = reason

    def __str__(self) -> str:
        """Returns the line that users see."""
        return f"{self.path} {self.reason}"


def has_pyav() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def decode(path: Path, block_seconds: float) -> Iterator[tuple[int, np.ndarray]]:
    """Yields a file's sample rate and blocks [T, channels], by soundfile, or PyAV if need be.

    Raises:
        FileNotFoundError: There is no such file.
        SoundFileError: The file is empty, not sound, damaged or cut off.
    """
    # Unbuffered, since libsndfile reads from the descriptor and not from Python's buffer.
    with path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise SoundFileError(path, "is empty")
        try:
            sound = soundfile.SoundFile(file.fileno(), closefd=False)
        except soundfile.LibsndfileError as error:
            if not has_pyav():
                reason = f"is not a sound file that soundfile reads ({error.error_string})"
                if path.suffix.lower() in PYAV_EXTENSIONS:
                    reason = NEEDS_PYAV
                raise SoundFileError(path, reason) from error
        else:
            with sound:
                yield from _decode_with_soundfile(path, file.fileno(), sound, block_seconds)
            return
    yield from _decode_with_pyav(path, block_seconds)


def header_seconds(path: Path) -> float:
    """Returns how long a file is by its header; 0 if it has none, or one that does not say."""
    try:
        information = soundfile.info(os.fspath(path))
    except (soundfile.LibsndfileError, OSError):
        return _header_seconds_by_pyav(path) if has_pyav() else 0.0
    return information.duration if information.frames < _UNKNOWN_FRAMES else 0.0


def _header_seconds_by_pyav(path: Path) -> float:
    import av

    try:
        with av.open(os.fspath(path), metadata_errors="ignore") as container:
            return (container.duration or 0) / av.time_base
    except (av.FFmpegError, OSError):
        return 0.0


def _decode_with_soundfile(
    path: Path, descriptor: int, sound: soundfile.SoundFile, block_seconds: float
) -> Iterator[tuple[int, np.ndarray]]:
    if _header_promises_more(sound.extra_info) or (
        sound.format == "OGG" and not _ends_with_last_ogg_page(path)
    ):
        raise SoundFileError(path, "is cut off: its end is missing")
    num_frames = 0
    block_frames = max(1, round(block_seconds * sound.samplerate))
    try:
        while len(block := sound.read(block_frames, dtype="float32", always_2d=True)):
            num_frames += len(block)
            yield sound.samplerate, block
    except soundfile.LibsndfileError as error:
        seconds = num_frames / sound.samplerate
        reason = f"is damaged or cut off within {block_seconds:g} s of {seconds:.1f} s ({error})"
        raise SoundFileError(path, reason) from error
    if sound.frames < _UNKNOWN_FRAMES:
        _check_length(path, sound.frames / sound.samplerate, num_frames / sound.samplerate)
    if sound.format == "MP3":
        _check_mp3_was_read_to_its_end(path, os.lseek(descriptor, 0, os.SEEK_CUR))


def _decode_with_pyav(path: Path, block_seconds: float) -> Iterator[tuple[int, np.ndarray]]:
    import av

    pending: list[np.ndarray] = []
    num_frames = 0
    try:
        # Names of tags may be in any encoding; nobody reads them here.
        with av.open(os.fspath(path), metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise SoundFileError(path, "holds no sound")
            stream = container.streams.audio[0]
            rate_hz = stream.rate
            to_float = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate_hz)
            for decoded in container.decode(stream):
                try:
                    frames = to_float.resample(decoded)
                except ValueError as error:
                    raise SoundFileError(path, f"changes its format ({error})") from error
                pending += [frame.to_ndarray().T for frame in frames]
                num_frames += sum(frame.samples for frame in frames)
                if sum(map(len, pending)) >= block_seconds * rate_hz:
                    yield rate_hz, np.concatenate(pending)
                    pending = []
            promised_seconds = float((stream.duration or 0) * (stream.time_base or 0))
    except av.FFmpegError as error:
        raise SoundFileError(
            path, f"is damaged, cut off or not sound ({error.strerror})"
        ) from error
    if pending:
        yield rate_hz, np.concatenate(pending)
    _check_length(path, promised_seconds, num_frames / rate_hz)


def _check_length(path: Path, promised_seconds: float, decoded_seconds: float) -> None:
    if decoded_seconds < promised_seconds - _CUT_OFF_SECONDS:
        raise SoundFileError(
            path,
            f"is cut off: its header promises {promised_seconds:.1f} s, but "
            f"{decoded_seconds:.1f} s could be decoded",
        )


def _header_promises_more(libsndfile_log: str) -> bool:
    """Whether a header of wav, w64 or aiff gives a longer data chunk than the file has.

    libsndfile corrects the length and says so in its log only. A recorder that cannot go back to
    the header writes the largest length, or zero: that is no promise.
    """
    pattern = r"^\s*(?:data|SSND|riff) : (\d+) \(should be (\d+)\)"
    return any(
        int(actual) < int(promised) < _UNKNOWN_BYTES
        for promised, actual in re.findall(pattern, libsndfile_log, re.MULTILINE)
    )


def _ends_with_last_ogg_page(path: Path) -> bool:
    """Whether an ogg or opus file ends with a whole page that is marked as its stream's last.

    libsndfile takes whatever page comes last for the end.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _OGG_PAGE_BYTES))
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    page_bytes = 27 + page[26] + sum(page[27 : 27 + page[26]])
    return len(page) >= page_bytes and bool(page[5] & 4)


def _check_mp3_was_read_to_its_end(path: Path, num_bytes_read: int) -> None:
    # libsndfile guesses the length of an MP3 that does not state it, from the bit rate of its
    # first frame, and stops there. Tags at the end are read over too, and may hold a picture.
    num_bytes = path.stat().st_size
    if num_bytes - num_bytes_read > max(_MP3_TAG_BYTES, 0.1 * num_bytes):
        raise SoundFileError(
            path,
            "is an MP3 of variable bit rate that does not say how long it is, so that its end "
            "would be lost; convert it to flac, for example",
        )
