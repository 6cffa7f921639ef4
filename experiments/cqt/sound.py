"""Constant-Q frames back to sound without a network: the phases are estimated."""

import inspect
from collections.abc import Sequence
from typing import Any

import librosa
import numpy as np

from umt_jax.config import ModelConfig
from umt_jax.model import cqt
from umt_jax.shapes import Array, Float

ITERATIONS = 32

_RENAMED = "rng" in inspect.signature(librosa.griffinlim_cqt).parameters
_RANDOM_STATE = "rng" if _RENAMED else "random_state"
"""librosa 1.0 warns of the older name, and draws other numbers for the same integer."""


def griffin_lim(
    recordings: Sequence[Float[Array, "_ Z"]], config: ModelConfig, *, seed: int = 0
) -> list[Float[np.ndarray, "_"]]:
    """Returns waveforms of about these magnitudes, each [F * pool_samples], in [-1, 1].

    The phases are those of `librosa.griffinlim_cqt`, which starts from random ones. All recordings
    are one to it, with silence between them: nearly all of its time goes into making wavelets.

    Args:
        recordings: Frames of each, [F, Z].
        config: Of their transform.
        seed: Decides the first phases.
    """
    gap = cqt.margin_frames(config) + 1
    silence = np.zeros((gap, config.latent_channels), np.float32)
    joined = [part for frames in recordings for part in (np.asarray(cqt.unscaled(frames)), silence)]
    # librosa divides by the square root of a wavelet's length less, and its frames are centred
    # where ours begin.
    magnitudes = np.concatenate(joined) * np.sqrt(cqt.lengths(config))
    random: dict[str, Any] = {_RANDOM_STATE: np.random.RandomState(seed)}
    pool = config.pool_samples
    waveform = librosa.griffinlim_cqt(
        magnitudes.T.astype(np.float32),
        n_iter=ITERATIONS,
        sr=config.sample_rate_hz,
        hop_length=pool,
        fmin=config.cqt_lowest_hz,
        bins_per_octave=config.cqt_bins_per_octave,
        length=len(magnitudes) * pool - pool // 2,
        **random,
    )
    waveform = np.pad(waveform, (pool // 2, 0)).clip(-1, 1).astype(np.float32)
    starts = np.cumsum([0, *(len(frames) + gap for frames in recordings)]) * pool
    return [
        waveform[start : start + len(frames) * pool]
        for start, frames in zip(starts, recordings, strict=False)
    ]
