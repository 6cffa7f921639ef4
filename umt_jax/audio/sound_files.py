"""Reads, resamples and writes sound files, a block at a time (NumPy, host only).

Whatever the length of a file, one block of it is in memory.
"""

import collections
import contextlib
import dataclasses
import errno
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile
import soxr

from umt_jax import storage
from umt_jax.audio import decoding, pcm
from umt_jax.audio.decoding import SoundFileError
from umt_jax.processes import leftovers
from umt_jax.shapes import Float, Waveform

_WRITTEN_SUBTYPES = {
    "WAV": "PCM_16",
    "FLAC": "PCM_16",
    "OGG": "VORBIS",
    "MP3": "MPEG_LAYER_III",
}
_LOSSY = ("OGG", "MP3")

WRITTEN_FORMATS = tuple(name.lower() for name in _WRITTEN_SUBTYPES)
"""Extensions of the sound files that are written, without the dot."""

# Those that there are in MPEG 1, 2 and 2.5.
_MP3_RATES_HZ = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)

MAX_PEAK = 8.0
"""Louder than full scale by 18 dB: more than any mix that was left unlimited."""

# Power of the mean of channels that counts as cancelled, relative to theirs: -40 dB.
_CANCELLED = 1e-4

# Mean power of a second below which channels are too soft to be judged: -50 dBFS.
_SILENT_POWER = 1e-5

# libsndfile's Vorbis encoder keeps a whole write on the stack and overflows it on long ones.
_WRITE_SAMPLES = 16_384


def find_sound_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Returns the sound files in a folder and its subfolders, sorted, hidden ones left out.

    A sound file is what has the extension of one; nothing is opened. Links are followed, pipes and
    devices left out: `passed_over` tells of them.

    Raises:
        FileNotFoundError: `folder` is not a folder.
        OSError: It, or a folder in it, cannot be entered.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{os.fspath(folder)} is not a folder.")
    files, closed = storage.files_and_closed_below(folder)
    for closed_folder in closed:
        storage.check_can_be_entered(closed_folder)
    return [Path(path) for path in files if is_sound_file(path.name)]


def is_sound_file(name: str) -> bool:
    """Whether a file's name ends as those of sound files do."""
    known = decoding.SOUNDFILE_EXTENSIONS | decoding.PYAV_EXTENSIONS
    return os.path.splitext(name)[1].lower() in known


def passed_over(folder: str | os.PathLike[str]) -> str:
    """Returns what `find_sound_files` leaves out in a folder, on one line; empty if nothing.

    What is called a sound file and is none is named, the rest is counted by its extension. Folders
    that cannot be entered are not among it.
    """
    counts: collections.Counter[str] = collections.Counter()
    named = []
    for path in storage.entries_below(folder):
        name = os.path.relpath(path, folder) if storage.is_local(path) else path.name
        is_file = not storage.is_local(path) or os.path.isfile(path)
        if not is_file and os.path.isdir(path):
            continue
        if not is_file:
            kind = "a link to nothing" if not os.path.exists(path) else decoding.kind(path)
            named.append(f"{name} ({kind})")
        elif not is_sound_file(path.name):
            counts[os.path.splitext(path.name)[1].lower() or "no extension"] += 1
    parts = sorted(named) + [
        f"{count} with {extension}" for extension, count in sorted(counts.items())
    ]
    if not parts:
        return ""
    total = len(named) + counts.total()
    return f"Passed over in {os.fspath(folder)} ({total}): {', '.join(parts)}."


def read_blocks(
    path: str | os.PathLike[str], *, sample_rate_hz: int, block_seconds: float = 10.0
) -> Iterator[Waveform]:
    """Decodes a sound file to mono at the given rate, a block at a time.

    Args:
        path: A file that soundfile reads, or PyAV where it is installed.
        sample_rate_hz: Rate of the blocks; the file may have any.
        block_seconds: About how much sound is in memory at a time.

    Yields:
        Consecutive blocks, float32, [T], the mean of the file's channels. At least one sample in
        each, and at least one block.

    Raises:
        FileNotFoundError: There is no such file.
        SoundFileError: It is empty, not sound, damaged or cut off, its samples are not finite or
            far beyond full scale, or its channels cancel each other from the beginning on. Raised
            when the reader comes upon it: blocks may have been yielded before.
    """
    path = Path(path)
    num_samples = 0
    for waveform in resample_blocks(_mono(path, block_seconds), to_hz=sample_rate_hz):
        num_samples += waveform.size
        yield waveform
    if num_samples == 0:
        raise SoundFileError(path, "holds no samples")


@dataclasses.dataclass(frozen=True)
class SoundFileBlocks:
    """The blocks of a sound file, as `read_blocks` yields them, from the start at each iteration.

    Attributes:
        path: The file.
        sample_rate_hz: Rate of the blocks.
    """

    path: Path
    sample_rate_hz: int

    def __iter__(self) -> Iterator[Waveform]:
        """Decodes the file."""
        return read_blocks(self.path, sample_rate_hz=self.sample_rate_hz)


