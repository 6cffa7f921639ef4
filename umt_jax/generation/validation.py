"""Checks the arguments of a Translator; errors say what to pass instead.

Arguments that are checked here may be anything; annotations say what is returned.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from umt_jax.audio import mu_law, sound_files
from umt_jax.config import ModelConfig, domain_name
from umt_jax.shapes import Array, Codes, Float, Latents


def checked_domains(wanted: Sequence[str], there: Sequence[str]) -> tuple[str, ...]:
    """Returns the wanted domains as they are named there; raises `ValueError` if one is not."""
    wanted = tuple(map(domain_name, wanted))
    for domain in wanted:
        if domain not in there:
            raise ValueError(
                f"There is no domain {domain!r} in this model. There are: {', '.join(there)}."
            )
    return wanted


def check_seed(seed: int) -> None:
    """Raises `ValueError` if the seed has more than 32 bits."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} must lie in 0..{2**32 - 1}.")


def check_guides(guide_strength: float | None, model: ModelConfig) -> None:
    """Raises `ValueError` if guides are asked for that a model does not have."""
    if guide_strength and not model.guide_channels:
        raise ValueError(
            f"guide_strength={guide_strength}: this model has no guides (guide_channels=0). "
            "Leave guide_strength out, or train guides with experiments.guides."
        )


def checked_waveform(waveform: Any) -> Float[np.ndarray, "*B T"]:
    """Returns one recording, [T], or several of one length, [B, T], as float32.

    Raises:
        ValueError: The shape is another one, or looks like samples by channels; or the values are
            not floats, not finite, or far beyond full scale.
    """
    samples = _array(waveform, "waveform")
    shape = samples.shape
    if np.issubdtype(samples.dtype, np.integer):
        bits = 8 * samples.dtype.itemsize
        remedy = f"Divide {bits}-bit samples by {2 ** (bits - 1)}."
        if np.issubdtype(samples.dtype, np.unsignedinteger):
            remedy = f"Subtract {2 ** (bits - 1)}, the code of silence, and divide by it."
        raise ValueError(
            f"The waveform holds integers ({samples.dtype}), not amplitudes in [-1, 1]. {remedy}"
        )
    samples = _floats(samples, "waveform")
    if samples.ndim == 2 and 0 < shape[1] < shape[0]:
        remedy = "Pass waveform.mean(axis=1) to mix the channels down, or waveform[:, 0] for one"
        if shape[1] > 1:
            remedy += f", or waveform.T for {shape[1]} recordings"
        raise ValueError(
            f"A waveform of shape {shape} looks like samples by channels, as soundfile.read "
            f"returns them; here it would be {shape[0]} recordings of {shape[1]} samples each. "
            f"{remedy}."
        )
    if samples.ndim not in (1, 2) or 0 in shape:
        raise ValueError(
            f"A waveform of shape {shape} is not [T], mono, or [B, T]. Average the channels of "
            "stereo first."
        )
    if not np.isfinite(samples).all():
        raise ValueError("The waveform holds values that are not finite numbers.")
    peak = float(np.abs(samples).max())
    if peak > sound_files.MAX_PEAK:
        raise ValueError(
            f"The waveform holds samples of {peak:.4g}, where full scale is 1. Divide them by full "
            "scale, which is 32768 for 16-bit samples."
        )
    return samples


def checked_recordings(waveforms: Any) -> Float[np.ndarray, "B T"]:
    """Returns several recordings of one length, [B, T], as float32; errors as `checked_waveform`.

    Raises:
        ValueError: It is a single one, [T], as well.
    """
    samples = checked_waveform(waveforms)
    if samples.ndim == 2:
        return samples
    raise ValueError(
        f"A waveform of shape {samples.shape} is one recording where several belong. Pass "
        "[waveform], a list of one."
    )


def checked_block(block: Any) -> Float[np.ndarray, "_"]:
    """Returns a block of a recording, [any], as float32; it may be empty.

    Raises:
        ValueError: It has another number of axes, or is not what `checked_waveform` takes.
    """
    samples = np.asarray(block)
    if samples.ndim != 1:
        raise ValueError(
            f"A block of shape {samples.shape} is not [T], mono. A recording comes as an iterable "
            "of such blocks, [waveform] where it is in memory; average the channels of stereo "
            "first."
        )
    return checked_waveform(samples) if samples.size else _floats(samples, "block")


def checked_blocks(blocks: Any) -> Iterable[Float[np.ndarray, "_"]]:
    """Returns a recording's blocks, each checked when it comes: an iterator for an iterator.

    Raises:
        ValueError: An array is given where an iterable of blocks belongs.
    """
    if isinstance(blocks, Array):
        raise ValueError(
            f"An array of shape {blocks.shape} is given as a recording, which comes as an iterable "
            "of blocks, [T] each. Pass [waveform], a list of one block."
        )
    if isinstance(blocks, Iterator):
        return map(checked_block, blocks)
    return _CheckedBlocks(blocks)


