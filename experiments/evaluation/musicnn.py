"""Embeddings of sounds by musicnn (Pons and Serra, 2019), a network that tags music.

`musicnn.npz` holds the weights MTT_musicnn of the package `musicnn` 0.1.0, without those
of the optimizer; `musicnn.LICENSE.md` is their licence (ISC). The network is written out here,
since the package itself needs an old TensorFlow.
"""

import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import librosa
import numpy as np

from experiments.evaluation import recall
from umt_jax.audio import sound_files
from umt_jax.shapes import Array, Float, Waveform

SAMPLE_RATE_HZ = 16_000
WINDOW_S = 3.0
"""Length of what the network was trained on, and of what one embedding describes."""

NUM_CHANNELS = 200

_FFT_SAMPLES, _HOP_SAMPLES, _NUM_MELS = 512, 256, 96
_NUM_FRAMES = 187  # Of a window.
_EPSILON = 1e-3  # Of TensorFlow's batch normalization.
_BATCH = 4


@recall.recalled
def embed(
    waveforms: Sequence[Waveform], sample_rate_hz: int, *, hop_s: float
) -> list[Float[np.ndarray, "N E"]]:
    """Returns the embeddings of each waveform's windows, one every `hop_s` seconds.

    Args:
        waveforms: [T] each. What is shorter than a window, see `WINDOW_S`, is filled up with
            silence.
        sample_rate_hz: Their rate, any.
        hop_s: From the start of one window to that of the next.
    """
    hop_frames = max(1, round(hop_s * SAMPLE_RATE_HZ / _HOP_SAMPLES))
    windows: list[np.ndarray] = []
    ends = []
    for waveform in waveforms:
        mels = _log_mels(waveform, sample_rate_hz)
        mels = np.pad(mels, ((0, max(0, _NUM_FRAMES - len(mels))), (0, 0)))
        last = len(mels) - _NUM_FRAMES
        windows += [mels[start : start + _NUM_FRAMES] for start in range(0, last + 1, hop_frames)]
        ends.append(len(windows))
    # Batches of one size, so that the network is compiled once.
    windows += [np.zeros_like(windows[0])] * (-len(windows) % _BATCH)
    batches = [np.stack(windows[i : i + _BATCH]) for i in range(0, len(windows), _BATCH)]
    embeddings = np.concatenate([np.asarray(_forward(_weights(), batch)[0]) for batch in batches])
    return np.split(embeddings[: ends[-1]], ends[:-1])


def tags(waveform: Waveform, sample_rate_hz: int) -> Float[np.ndarray, "L"]:
    """Returns the probability of each of MagnaTagATune's 50 tags in a waveform's first window."""
    mels = _log_mels(waveform, sample_rate_hz)[:_NUM_FRAMES]
    batch = np.pad(mels[None], ((0, _BATCH - 1), (0, _NUM_FRAMES - len(mels)), (0, 0)))
    return np.asarray(jax.nn.sigmoid(_forward(_weights(), batch)[1]))[0]


def _log_mels(waveform: Waveform, sample_rate_hz: int) -> Float[np.ndarray, "N M"]:
    """Returns what the network reads, [frames, mels]."""
    at_rate = sound_files.resample(waveform, from_hz=sample_rate_hz, to_hz=SAMPLE_RATE_HZ)
    power = librosa.feature.melspectrogram(
        y=at_rate, sr=SAMPLE_RATE_HZ, n_fft=_FFT_SAMPLES, hop_length=_HOP_SAMPLES, n_mels=_NUM_MELS
    )
    return np.log10(10_000 * power.T + 1).astype(np.float32)


@functools.cache
def _weights() -> dict[str, Array]:
    with np.load(pathlib.Path(__file__).with_suffix(".npz"), allow_pickle=False) as arrays:
        return {name: jnp.asarray(array) for name, array in arrays.items()}


@jax.jit
def _forward(
    weights: dict[str, Array], mels: Float[Array, "B N M"]
) -> tuple[Float[Array, "B E"], Float[Array, "B L"]]:
    """Returns the last hidden layer and the logits of the tags."""

    def named(kind, index):
        return f"{kind}_{index}" if index else kind

    def of_channels(name, x):
        return jnp.expand_dims(weights[name], range(x.ndim - 1))

    def dense(x, index):
        name = named("dense", index)
        return x @ weights[f"{name}/kernel"] + of_channels(f"{name}/bias", x)

    def normalize(x, index):
        name = named("batch_normalization", index)
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        scale, shift, mean, variance = (of_channels(f"{name}/{kind}", x) for kind in names)
        return (x - mean) * jax.lax.rsqrt(variance + _EPSILON) * scale + shift

    def convolve(x, index, padding):
        name = named("conv2d", index)
        kernel = jnp.asarray(weights[f"{name}/kernel"])
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return normalize(jax.nn.relu(x + of_channels(f"{name}/bias", x)), index + 1)

    in_time = ((3, 3), (0, 0))
    x = normalize(mels[..., None], 0)
    # Shapes in time and frequency (timbre), then in time alone; each at its loudest frequency.
    paddings = [in_time, in_time, "SAME", "SAME", "SAME"]
    front = jnp.concatenate(
        [convolve(x, index, padding).max(axis=2) for index, padding in enumerate(paddings)], axis=-1
    )
    middle = convolve(front[..., None], 5, in_time)[:, :, 0]
    features = [front, middle]
    for index in (6, 7):
        middle = middle + convolve(middle[..., None], index, in_time)[:, :, 0]
        features.append(middle)
    in_all = jnp.concatenate(features, axis=-1)
    # Greatest value and mean of each channel, one beside the other.
    pooled = jnp.stack([in_all.max(axis=1), in_all.mean(axis=1)], axis=-1)
    pooled = normalize(pooled.reshape(len(pooled), -1), 9)
    hidden = normalize(jax.nn.relu(dense(pooled, 0)), 10)
    return hidden, dense(hidden, 1)
