"""Waveforms that decoders follow, made of latents by guides (`umt_jax.model.guide`) with NumPy.

They come window by window, a little behind the latents: a guide sees latent frames on either side,
and phases are estimated for some frames together.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from umt_jax.audio import mu_law, spectrogram
from umt_jax.config import ModelConfig
from umt_jax.core import packing
from umt_jax.generation import validation
from umt_jax.generation.segments import Window
from umt_jax.model.array_shapes import GUIDE_DILATIONS, GUIDE_TAPS, guide_padding
from umt_jax.shapes import Array, Float, UInt8


class GuidedWindow(NamedTuple):
    """A window, and what its decoders are to follow.

    Attributes:
        latents: Latents, [F, Z].
        num_samples: How many samples they stand for.
        guide: Waveforms of K guides, [K, F * pool_samples]; None where there are none.
    """

    latents: Float[Array, "_ Z"]
    num_samples: int
    guide: Float[np.ndarray, "K _"] | None = None


class Guides:
    """K domains' guides."""

    def __init__(
        self, config: ModelConfig, decoders: packing.Arrays, indices: Sequence[int]
    ) -> None:
        """Takes those of some decoders.

        Args:
            config: Sizes.
            decoders: Nested arrays with a leading axis, `guide` among them.
            indices: Which K of them.
        """
        self._config = config
        self._guides = [
            {
                name: {part: np.asarray(array[index]) for part, array in layer.items()}
                for name, layer in decoders["guide"].items()
            }
            for index in indices
        ]
        self._frames = config.pool_samples // config.guide_hop_samples  # Of a latent frame.

    @property
    def reach_frames(self) -> tuple[int, int]:
        """Latent frames before and behind one that decide what is predicted for it."""
        first, dilated, last = GUIDE_TAPS
        layers = [(first, 1), *((dilated, dilation) for dilation in GUIDE_DILATIONS), (last, 1)]
        before, behind = zip(*(guide_padding(*layer) for layer in layers), strict=True)
        return sum(before), sum(behind)

    @property
    def ahead_frames(self) -> int:
        """Latent frames that must be known behind a window before it can be followed."""
        return self.reach_frames[1] - (-self._waveforms().ahead_frames // self._frames)

    def follow(self, windows: Iterable[Window]) -> Iterator[GuidedWindow]:
        """Yields a recording's windows with their guides.

        What `windows` raises is raised after those that came before it.
        """
        waveforms, ahead = self._waveforms(), self.ahead_frames
        reach, _ = self.reach_frames
        waiting: collections.deque[Window] = collections.deque()
        latents = np.zeros((0, self._config.latent_channels), np.float32)
        before = 0  # Frames of `latents` that have been followed already.
        error = None

        def next_window():
            nonlocal latents, before
            window, num_samples = waiting.popleft()
            magnitudes = self._magnitudes(latents, before, len(window), waveforms.ahead_frames)
            guide = np.clip(waveforms.extend(magnitudes), -1, 1)
            passed = max(0, before + len(window) - reach)
            latents, before = latents[passed:], before + len(window) - passed
            return GuidedWindow(window, num_samples, guide)

        try:
            for window in windows:
                waiting.append(window)
                latents = np.concatenate([latents, np.asarray(window[0])])
                while waiting and len(latents) >= before + len(waiting[0][0]) + ahead:
                    yield next_window()
        except (ValueError, OSError) as raised:
            error = raised
        while waiting:
            yield next_window()
        if error:
            raise error

    def log_magnitudes(self, latents: Float[np.ndarray, "F Z"]) -> Float[np.ndarray, "K N M"]:
        """Returns what each guide predicts for a whole recording; see `guide.Guide`."""
        return np.stack([self._predict(parameters, latents) for parameters in self._guides])

    def _waveforms(self):
        return spectrogram.Waveforms(
            len(self._guides),
            window_samples=self._config.guide_fft_samples,
            hop_samples=self._config.guide_hop_samples,
        )

    def _magnitudes(self, latents, before, count, ahead_frames):
        """Returns log-magnitudes of `count` latent frames behind the first `before`, and of more.

        Behind the end of the latents there is silence.
        """
        found = self.log_magnitudes(latents)[:, before * self._frames :]
        wanted = count * self._frames + ahead_frames
        missing = max(0, wanted - found.shape[1])
        silence = spectrogram.SILENCE
        return np.pad(found, [(0, 0), (0, missing), (0, 0)], constant_values=silence)[:, :wanted]

    def _predict(self, parameters, latents):
        x = _convolved(latents, parameters["first"])
        for index, dilation in enumerate(GUIDE_DILATIONS):
            h = _convolved(_active(x), parameters[f"dilated_{index:02d}"], dilation)
            mix = parameters[f"mix_{index:02d}"]
            x = x + np.maximum(h, 0) @ mix["kernel"] + mix["bias"]
        y = _convolved(_active(x), parameters["magnitudes"])
        return y.reshape(len(latents) * self._frames, -1)


class Alone:
    """B streams of the guides of K domains, with no decoder behind them; see `scheduler.Generator`.

    Attributes:
        config: Sizes.
        num_domains: K.
        num_streams: B.
    """

    def __init__(self, config: ModelConfig, num_domains: int, num_streams: int) -> None:
        """Takes what the attributes are."""
        self.config, self.num_domains, self.num_streams = config, num_domains, num_streams

    def begin(self, stream: int, seed: int, *, first_sample: int = 0) -> None:
        """Makes a stream new, which has neither a past nor random numbers.

        Raises:
            ValueError: The seed has more than 32 bits, as no other generator takes it.
        """
        validation.check_seed(seed)

    def advance(
        self, latents: Float[np.ndarray, "B F Z"], guide: Float[np.ndarray, "K B _"] | None = None
    ) -> Iterator[Float[np.ndarray, "K B _"]]:
        """Yields the guides' waveforms."""
        assert guide is not None, "There is nobody else to play."
        yield guide


def log_likelihoods(codes: UInt8[Array, "*B"], strength: float) -> Float[np.ndarray, "*B Q"]:
    """Returns what is added to logits so that codes are followed; see `SamplingConfig`."""
    codes = np.asarray(codes, np.float32)[..., np.newaxis]
    distances = np.arange(mu_law.NUM_LEVELS, dtype=np.float32) - codes
    return -0.5 * (np.float32(strength) * distances) ** 2


def _convolved(x, layer, dilation=1):
    """Returns a convolution along time, with zeros on either side, [F, C] -> [F, D]."""
    kernel, length = layer["kernel"], len(x)
    padded = np.pad(x, [guide_padding(len(kernel), dilation), (0, 0)])
    taps = (padded[tap * dilation :][:length] @ kernel[tap] for tap in range(len(kernel)))
    return sum(taps, layer["bias"])


def _active(x):
    """See `guide`."""
    mean = x.mean(axis=-1, keepdims=True)
    variance = np.maximum(np.square(x).mean(axis=-1, keepdims=True) - mean**2, 0)
    return np.maximum((x - mean) / np.sqrt(variance + 1e-6), 0)
