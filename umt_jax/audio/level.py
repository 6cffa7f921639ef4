"""Measures the level of a recording and brings it to the level that a model was trained at.

The level is the root mean square of a whole recording at the model's sample rate, as
`data_prep.build --rms_dbfs` brings tracks to it. Nothing is clipped here: codes do that.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from umt_jax.shapes import Array, Float, Waveform

SILENCE_PEAK = 1e-3
"""A sound that nowhere exceeds this amplitude, -60 dB of full scale, counts as silent."""

FOLLOWING_SECONDS = 0.5
"""Interval at which the gain of live sound is updated, and length of sound before the first."""


@dataclasses.dataclass(frozen=True)
class Loudness:
    """Running measurement of a recording.

    Attributes:
        num_samples: Its length.
        energy: Sum of its squared amplitudes.
        peak: Largest absolute amplitude.
    """

    num_samples: int = 0
    energy: float = 0.0
    peak: float = 0.0

    def after(self, block: Waveform) -> "Loudness":
        """Returns the loudness when `block`, [T], has been heard as well."""
        return Loudness(
            num_samples=self.num_samples + block.size,
            energy=self.energy + float(np.square(block, dtype=np.float64).sum()),
            peak=max(self.peak, float(np.abs(block).max(initial=0.0))),
        )

    @property
    def rms(self) -> float:
        """Root mean square of the amplitudes; 0 for no samples."""
        return float(np.sqrt(self.energy / max(self.num_samples, 1)))

    @property
    def is_silent(self) -> bool:
        """Whether it nowhere reaches `SILENCE_PEAK`."""
        return self.peak < SILENCE_PEAK

    def gain(self, rms_dbfs: float | None) -> np.float32:
        """Returns the factor that brings this to a level in dB of full scale.

        1 where there is no level to bring it to, and for silence, whose noise stays soft.
        """
        if rms_dbfs is None or self.is_silent:
            return np.float32(1)
        return np.float32(10 ** (rms_dbfs / 20) / self.rms)


def measure(blocks: Iterable[Float[Array, "_"]]) -> Loudness:
    """Returns the loudness of a recording that comes in blocks, [T]."""
    heard = Loudness()
    for block in blocks:
        heard = heard.after(block)
    return heard


def rms(waveform: Waveform) -> float:
    """Returns the root mean square of a waveform's amplitudes, [T]; 0 for no samples."""
    return measure([np.asarray(waveform)]).rms


def bring_to(waveform: Waveform, rms_dbfs: float | None) -> Float[np.ndarray, "*B T"]:
    """Returns recordings, [*B, T], each at a level in dB of full scale; as they are for None."""
    waveform = np.asarray(waveform, np.float32)
    if rms_dbfs is None:
        return waveform
    *batch, num_samples = waveform.shape
    recordings = waveform.reshape(-1, num_samples)
    gains = np.array([measure([recording]).gain(rms_dbfs) for recording in recordings], np.float32)
    return waveform * gains.reshape(*batch, 1)


def bring_blocks_to(
    blocks: Iterable[Float[Array, "_"]], rms_dbfs: float | None, *, sample_rate_hz: int
) -> Iterable[Float[Array, "_"]]:
    """Brings a recording that comes in blocks, [T], to a level in dB of full scale.

    What can be iterated again, such as a list, is measured first, to its end. An iterator, such as
    a generator, is followed as it comes (see `follow`).
    """
    if rms_dbfs is None:
        return blocks
    if isinstance(blocks, Iterator):
        return follow(blocks, rms_dbfs, sample_rate_hz=sample_rate_hz)
    gain = measure(blocks).gain(rms_dbfs)
    return (gain * np.asarray(block, np.float32) for block in blocks)


def follow(
    blocks: Iterable[Float[Array, "_"]], rms_dbfs: float, *, sample_rate_hz: int
) -> Iterator[Float[np.ndarray, "_"]]:
    """Brings a sound whose end is not known to a level, by what has been heard of it so far.

    The first half second is heard before it is passed on, and has one gain. From then on each
    sample is passed on as it comes: every half second the gain is decided anew, by all that was
    heard except silent half seconds, and reached in a straight line within the next. A sound that
    begins after silence keeps its own level until half a second of it was heard. How the sound was
    cut into blocks changes no sample.
    """
    hop = max(1, round(FOLLOWING_SECONDS * sample_rate_hz))
    heard = Loudness()
    parts: list[np.ndarray] = []
    num_held = 0
    gains: np.ndarray | None = None
    for block in blocks:
        waveform = np.asarray(block, np.float32)
        while waveform.size:
            part, waveform = np.split(waveform, [hop - num_held])
            parts.append(part)
            if gains is not None:
                yield part * gains[num_held : num_held + part.size]
            num_held += part.size
            if num_held < hop:
                continue
            whole = np.concatenate(parts)
            parts, num_held = [], 0
            if not Loudness().after(whole).is_silent:
                heard = heard.after(whole)
            gain = heard.gain(rms_dbfs)
            if gains is None:
                yield whole * gain
                gains = np.full(hop, gain, np.float32)
            else:
                gains = np.linspace(gains[-1], gain, hop, dtype=np.float32)
    if gains is None and parts:
        whole = np.concatenate(parts)
        yield whole * heard.after(whole).gain(rms_dbfs)
