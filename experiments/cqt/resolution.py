"""What the constant-Q transform and back alone lose of attacks and of pitch.

A recording becomes frames, and sound again by estimated phases; nothing is learned. Both are then
listened to in the same way, so that what is measured is their difference.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import scipy.signal

from data_prep import midi
from umt_jax.config import ModelConfig
from umt_jax.shapes import Array, Float
from umt_jax.training import detuning

VIBRATO_HZ, VIBRATO_CENTS = 6.0, 30.0
"""Of the vibrato that is put on a recording; our choice."""

_ENVELOPE_S = 0.002
_BEFORE_S, _AFTER_S = 0.06, 0.1
_ATTACK_S, _RELEASE_S = 0.08, 0.03
_LEAST_PITCH_S = 0.08
"""Of a note, without its beginning and end, for its pitch to be measured."""

_HALF_BAND_HZ = 40.0
_LEAST_RISE = 2.0
"""How many times as loud a sound must get at an onset, for its time to be measured."""


def transform(
    *, sample_rate_hz: int, hop_samples: int, bins_per_octave: int, lowest_hz: float
) -> ModelConfig:
    """Returns the transform with as many bins as there is room for below half the sample rate."""
    one_bin = ModelConfig(
        encoder_kind="cqt",
        sample_rate_hz=sample_rate_hz,
        pool_samples=hop_samples,
        cqt_bins_per_octave=bins_per_octave,
        cqt_lowest_hz=lowest_hz,
        latent_channels=1,
    )
    return dataclasses.replace(one_bin, latent_channels=one_bin.cqt_most_bins)


def with_vibrato(waveform: Float[Array, "T"], rate_hz: int) -> Float[np.ndarray, "T"]:
    """Returns a recording read at a rate that goes up and down by `VIBRATO_CENTS`."""
    times_s = np.arange(len(waveform)) / rate_hz
    cents = VIBRATO_CENTS * np.sin(2 * np.pi * VIBRATO_HZ * times_s)
    positions = np.cumsum(2 ** (cents / 1200)) - 1
    return np.asarray(detuning.read(jnp.asarray(waveform), jnp.asarray(positions), [0])[0])


def rises(
    waveform: Float[Array, "_"], rate_hz: int, onsets_s: Sequence[float]
) -> Float[np.ndarray, "N 3"]:
    """Returns when a sound reaches 0.2, 0.5 and 0.8 of its rise at each onset, in seconds.

    The envelope is the root mean square over 2 ms; its rise goes from the least before the loudest
    point around the onset to that point. NaN where it rises to less than twice the least.
    """
    width = max(1, round(_ENVELOPE_S * rate_hz))
    power = np.convolve(np.square(waveform, dtype=np.float64), np.full(width, 1 / width), "same")
    envelope = np.sqrt(power)
    found = np.full((len(onsets_s), 3), np.nan)
    for times, onset_s in zip(found, onsets_s, strict=True):
        first = max(0, round((onset_s - _BEFORE_S) * rate_hz))
        around = envelope[first : round((onset_s + _AFTER_S) * rate_hz)]
        if not len(around):
            continue
        peak = int(around.argmax())
        least = around[: peak + 1].min()
        lowest = int(around[: peak + 1].argmin())
        if around[peak] < max(_LEAST_RISE * least, 1e-3):
            continue
        for index, share in enumerate((0.2, 0.5, 0.8)):
            level = least + share * (around[peak] - least)
            times[index] = (first + lowest + (around[lowest:] >= level).argmax()) / rate_hz
    return found


def apart(notes: Sequence[midi.Note], *, least_s: float = 0.2) -> list[float]:
    """Returns the onsets that no other note is near to, in seconds."""
    onsets = sorted({note.onset_s for note in notes})
    gaps = np.diff([-np.inf, *onsets, np.inf])
    return [
        onset
        for onset, before, after in zip(onsets, gaps[:-1], gaps[1:], strict=True)
        if min(before, after) >= least_s
    ]


def lost_in_time(
    sounds: Sequence[Float[Array, "_"]],
    trips: Sequence[Float[Array, "_"]],
    onsets_s: Sequence[Sequence[float]],
    rate_hz: int,
) -> tuple[float, float]:
    """Returns medians of how far onsets move and how much longer attacks take, in milliseconds."""
    before, after = (
        np.concatenate(
            [rises(one, rate_hz, times) for one, times in zip(of, onsets_s, strict=True)]
        )
        for of in (sounds, trips)
    )
    moved = 1000 * np.abs(after[:, 1] - before[:, 1])
    longer = 1000 * ((after[:, 2] - after[:, 0]) - (before[:, 2] - before[:, 0]))
    return float(np.nanmedian(moved)), float(np.nanmedian(longer))


def lost_in_pitch(
    sounds: Sequence[Float[Array, "_"]],
    trips: Sequence[Float[Array, "_"]],
    notes: Sequence[Sequence[midi.Note]],
    rate_hz: int,
) -> tuple[float, float]:
    """Returns how far notes' pitch moves, median in cents, and the share of a vibrato that is left.

    The share is 1 where the vibrato is as deep as it was, and in time with it, and 0 where none is
    left. NaN where no note is long enough.

    Args:
        sounds: Recordings of single lines, which have a vibrato of `VIBRATO_HZ` or none.
        trips: What came back of each.
        notes: What each plays.
        rate_hz: Of all of them.
    """
    moved: list[float] = []
    vibratos: list[list[complex]] = []
    for sound, trip, of_sound in zip(sounds, trips, notes, strict=True):
        for note in of_sound:
            first, end = (
                round((time_s + margin_s) * rate_hz)
                for time_s, margin_s in ((note.onset_s, _ATTACK_S), (note.offset_s, -_RELEASE_S))
            )
            if end - first < _LEAST_PITCH_S * rate_hz or end > len(trip):
                continue
            cents = [pitch_cents(one, note.pitch, rate_hz)[first:end] for one in (sound, trip)]
            moved.append(abs(float(np.median(cents[1]) - np.median(cents[0]))))
            if end - first >= 2 / VIBRATO_HZ * rate_hz:
                wave = np.exp(-2j * np.pi * VIBRATO_HZ * np.arange(first, end) / rate_hz)
                vibratos.append([np.mean((of - of.mean()) * wave) for of in cents])
    before, after = np.array(vibratos).reshape(-1, 2).T
    left = (
        np.sum(after * before.conj()).real / np.sum(np.abs(before) ** 2) if len(before) else np.nan
    )
    return float(np.median(moved)) if moved else float("nan"), float(left)


def pitch_cents(waveform: Float[Array, "T"], key: int, rate_hz: int) -> Float[np.ndarray, "T"]:
    """Returns how far a sound's first partial is above a key at each moment, in cents.

    That is how fast the phase advances in a band around the key's frequency, 40 Hz to either side.
    """
    frequency_hz = 440 * 2 ** ((key - 69) / 12)
    turning = np.exp(-2j * np.pi * frequency_hz * np.arange(len(waveform)) / rate_hz)
    window = np.hanning(2 + round(2 * rate_hz / _HALF_BAND_HZ))
    band = scipy.signal.fftconvolve(np.asarray(waveform) * turning, window, mode="same")
    advance_hz = np.angle(band[1:] * band[:-1].conj()) * rate_hz / (2 * np.pi)
    share = np.maximum(1 + np.append(advance_hz, 0) / frequency_hz, 0.5)
    return 1200 * np.log2(share)
