"""Log-magnitude spectrograms, and waveforms of them bit by bit, whose phases are estimated.

Frame n of a spectrogram is centred at sample n * hop, under a Hann window; outside a recording
there is silence.
"""

import numpy as np

from umt_jax.shapes import Float

_QUIETEST = 1e-3
"""What is added to magnitudes before their logarithm is taken."""

SILENCE = float(np.log(_QUIETEST))
"""Log-magnitude of nothing."""

_ITERATIONS = 8
_MOMENTUM = 0.99
"""Of the fast Griffin-Lim algorithm (Perraudin et al., 2013), as librosa has it."""

_GOLDEN_RATIO = 0.6180339887498949


def log_magnitudes(
    waveform: Float[np.ndarray, "*B T"], *, window_samples: int, hop_samples: int
) -> Float[np.ndarray, "*B N M"]:
    """Returns natural logarithms of magnitudes, N = ceil(T / hop) frames of M bins, float32."""
    half = window_samples // 2
    padded = np.pad(waveform, [(0, 0)] * (waveform.ndim - 1) + [(half, half)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, window_samples, axis=-1)
    frames = windows[..., : waveform.shape[-1] : hop_samples, :] * _hann(window_samples)
    return np.log(np.abs(np.fft.rfft(frames)) + _QUIETEST).astype(np.float32)


class Waveforms:
    """K waveforms on their way out of their spectrograms, each with phases of its own.

    Phases of a stretch of frames are improved together until the stretch agrees with its own
    spectrogram (Griffin and Lim, 1984), those before it staying as they are. Some frames behind it
    are improved too and then forgotten, so that its end is not an end.

    Attributes:
        ahead_frames: Frames that must be known behind those whose sound is asked for.
    """

    _SETTLING_FRAMES = 3  # Improved with a stretch, and then again with the next.

    def __init__(self, num_waveforms: int, *, window_samples: int, hop_samples: int) -> None:
        """Starts before the first frame."""
        self._size, self._hop = window_samples, hop_samples
        # So many frames on either side of a sample's own have it under their windows.
        self._reach = -(-window_samples // (2 * hop_samples))
        self.ahead_frames = self._reach + self._SETTLING_FRAMES
        self._window = _hann(window_samples)
        # Spectra of the last frames whose phases stay: those under whose windows sound to come is.
        self._settled = np.zeros((num_waveforms, 0, window_samples // 2 + 1), np.complex64)

    def extend(self, magnitudes: Float[np.ndarray, "K N M"]) -> Float[np.ndarray, "K T"]:
        """Returns the next (N - `ahead_frames`) * hop samples.

        Args:
            magnitudes: Log-magnitudes of the frames centred in those samples, and of
                `ahead_frames` behind them, with which the next call begins.
        """
        num_frames = magnitudes.shape[1] - self.ahead_frames
        # What the call before settled: as many frames of these, and others before them.
        again = min(self._reach, self._settled.shape[1])
        before = self._settled.shape[1] - again
        new = np.maximum(np.exp(magnitudes[:, again:]) - np.float32(_QUIETEST), 0)
        improved = self._improved(self._settled, new)[:, : new.shape[1] - self._SETTLING_FRAMES]
        settled = np.concatenate([self._settled, improved], axis=1)
        self._settled = settled[:, -2 * self._reach :]
        start = before * self._hop
        return self._overlapped(settled)[:, start : start + num_frames * self._hop]

    def _improved(self, settled, magnitudes):
        """Returns spectra of these magnitudes whose phases agree with each other and `settled`."""
        spectra = magnitudes * self._led_phases(settled, magnitudes)
        count, before = settled.shape[1], np.complex64(0)
        for _ in range(_ITERATIONS):
            waveform = self._overlapped(np.concatenate([settled, spectra], axis=1))
            rebuilt = self._spectra(waveform, count, magnitudes.shape[1])
            moved = rebuilt - np.float32(_MOMENTUM / (1 + _MOMENTUM)) * before
            before = rebuilt
            spectra = magnitudes * moved / (np.abs(moved) + np.float32(1e-16))
        return spectra

    def _led_phases(self, settled, magnitudes):
        """Returns phases, as complex numbers, to which those of the frame before lead.

        Each peak of a frame is a tone, whose frequency a parabola through its neighbours tells, and
        the bins nearest to it are its own (Beauregard et al., 2015).
        """
        num_waveforms, num_frames, num_bins = magnitudes.shape
        logs = np.log(magnitudes + np.float32(_QUIETEST))
        left, middle, right = logs[..., :-2], logs[..., 1:-1], logs[..., 2:]
        is_peak = np.pad((middle > left) & (middle >= right), [(0, 0), (0, 0), (1, 1)])
        curvature = np.minimum(left - 2 * middle + right, -1e-6)
        offsets = np.pad(0.5 * (left - right) / curvature, [(0, 0), (0, 0), (1, 1)])
        bins = np.arange(num_bins)
        below = np.maximum.accumulate(np.where(is_peak, bins, -num_bins), axis=-1)
        above = np.where(is_peak, bins, 2 * num_bins)
        above = np.minimum.accumulate(above[..., ::-1], axis=-1)[..., ::-1]
        nearest = np.where(bins - below <= above - bins, below, above)
        nearest = np.where((nearest < 0) | (nearest >= num_bins), bins, nearest)
        frequencies = nearest + np.take_along_axis(offsets, nearest, axis=-1)
        advances = 2 * np.pi * self._hop / self._size * frequencies
        # The window of a frame begins half its length before the frame's centre.
        signs = np.where((bins - nearest) % 2, np.pi, 0)
        if settled.shape[1]:
            phases = np.angle(settled[:, -1])
        else:
            # Quadratic in the frequency: no two bins agree on a moment at which all is loud.
            first = 2 * np.pi * (bins**2 * _GOLDEN_RATIO % 1)
            phases = np.broadcast_to(first, (num_waveforms, num_bins))
        led = np.empty(magnitudes.shape, np.complex64)
        for frame in range(num_frames):
            own = np.take_along_axis(phases, nearest[:, frame], axis=-1)
            phases = own + advances[:, frame] + signs[:, frame]
            led[:, frame] = np.exp(1j * phases)
        return led

    def _overlapped(self, spectra):
        """Returns the sum of frames, divided by that of their windows; from the first's centre."""
        frames = np.fft.irfft(spectra, self._size) * self._window
        num_waveforms, num_frames, size = frames.shape
        length = (num_frames - 1) * self._hop + size
        sums = np.zeros((num_waveforms, length), np.float32)
        weights = np.full(length, np.finfo(np.float32).tiny)
        for index in range(num_frames):
            start = index * self._hop
            sums[:, start : start + size] += frames[:, index]
            weights[start : start + size] += self._window**2
        return (sums / weights)[:, size // 2 :]

    def _spectra(self, waveform, first, count):
        """Returns spectra of `count` frames from the one numbered `first` on."""
        half = self._size // 2
        padded = np.pad(waveform, [(0, 0), (half, half)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, self._size, axis=-1)
        frames = windows[:, first * self._hop :: self._hop][:, :count]
        return np.fft.rfft(frames * self._window)


def _hann(size):
    """Returns the periodic Hann window, float32."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
