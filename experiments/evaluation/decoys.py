"""Decoys, which are baselines that only resemble translations, and oracles, the upper bounds.

Every measure is read beside these. A measure of content that copying wins, or of timbre that noise
of the right colour wins, says nothing alone.
"""

from collections.abc import Sequence

import numpy as np
import scipy.signal

from umt_jax.audio import level, mu_law
from umt_jax.shapes import Float, Waveform

IDENTITY = "identity"
EQ_TRANSFER = "EQ transfer"
MIXTURE = "mixture"
WRONG_CONTENT = "wrong content"
NOISE = "white noise"
MU_LAW_ORACLE = "mu-law oracle"
ORACLE = "oracle"
OTHER_FONT_ORACLE = "oracle, other sound font"
TRANSCRIBED = "transcribe and render"

EXPLANATIONS = {
    TRANSCRIBED: "no decoy, what else one could do: the notes heard in the source, played by the "
    "sound font that made the true pair",
    IDENTITY: "the source as it is: right notes, wrong instrument",
    EQ_TRANSFER: "the source, filtered to the long-term spectrum of the target",
    MIXTURE: "identity and wrong content at once, equally loud",
    WRONG_CONTENT: "the target's instrument playing something else",
    NOISE: "white noise",
    MU_LAW_ORACLE: "the oracle in 8-bit mu-law, as all a decoder can say",
    ORACLE: "the true pair: the same notes played by the target's instrument",
    OTHER_FONT_ORACLE: "the same notes played by the target's instrument of another sound font",
}
"""Of every row but the outputs that are measured."""

FALSE = (IDENTITY, EQ_TRANSFER, MIXTURE, WRONG_CONTENT, NOISE)
"""Those that are no translations; the worst of them is 0 on the normalised scales."""

_WINDOW_S = 0.064
_MOST_GAIN_DB = 40.0
_LEVEL, _SILENCE = 0.07, 1e-4  # As RMS.


def eq_transfer(source: Waveform, target: Waveform, sample_rate_hz: int) -> Waveform:
    """Filters a sound so that its mean spectrum is that of another, [T]."""
    window = 2 * round(_WINDOW_S * sample_rate_hz / 2)
    frequencies, source_power = _spectrum(source, window)
    _, target_power = _spectrum(target, window)
    floor = 1e-9 * max(source_power.max(), target_power.max())
    gains_db = 10 * np.log10((target_power + floor) / (source_power + floor))
    gains = 10 ** (np.clip(gains_db, -_MOST_GAIN_DB, _MOST_GAIN_DB) / 20)
    taps = scipy.signal.firwin2(2 * window + 1, frequencies / 0.5, gains)
    return scipy.signal.fftconvolve(source, taps, mode="same").astype(np.float32)


def _spectrum(
    waveform: Waveform, window: int
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    return scipy.signal.welch(waveform, nperseg=min(window, len(waveform)), nfft=window)


def wrong_content(targets: Sequence[Waveform], index: int) -> Waveform:
    """Returns other music of the same domain, as long as the piece of that index, [T].

    It is what comes half of all music later, when the pieces are joined to a ring.
    """
    ring = np.concatenate(targets)
    start = sum(map(len, targets[:index])) + len(ring) // 2
    return np.roll(ring, -start)[: len(targets[index])]


def mixture(first: Waveform, second: Waveform) -> Waveform:
    """Returns two sounds at once, at the same level, [T]."""
    return at_level(first) + at_level(second)


def noise(num_samples: int, seed: int) -> Waveform:
    """Returns white noise, [T]."""
    return np.random.default_rng(seed).normal(0, 0.1, num_samples).astype(np.float32)


def through_mu_law(waveform: Waveform) -> Waveform:
    """Returns a sound as 8-bit codes keep it, [T]."""
    return mu_law.decode(mu_law.encode(waveform, "rounded"), "rounded")


def at_level(waveform: Waveform) -> Waveform:
    """Scales a sound to a fixed RMS, [T]; what is all but silent stays all but silent.

    Not limited where it would clip: it is measured, not played.
    """
    return (waveform * (_LEVEL / max(level.rms(waveform), _SILENCE))).astype(np.float32)
