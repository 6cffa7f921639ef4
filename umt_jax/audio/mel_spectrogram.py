"""Log-mel spectrograms, as numbers. `plots.spectrograms` draws them."""

import librosa
import numpy as np

from umt_jax.shapes import Float32, Waveform

NUM_MELS = 96
HOP_S = 0.016
"""Time from one column to the next."""

_WINDOW_S = 0.064
_FLOOR_POWER = 1e-10


def log_mel(waveform: Waveform, sample_rate_hz: int) -> Float32[np.ndarray, "M N"]:
    """Returns the log-mel spectrogram of a waveform [T] in dB, one column every 16 ms.

    Row m is centred on `centres_hz(sample_rate_hz)[m]`, low pitches first. -100 dB is the floor.
    """
    window_samples = round(_WINDOW_S * sample_rate_hz)
    missing = max(0, window_samples - len(waveform))
    power = librosa.feature.melspectrogram(
        y=np.pad(np.asarray(waveform, np.float32), (0, missing)),
        sr=sample_rate_hz,
        n_fft=window_samples,
        hop_length=round(HOP_S * sample_rate_hz),
        n_mels=NUM_MELS,
    )
    return (10 * np.log10(np.maximum(power, _FLOOR_POWER))).astype(np.float32)


def column_of(sample: int, sample_rate_hz: int) -> int:
    """Returns the column of `log_mel` whose middle is nearest to a sample."""
    return round(sample / round(HOP_S * sample_rate_hz))


def centres_hz(sample_rate_hz: int) -> Float32[np.ndarray, "M"]:
    """Returns the frequency in the middle of each row of `log_mel`."""
    edges_hz = librosa.mel_frequencies(NUM_MELS + 2, fmin=0.0, fmax=sample_rate_hz / 2)
    return edges_hz[1:-1].astype(np.float32)
