"""One sound file, decoded a block at a time, or the reason why it cannot be.

soundfile (libsndfile) and PyAV both make the best of a file whose end is missing, and say nothing.
Music that stops in the middle is refused here, by what `sound_parts` finds at the file's end.
"""

import contextlib
import functools
import importlib.util
import io
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from umt_jax import storage
from umt_jax.audio import sound_parts

SOUNDFILE_EXTENSIONS = frozenset(
    (
        ".aif .aifc .aiff .au .caf .flac .mp2 .mp3 .mpga .oga .ogg .opus .rf64 .snd .w64 .wav .wave"
    ).split()
)
PYAV_EXTENSIONS = frozenset(
    (
        ".3g2 .3gp .aac .ac3 .adts .alac .amr .ape .awb .dsf .dts .eac3 .m4a .m4b .m4r .mka .mkv "
        ".mov .mp4 .mpc .spx .tta .weba .webm .wma .wv"
    ).split()
)

_INSTALL = 'pip install "umt_jax[av]"'

NEEDS_PYAV = f"is read by PyAV, which is not installed: {_INSTALL}"
"""Reason of a `SoundFileError` that an installation cures."""

_DEMUXERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,caf,dsf,dts,dtshd,eac3,flac,iff,loas,matroska,mov,mp3,"
    "mp4,mpc,mpc8,ogg,shn,tak,truehd,tta,voc,w64,wav,webm,wv,xwma"
)
"""Formats that hold their sound themselves, as FFmpeg calls them.

It knows others, playlists among them, that make it open what lies elsewhere.
"""

_PLAYLIST_STARTS = tuple(
    b"#extm3u ffconcat [playlist] [reference] <asx <smil <?wpl <?xml <mpd <playlist".split()
) + (b"v=0\n", b"v=0\r")

# The first PyAV that takes tags in any encoding without being told to.
_PYAV_WITHOUT_METADATA_ERRORS = 19

# Decoders of compressed sound add or drop a few frames at either end of a file. Half a second is
# more than any of them.
_CUT_OFF_SECONDS = 0.5
_COMPRESSED = ("OGG", "MP3")

_UNKNOWN_FRAMES = 2**62
_UNKNOWN_BYTES = 0x7FFFF000

# Slower than the slowest telephone, or faster than any converter: a header that is damaged.
_MIN_RATE_HZ = 1000
_MAX_RATE_HZ = 10_000_000

# In a block, whatever rate and channels a header claims: 64 MB. Ten seconds of two channels at
# 192 kHz are a quarter of it.
_MAX_BLOCK_VALUES = 2**24


class SoundFileError(ValueError):
    """A sound file that cannot be used, and why, on one line."""

    def __init__(self, path: str | os.PathLike[str], reason: str, *, needs: str = "") -> None:
        """Takes the file, why it cannot be used, and the package that could, if there is one."""
        super().__init__(os.fspath(path), reason)
        self.needs = needs
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        """Keeps all of it on the way out of a worker process."""
        return functools.partial(SoundFileError, needs=self.needs), self.args

    def __str__(self) -> str:
        """Returns the line that users see."""
        return f"{self.path} {self.reason}"


def has_pyav() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def is_cured(needs: str, reason: str) -> bool:
    """Whether what a `SoundFileError` needed has been installed since.

    Earlier versions kept its reason alone, whose end says what to install.
    """
    return (needs == "av" or reason.endswith(_INSTALL)) and has_pyav()


def decode(path: Path, block_seconds: float) -> Iterator[tuple[int, np.ndarray]]:
    """Yields a file's sample rate and blocks [T, channels], by soundfile, or PyAV if need be.

    Recordings that were joined follow each other, each with its own rate and channels.

    Raises:
        FileNotFoundError: There is no such file.
        SoundFileError: The file is empty, not sound, damaged or cut off.
    """
    with _opened(path) as file:
        try:
            parts = sound_parts.find(file.fileno())
        except sound_parts.CutOffError as error:
            raise SoundFileError(path, str(error)) from error
        for part in parts:
            yield from _decode_part(path, file.fileno(), part, block_seconds)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.FileIO]:
    """Opens a file that may be a sound: to open a pipe or a device could take forever."""
    if not path.is_file() and path.exists():
        raise SoundFileError(path, _closed(path) or f"is {kind(path)}, not a file")
    # Unbuffered, since libsndfile reads from the descriptor and not from Python's buffer.
    with path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise SoundFileError(path, "is empty")
        if file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PLAYLIST_STARTS):
            raise SoundFileError(path, "is a playlist, not a sound: name the recordings it lists")
        file.seek(0)
        yield file


