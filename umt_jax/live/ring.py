"""Samples on their way from one thread to another."""

import numpy as np

from umt_jax.shapes import Float


class Ring:
    """A ring buffer for one thread that writes and one that reads; neither waits for the other.

    Each counts what it has done in a number of its own, which it changes after the samples.
    """

    def __init__(self, capacity: int) -> None:
        """Takes how many samples it holds at most."""
        self._samples = np.zeros(capacity, np.float32)
        self._written = self._read = 0

    @property
    def available(self) -> int:
        """How many samples can be read."""
        return self._written - self._read

    def write(self, waveform: Float[np.ndarray, "_"]) -> int:
        """Takes samples; returns how many: fewer where it is full."""
        count = min(waveform.size, self._samples.size - self.available)
        start = self._written % self._samples.size
        first = min(count, self._samples.size - start)
        self._samples[start : start + first] = waveform[:first]
        self._samples[: count - first] = waveform[first:count]
        self._written += count
        return count

    def read(self, count: int) -> Float[np.ndarray, "_"]:
        """Removes and returns up to `count` samples."""
        count = min(count, self.available)
        start = self._read % self._samples.size
        waveform = np.concatenate(
            [
                self._samples[start : start + count],
                self._samples[: max(0, start + count - self._samples.size)],
            ]
        )
        self._read += count
        return waveform
