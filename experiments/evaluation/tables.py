"""An evaluation as text, JSON and CSV."""

import csv
import dataclasses
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.evaluation import decoys, pitch_probe, summary
from experiments.evaluation.measuring import Pair, PairResults
from experiments.evaluation.summary import Estimate, Table
from umt_jax import text_tables


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
    summary.OFFSET: Column(
        "Offset",
        "median of f0 above the score's, in semitones, over frames in which both have one",
        2,
        "",
    ),
    summary.OFFSET_SIZE: Column(
        "|Offset|", "mean over pairs of the size of that median, in semitones", 2, "low"
    ),
    "frame_f1_to_source": Column("Frame F1, source", "against the source's transcription"),
    "note_f1_to_source": Column("Note F1, source", "against the source's transcription"),
    "jaccard_distance": Column(
        "JD",
        "Jaccard distance of the pitches that basic-pitch hears, 1 - in both / in either, to the "
        "pair (without pairs, the source); copying the source beats models on it",
        best="low",
    ),
    "chroma_cosine": Column("Chroma", "cosine of pitch classes to the source"),
    "onset_correlation": Column("Onsets", "correlation of onset strength with the source"),
    "target_probability": Column("P(target)", "probability of the target by the judge of timbre"),
    "timbre_accuracy": Column("Top 1", "how often the target is the judge's first choice"),
    "log_mel_l1": Column("Log-mel L1", "to the pair, in nats", 2, "low"),
    "log_spectral_distance": Column("LSD", "to the pair, in dB", 1, "low"),
    summary.FRECHET: Column(
        "FAD", "secondary: Fréchet distance of embeddings to the target's music", 1, "low"
    ),
}
"""In the order of tables. FAD alone is of all clips at once, and has no interval."""

MAIN = (
    *summary.NORMALISED,
    "pitch_accuracy",
    summary.OFFSET,
    summary.OFFSET_SIZE,
    "frame_f1",
    "note_f1",
    "target_probability",
    "timbre_accuracy",
    "jaccard_distance",
    summary.FRECHET,
)
"""Columns of the main printed table."""

OWN = tuple(name for name in MAIN if name not in summary.NORMALISED)
"""Columns of the printed table of domains played by their own decoders."""


def text(table: Table, columns: Sequence[str]) -> str:
    """Returns columns of a table for a terminal, normalised scores with intervals."""
    names = [name for name in columns if any(name in by_name for by_name in table.values())]
    rows = [
        [system, *(cell(table[system].get(name), name) for name in names)]
        for system in order(table)
    ]
    return text_tables.aligned(["", *(COLUMNS[name].title for name in names)], rows)


def cell(estimate: Estimate | None, name: str) -> str:
    """Returns a mean, "0.81", of a normalised score with its interval, "0.81 [0.76, 0.85]".

    A dash stands for what says nothing.
    """
    if estimate is None or math.isnan(estimate.mean):
        return "-"
    digits = min(COLUMNS[name].digits, 2)
    sign = "+" if name == summary.OFFSET else ""
    mean = f"{estimate.mean:{sign}.{digits}f}"
    if name not in summary.NORMALISED:
        return mean
    return f"{mean} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


NOTES_LOST = (
    "Probe, linear",
    "Probe, MLP",
    "MLP trained on the others",
    "Played by its own decoder",
    "Played by the others",
    "Recordings themselves",
)
"""Columns of `notes_lost`."""


def notes_lost(
    probes: Mapping[str, pitch_probe.ProbeScores], by_pair: Mapping[Pair, Table]
) -> dict[str, dict[str, float]]:
    """Returns what a domain's latents contain of the pitch, next to what is played from them.

    Args:
        probes: What probes read from the latents, by domain.
        by_pair: Tables of pairs, a domain's with itself among them.

    Returns:
        Shares by domain and column; NaN where pitch was not measured.
    """
    rows = {}
    for domain, scores in probes.items():
        own = by_pair[domain, domain]
        across = [
            table for pair, table in by_pair.items() if pair[0] == domain and pair[1] != domain
        ]
        system = order(own)[0]
        values = (
            scores.linear,
            scores.mlp,
            scores.mlp_of_others,
            _pitch(own, system),
            sum(_pitch(table, system) for table in across) / len(across),
            _pitch(own, decoys.ORACLE),
        )
        rows[domain] = dict(zip(NOTES_LOST, values, strict=True))
    return rows


def _pitch(table: Table, system: str) -> float:
    by_name = table.get(system, {})
    return by_name["pitch_accuracy"].mean if "pitch_accuracy" in by_name else math.nan


def sampling_words(temperature: float, top_p: float, guide_strength: float = 0.0) -> str:
    """Returns a way to draw codes in words."""
    words = f"temperature {temperature:g}" + ("" if top_p == 1 else f", top p {top_p:g}")
    return words + (f", guide strength {guide_strength:g}" if guide_strength else "")


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