def _closed(path: Path) -> str:
    """Returns what is wrong with a folder that cannot be entered; nothing of anything else."""
    if path.is_dir():
        try:
            storage.check_can_be_entered(path)
        except OSError as error:
            return f"is a folder that cannot be entered ({error.strerror})"
    return ""


def kind(path: str | os.PathLike[str]) -> str:
    """Returns what a path is that is no file, in words."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def header_seconds(path: Path) -> float:
    """Returns how long a file is by its header; 0 if it has none, or one that does not say."""
    try:
        with _opened(path) as file:
            try:
                sound = soundfile.SoundFile(file.fileno(), closefd=False)
            except soundfile.LibsndfileError:
                whole = sound_parts.Part(0, os.fstat(file.fileno()).st_size)
                view = sound_parts.View(file.fileno(), whole)
                return _header_seconds_by_pyav(view) if has_pyav() else 0.0
            with sound:
                is_known = sound.frames < _UNKNOWN_FRAMES and sound.samplerate >= _MIN_RATE_HZ
                return sound.frames / sound.samplerate if is_known else 0.0
    except (SoundFileError, OSError):
        return 0.0


def _header_seconds_by_pyav(view: sound_parts.View) -> float:
    import av

    try:
        with av.open(view, **_pyav_options()) as container:
            return (container.duration or 0) / av.time_base
    except (av.FFmpegError, OSError):
        return 0.0


def _pyav_options() -> dict[str, Any]:
    """Returns how PyAV opens files: for their own sound alone, whatever their tags are."""
    import av

    options: dict[str, Any] = {
        "mode": "r",
        "options": {"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"},
    }
    if int(av.__version__.split(".")[0]) < _PYAV_WITHOUT_METADATA_ERRORS:
        options["metadata_errors"] = "ignore"
    return options


class _Forwards(soundfile.SoundFile):
    """A sound file that is read from its beginning to its end.

    Otherwise soundfile (0.14) seeks after each block to where it is already. MP3 decoders then
    forget the frames before, on which the next ones build, and play their beginning wrongly where
    the bit rate is low.
    """

    def seekable(self) -> bool:
        """Says that it cannot seek."""
        return False


def _decode_part(
    path: Path, descriptor: int, part: sound_parts.Part, block_seconds: float
) -> Iterator[tuple[int, np.ndarray]]:
    view = sound_parts.View(descriptor, part)
    is_as_it_is = part == sound_parts.Part(0, os.fstat(descriptor).st_size)
    try:
        # libsndfile reads a descriptor faster than an object.
        sound = _Forwards(descriptor if is_as_it_is else view, closefd=False)
    except soundfile.LibsndfileError as error:
        if not has_pyav():
            reason = (
                f"is not a sound file that soundfile reads ({error.error_string}); PyAV reads more "
                f"kinds: {_INSTALL}"
            )
            if path.suffix.lower() in PYAV_EXTENSIONS:
                reason = NEEDS_PYAV
            raise SoundFileError(path, reason, needs="av") from error
    else:
        with sound:
            yield from _decode_with_soundfile(path, sound, block_seconds)
        return
    view.seek(0)
    yield from _decode_with_pyav(path, view, part, block_seconds)


def _check_rate(path: Path, rate_hz: int) -> None:
    if not _MIN_RATE_HZ <= rate_hz <= _MAX_RATE_HZ:
        raise SoundFileError(
            path,
            f"says that it has {rate_hz} samples a second, and music has 8,000 to 768,000: its "
            "header is wrong. Convert it with its true rate",
        )


def _block_frames(block_seconds: float, rate_hz: int, num_channels: int) -> int:
    """Returns how many samples of each channel a block has."""
    return max(1, min(round(block_seconds * rate_hz), _MAX_BLOCK_VALUES // num_channels))


def _decode_with_soundfile(
    path: Path, sound: soundfile.SoundFile, block_seconds: float
) -> Iterator[tuple[int, np.ndarray]]:
    _check_rate(path, sound.samplerate)
    if sound.format == "W64" and _header_promises_more(sound.extra_info):
        raise SoundFileError(path, "is cut off: its end is missing")
    num_frames = 0
    block_frames = _block_frames(block_seconds, sound.samplerate, sound.channels)
    try:
        while len(block := sound.read(block_frames, dtype="float32", always_2d=True)):
            num_frames += len(block)
            yield sound.samplerate, block
    except soundfile.LibsndfileError as error:
        seconds = num_frames / sound.samplerate
        reason = f"is damaged or cut off within {block_seconds:g} s of {seconds:.1f} s ({error})"
        raise SoundFileError(path, reason) from error
    if sound.frames < _UNKNOWN_FRAMES:
        slack = _CUT_OFF_SECONDS if sound.format in _COMPRESSED else 0.0
        _check_length(
            path, sound.frames / sound.samplerate, num_frames / sound.samplerate, slack=slack
        )


def _decode_with_pyav(
    path: Path, view: sound_parts.View, part: sound_parts.Part, block_seconds: float
) -> Iterator[tuple[int, np.ndarray]]:
    import av

    pending: list[np.ndarray] = []
    num_frames, num_pending = 0, 0
    try:
        with av.open(view, **_pyav_options()) as container:
            if not container.streams.audio:
                raise SoundFileError(path, "holds no sound")
            # Of several, the first that can be decoded: spatial sound comes with a plain version.
            decodable = [stream for stream in container.streams.audio if stream.codec_context]
            if not decodable:
                raise SoundFileError(path, "holds sound in a codec that FFmpeg cannot decode")
            stream = decodable[0]
            rate_hz = stream.rate
            _check_rate(path, rate_hz or 0)
            # Channels side by side: of more than seven that lie one behind the other PyAV finds
            # more than there are, in memory that is none of the frame's.
            to_float = av.AudioResampler(format="flt", layout=stream.layout, rate=rate_hz)
            for decoded in container.decode(stream):
                try:
                    frames = to_float.resample(decoded)
                except ValueError as error:
                    raise SoundFileError(path, f"changes its format ({error})") from error
                blocks = [
                    frame.to_ndarray().reshape(-1, frame.layout.nb_channels) for frame in frames
                ]
                num_channels = blocks[0].shape[1] if blocks else 1
                if pending and any(block.shape[1] != pending[0].shape[1] for block in blocks):
                    yield rate_hz, np.concatenate(pending)  # Mono changes to stereo.
                    pending, num_pending = [], 0
                pending += blocks
                num_frames += (num_new := sum(map(len, blocks)))
                num_pending += num_new
                if num_pending >= _block_frames(block_seconds, rate_hz, num_channels):
                    yield rate_hz, np.concatenate(pending)
                    pending, num_pending = [], 0
            promised_seconds = float((stream.duration or 0) * (stream.time_base or 0))
    except av.FFmpegError as error:
        raise SoundFileError(
            path, f"is damaged, cut off or not sound that is read here ({error.strerror})"
        ) from error
    if pending:
        yield rate_hz, np.concatenate(pending)
    if not part.has_guessed_length:
        _check_length(path, promised_seconds, num_frames / rate_hz, slack=_CUT_OFF_SECONDS)


def _check_length(
    path: Path, promised_seconds: float, decoded_seconds: float, *, slack: float
) -> None:
    if decoded_seconds < promised_seconds - slack:
        raise SoundFileError(
            path,
            f"is cut off: its header promises {promised_seconds:.1f} s, but "
            f"{decoded_seconds:.1f} s could be decoded",
        )


def _header_promises_more(libsndfile_log: str) -> bool:
    """Whether the header of a w64 file gives a longer data chunk than the file has.

    libsndfile corrects the length and says so in its log only. A recorder that cannot go back to
    the header writes the largest length, or zero: that is no promise.
    """
    pattern = r"^\s*(?:data|riff) : (\d+) \(should be (\d+)\)"
    return any(
        int(actual) < int(promised) < _UNKNOWN_BYTES
        for promised, actual in re.findall(pattern, libsndfile_log, re.MULTILINE)
    )
