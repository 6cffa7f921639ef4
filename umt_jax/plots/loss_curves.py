"""Curves of a training run: its losses, and the classifier's accuracy."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from umt_jax.plots import spectrograms


def loss_curves(metrics: Sequence[Mapping[str, float | int]], domains: Sequence[str]) -> Figure:
    """Draws a run: reconstruction losses of training and validation, and the classifier if trained.

    Args:
        metrics: Lines of metrics.jsonl; each has "step" and any of the others.
        domains: The K names; a line each, where the losses of domains are there.
    """
    has_classifier = any(key.endswith("/classifier_accuracy") for row in metrics for key in row)
    num_panels = 3 if has_classifier else 2
    figure = Figure(figsize=(5.4, 2.5 * num_panels), layout="constrained")
    train, validation, *others = figure.subplots(num_panels, 1, sharex=True)
    validation.sharey(train)
    ends = {}
    for axes, split, title in (
        (train, "train", "Reconstruction loss in training"),
        (validation, "eval", "Reconstruction loss in validation"),
    ):
        lines = {domain: f"{split}/reconstruction/{domain}" for domain in domains}
        if not any(key in row for row in metrics for key in lines.values()):
            lines = {"all domains": f"{split}/reconstruction"}
        ends[axes] = _draw_lines(axes, metrics, lines)
        axes.set(title=title, ylabel="Nats per sample")

    for classifier in others:
        lines = {"training": "train/classifier_accuracy", "validation": "eval/classifier_accuracy"}
        chance, grey = 1 / len(domains), "0.4"
        ends[classifier] = _draw_lines(classifier, metrics, lines)
        ends[classifier].append((chance, f"chance 1/{len(domains)}", grey))
        classifier.axhline(chance, color=grey, linewidth=1)
        classifier.set(title="Domains the classifier recognises", ylabel="Accuracy", ylim=(0, 1.03))
    figure.axes[-1].set_xlabel("Step")
    # Last, when no line to come can change the limits.
    for axes, labels in ends.items():
        _label_ends(axes, labels)
    return figure


def _draw_lines(
    axes: Axes, metrics: Sequence[Mapping[str, float | int]], lines: Mapping[str, str]
) -> list[tuple[float, str, str]]:
    """Draws metrics by label; returns the last value, label and colour of each line."""
    ends = []
    for index, (label, key) in enumerate(lines.items()):
        points = [(row["step"], row[key]) for row in metrics if key in row]
        if points:
            steps, values = zip(*points, strict=True)
            colour, dashes = spectrograms.look(index)
            # A line of one point would be invisible.
            marker = "o" if len(points) == 1 else None
            axes.plot(steps, values, color=colour, linestyle=dashes, marker=marker, label=label)
            ends.append((values[-1], label, colour))
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    if not ends:
        axes.text(0.5, 0.5, "nothing recorded yet", transform=axes.transAxes, ha="center")
    return ends


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Writes labels beside the axes, from the lowest value upwards, none over another."""
    low, high = axes.get_ylim()
    height = -1.0
    for value, label, colour in sorted(ends):
        height = max((value - low) / (high - low), height + 0.11)
        axes.text(1.01, height, label, color=colour, transform=axes.transAxes, va="center")
