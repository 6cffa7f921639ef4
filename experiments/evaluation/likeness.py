"""Distance of a sound to the true pair, the same notes played by the target's instrument."""

import numpy as np

from umt_jax.audio import mel_spectrogram
from umt_jax.shapes import Float32, Waveform

_NATS_PER_DB = np.log(10) / 10
_RANGE_DB = 80.0


def log_mel_distances(output: Waveform, target: Waveform, sample_rate_hz: int) -> dict[str, float]:
    """Returns the distances of two sounds of equal level, [T] each.

    What is more than 80 dB below the loudest point of the pair counts as silence.

    Returns:
        `log_mel_l1`, the mean over bands and frames of the difference of log powers, in nats; and
        `log_spectral_distance`, the mean over frames of its root mean square over bands, in dB.
    """
    expected = mel_spectrogram.log_mel(target, sample_rate_hz)
    floor_db = expected.max() - _RANGE_DB

    def above(log_mel: Float32[np.ndarray, "M N"]) -> Float32[np.ndarray, "M N"]:
        return np.maximum(log_mel, floor_db)

    found = mel_spectrogram.log_mel(output, sample_rate_hz)[:, : expected.shape[1]]
    off_db = above(found) - above(expected[:, : found.shape[1]])
    return {
        "log_mel_l1": float(np.mean(np.abs(off_db)) * _NATS_PER_DB),
        "log_spectral_distance": float(np.mean(np.sqrt(np.mean(off_db**2, axis=0)))),
    }
