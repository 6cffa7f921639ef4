"""Raw signed 16-bit little-endian mono samples through pipes, as they come."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import logging

from umt_jax.audio import sound_parts
from umt_jax.shapes import Float, Waveform

_SAMPLE = np.dtype("<i2")
_READ_BYTES = 65_536
_HEADER_BYTES = 12


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
        with tempfile.TemporaryDirectory(prefix="umt_jax_") as folder:
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
                yield self._sample_rate_hz, samples.astype(np.float32) / 32_768
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
        # As libsndfile makes 16 bits of what it writes to a file: the upper half of 32.
        wide = np.rint(np.asarray(waveform, np.float64) * 2**31).clip(-(2**31), 2**31 - 1)
        samples = (wide // 2**16).astype(_SAMPLE)
        data = memoryview(samples.tobytes())
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