@dataclasses.dataclass(frozen=True)
class _CheckedBlocks:
    """Blocks that can be iterated again, checked each time."""

    blocks: Iterable[Any]

    def __iter__(self) -> Iterator[Float[np.ndarray, "_"]]:
        return map(checked_block, self.blocks)


def resampled(waveform: Any, sample_rate_hz: Any, *, to_hz: int) -> Float[Array, "*B U"]:
    """Checks type and shape of a waveform and returns it at another rate, float32."""
    if np.ndim(sample_rate_hz) or isinstance(sample_rate_hz, str | bytes):
        raise ValueError(
            "sample_rate_hz must be one number, in hertz. The waveform is passed first, then its "
            "rate."
        )
    if not 0 < sample_rate_hz < np.inf:
        raise ValueError(f"sample_rate_hz={sample_rate_hz} must be above 0, and finite.")
    samples = checked_waveform(waveform)
    at_rate = sound_files.resample(samples, from_hz=sample_rate_hz, to_hz=to_hz)
    if not at_rate.size:
        raise ValueError(
            f"{samples.shape[-1]} samples at {sample_rate_hz} Hz are less than one at {to_hz} Hz."
        )
    return at_rate


def checked_latents(latents: Any, config: ModelConfig) -> Float[np.ndarray, "*B F Z"]:
    """Returns latents as float32, [F, Z] or [B, F, Z]."""
    latents = _floats(_array(latents, "latents"), "latents")
    shape, channels = latents.shape, config.latent_channels
    if latents.ndim not in (2, 3) or shape[-1] != channels or 0 in shape:
        turned = latents.ndim == 2 and shape[0] == channels
        raise ValueError(
            f"latents of shape {shape} are not [F, {channels}] or [B, F, {channels}]."
            + (" They look like [Z, F]: pass latents.T." if turned else "")
        )
    if not np.isfinite(latents).all():
        raise ValueError("The latents hold values that are not finite numbers.")
    return latents


def checked_recording_latents(latents: Any, config: ModelConfig) -> Float[np.ndarray, "F Z"]:
    """Returns the latents of one recording as float32, [F, Z]."""
    checked = checked_latents(latents, config)
    if checked.ndim != 2:
        raise ValueError(
            f"latents of shape {checked.shape} are those of {len(checked)} recordings. Pass them "
            f"one by one, [F, {config.latent_channels}]."
        )
    return checked


def checked_codes(codes: Any, latents: Latents, config: ModelConfig) -> Codes:
    """Returns codes, [*B, T], that have a sample for each of the latents' samples."""
    codes = _array(codes, "codes")
    *batch, num_frames, _ = latents.shape
    expected = (*batch, num_frames * config.pool_samples)
    if codes.shape != expected:
        raise ValueError(
            f"codes of shape {codes.shape} do not fit {num_frames} latent frames of "
            f"{config.pool_samples} samples: give {expected}."
        )
    if not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(
            f"The codes are {codes.dtype}, not integers. umt_jax.audio.mu_law.encode makes them of "
            "waveforms."
        )
    if codes.min() < 0 or codes.max() >= mu_law.NUM_LEVELS:
        raise ValueError(
            f"The codes lie in {codes.min()}..{codes.max()}, not in 0..{mu_law.NUM_LEVELS - 1}."
        )
    return codes


def check_mixable(*latents: Any) -> None:
    """Raises `ValueError` unless all are latents of one recording each, [any, Z], of one Z."""
    shapes = [np.shape(each) for each in latents]
    if any(len(shape) != 2 or 0 in shape for shape in shapes) or len({s[1] for s in shapes}) > 1:
        raise ValueError(
            f"latents of shapes {', '.join(map(str, shapes))} cannot be mixed: give those of one "
            "recording each, [F, Z], of the same model."
        )


def _array(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:  # Lists of lists of different lengths.
        raise ValueError(f"The {name} cannot be made one array: {error}") from error


def _floats(array: np.ndarray, name: str) -> np.ndarray:
    # NumPy does not count JAX's narrow types, such as bfloat16, among the floating ones.
    if not (np.issubdtype(array.dtype, np.floating) or "float" in array.dtype.name):
        raise ValueError(f"The {name} of type {array.dtype} must hold floats instead.")
    with np.errstate(over="ignore"):  # What overflows is found not to be finite.
        return array.astype(np.float32, copy=False)


def checked_weights(weights: Any, latents: Latents) -> Float[Array, "F"]:
    """Returns a weight in [0, 1] for each latent frame of one recording, float32."""
    weights = _array(weights, "weights")
    if not (np.issubdtype(weights.dtype, np.integer) or weights.dtype == bool):
        weights = _floats(weights, "weights")
    weights = weights.astype(np.float32, copy=False)
    if latents.ndim != 2 or weights.shape != latents.shape[:1]:
        raise ValueError(
            f"weights of shape {weights.shape} do not fit latents of shape {latents.shape}: give "
            "latents [F, Z] and weights [F]."
        )
    if not ((weights >= 0) & (weights <= 1)).all():
        raise ValueError("weights must lie in [0, 1]: 0 is the first domain, 1 the second.")
    return weights
