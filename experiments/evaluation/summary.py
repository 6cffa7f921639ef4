"""From clips to numbers: means with intervals, normalised scores, and the headline."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from experiments.evaluation import decoys
from experiments.evaluation.measuring import Clip, Pair, PairResults
from umt_jax.shapes import Float

CONTENT, TIMBRE, HEADLINE = "content", "timbre", "headline"

NORMALISED = (HEADLINE, CONTENT, TIMBRE)
"""Scores from 0, the worst of the false decoys, to 1, the oracle."""

_LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over clips, and the interval in which 95 % of bootstrapped means lie."""

    mean: float
    low: float
    high: float


Table = dict[str, dict[str, Estimate]]
"""By system and measure, normalised scores among them."""


def summarise(
    results: Mapping[Pair, PairResults], *, resamples: int = 1000, seed: int = 0
) -> tuple[Table, dict[Pair, Table]]:
    """Returns the mean table of all pairs, and each pair's own.

    All systems, and all pairs that have the same clips, are resampled together, and floors and
    ceilings are worked out anew each time. Clips of one piece are taken as independent, which they
    are not quite.

    Args:
        results: What was measured, by pair.
        resamples: How many times clips are drawn.
        seed: Decides which.
    """
    weights = _draw({of_pair.clips for of_pair in results.values()}, resamples, seed)
    drawn = {pair: _scores(of_pair, weights[of_pair.clips]) for pair, of_pair in results.items()}
    tables = {
        pair: {
            system: {name: _estimate(values) for name, values in by_name.items()}
            for system, by_name in by_system.items()
        }
        for pair, by_system in drawn.items()
    }
    overall: Table = {}
    for system, by_name in next(iter(drawn.values())).items():
        overall[system] = {
            name: _estimate(np.mean([of_pair[system][name] for of_pair in drawn.values()], axis=0))
            for name in by_name
        }
    return overall, tables


def _draw(
    clip_lists: set[tuple[Clip, ...]], resamples: int, seed: int
) -> dict[tuple[Clip, ...], Float[np.ndarray, "R n"]]:
    """Returns how often each clip is drawn, first once each, by list of clips."""
    rng = np.random.default_rng(seed)
    weights = {}
    for clips in sorted(clip_lists):
        number = len(clips)
        counts = rng.multinomial(number, np.full(number, 1 / number), size=resamples)
        weights[clips] = np.concatenate([np.ones((1, number)), counts]).astype(float)
    return weights


def _scores(
    results: PairResults, weights: Float[np.ndarray, "R n"]
) -> dict[str, dict[str, Float[np.ndarray, "R"]]]:
    """Returns by system and measure the mean for each draw, and the normalised scores."""
    means = {
        system: {name: _mean(values, weights) for name, values in by_name.items()}
        for system, by_name in results.values.items()
    }
    known = "frame_f1" in means[decoys.IDENTITY]
    content_measure = "frame_f1" if known else "frame_f1_to_source"
    # Where there are no pairs, nothing has more of the content than the source, and nothing more
    # of the timbre than other music of the target's.
    paired = decoys.ORACLE in means
    of_content = _normalised(means, content_measure, decoys.ORACLE if paired else decoys.IDENTITY)
    of_timbre = _normalised(
        means, "target_probability", decoys.ORACLE if paired else decoys.WRONG_CONTENT
    )
    for system, by_name in means.items():
        content, timbre = of_content[system], of_timbre[system]
        by_name[CONTENT], by_name[TIMBRE] = content, timbre
        by_name[HEADLINE] = 2 * content * timbre / np.maximum(content + timbre, 1e-9)
    return means


def _normalised(
    means: Mapping[str, Mapping[str, np.ndarray]], measure: str, ceiling: str
) -> dict[str, np.ndarray]:
    """Maps a measure to 0 at the worst false decoy and to 1 at the ceiling; nothing is outside."""
    floor = np.min([means[decoy][measure] for decoy in decoys.FALSE], axis=0)
    room = np.maximum(means[ceiling][measure] - floor, 1e-9)
    return {
        system: np.clip((by_name[measure] - floor) / room, 0, 1)
        for system, by_name in means.items()
    }


def _mean(
    values: Float[np.ndarray, "n"], weights: Float[np.ndarray, "R n"]
) -> Float[np.ndarray, "R"]:
    """Returns weighted means over the clips of which a measure says something; NaN over none."""
    there = ~np.isnan(values)
    total = weights[:, there].sum(axis=1)
    sums = weights[:, there] @ values[there]
    return np.where(total > 0, sums / np.maximum(total, 1), np.nan)


def _estimate(draws: Float[np.ndarray, "R"]) -> Estimate:
    """Takes the first draw, of every clip once, as the mean."""
    if np.isnan(draws[0]):
        return Estimate(float("nan"), float("nan"), float("nan"))
    tail = (1 - _LEVEL) / 2
    low, high = np.nanquantile(draws[1:], [tail, 1 - tail])
    return Estimate(float(draws[0]), float(low), float(high))
