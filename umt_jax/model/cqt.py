"""Constant-Q frames in the latents' place: an encoder of which nothing is trained.

One frame for each `pool_samples` samples, centred in them; one bin for each latent channel. A bin's
wavelet is a Hann window over a complex oscillation of its centre frequency, as long as that
frequency's share of `ModelConfig.cqt_quality` asks for: the same number of periods in every bin.
The bandwidth is that of librosa's wavelets (`librosa.filters.wavelet_lengths`), with which tests
compare; the scale of the logarithm is our choice.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from umt_jax.audio import mu_law
from umt_jax.config import ModelConfig
from umt_jax.shapes import Array, Bool, Codes, Float, Latents, Waveform

_FLOOR = 1e-4
"""Added to amplitudes before the logarithm: 80 dB below full scale, which mu-law cannot say."""

_CENTRE_DB, _SPREAD_DB = -70.0, 12.0
"""Of frames of music, about: what brings them to mean 0 and variance 1."""


def frequencies_hz(config: ModelConfig) -> Float[np.ndarray, "Z"]:
    """Returns the centre frequency of each bin, from the lowest, in hertz."""
    steps = np.arange(config.latent_channels) / config.cqt_bins_per_octave
    return config.cqt_lowest_hz * 2**steps


def lengths(config: ModelConfig) -> Float[np.ndarray, "Z"]:
    """Returns the length of each bin's wavelet, in samples, not rounded."""
    return config.cqt_quality * config.sample_rate_hz / frequencies_hz(config)


def margin_frames(config: ModelConfig) -> int:
    """Returns how many frames at either end of a recording see beyond it, in the lowest bin."""
    return max(0, math.ceil(config.cqt_longest_samples / 2 / config.pool_samples - 0.5))


def encode(codes: Codes, config: ModelConfig, inside: Bool[Array, "*B T"] | None = None) -> Latents:
    """Returns the frames of a recording's codes.

    Args:
        codes: Codes, [*B, T]; T is a multiple of `pool_samples`.
        config: Sizes; of kind `cqt`.
        inside: Which samples belong to the recording, [*B, T]; the rest counts as silence, as what
            lies beyond both ends does. None: all of them.

    Returns:
        Frames, float32, [*B, F, Z], of about mean 0 and variance 1 in music.
    """
    waveform = mu_law.decode(codes, config.mu_law)
    if inside is not None:
        waveform = jnp.where(inside, waveform, 0)
    return scaled(amplitudes(waveform, config))


def amplitudes(waveform: Waveform, config: ModelConfig) -> Float[Array, "*B F Z"]:
    """Returns the magnitude of each bin in each frame of a waveform, [*B, T].

    A sine of amplitude a gives a / 2 at its own frequency, in every bin.
    """
    kernels = _kernels(config)
    half, pool = len(kernels) // 2, config.pool_samples
    centres = np.arange(waveform.shape[-1] // pool) * pool + pool // 2
    unpadded = [(0, 0)] * (waveform.ndim - 1)
    padded = jnp.pad(waveform, [*unpadded, (half, half)])
    windows = padded[..., centres[:, np.newaxis] + np.arange(len(kernels))]
    parts = jnp.matmul(windows, kernels, precision=jax.lax.Precision.HIGHEST)
    real, imaginary = jnp.split(parts, 2, axis=-1)
    return jnp.sqrt(jnp.square(real) + jnp.square(imaginary))


def scaled(magnitudes: Float[Array, "*B F Z"]) -> Latents:
    """Returns magnitudes as frames: decibels, brought to about mean 0 and variance 1."""
    return (20 * jnp.log10(magnitudes + _FLOOR) - _CENTRE_DB) / _SPREAD_DB


def unscaled(frames: Latents) -> Float[Array, "*B F Z"]:
    """Inverse of `scaled`; what lies below its floor is silence."""
    return jnp.maximum(10 ** ((_SPREAD_DB * frames + _CENTRE_DB) / 20) - _FLOOR, 0)


@functools.lru_cache(maxsize=4)
def _kernels(config: ModelConfig) -> Float[np.ndarray, "N D"]:
    """Returns the wavelets, centred, N odd: first all real parts, then the imaginary ones."""
    half = int(config.cqt_longest_samples / 2)
    places = np.arange(-half, half + 1)[:, np.newaxis]
    turns = places / lengths(config)
    windows = np.where(np.abs(turns) < 0.5, np.cos(np.pi * turns) ** 2, 0)
    windows /= windows.sum(axis=0)
    phases = 2 * np.pi * places * frequencies_hz(config) / config.sample_rate_hz
    wavelets = [windows * np.cos(phases), windows * np.sin(phases)]
    return np.concatenate(wavelets, axis=1).astype(np.float32)