def _mono(path: Path, block_seconds: float) -> Iterator[tuple[int, Waveform]]:
    energy, mono_energy = 0.0, 0.0
    for rate_hz, block in decoding.decode(path, block_seconds):
        _check_scale(path, block)
        mono = block.mean(axis=1, dtype=np.float32)
        if block.shape[1] > 1:
            energy += float(np.square(block, dtype=np.float64).sum()) / block.shape[1]
            mono_energy += float(np.square(mono, dtype=np.float64).sum())
            # From the beginning on: a passage later on may be meant so.
            if mono_energy < _CANCELLED * energy and energy > _SILENT_POWER * rate_hz:
                raise SoundFileError(
                    path,
                    "would be silent in mono, since its channels cancel each other: turn one of "
                    "them over, or use one alone (ffmpeg -i IN -af pan='mono|c0=c0' OUT)",
                )
        yield rate_hz, mono


def _check_scale(path: Path, block: np.ndarray) -> None:
    peak = float(np.abs(block).max(initial=0.0))
    if not np.isfinite(peak):
        raise SoundFileError(path, "holds samples that are not finite numbers")
    if peak > MAX_PEAK:
        bits = next((bits for bits in (16, 24, 32) if peak <= 2.0 ** (bits - 1)), None)
        remedy = (
            f"divide them by {2 ** (bits - 1)}, as for {bits}-bit samples "
            f"(ffmpeg -i IN -af volume=1/{2 ** (bits - 1)} OUT)"
            if bits
            else "they are no sound, or on a scale of their own"
        )
        raise SoundFileError(path, f"holds samples of {peak:.4g}, where full scale is 1: {remedy}")


def resample_blocks(
    blocks: Iterable[tuple[int, Waveform]], *, to_hz: int, is_live: bool = False
) -> Iterator[Waveform]:
    """Resamples a waveform that comes in blocks.

    Args:
        blocks: Its rate and the next samples, float32, [any]. A new rate begins a new recording.
        to_hz: Rate of what is returned.
        is_live: Holds back 0.03 s rather than up to 0.18 s, by the filters that soxr has for rates
            that vary. Errors lie 110 dB below the sound rather than 130. Needs soxr 1.1.

    Yields:
        Consecutive blocks, float32, [T], T above 0. How the waveform was cut changes no sample.
    """
    for rate_hz, run in itertools.groupby(blocks, key=lambda block: block[0]):
        waveforms: Iterator[Waveform] = (waveform for _, waveform in run)
        if rate_hz != to_hz:
            waveforms = _resampled(waveforms, rate_hz, to_hz, is_live)
        yield from (waveform for waveform in waveforms if waveform.size)


