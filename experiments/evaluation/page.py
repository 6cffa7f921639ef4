"""The page about an evaluation, HTML that needs no other file: what `page.html` is filled with."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.evaluation import decoys, summary, tables
from experiments.evaluation.measuring import Pair
from experiments.evaluation.run import QUICK_CLIPS, Evaluation
from experiments.pages import parts
from umt_jax.audio import mel_spectrogram
from umt_jax.plots import loss_curves, rainbowgram, spectrograms
from umt_jax.shapes import Waveform

HEARD_S = 12.0
"""The page plays, and shows, this much of a piece."""


def page(
    evaluation: Evaluation, facts: Mapping[str, Any], metrics: Sequence[Mapping[str, float]]
) -> str:
    """Returns the whole page as HTML.

    Args:
        evaluation: What is on it.
        facts: What its JSON holds.
        metrics: What the checkpoint's run recorded, for curves; may be empty.
    """
    pairs = list(evaluation.results)
    measured = [name for name in evaluation.overall if name not in decoys.EXPLANATIONS]
    rate_hz = evaluation.music.sample_rate_hz
    first_piece = next(iter(evaluation.music.recordings[pairs[0][0]]))
    config, choice = evaluation.config, facts["choice"]
    return parts.render(
        "evaluation/page.html",
        title="Translation quality",
        evaluation=evaluation,
        facts=facts,
        rate_hz=rate_hz,
        quick_clips=QUICK_CLIPS,
        headline=evaluation.overall[measured[0]][summary.HEADLINE] if measured else None,
        overall=_table(evaluation.overall, tables.MAIN, "Mean over all pairs"),
        legends=[
            decoys.EXPLANATIONS,
            {column.title: column.explanation for column in tables.COLUMNS.values()},
        ],
        maps=list(_maps(evaluation, measured)),
        own=_table(evaluation.own, tables.OWN, "Mean over domains") if evaluation.own else None,
        notes_lost={
            "columns": tables.NOTES_LOST,
            "rows": tables.notes_lost(evaluation.pitch_probes, evaluation.by_pair),
        },
        pairs=[_Sounds(evaluation, pair) for pair in pairs],
        curves=loss_curves.loss_curves(metrics, config.trained_domains)
        if metrics and config
        else None,
        decoys={
            "domains": pairs[0],
            "piece": first_piece,
            "sounds": _beginnings(evaluation.decoys, rate_hz),
            "pictures": _pictures(evaluation.decoys, rate_hz, in_row=4),
        },
        everything=[
            (pair, _table(evaluation.by_pair[pair], tuple(tables.COLUMNS), "Every measure"))
            for pair in (*pairs, *evaluation.own_results)
        ],
        sampling=tables.sampling_words(**facts["sampling"]).capitalize()
        if facts["sampling"]
        else "",
        choices=[
            f"{tables.sampling_words(**tried['sampling'])}: {tried['headline']['mean']:.2f}"
            for tried in (choice["tried"] if choice else ())
        ],
    )


@dataclasses.dataclass(frozen=True)
class Cell:
    """A mean in words, and its interval where it has one."""

    mean: str
    interval: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """A system's measures; `kind` is "measured" or "decoy"."""

    name: str
    kind: str
    cells: Sequence[Cell]


@dataclasses.dataclass(frozen=True)
class Table:
    """Systems by measure."""

    caption: str
    columns: Sequence[tables.Column]
    rows: Sequence[Row]


def _table(table: summary.Table, names: Sequence[str], caption: str) -> Table:
    names = [name for name in names if any(name in by_name for by_name in table.values())]
    rows = [
        Row(
            system,
            "decoy" if system in decoys.EXPLANATIONS else "measured",
            [_cell(table[system], name) for name in names],
        )
        for system in tables.order(table)
    ]
    return Table(caption, [tables.COLUMNS[name] for name in names], rows)


def _cell(by_name: Mapping[str, summary.Estimate], name: str) -> Cell:
    estimate = by_name.get(name)
    if estimate is None or np.isnan(estimate.mean):
        return Cell("–")
    form = f"{'+' if name == summary.OFFSET else ''}.{tables.COLUMNS[name].digits}f"
    mean, low, high = (format(value, form) for value in dataclasses.astuple(estimate))
    return Cell(mean, "" if np.isnan(estimate.low) else f"{low} to {high}")


@dataclasses.dataclass(frozen=True)
class MapCell:
    """A share in [0, 1], and what else to say."""

    share: float
    note: str


