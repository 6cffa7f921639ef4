"""From clips to numbers: means with intervals, normalised scores, and the headline."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.evaluation import decoys
from experiments.evaluation.measuring import Clip, Pair, PairResults
from umt_jax.shapes import Float

CONTENT, TIMBRE, HEADLINE = "content", "timbre", "headline"

NORMALISED = (HEADLINE, CONTENT, TIMBRE)
"""Scores from 0, the worst of the false decoys, to 1, the oracle."""

OFFSET, OFFSET_SIZE = "median_offset", "median_offset_size"
"""Of a pair with its sign; of the mean over pairs, where signs would cancel, without."""

FRECHET = "frechet_distance"

FEWEST_PIECES = 6
"""With fewer, clips are resampled and not pieces: of two pieces there are three samples."""

_LEVEL = 0.95
_OFFSET_RANGE, _OFFSETS_PER_SEMITONE = 24, 100


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over clips, and the interval in which 95 % of bootstrapped means lie.

    The interval is NaN where there is none: Fréchet distances are of all clips at once.
    """

    mean: float
    low: float
    high: float


Table = dict[str, dict[str, Estimate]]
"""By system and measure, normalised scores among them."""


def summarise(
    results: Mapping[Pair, PairResults],
    *,
    normalise: bool = True,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Table, dict[Pair, Table]]:
    """Returns the mean table of all pairs, and each pair's own.

    All systems, and all pairs that have the same clips, are resampled together, and floors and
    ceilings are worked out anew each time. See `resampled` for what is drawn.

    Args:
        results: What was measured, by pair.
        normalise: Whether to add the normalised scores, for which the pairs must have all of the
            false decoys.
        resamples: How many times pieces or clips are drawn.
        seed: Decides which.
    """
    weights = _draw(results, resamples, seed)
    drawn = {
        pair: _scores(of_pair, weights[of_pair.clips], normalise)
        for pair, of_pair in results.items()
    }
    tables = {
        pair: {
            system: {name: _estimate(values) for name, values in by_name.items()}
            for system, by_name in by_system.items()
        }
        for pair, by_system in drawn.items()
    }
    overall: Table = {}
    for system, by_name in next(iter(drawn.values())).items():
        of_system = [of_pair[system] for of_pair in drawn.values()]
        means = {name: np.mean([one[name] for one in of_system], axis=0) for name in by_name}
        if means.pop(OFFSET, None) is not None:
            means[OFFSET_SIZE] = np.mean([np.abs(one[OFFSET]) for one in of_system], axis=0)
        overall[system] = {name: _estimate(values) for name, values in means.items()}
    return overall, tables


def resampled(results: Mapping[Pair, PairResults]) -> str:
    """Returns what intervals are resampled over: "pieces", or "clips" where pieces are few.

    Clips of one piece are not independent: whole pieces are drawn, and all of their clips come
    along. With few pieces that says nothing, and clips are drawn as if they were independent.
    """
    fewest = min(len({piece for piece, _ in of_pair.clips}) for of_pair in results.values())
    return "pieces" if fewest >= FEWEST_PIECES else "clips"


def _draw(
    results: Mapping[Pair, PairResults], resamples: int, seed: int
) -> dict[tuple[Clip, ...], Float[np.ndarray, "R n"]]:
    """Returns how often each clip is drawn, first once each, by list of clips."""
    rng = np.random.default_rng(seed)
    whole_pieces = resampled(results) == "pieces"
    weights = {}
    for clips in sorted({of_pair.clips for of_pair in results.values()}):
        units: list[str | Clip] = [clip[0] if whole_pieces else clip for clip in clips]
        places = {unit: place for place, unit in enumerate(dict.fromkeys(units))}
        unit_of_clip = np.array([places[unit] for unit in units])
        number = len(places)
        counts = rng.multinomial(number, np.full(number, 1 / number), size=resamples)
        drawn = np.concatenate([np.ones((1, number)), counts])
        weights[clips] = drawn[:, unit_of_clip].astype(float)
    return weights


def _scores(
    results: PairResults, weights: Float[np.ndarray, "R n"], normalise: bool
) -> dict[str, dict[str, Float[np.ndarray, "R"]]]:
    """Returns by system and measure the mean for each draw, and the normalised scores."""
    means = {
        system: {name: _mean(values, weights) for name, values in by_name.items()}
        for system, by_name in results.values.items()
    }
    for system, distance in results.frechet.items():
        means[system][FRECHET] = np.full(len(weights), np.nan)
        means[system][FRECHET][0] = distance
    for system, by_clip in results.offsets.items():
        means[system][OFFSET] = _weighted_medians(by_clip, weights)
    if normalise:
        _add_normalised(means)
    return means


def _add_normalised(means: dict[str, dict[str, np.ndarray]]) -> None:
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


def _weighted_medians(
    by_clip: Sequence[Float[np.ndarray, "_"]], weights: Float[np.ndarray, "R n"]
) -> Float[np.ndarray, "R"]:
    """Returns the median over all frames of the clips drawn, to a cent; NaN over none.

    Args:
        by_clip: Semitones in each frame of each of n clips; those beyond two octaves count as
            two octaves.
        weights: How often each clip is drawn.
    """
    most = _OFFSET_RANGE * _OFFSETS_PER_SEMITONE
    counts = np.zeros((len(by_clip), 2 * most + 1))
    for row, offsets in zip(counts, by_clip, strict=True):
        places = np.rint(np.clip(offsets * _OFFSETS_PER_SEMITONE, -most, most)).astype(int) + most
        np.add.at(row, places, 1)
    below = np.cumsum(weights @ counts, axis=1)
    total = below[:, -1:]
    medians = (np.argmax(below >= total / 2, axis=1) - most) / _OFFSETS_PER_SEMITONE
    return np.where(total[:, 0] > 0, medians, np.nan)


def _estimate(draws: Float[np.ndarray, "R"]) -> Estimate:
    """Takes the first draw, of every clip once, as the mean."""
    if np.isnan(draws[0]):
        return Estimate(float("nan"), float("nan"), float("nan"))
    tail = (1 - _LEVEL) / 2
    if np.isnan(draws[1:]).all():
        return Estimate(float(draws[0]), float("nan"), float("nan"))
    low, high = np.nanquantile(draws[1:], [tail, 1 - tail])
    return Estimate(float(draws[0]), float(low), float(high))