def _resampled(
    waveforms: Iterable[Waveform], from_hz: int, to_hz: int, is_live: bool
) -> Iterator[Waveform]:
    options = {"vr": True} if is_live else {}
    resampler = soxr.ResampleStream(from_hz, to_hz, num_channels=1, dtype="float32", **options)
    for waveform in waveforms:
        yield resampler.resample_chunk(waveform)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def resampling_delay_seconds(from_hz: int, to_hz: int, *, is_live: bool = False) -> float:
    """Returns by how much at most what `resample_blocks` gives comes behind what it takes.

    Measured over two seconds of silence, in blocks of a millisecond: of soxr it is no fixed number.
    """
    if from_hz == to_hz:
        return 0.0
    block = np.zeros(max(1, from_hz // 1000), np.float32)
    taken = given = 0
    delay = 0.0
    silence = _resampled(itertools.repeat(block), from_hz, to_hz, is_live)
    for resampled in itertools.islice(silence, 2 * from_hz // block.size):
        taken += block.size
        delay = max(delay, taken / from_hz - given / to_hz)
        given += resampled.size
    return delay


def read(path: str | os.PathLike[str], *, sample_rate_hz: int) -> Waveform:
    """Returns the whole of a sound file, as `read_blocks` decodes it, float32, [T]."""
    return np.concatenate(list(read_blocks(path, sample_rate_hz=sample_rate_hz)))


def duration_seconds(path: str | os.PathLike[str]) -> float:
    """Returns how long a sound file says it is; 0 if it does not say, or is none. Decodes nothing.

    For a progress bar: `read_blocks` tells how long it is.
    """
    return decoding.header_seconds(Path(path))


def resample(waveform: Waveform, *, from_hz: int, to_hz: int) -> Float[np.ndarray, "*B U"]:
    """Returns the same sound at another sample rate, float32, [*B, U], U = T * to_hz / from_hz."""
    *batch, num_samples = waveform.shape
    streams = np.asarray(waveform, np.float32).reshape(-1, num_samples)
    if from_hz != to_hz:
        streams = np.stack([soxr.resample(stream, from_hz, to_hz) for stream in streams])
    return streams.reshape(*batch, -1)


def check_format(path: str | os.PathLike[str], sample_rate_hz: int) -> None:
    """Raises `ValueError` if sound of this rate cannot be written to a file of this name."""
    extension = Path(path).suffix[1:].lower()
    if extension not in WRITTEN_FORMATS:
        known = ", ".join(f".{name}" for name in WRITTEN_FORMATS)
        raise ValueError(
            f"{os.fspath(path)}: sound is written as {known}. End the name in one of these."
        )
    if extension != "mp3":
        return
    if "MP3" not in soundfile.available_formats():
        raise ValueError(
            f"{os.fspath(path)}: this libsndfile ({soundfile.__libsndfile_version__}) writes no "
            "MP3, which 1.1 and later do. Update soundfile, or write another format."
        )
    if sample_rate_hz not in _MP3_RATES_HZ:
        raise ValueError(
            f"{os.fspath(path)}: MP3 has no rate of {sample_rate_hz} Hz, only "
            f"{', '.join(map(str, _MP3_RATES_HZ))}. Write another format."
        )


class SoundFileWriter:
    """Writes a waveform to a sound file, a block at a time; the file appears when it is complete.

    Use as a context manager. The format follows the extension: .wav and .flac hold 16-bit samples,
    .ogg is Vorbis, .mp3 is MPEG layer III of as many samples. Until the end the sound lies beside
    it under a hidden name, which an exception removes; a file that was there before stays until
    then.
    """

    def __init__(self, path: str | os.PathLike[str], *, sample_rate_hz: int) -> None:
        """Checks the name; opens nothing yet.

        Raises:
            ValueError: The extension is not one of those four, or MP3 cannot be written.
        """
        self._path = Path(path)
        check_format(self._path, sample_rate_hz)
        self._format = self._path.suffix[1:].upper()
        self._sample_rate_hz = sample_rate_hz
        self._num_samples = 0

    def __enter__(self) -> "SoundFileWriter":
        """Creates the hidden file, and with it finds out whether the folder can be written."""
        with contextlib.ExitStack() as stack:
            self._incomplete = stack.enter_context(leftovers.hidden_file(self._path))
            self._open()
            self._hidden = stack.pop_all()
        return self

    def _open(self) -> None:
        self._incomplete.touch()
        # By descriptor, since soundfile takes no name that is not UTF-8.
        with self._incomplete.open("w+b", buffering=0) as file:
            self._file = soundfile.SoundFile(
                os.dup(file.fileno()),
                "w",
                samplerate=self._sample_rate_hz,
                channels=1,
                format=self._format,
                subtype=_WRITTEN_SUBTYPES[self._format],
            )

    def write(self, waveform: Waveform) -> None:
        """Appends samples [T]; those outside [-1, 1] are clipped.

        Raises:
            OSError: The disk is full.
            ValueError: A sample is not finite.
        """
        if not np.isfinite(waveform).all():
            raise ValueError(f"{self._path}: the sound to write holds samples that are not finite.")
        # libsndfile would round down for .wav, and to the nearest for .flac.
        samples = (
            np.clip(np.asarray(waveform, np.float32), -1.0, 1.0)
            if self._format in _LOSSY
            else pcm.quantise(waveform)
        )
        try:
            for start in range(0, len(samples), _WRITE_SAMPLES):
                self._file.write(samples[start : start + _WRITE_SAMPLES])
        except soundfile.LibsndfileError as error:
            raise self._not_written(error) from error
        self._num_samples += len(samples)

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Completes the file and gives it its name, or removes it if there was an error."""
        with self._hidden:
            try:
                self._file.close()
                if error_type is None:
                    self._check_written()
                    self._incomplete.replace(self._path)
            except soundfile.LibsndfileError as close_error:
                raise self._not_written(close_error) from close_error

    def _check_written(self) -> None:
        # A full disk is not always an error to libsndfile when it writes its last buffer.
        with self._incomplete.open("rb", buffering=0) as file:
            with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
                num_written = sound.frames
        if num_written != self._num_samples:
            raise self._not_written(f"{num_written} of {self._num_samples} samples arrived")

    def _not_written(self, reason: object) -> OSError:
        if storage.is_full(self._path.parent):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        return OSError(f"{self._path} could not be written ({reason}).")


def write(path: str | os.PathLike[str], waveform: Waveform, *, sample_rate_hz: int) -> None:
    """Writes a waveform [T] to a .wav, .flac, .ogg or .mp3 file, which appears when it is whole."""
    with SoundFileWriter(path, sample_rate_hz=sample_rate_hz) as writer:
        writer.write(waveform)
