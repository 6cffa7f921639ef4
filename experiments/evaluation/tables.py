"""An evaluation as text, JSON and CSV."""

import csv
import dataclasses
import io
import math
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.evaluation import decoys, summary
from experiments.evaluation.measuring import Pair, PairResults
from experiments.evaluation.summary import Estimate, Table


@dataclasses.dataclass(frozen=True)
class Column:
    """One measure as tables show it.

    Attributes:
        title: Words for its head.
        explanation: What it is, for the page.
        digits: How many after the point.
        best: "high", "low", or "" where neither is.
    """

    title: str
    explanation: str
    digits: int = 3
    best: str = "high"


COLUMNS = {
    summary.HEADLINE: Column(
        "Headline", "harmonic mean of content and timbre, each normalised; no decoy has both"
    ),
    summary.CONTENT: Column(
        "Content", "frame F1, 0 at the worst of the false decoys and 1 at the oracle"
    ),
    summary.TIMBRE: Column("Timbre", "target probability, 0 and 1 likewise"),
    "frame_f1": Column("Frame F1", "transcribed pitches against the score, every 10 ms"),
    "note_f1": Column("Note F1", "transcribed notes against the score, onsets within 50 ms"),
    "pitch_accuracy": Column(
        "Pitch", "how often f0 is within 50 cents of the score; single lines only"
    ),
    "frame_f1_to_source": Column("Frame F1, source", "against the source's transcription"),
    "note_f1_to_source": Column("Note F1, source", "against the source's transcription"),
    "jaccard_distance": Column(
        "JD", "1 - pitches in both / in either, to the pair (without pairs, the source)", best="low"
    ),
    "chroma_cosine": Column("Chroma", "cosine of pitch classes to the source"),
    "onset_correlation": Column("Onsets", "correlation of onset strength with the source"),
    "target_probability": Column("P(target)", "probability of the target by the judge of timbre"),
    "timbre_accuracy": Column("Top 1", "how often the target is the judge's first choice"),
    "log_mel_l1": Column("Log-mel L1", "to the pair, in nats", 2, "low"),
    "log_spectral_distance": Column("LSD", "to the pair, in dB", 1, "low"),
    "frechet_distance": Column(
        "FAD", "secondary: Fréchet distance of embeddings to the target's music", 1, "low"
    ),
}
"""In the order of tables. FAD alone is of all clips at once, and has no interval."""

MAIN = (*summary.NORMALISED, "frame_f1", "note_f1", "target_probability", "timbre_accuracy")
"""What is printed."""


def text(table: Table) -> str:
    """Returns the main columns of a table, with intervals, for a terminal."""
    names = [name for name in MAIN if name in next(iter(table.values()))]
    systems = order(table)
    width = max(map(len, systems))
    lines = ["".ljust(width) + "".join(COLUMNS[name].title.rjust(19) for name in names)]
    for system in systems:
        cells = (with_interval(table[system].get(name), name).rjust(19) for name in names)
        lines.append(system.ljust(width) + "".join(cells))
    return "\n".join(lines)


def with_interval(estimate: Estimate | None, name: str) -> str:
    """Returns a mean and its interval, "0.81 [0.76, 0.85]"; a dash if it says nothing."""
    if estimate is None or math.isnan(estimate.mean):
        return "-"
    digits = min(COLUMNS[name].digits, 2)
    return f"{estimate.mean:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def with_frechet(table: Table, frechet: Mapping[str, float]) -> Table:
    """Returns a table with the column of Fréchet distances."""
    return {
        system: by_name
        | {"frechet_distance": Estimate(frechet[system], float("nan"), float("nan"))}
        for system, by_name in table.items()
    }


def as_json(table: Table) -> dict[str, Any]:
    """Returns a table as dicts; what is not a number as None."""

    def number(value: float) -> float | None:
        return None if math.isnan(value) else round(value, 6)

    return {
        system: {
            name: {key: number(value) for key, value in dataclasses.asdict(estimate).items()}
            for name, estimate in by_name.items()
        }
        for system, by_name in table.items()
    }


def clips_csv(results: Mapping[Pair, PairResults]) -> str:
    """Returns every measure of every clip, a line for each clip and system."""
    measures = [name for name in COLUMNS if any(name in row for row in _all_columns(results))]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["source", "target", "piece", "clip", "system", *measures])
    for pair, of_pair in results.items():
        for system, by_name in of_pair.values.items():
            for index, (piece, number) in enumerate(of_pair.clips):
                values = (
                    by_name[name][index] if name in by_name else math.nan for name in measures
                )
                cells = ("" if math.isnan(value) else f"{value:.5g}" for value in values)
                writer.writerow([*pair, piece, number, system, *cells])
    return file.getvalue()


def _all_columns(results: Mapping[Pair, PairResults]) -> Iterator[Mapping[str, Any]]:
    for of_pair in results.values():
        yield from of_pair.values.values()


def order(table: Table) -> list[str]:
    """Returns the systems of a table as they are shown: what is measured, then the decoys."""
    return sorted(table, key=lambda system: ("", *decoys.EXPLANATIONS).index(_known(system)))


def _known(system: str) -> str:
    return system if system in decoys.EXPLANATIONS else ""
