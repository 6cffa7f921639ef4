"""Pictures of sounds and latents, as figures that belong to nobody (never pyplot)."""

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from umt_jax.audio import mel_spectrogram
from umt_jax.shapes import Array, Float, Float32, UInt8, Waveform

DYNAMIC_RANGE_DB = 80.0
"""Range of the colours: values further below the loudest point of a row get the darkest colour."""

_FREQUENCY_TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000, 16000)

# Okabe and Ito's palette, which the colour-blind tell apart; the dashes do so in black and white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = (
    "-",
    (0.0, (5.0, 1.5)),
    (0.0, (1.0, 1.0)),
    (0.0, (5.0, 1.5, 1.0, 1.5)),
    (0.0, (9.0, 2.0)),
)


def look(index: int) -> tuple[str, str | tuple[float, tuple[float, ...]]]:
    """Returns colour and line style of the index-th of several things that share an axis."""
    return _COLOURS[index % len(_COLOURS)], _DASHES[index % len(_DASHES)]


def log_mel_row(
    waveforms: Mapping[str, Waveform],
    sample_rate_hz: int,
    *,
    seconds: float | None = None,
    loudest_db: float | None = None,
) -> Figure:
    """Draws the log-mel spectrograms of sounds next to each other, in one scale of colours.

    Args:
        waveforms: Sounds [T] by title.
        sample_rate_hz: Rate of all of them.
        seconds: Length of the time axis; the longest sound's if not given.
        loudest_db: Value of the lightest colour, so that several rows can share their scale; the
            loudest point of these sounds if not given.
    """
    if seconds is None:
        seconds = max(waveform.shape[-1] for waveform in waveforms.values()) / sample_rate_hz
    num_samples = max(1, round(seconds * sample_rate_hz))
    pictures = {
        title: mel_spectrogram.log_mel(waveform[:num_samples], sample_rate_hz)
        for title, waveform in waveforms.items()
    }
    if loudest_db is None:
        loudest_db = max(float(picture.max()) for picture in pictures.values())

    figure = Figure(figsize=(3.2 * len(pictures) + 1.2, 2.7), layout="constrained")
    all_axes = figure.subplots(1, len(pictures), squeeze=False, sharey=True)[0]
    for axes, (title, picture) in zip(all_axes, pictures.items(), strict=True):
        image = _draw_log_mel(axes, picture, seconds, loudest_db)
        axes.set(title=title, xlabel="Time (s)")
    _label_frequencies(all_axes[0], sample_rate_hz)
    figure.colorbar(image, ax=list(all_axes), label="Power (dB)", pad=0.01)
    return figure


def log_mel_matrix(
    rows: Mapping[str, Mapping[str, Waveform]], sample_rate_hz: int, *, seconds: float
) -> Figure:
    """Draws the log-mel spectrograms of sounds as a table, in one scale of colours.

    Args:
        rows: By the title of a row, sounds [T] by the title of a column; the same columns in all.
        sample_rate_hz: Rate of all of them.
        seconds: How much of each is drawn, from its beginning.
    """
    num_samples = max(1, round(seconds * sample_rate_hz))
    pictures = [
        [
            mel_spectrogram.log_mel(waveform[:num_samples], sample_rate_hz)
            for waveform in row.values()
        ]
        for row in rows.values()
    ]
    loudest_db = max(float(picture.max()) for row in pictures for picture in row)
    columns = list(next(iter(rows.values())))
    figure = Figure(figsize=(1.9 * len(columns) + 1.6, 1.5 * len(rows) + 0.9), layout="constrained")
    table = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
    for axes_of_row, title, row in zip(table, rows, pictures, strict=True):
        for axes, picture in zip(axes_of_row, row, strict=True):
            image = _draw_log_mel(axes, picture, seconds, loudest_db)
        _label_frequencies(axes_of_row[0], sample_rate_hz)
        axes_of_row[0].set_ylabel(f"{title}\nFrequency (kHz)")
    for axes, title in zip(table[0], columns, strict=True):
        axes.set_title(title)
    for axes in table[-1]:
        axes.set_xlabel("Time (s)")
    figure.colorbar(image, ax=table.ravel().tolist(), label="Power (dB)", pad=0.01)
    return figure


def _draw_log_mel(
    axes: Axes, picture: Float32[np.ndarray, "M N"], seconds: float, loudest_db: float
) -> AxesImage:
    image = axes.imshow(
        picture,
        origin="lower",
        aspect="auto",
        extent=(0, picture.shape[1] * mel_spectrogram.HOP_S, -0.5, mel_spectrogram.NUM_MELS - 0.5),
        cmap="magma",
        vmin=loudest_db - DYNAMIC_RANGE_DB,
        vmax=loudest_db,
    )
    # Nothing is drawn where a shorter sound has ended.
    axes.set_xlim(0, seconds)
    return image


def _label_frequencies(axes: Axes, sample_rate_hz: int) -> None:
    # Not by librosa.display: it loads pyplot, names powers of two, and leaves the unit off seconds.
    ticks_hz = [tick for tick in _FREQUENCY_TICKS_HZ if tick <= sample_rate_hz / 2]
    rows = np.interp(
        ticks_hz, mel_spectrogram.centres_hz(sample_rate_hz), np.arange(mel_spectrogram.NUM_MELS)
    )
    axes.set_yticks(rows, [f"{tick / 1000:g}" for tick in ticks_hz])
    axes.set_ylabel("Frequency (kHz)")


def latent_lines(latents: Float[Array, "F Z"], frame_rate_hz: float, title: str = "") -> Figure:
    """Draws each channel of latents as a line over time, one above the other.

    Every line has its mean at the height of its channel, and all have one scale.

    Args:
        latents: Latents, [F, Z].
        frame_rate_hz: Latent frames in a second.
        title: What they are of.
    """
    deviations = latents - np.mean(latents, axis=0, keepdims=True)
    step = float(2 * np.abs(deviations).max()) or 1.0
    num_frames, channels = latents.shape
    # The tallest line overlaps its neighbours, so that the others are more than flat.
    lines = 2.5 * deviations / step + np.arange(channels)[None]
    times_s = (np.arange(num_frames) + 0.5) / frame_rate_hz
    figure = Figure(figsize=(7.5, 0.13 * channels + 1.4), layout="constrained")
    axes = figure.subplots()
    for channel in range(channels):
        # Two colours in turn, to follow a line between others.
        axes.plot(times_s, lines[:, channel], color=_COLOURS[channel % 2], linewidth=0.9)
    axes.set(
        title=title,
        xlabel="Time (s)",
        ylabel=f"Latent channel (spacing: {step / 2.5:.2g})",
        xlim=(0, num_frames / frame_rate_hz),
        ylim=(-1.5, channels + 0.5),
    )
    axes.set_yticks(range(0, channels, 4 if channels <= 32 else 8))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def to_png(figure: Figure, *, dots_per_inch: int = 130) -> bytes:
    """Returns the figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch)
    return buffer.getvalue()


def to_rgb(figure: Figure, *, dots_per_inch: int = 100) -> UInt8[np.ndarray, "H W 3"]:
    """Returns the figure's pixels, as TensorBoard takes them."""
    figure.set_dpi(dots_per_inch)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
