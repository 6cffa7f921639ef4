"""Pictures of constant-Q frames: what a generator makes of a recording, and what comes back."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from umt_jax.config import ModelConfig
from umt_jax.model import cqt
from umt_jax.shapes import Array, Float

_TICKS_HZ = (62.5, 125, 250, 500, 1000, 2000, 4000, 8000)
_DARKEST, _LIGHTEST = -1.0, 4.0
"""Of frames, which are brought to about mean 0 and variance 1: silence, and loud partials."""


def row(frames: Mapping[str, Float[Array, "F Z"]], config: ModelConfig) -> Figure:
    """Draws frames next to each other, in one scale of colours.

    Args:
        frames: By title.
        config: Of the constant-Q transform.
    """
    figure = Figure(figsize=(3.2 * len(frames) + 1.2, 2.7), layout="constrained")
    all_axes = figure.subplots(1, len(frames), squeeze=False, sharey=True)[0]
    for axes, (title, picture) in zip(all_axes, frames.items(), strict=True):
        num_frames, num_bins = picture.shape
        seconds = num_frames * config.pool_samples / config.sample_rate_hz
        image = axes.imshow(
            np.asarray(picture).T,
            origin="lower",
            aspect="auto",
            extent=(0, seconds, -0.5, num_bins - 0.5),
            cmap="magma",
            vmin=_DARKEST,
            vmax=_LIGHTEST,
        )
        axes.set(title=title, xlabel="Time (s)")
    frequencies = cqt.frequencies_hz(config)
    ticks_hz = [tick for tick in _TICKS_HZ if frequencies[0] <= tick <= frequencies[-1]]
    bins = config.cqt_bins_per_octave * np.log2(np.array(ticks_hz) / frequencies[0])
    all_axes[0].set_yticks(bins, [f"{tick / 1000:g}" for tick in ticks_hz])
    all_axes[0].set_ylabel("Frequency (kHz)")
    figure.colorbar(image, ax=list(all_axes), label="Log-magnitude, scaled", pad=0.01)
    return figure
