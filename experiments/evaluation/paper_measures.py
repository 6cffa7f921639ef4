"""Measures of the paper (§4): pitch against the source, line-ups, latents of one pitch.

Arrays in, numbers out. Contours of pitch are in semitones, NaN where nothing is heard.
"""

import dataclasses

import librosa
import numpy as np
from sklearn import metrics

from umt_jax.shapes import Array, Float, Int


def pitch_correlation(
    found: Float[Array, "N"], expected: Float[Array, "N"], *, most_lag: int
) -> float:
    """Returns the normalised cross-correlation (NCC) of two contours, at the lag where it is best.

    Args:
        found: Contour of an output, [N].
        expected: Contour of its source, [N].
        most_lag: Largest lag in frames, either way.

    Returns:
        Pearson's correlation over frames in which both are heard, -1 to 1; NaN if there are fewer
        than two, or one does not move.
    """
    values = []
    for lag in range(-most_lag, most_lag + 1):
        moved = found[max(0, lag) : len(found) + min(0, lag)]
        still = expected[max(0, -lag) : len(expected) + min(0, -lag)]
        both = np.isfinite(moved) & np.isfinite(still)
        if both.any() and min(np.ptp(moved[both]), np.ptp(still[both])) > 1e-9:
            values.append(float(np.corrcoef(moved[both], still[both])[0, 1]))
    return max(values, default=float("nan"))


def warped_distance(found: Float[Array, "N"], expected: Float[Array, "M"]) -> float:
    """Returns the mean distance in semitones along the best path of dynamic time warping (DTW).

    Frames in which nothing is heard are left out; NaN if nothing else is there.
    """
    heard = [contour[np.isfinite(contour)] for contour in (found, expected)]
    if not min(map(len, heard)):
        return float("nan")
    differences = np.abs(heard[0][:, None] - heard[1][None, :])
    costs, path = librosa.sequence.dtw(C=differences)
    return float(costs[-1, -1] / len(path))


def line_up(probabilities: Float[Array, "N K"]) -> Int[np.ndarray, "N"]:
    """Returns which candidate of each line-up a judge takes for the real recording.

    Args:
        probabilities: How likely the judge finds it that each candidate is of the line-up's domain;
            one line-up in a row.
    """
    return np.argmax(probabilities, axis=-1)


def confusion(
    chosen: Int[Array, "N"], domains: Int[Array, "N"], num_domains: int
) -> Float[np.ndarray, "K K"]:
    """Returns how often, in line-ups of each domain (rows), each origin (columns) was taken.

    Args:
        chosen: Origin of what was taken for real in each line-up: the domain that it was translated
            from or, of the real one, its own.
        domains: The domain that each line-up is of.
        num_domains: K.

    Returns:
        Shares, each row's sum 1, or NaN where a domain has no line-up.
    """
    counts = metrics.confusion_matrix(domains, chosen, labels=np.arange(num_domains))
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(axis=1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class PitchCorrelations:
    """Similarity of latents of single notes, as Pearson's correlation over channels.

    Attributes:
        same_pitch: Mean over pairs of instruments that play the same pitch.
        same_instrument: Mean over pairs of pitches of the same instrument, to compare with.
        same_pitch_centred: As `same_pitch`, of latents without the mean of all notes, which any two
            share.
        same_instrument_centred: Likewise.
    """

    same_pitch: float
    same_instrument: float
    same_pitch_centred: float
    same_instrument_centred: float


def pitch_correlations(latents: Float[Array, "P I Z"]) -> PitchCorrelations:
    """Compares the latents of notes, each averaged over its time: P pitches, I instruments."""
    latents = np.asarray(latents, np.float64)
    centred = latents - latents.mean(axis=(0, 1))
    return PitchCorrelations(
        same_pitch=_mean_correlation(latents),
        same_instrument=_mean_correlation(latents.swapaxes(0, 1)),
        same_pitch_centred=_mean_correlation(centred),
        same_instrument_centred=_mean_correlation(centred.swapaxes(0, 1)),
    )


def _mean_correlation(groups: Float[np.ndarray, "G M Z"]) -> float:
    """Returns the mean correlation of two members of one group."""
    pairs = np.triu_indices(groups.shape[1], k=1)
    return float(np.mean([np.corrcoef(members)[pairs] for members in groups]))
