"""A map of latents in two dimensions, coloured by domain: does the encoder forget the domain?"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from umt_jax.plots import spectrograms
from umt_jax.shapes import Array, Float, Int

_MARKERS = "os^DvPX*"


@dataclasses.dataclass(frozen=True)
class Projection:
    """Latents along their two first principal components.

    Attributes:
        points: Where each latent frame is, [N, 2].
        shares: How much of the variance of all channels each component has, [2].
    """

    points: Float[np.ndarray, "N 2"]
    shares: Float[np.ndarray, "2"]


def project(latents: Float[Array, "N Z"]) -> Projection:
    """Returns latent frames along the two directions in which they vary most.

    Channels are scaled to one variance first, as a classifier could scale them itself.
    """
    centred = np.asarray(latents, np.float64) - np.mean(latents, axis=0)
    scaled = centred / np.maximum(centred.std(axis=0), 1e-9)
    _, strengths, directions = np.linalg.svd(scaled, full_matrices=False)
    # The sign of a component is arbitrary: its largest entry is to be positive.
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.sign(directions[np.arange(len(directions)), largest])[:, None]
    variances = np.square(strengths)
    shares = variances / max(float(variances.sum()), 1e-12)
    missing = max(0, 2 - len(shares))
    points = np.pad(scaled @ directions[:2].T, [(0, 0), (0, missing)])
    return Projection(points, np.pad(shares[:2], (0, missing)))


def draw(
    projections: Sequence[tuple[str, Projection]],
    labels: Int[np.ndarray, "N"],
    domains: Sequence[str],
) -> Figure:
    """Draws maps next to each other.

    Args:
        projections: Each map's title, and its latent frames.
        labels: Domain of each latent frame, the same in all maps, [N].
        domains: Names of the K domains.
    """
    figure = Figure(figsize=(4.4 * len(projections), 4.3), layout="constrained")
    all_axes = figure.subplots(1, len(projections), squeeze=False)[0]
    for axes, (title, projection) in zip(all_axes, projections, strict=True):
        # A part of each domain at a time, or the last one would cover the others.
        for part in np.array_split(np.random.default_rng(0).permutation(len(labels)), 20):
            for index in range(len(domains)):
                axes.scatter(
                    *projection.points[part[labels[part] == index]].T,
                    marker=_MARKERS[index % len(_MARKERS)],
                    color=spectrograms.look(index)[0],
                    s=12,
                    linewidths=0,
                    alpha=0.7,
                )
        names = [
            f"{ordinal} principal component ({100 * share:.0f} % of variance)"
            for ordinal, share in zip(("First", "Second"), projection.shares, strict=True)
        ]
        axes.set(title=title, xlabel=names[0], ylabel=names[1])
        axes.spines[["top", "right"]].set_visible(False)
    for index, domain in enumerate(domains):
        marker, colour = _MARKERS[index % len(_MARKERS)], spectrograms.look(index)[0]
        all_axes[0].plot([], [], marker=marker, color=colour, linestyle="", label=domain)
    figure.legend(loc="outside lower center", ncols=min(len(domains), 4), frameon=False)
    return figure
