"""What users pass to a Translator, checked, in words that say what to pass instead."""

from collections.abc import Sequence

import numpy as np

from umt_jax.audio import sound_files
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


def resampled(waveform: Array, sample_rate_hz: int, *, to_hz: int) -> Float[Array, "*B U"]:
    """Checks type and shape of a waveform and returns it at another rate, float32."""
    if np.issubdtype(np.asarray(waveform).dtype, np.integer):
        raise ValueError(
            "The waveform holds integers, not amplitudes in [-1, 1]. Divide 16-bit samples by "
            "32768."
        )
    if not sample_rate_hz > 0:
        raise ValueError(f"sample_rate_hz={sample_rate_hz} must be above 0.")
    waveform = np.asarray(waveform, np.float32)
    if waveform.ndim not in (1, 2) or 0 in waveform.shape:
        raise ValueError(
            f"A waveform of shape {waveform.shape} is not [T], mono, or [B, T]. Average the "
            "channels of stereo first."
        )
    # Whether its values are finite the encoder checks: resampling keeps those that are not.
    at_rate = sound_files.resample(waveform, from_hz=sample_rate_hz, to_hz=to_hz)
    if not at_rate.size:
        raise ValueError(
            f"{waveform.shape[-1]} samples at {sample_rate_hz} Hz are less than one at {to_hz} Hz."
        )
    return at_rate


def checked_latents(latents: Latents, config: ModelConfig) -> Latents:
    """Returns latents as float32, [F, Z] or [B, F, Z]."""
    latents = np.asarray(latents, np.float32)
    channels = config.latent_channels
    if latents.ndim not in (2, 3) or latents.shape[-1] != channels or 0 in latents.shape:
        raise ValueError(
            f"latents of shape {latents.shape} are not [F, {channels}] or [B, F, {channels}]."
        )
    if not np.isfinite(latents).all():
        raise ValueError("The latents hold values that are not finite numbers.")
    return latents


def checked_codes(codes: Codes, latents: Latents, config: ModelConfig) -> Codes:
    """Returns codes, [*B, T], that have a sample for each of the latents' samples."""
    codes = np.asarray(codes)
    *batch, num_frames, _ = latents.shape
    expected = (*batch, num_frames * config.pool_samples)
    if codes.shape != expected:
        raise ValueError(
            f"codes of shape {codes.shape} do not fit {num_frames} latent frames of "
            f"{config.pool_samples} samples: give {expected}."
        )
    return codes


def checked_weights(weights: Array, latents: Latents) -> Float[Array, "F"]:
    """Returns a weight in [0, 1] for each latent frame of one recording, float32."""
    weights = np.asarray(weights, np.float32)
    if latents.ndim != 2 or weights.shape != latents.shape[:1]:
        raise ValueError(
            f"weights of shape {weights.shape} do not fit latents of shape {latents.shape}: give "
            "latents [F, Z] and weights [F]."
        )
    if not ((weights >= 0) & (weights <= 1)).all():
        raise ValueError("weights must lie in [0, 1]: 0 is the first domain, 1 the second.")
    return weights
