"""Writes an evaluation to a folder: numbers, sounds and the page about them."""

import dataclasses
import json
import pathlib
from typing import Any

from experiments.evaluation import decoys, page, run, tables
from experiments.evaluation.run import Evaluation, Options
from umt_jax import storage
from umt_jax.audio import sound_files


def write(
    output: pathlib.Path, evaluation: Evaluation, options: Options, *, seconds: float
) -> None:
    """Writes evaluation.json, clips.csv, report.html and a checkpoint's translations.

    The JSON comes last: where it is, an evaluation is whole.

    Args:
        output: The folder, made if need be.
        evaluation: What to write.
        options: What it was asked for.
        seconds: How long it took.
    """
    output.mkdir(parents=True, exist_ok=True)
    for (source, target), systems in evaluation.outputs.items():
        for piece, waveform in systems.get(run.TRANSLATION, {}).items():
            path = output / "translations" / source / f"{piece}.{target}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            sound_files.write(path, waveform, sample_rate_hz=evaluation.music.sample_rate_hz)
    facts = _facts(evaluation, options, seconds)
    curves = _metrics(options.checkpoint)
    results = {**evaluation.results, **evaluation.own_results}
    _replace(output / "clips.csv", tables.clips_csv(results))
    _replace(output / "report.html", page.page(evaluation, facts, curves))
    _replace(output / "evaluation.json", json.dumps(facts, indent=1) + "\n")


def _facts(evaluation: Evaluation, options: Options, seconds: float) -> dict[str, Any]:
    """Returns everything but the sounds and the clips, as JSON holds it."""
    music = evaluation.music
    return {
        "options": {
            name: str(value) if isinstance(value, pathlib.Path) else value
            for name, value in dataclasses.asdict(options).items()
        }
        | {"outputs": {name: str(folder) for name, folder in options.outputs.items()}},
        "seconds": round(seconds, 1),
        "sample_rate_hz": music.sample_rate_hz,
        "domains": list(music.domains),
        "pieces": {domain: list(of_domain) for domain, of_domain in music.recordings.items()},
        "clips": evaluation.num_clips,
        "resampled": evaluation.resampled,
        "times_less_sure_than_whole_pieces": round(evaluation.less_sure, 3),
        "left_out": list(evaluation.left_out),
        "judged_by": evaluation.judged_by,
        "decoys": decoys.EXPLANATIONS,
        "measures": {name: column.explanation for name, column in tables.COLUMNS.items()},
        "overall": tables.as_json(evaluation.overall),
        "by_pair": [
            {"source": source, "target": target, "table": tables.as_json(table)}
            for (source, target), table in evaluation.by_pair.items()
        ],
        "own_domain": tables.as_json(evaluation.own),
        "where_the_notes_are_lost": {
            domain: dataclasses.asdict(scores) for domain, scores in evaluation.pitch_probes.items()
        },
        "sampling": dataclasses.asdict(evaluation.sampling) if evaluation.sampling else None,
        "choice": _choice(evaluation),
        "checkpoint": {
            "step": evaluation.step,
            "splits": {
                split: {
                    "segments_of_each_domain": scores.segments,
                    "nats_per_sample": scores.reconstruction,
                    "bits_per_sample": scores.bits,
                    "classifier_accuracy": scores.classifier_accuracy,
                }
                for split, scores in evaluation.splits.items()
            },
            "fresh_probe_accuracy": dict(evaluation.probes),
            "chance": 1 / len(evaluation.config.trained_domains),
        }
        if evaluation.config
        else None,
    }


def _choice(evaluation: Evaluation) -> dict[str, Any] | None:
    """Returns among which ways to draw codes one was chosen, the best first, and on what."""
    if evaluation.choice is None:
        return None
    return {
        "pieces": list(evaluation.choice.pieces),
        "tried": [
            {"sampling": dataclasses.asdict(sampling), "headline": dataclasses.asdict(headline)}
            for sampling, headline in evaluation.choice.headlines.items()
        ],
    }


def _metrics(checkpoint: str | None) -> list[dict[str, float]]:
    """Returns what a run recorded, for its curves; nothing if its log is not there."""
    path = pathlib.Path(checkpoint or "", "metrics.jsonl")
    if not checkpoint or not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _replace(path: pathlib.Path, text: str) -> None:
    """Writes a file that appears when it is whole."""
    with storage.whole_file(path) as hidden:
        hidden.write_text(text, encoding="utf-8")
