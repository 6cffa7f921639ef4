"""Raw signed 16-bit little-endian mono samples through pipes, as they come."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import logging

from umt_jax.audio import sound_parts
from umt_jax.processes import leftovers
from umt_jax.shapes import Float, Int16, Waveform

_SAMPLE = np.dtype("<i2")
_FULL_SCALE = 2**15
_READ_BYTES = 65_536
_HEADER_BYTES = 12


def quantise(waveform: Waveform) -> Int16[np.ndarray, "*B T"]:
    """Rounds amplitudes to the nearest 16-bit samples, [*B, T]; those outside [-1, 1] are clipped.

    Full scale is 32768, as in sound files. Every output of this project is rounded here.
    """
    scaled = np.rint(np.asarray(waveform, np.float32) * np.float32(_FULL_SCALE))
    return scaled.clip(-_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


class Reader:
    """Reads samples from a file descriptor.

    Attributes:
        waited_seconds: How long it has waited for samples.
    """

    def __init__(self, descriptor: int, *, sample_rate_hz: int) -> None:
        """Takes what to read from; reads nothing yet."""
        self.waited_seconds = 0.0
        self._descriptor, self._sample_rate_hz = descriptor, sample_rate_hz
        self._begun = b""

    def is_sound_file(self) -> bool:
        """Waits for the first bytes; returns whether they are those of a file with a header."""
        while len(self._begun) < _HEADER_BYTES and (arrived := self._receive()):
            self._begun += arrived
        return sound_parts.is_sound_file(self._begun)

    @contextlib.contextmanager
    def as_file(self) -> Iterator[Path]:
        """Gives a file of all that comes until the pipe is closed; it goes at the end."""
        with leftovers.temporary_folder() as folder:
            path = Path(folder, "input")
            with path.open("wb") as file:
                while arrived := self._read():
                    file.write(arrived)
            yield path

    def decode(self) -> Iterator[tuple[int, Waveform]]:
        """Yields the sample rate and whatever has arrived, float32, [T], T above 0.

        Raises:
            ValueError: Nothing has come when the pipe is closed.
        """
        rest = b""
        num_samples = 0
        while arrived := self._read():
            data = rest + arrived
            count = len(data) // _SAMPLE.itemsize
            rest = data[count * _SAMPLE.itemsize :]
            if count:
                num_samples += count
                samples = np.frombuffer(data, _SAMPLE, count)
                yield self._sample_rate_hz, samples.astype(np.float32) / _FULL_SCALE
        if rest:
            logging.warning("The input ends within a sample, which is left out.")
        if not num_samples:
            raise ValueError("--input=- brought no samples.")

    def _read(self) -> bytes:
        begun, self._begun = self._begun, b""
        return begun or self._receive()

    def _receive(self) -> bytes:
        started = time.monotonic()
        arrived = os.read(self._descriptor, _READ_BYTES)
        self.waited_seconds += time.monotonic() - started
        return arrived


class Writer:
    """Writes a waveform to a file descriptor, each piece at once. Use as a context manager."""

    def __init__(self, descriptor: int) -> None:
        """Takes what to write to."""
        self._descriptor = descriptor

    def __enter__(self) -> "Writer":
        """Returns itself."""
        return self

    def write(self, waveform: Float[np.ndarray, "T"]) -> None:
        """Writes samples [T]; those outside [-1, 1] are clipped.

        Raises:
            BrokenPipeError: Whoever was reading has closed the pipe.
        """
        data = memoryview(quantise(waveform).astype(_SAMPLE).tobytes())
        while data:
            data = data[os.write(self._descriptor, data) :]

    def __exit__(self, *error: object) -> None:
        """Does nothing: there is no file to complete."""


def take_standard_output() -> int:
    """Returns a descriptor for standard output, to which nothing else can write any more.

    Whatever else is printed goes to standard error.
    """
    descriptor = os.dup(1)
    os.dup2(2, 1)
    return descriptor