@dataclasses.dataclass(frozen=True)
class Map:
    """A coloured table, source by target; None where there is nothing to say."""

    caption: str
    targets: Sequence[str]
    cells: Mapping[str, Sequence[MapCell | None]]


def _maps(evaluation: Evaluation, measured: Sequence[str]) -> Iterator[Map]:
    """Yields the headline of every pair, and how well it is in tune, a domain into itself too."""
    system = measured[0] if measured else decoys.EQ_TRANSFER

    def headline(by_name: Mapping[str, summary.Estimate]) -> MapCell | None:
        if summary.HEADLINE not in by_name:
            return None
        scores = {name: by_name[name].mean for name in summary.NORMALISED}
        small = f"content {scores[summary.CONTENT]:.2f}, timbre {scores[summary.TIMBRE]:.2f}"
        return MapCell(scores[summary.HEADLINE], small)

    def pitch(by_name: Mapping[str, summary.Estimate]) -> MapCell:
        offset = by_name[summary.OFFSET].mean
        return MapCell(by_name["pitch_accuracy"].mean, f"median {offset:+.2f} semitones")

    yield _map(evaluation, system, f"Headline of {system} by pair", headline)
    if measured and any(of_pair.offsets for of_pair in evaluation.results.values()):
        caption = (
            f"f0 of {system} within 50 cents of the score's, and its median offset; on the "
            "diagonal a domain's own recordings, played by its own decoder"
        )
        yield _map(evaluation, system, caption, pitch)


def _map(
    evaluation: Evaluation,
    system: str,
    caption: str,
    cell_of: Callable[[Mapping[str, summary.Estimate]], MapCell | None],
) -> Map:
    """Returns what `cell_of` makes of a system's measures of each pair."""
    sources = list(dict.fromkeys(source for source, _ in evaluation.by_pair))
    reached = {target for _, target in evaluation.by_pair}
    # In the order of the sources, where they are the same.
    targets = sources if reached == set(sources) else sorted(reached)

    def cell(pair: Pair) -> MapCell | None:
        table = evaluation.by_pair.get(pair)
        found = cell_of(table[system]) if table and system in table else None
        return None if found is None or np.isnan(found.share) else found

    cells = {source: [cell((source, target)) for target in targets] for source in sources}
    return Map(caption, targets, cells)


class _Sounds:
    """The sounds of a pair next to each other, and its table.

    Attributes:
        domains: Source and target.
        piece: Name of the piece.
        sounds: The beginning of the source, what was made of it, and the true pair, by title, [T].
        pictures: Their spectrograms in rows, each with its titles.
        rainbowgrams: Their rainbowgrams.
        table: The pair's measures.
    """

    def __init__(self, evaluation: Evaluation, pair: Pair) -> None:
        """Collects the sounds of a pair's first piece."""
        self.domains = source, target = pair
        music = evaluation.music
        rate_hz = music.sample_rate_hz
        self.piece = next(iter(music.recordings[source]))
        sounds = {f"{parts.words(source)}, the source": music.recordings[source][self.piece]}
        for system, by_piece in evaluation.outputs.get(pair, {}).items():
            sounds[f"{parts.words(target)}, {system}"] = by_piece[self.piece]
        if music.paired:
            name = f"{parts.words(target)}, the true pair"
            sounds[name] = music.recordings[target][self.piece]
        self.sounds = _beginnings(sounds, rate_hz)
        self.pictures = _pictures(sounds, rate_hz)
        self.rainbowgrams = rainbowgram.row(self.sounds, rate_hz)
        self.table = _table(evaluation.by_pair[pair], tables.MAIN, "This pair")


def _beginnings(sounds: Mapping[str, Waveform], rate_hz: int) -> dict[str, Waveform]:
    """Returns what is heard of sounds, at one level."""
    num_samples = round(HEARD_S * rate_hz)
    return {title: decoys.at_level(sound[:num_samples]) for title, sound in sounds.items()}


def _pictures(
    sounds: Mapping[str, Waveform], rate_hz: int, in_row: int = 3
) -> list[tuple[list[str], Figure]]:
    """Returns log-mel spectrograms of sounds next to each other, in one scale of colours."""
    beginnings = list(_beginnings(sounds, rate_hz).items())
    loudest_db = max(
        float(mel_spectrogram.log_mel(sound, rate_hz).max()) for _, sound in beginnings
    )
    rows = [dict(beginnings[i : i + in_row]) for i in range(0, len(beginnings), in_row)]
    return [
        (list(row), spectrograms.log_mel_row(row, rate_hz, loudest_db=loudest_db)) for row in rows
    ]
