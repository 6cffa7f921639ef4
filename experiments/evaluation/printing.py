"""Text that the command prints for an evaluation."""

import math
from collections.abc import Mapping

from experiments.evaluation import decoys, summary, tables, translating
from experiments.evaluation.run import QUICK_CLIPS, Evaluation
from umt_jax import text_tables

_BY_PAIR = (
    *summary.NORMALISED,
    "pitch_accuracy",
    summary.OFFSET,
    "timbre_accuracy",
    "jaccard_distance",
    summary.FRECHET,
)


def text(evaluation: Evaluation) -> str:
    """Returns tables for a terminal: the mean over pairs, each pair, own domains, probes."""
    results, whole = evaluation.results, evaluation.less_sure == 1
    parts = [
        f"Mean over {len(results)} pairs, 95 % intervals over {evaluation.num_clips} clips, "
        f"resampled by {evaluation.resampled}:\n",
        tables.text(evaluation.overall, tables.MAIN),
    ]
    if not whole:
        parts.append(
            f"\nQuick: the first {QUICK_CLIPS} clips of each piece alone. Intervals are up to "
            f"{evaluation.less_sure:.1f} times as wide as without --quick."
        )
    systems = [system for system in evaluation.overall if system not in decoys.EXPLANATIONS]
    if systems:
        rows = {
            f"{source} to {target}": table[systems[0]]
            for (source, target), table in evaluation.by_pair.items()
        }
        parts += [f"\nBy pair, {systems[0]}:\n", tables.text(rows, _BY_PAIR)]
    if evaluation.own:
        parts += [
            "\nOwn domain, mean over domains:\n",
            tables.text(evaluation.own, tables.OWN),
        ]
    if evaluation.pitch_probes:
        lost = tables.notes_lost(evaluation.pitch_probes, evaluation.by_pair)
        parts += ["\nWhere the notes are lost, shares of frames at the right key:\n", _shares(lost)]
    if evaluation.choice:
        tried = ", ".join(
            f"{translating.name(sampling)}: {headline.mean:.2f}"
            for sampling, headline in evaluation.choice.headlines.items()
        )
        parts.append(
            f"\nSampling chosen on {', '.join(evaluation.choice.pieces)}, by the headline: {tried}."
        )
    return "\n".join(parts)


def _shares(rows: Mapping[str, Mapping[str, float]]) -> str:
    lines = [
        [row, *("-" if math.isnan(value) else f"{value:.2f}" for value in values.values())]
        for row, values in rows.items()
    ]
    return text_tables.aligned(["", *next(iter(rows.values()))], lines)
