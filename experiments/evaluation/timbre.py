"""A judge of timbre: which domain's instrument plays, by logistic regression on embeddings.

The embeddings are musicnn's. It learns from pieces that are not in the test, where they can be
rendered by two sound fonts, each sound also with noise and through an equalizer, so that it cannot
go by these. Two domains at once are neither of them.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.linalg
import scipy.signal
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from experiments.evaluation import decoys, musicnn
from umt_jax.shapes import Float, Waveform

# Of 200 numbers that the judge sees of a few hundred sounds.
_REGULARIZATION = 0.1
_QUIETEST_SNR_DB, _LOUDEST_SNR_DB = 5.0, 30.0
_EQ_BANDS, _EQ_RANGE_DB = 8, 15.0
_MIX_RANGE_DB = 9.0

NEITHER = ""
"""Stands for mixtures of domains among what a judge learns."""


@dataclasses.dataclass(frozen=True)
class Judge:
    """Says how likely a sound is of each domain.

    Attributes:
        domains: What it tells apart.
        model: The fitted regression, whose classes are places in `domains`, and then `NEITHER`.
        references: Embeddings of what it learned from, without noise and equalizer, by domain.
    """

    domains: tuple[str, ...]
    model: Pipeline
    references: Mapping[str, Float[np.ndarray, "N E"]]

    def measure(self, embeddings: Float[np.ndarray, "N E"], target: str) -> dict[str, float]:
        """Returns the `target_probability` of a clip, and whether it is the likeliest domain."""
        probabilities = self.model.predict_proba(embeddings).mean(axis=0)
        place = self.domains.index(target)
        return {
            "target_probability": float(probabilities[place]),
            "timbre_accuracy": float(np.argmax(probabilities[: len(self.domains)]) == place),
        }


@dataclasses.dataclass(frozen=True)
class Example:
    """Embeddings of one sound as it is, and of the same sound disturbed."""

    clean: Float[np.ndarray, "N E"]
    disturbed: Float[np.ndarray, "N E"]


def embed(clips: Sequence[Waveform], sample_rate_hz: int) -> list[Float[np.ndarray, "N E"]]:
    """Returns the embeddings of clips, all at the same level, so that loudness says nothing."""
    levelled = [decoys.at_level(clip) for clip in clips]
    return musicnn.embed(levelled, sample_rate_hz, hop_s=musicnn.WINDOW_S)


def examples(
    music: Mapping[str, Sequence[Waveform]], sample_rate_hz: int, *, seed: int = 0
) -> dict[str, list[Example]]:
    """Embeds what a judge is to learn from.

    Args:
        music: Sounds of each domain, [T] each, of a few seconds.
        sample_rate_hz: Their rate.
        seed: Decides noise and equalizers.
    """
    rng = np.random.default_rng(seed)

    def other_than(domain: str) -> Waveform:
        sounds = [sound for name in music if name != domain for sound in music[name]]
        return sounds[rng.integers(len(sounds))]

    learned = {}
    mixed = []
    for domain, sounds in music.items():
        # With the long-term spectrum of another domain, so that this is not what tells them apart.
        equalized = [
            decoys.eq_transfer(sound, other_than(domain), sample_rate_hz) for sound in sounds
        ]
        learned[domain] = _examples(sounds, equalized, sample_rate_hz, rng)
        mixed += [_mix(sound, other_than(domain), rng) for sound in sounds[:: len(music)]]
    learned[NEITHER] = _examples(mixed, mixed, sample_rate_hz, rng)
    return learned


def _examples(
    sounds: Sequence[Waveform],
    changed: Sequence[Waveform],
    sample_rate_hz: int,
    rng: np.random.Generator,
) -> list[Example]:
    disturbed = [disturb(sound, sample_rate_hz, rng) for sound in changed]
    clean = embed(sounds, sample_rate_hz)
    return [Example(*both) for both in zip(clean, embed(disturbed, sample_rate_hz), strict=True)]


def _mix(first: Waveform, second: Waveform, rng: np.random.Generator) -> Waveform:
    """Returns two sounds at once, one of them up to 9 dB louder than the other."""
    num_samples = min(len(first), len(second))
    gain = np.float32(10 ** (rng.uniform(-_MIX_RANGE_DB, _MIX_RANGE_DB) / 20))
    return decoys.at_level(first[:num_samples]) + gain * decoys.at_level(second[:num_samples])


def fit(of_kinds: Mapping[str, Sequence[Example]]) -> Judge:
    """Trains a judge on examples of each domain, and of `NEITHER`, which comes last."""
    learned = [
        np.concatenate([part for example in of_kind for part in dataclasses.astuple(example)])
        for of_kind in of_kinds.values()
    ]
    labels = np.repeat(np.arange(len(learned)), [len(of_kind) for of_kind in learned])
    model = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=_REGULARIZATION, class_weight="balanced", max_iter=2000),
    )
    model.fit(np.concatenate(learned), labels)
    references = {
        kind: np.concatenate([example.clean for example in of_kind])
        for kind, of_kind in of_kinds.items()
    }
    return Judge(tuple(kind for kind in of_kinds if kind != NEITHER), model, references)


def disturb(waveform: Waveform, sample_rate_hz: int, rng: np.random.Generator) -> Waveform:
    """Returns a sound through a random equalizer and with noise, white or with fewer highs, [T]."""
    taps = 2 * round(0.01 * sample_rate_hz) + 1
    bands = np.linspace(0, 1, _EQ_BANDS)
    gains = 10 ** (rng.uniform(-_EQ_RANGE_DB, _EQ_RANGE_DB, _EQ_BANDS) / 20)
    equalizer = scipy.signal.firwin2(taps, bands, gains)
    changed = decoys.at_level(scipy.signal.fftconvolve(waveform, equalizer, mode="same"))
    noise = scipy.signal.lfilter([1], [1, -rng.uniform(0, 0.95)], rng.normal(size=len(waveform)))
    snr_db = rng.uniform(_QUIETEST_SNR_DB, _LOUDEST_SNR_DB)
    return changed + decoys.at_level(noise) * np.float32(10 ** (-snr_db / 20))


def frechet_distance(found: Float[np.ndarray, "N E"], reference: Float[np.ndarray, "M E"]) -> float:
    """Returns the Fréchet distance of two sets of embeddings, each taken as a normal distribution.

    "FAD" of the literature, on musicnn's embeddings. Unreliable where windows are fewer than the
    200 numbers of an embedding; NaN of one window.
    """
    if len(found) < 2:
        return float("nan")
    covariances = [np.cov(embeddings, rowvar=False) for embeddings in (found, reference)]
    # The trace of a root is the sum of the roots of the eigenvalues, all at least 0 but for noise.
    eigenvalues = scipy.linalg.eigvals(covariances[0] @ covariances[1]).real
    root_trace = np.sum(np.sqrt(np.maximum(eigenvalues, 0)))
    means_apart = found.mean(axis=0) - reference.mean(axis=0)
    spread = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root_trace
    return float(means_apart @ means_apart + spread)
