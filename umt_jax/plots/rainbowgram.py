"""Rainbowgrams: loudness as brightness, instantaneous frequency as colour (arXiv:1704.01279).

Colours are not those of a rainbow, but ones that the colour-blind tell apart: white in tune, orange
sharp, blue flat, purple halfway between two semitones.
"""

import dataclasses
import math
from collections.abc import Mapping

import librosa
import numpy as np
from matplotlib import colors
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from umt_jax.shapes import Float, Waveform

DYNAMIC_RANGE_DB = 60.0
"""Range of the colours: values further below the loudest point of a row are black."""

_BINS_PER_OCTAVE = 36
_LOWEST_HZ = 440 * 2 ** (-33 / 12)  # C2.
_HOP_S = 0.008
_FLOOR = 1e-6

# In cents from the nearest semitone; both ends are the same pitch.
_COLOURS = {-50: "#CC79A7", -25: "#56B4E9", 0: "#FFFFFF", 25: "#E69F00", 50: "#CC79A7"}


@dataclasses.dataclass(frozen=True)
class ConstantQ:
    """A constant-Q transform.

    Attributes:
        frequencies_hz: Centre of each bin, 36 in an octave.
        hop_seconds: Time from one column to the next.
        magnitude_db: Loudness, [bins, columns].
        instantaneous_hz: Frequency of what sounds in each bin, by how its phase goes on, [bins,
            columns].
    """

    frequencies_hz: Float[np.ndarray, "N"]
    hop_seconds: float
    magnitude_db: Float[np.ndarray, "N M"]
    instantaneous_hz: Float[np.ndarray, "N M"]

    @property
    def cents(self) -> Float[np.ndarray, "N M"]:
        """Distance of the instantaneous frequency from the nearest semitone, -50 to 50."""
        semitones = 12 * np.log2(np.maximum(self.instantaneous_hz, 1) / 440)
        return 100 * (semitones - np.rint(semitones))


def analyse(waveform: Waveform, sample_rate_hz: int) -> ConstantQ:
    """Returns the constant-Q transform of a waveform [T], from C2 up to what its rate allows."""
    octaves = math.floor(math.log2(0.45 * sample_rate_hz / _LOWEST_HZ))
    if octaves < 1:
        raise ValueError(
            f"A rainbowgram begins at {_LOWEST_HZ:.0f} Hz; {sample_rate_hz} samples per second are "
            "too few for an octave above it."
        )
    # librosa halves the rate once an octave, and then wants whole hops.
    multiple = 2 ** (octaves - 1)
    hop = max(1, round(_HOP_S * sample_rate_hz / multiple)) * multiple
    # The longest filter must fit.
    shortest = math.ceil(sample_rate_hz * 2 ** (1 / 12) * _BINS_PER_OCTAVE / _LOWEST_HZ) * 2
    missing = max(0, shortest - len(waveform))
    spectrum = librosa.cqt(
        np.pad(np.asarray(waveform, np.float32), (0, missing)),
        sr=sample_rate_hz,
        hop_length=hop,
        fmin=_LOWEST_HZ,
        n_bins=octaves * _BINS_PER_OCTAVE,
        bins_per_octave=_BINS_PER_OCTAVE,
        tuning=0.0,
    )[:, : 1 + len(waveform) // hop]
    bins = _LOWEST_HZ * 2 ** (np.arange(len(spectrum)) / _BINS_PER_OCTAVE)
    # The first column has none before it.
    before = np.concatenate([spectrum[:, :1], spectrum[:, :-1]], axis=1)
    expected = 2 * np.pi * bins[:, None] * hop / sample_rate_hz
    advance = np.angle(spectrum * np.conj(before))
    deviation = np.mod(advance - expected + np.pi, 2 * np.pi) - np.pi
    deviation[:, 0] = 0
    return ConstantQ(
        frequencies_hz=bins,
        hop_seconds=hop / sample_rate_hz,
        magnitude_db=20 * np.log10(np.maximum(np.abs(spectrum), _FLOOR)),
        instantaneous_hz=bins[:, None] + deviation * sample_rate_hz / (2 * np.pi * hop),
    )


def row(
    waveforms: Mapping[str, Waveform], sample_rate_hz: int, *, seconds: float | None = None
) -> Figure:
    """Draws the rainbowgrams of sounds next to each other, in one scale of brightness.

    Args:
        waveforms: Sounds [T] by title.
        sample_rate_hz: Rate of all of them.
        seconds: Length of the time axis; the longest sound's if not given.
    """
    if seconds is None:
        seconds = max(len(waveform) for waveform in waveforms.values()) / sample_rate_hz
    num_samples = max(1, round(seconds * sample_rate_hz))
    transforms = [
        analyse(waveform[:num_samples], sample_rate_hz) for waveform in waveforms.values()
    ]
    loudest_db = max(float(transform.magnitude_db.max()) for transform in transforms)
    figure = Figure(figsize=(3.2 * len(transforms) + 1.4, 2.9), layout="constrained")
    all_axes = figure.subplots(1, len(transforms), squeeze=False, sharey=True)[0]
    for axes, title, transform in zip(all_axes, waveforms, transforms, strict=True):
        num_bins, num_columns = transform.magnitude_db.shape
        axes.imshow(
            colours(transform, loudest_db),
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            extent=(0, num_columns * transform.hop_seconds, -0.5, num_bins - 0.5),
        )
        axes.set(title=title, xlabel="Time (s)", xlim=(0, seconds))
    octaves = range(0, num_bins, _BINS_PER_OCTAVE)
    names = [f"{transforms[0].frequencies_hz[place]:.0f}" for place in octaves]
    all_axes[0].set_yticks(list(octaves), names)
    all_axes[0].set_ylabel("Frequency (Hz)")
    scale = ScalarMappable(norm=colors.Normalize(-50, 50), cmap=_colour_map())
    bar = figure.colorbar(scale, ax=list(all_axes), pad=0.01, ticks=[-50, -25, 0, 25, 50])
    bar.set_label(
        "Instantaneous frequency\n(cents from the nearest semitone)\n"
        f"Brightness: loudest {DYNAMIC_RANGE_DB:.0f} dB",
        fontsize="small",
    )
    return figure


def colours(transform: ConstantQ, loudest_db: float) -> Float[np.ndarray, "N M 3"]:
    """Returns red, green and blue, 0 to 1: frequency as colour, times loudness as brightness."""
    hues = _colour_map()((transform.cents + 50) / 100)[..., :3]
    brightness = np.clip((transform.magnitude_db - loudest_db) / DYNAMIC_RANGE_DB + 1, 0, 1)
    return hues * brightness[..., None]


def _colour_map() -> colors.LinearSegmentedColormap:
    stops = [((cents + 50) / 100, colour) for cents, colour in _COLOURS.items()]
    return colors.LinearSegmentedColormap.from_list("cents", stops)
