"""Mixing the latents of several recordings, over time or not (§4, semantic blending).

What comes out is decoded like any latents. Weights are those of the second of two.
"""

from collections.abc import Sequence

import numpy as np

from umt_jax.audio import level
from umt_jax.generation import validation
from umt_jax.shapes import Array, Float, Latents

SCHEDULES = ("paper", "ramp", "constant")

HOLD_SECONDS = 3.5
"""Seconds for which the paper's curve stays at the first sound."""

RAMP_SECONDS = 1.5
"""Seconds that the paper's curve then takes to reach the second sound."""


def match_levels(waveforms: Sequence[Float[Array, "_"]]) -> list[Float[np.ndarray, "_"]]:
    """Turns recordings up to the loudest one's root mean square.

    Where a peak would then be clipped, all are turned down by one factor.

    Raises:
        ValueError: One is silent.
    """
    if not waveforms:
        return []
    waveforms = [validation.checked_block(waveform) for waveform in waveforms]
    levels = [level.rms(waveform) for waveform in waveforms]
    for number, own in enumerate(levels, start=1):
        if not own > 0:
            raise ValueError(f"Sound {number} of {len(levels)} is silent; nothing can be mixed.")
    matched = [
        waveform * (max(levels) / own) for waveform, own in zip(waveforms, levels, strict=True)
    ]
    peak = max(float(np.abs(waveform).max()) for waveform in matched)
    return [np.asarray(waveform / max(peak, 1.0), np.float32) for waveform in matched]


def ramp(num_frames: int, *, hold_frames: int, ramp_frames: int) -> Float[np.ndarray, "F"]:
    """Returns weights that are 0, then rise linearly, then are 1, each for the middle of a frame.

    Args:
        num_frames: F.
        hold_frames: How many are 0.
        ramp_frames: How many lie between; 0 for a step.
    """
    middles = np.arange(num_frames, dtype=np.float32) + 0.5
    return np.clip((middles - hold_frames) / max(ramp_frames, 1e-6), 0, 1).astype(np.float32)


def schedule_weights(
    schedule: str, num_frames: int, *, frame_rate_hz: float, weight: float = 0.5
) -> Float[np.ndarray, "F"]:
    """Returns the weight of the second at each latent frame.

    Args:
        schedule: `paper`: the first for 3.5 s, 1.5 s from it to the second, then the second.
            `ramp`: from the first to the second over the whole length. `constant`: `weight`.
        num_frames: F.
        frame_rate_hz: Latent frames in a second.
        weight: That of `constant`.

    Raises:
        ValueError: There is no such schedule, or the weight is not in [0, 1].
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule={schedule} is not known. Use {', '.join(SCHEDULES)}.")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight={weight} must lie in [0, 1]: 0 is the first, 1 the second.")
    if schedule == "constant":
        return np.full(num_frames, weight, np.float32)
    if schedule == "ramp":
        return ramp(num_frames, hold_frames=0, ramp_frames=num_frames)
    return ramp(
        num_frames,
        hold_frames=round(HOLD_SECONDS * frame_rate_hz),
        ramp_frames=round(RAMP_SECONDS * frame_rate_hz),
    )


def mix(first: Latents, second: Latents, weights: Float[Array, "F"]) -> Float[np.ndarray, "*B F Z"]:
    """Returns (1 - w) first + w second, frame by frame."""
    weights = np.asarray(weights, np.float32)[:, None]
    return (1 - weights) * first + weights * second


def blend(
    first: Float[Array, "F Z"],
    second: Float[Array, "G Z"],
    *,
    schedule: str,
    frame_rate_hz: float,
    weight: float = 0.5,
) -> Float[np.ndarray, "N Z"]:
    """Mixes the latents of two recordings by a schedule.

    With `paper` the second begins where the ramp does, and is heard to its end: two segments of
    5 s give 8.5 s. Of a shorter first its last 1.5 s are the ramp; where either is shorter than
    that, so is the ramp. The other schedules mix what lies at the same time, as long as both last.

    Args:
        first: Latents, [F, Z].
        second: Latents, [G, Z].
        schedule: See `schedule_weights`.
        frame_rate_hz: Latent frames in a second.
        weight: That of `constant`.

    Raises:
        ValueError: There is no such schedule, or the latents are not of one recording each.
    """
    validation.check_mixable(first, second)
    if schedule != "paper":
        num_frames = min(len(first), len(second))
        weights = schedule_weights(schedule, num_frames, frame_rate_hz=frame_rate_hz, weight=weight)
        return mix(first[:num_frames], second[:num_frames], weights)
    ramp_frames = min(round(RAMP_SECONDS * frame_rate_hz), len(first), len(second))
    hold_frames = min(round(HOLD_SECONDS * frame_rate_hz), len(first) - ramp_frames)
    overlap = mix(
        first[hold_frames : hold_frames + ramp_frames],
        second[:ramp_frames],
        ramp(ramp_frames, hold_frames=0, ramp_frames=ramp_frames),
    )
    return np.concatenate([first[:hold_frames], overlap, second[ramp_frames:]])


def grid(corners: Sequence[Float[Array, "_ Z"]], size: int) -> Float[np.ndarray, "R R F Z"]:
    """Returns size x size constant mixtures of four recordings' latents.

    Row 0 goes from the first to the second, the last row from the third to the fourth, and columns
    from top to bottom, in equal steps; as long as the shortest recording.

    Args:
        corners: Latents of the four, [any, Z].
        size: Rows and columns, 2 or more.

    Raises:
        ValueError: There are not four, or the size is below 2.
    """
    if len(corners) != 4:
        raise ValueError(f"A grid has four sounds at its corners, not {len(corners)}.")
    if size < 2:
        raise ValueError(f"grid={size} must be 2 or more, which is the four sounds themselves.")
    validation.check_mixable(*corners)
    num_frames = min(map(len, corners))
    latents = np.stack([np.asarray(corner[:num_frames], np.float32) for corner in corners])
    steps = np.linspace(0, 1, size, dtype=np.float32)
    edges = np.stack([1 - steps, steps])  # [2, size]
    # Weight of corner 2 i + j at row r and column c.
    weights = np.einsum("ir,jc->rcij", edges, edges).reshape(size, size, 4)
    return np.einsum("rcn,nfz->rcfz", weights, latents)
