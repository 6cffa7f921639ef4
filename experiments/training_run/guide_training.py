"""Trains one domain's guide on latents of a finished encoder, which are kept in memory."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from umt_jax.audio import spectrogram
from umt_jax.config import ModelConfig
from umt_jax.model import guide, layers
from umt_jax.shapes import Float, Parameters

_CROPS, _CROP_SECONDS = 8, 4.0
"""Crops in a step, and about how long each is."""

_LATENT_NOISE = 0.05
"""On latents, as a share of each one's standard deviation."""

_EMA_DECAY = 0.995
_LAST_RATE = 0.02
"""Learning rate at the last step, as a share of the first one's."""

_LOG_EVERY = 250
_DB = 20 / np.log(10)
"""Decibels in a natural logarithm."""


class Examples(NamedTuple):
    """Latents of recordings, one behind the other, and what a guide is to predict of them.

    Attributes:
        latents: Latents of V versions of them, [V, F, Z].
        magnitudes: Log-magnitudes of the recordings themselves, [N, M], N frames for each latent
            frame.
    """

    latents: Float[np.ndarray, "V F Z"]
    magnitudes: Float[np.ndarray, "N M"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How a guide is trained.

    Attributes:
        num_steps: Steps.
        learning_rate: Adam's step size at step 0, which falls to a fiftieth along a cosine.
        seed: Decides initial weights and crops.
    """

    num_steps: int = 6000
    learning_rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the learning rate."""
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate={self.learning_rate} must be above 0, and finite.")


def log_magnitudes(
    waveform: Float[np.ndarray, "T"], config: ModelConfig
) -> Float[np.ndarray, "N M"]:
    """Returns what a guide is to predict of a recording of whole latent frames."""
    return spectrogram.log_magnitudes(
        waveform,
        window_samples=config.guide_fft_samples,
        hop_samples=config.guide_hop_samples,
    )


def train(
    config: ModelConfig, examples: Examples, validation: Examples, settings: Settings, *, name: str
) -> Parameters:
    """Returns a trained guide: the running average of its parameters.

    The loss is the mean absolute error of log-magnitudes.

    Args:
        config: Sizes.
        examples: What to train on.
        validation: What its error is reported on, from time to time.
        settings: For how long, and how.
        name: Of the domain, for the log.
    """
    module = guide.Guide(config)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(
            optax.cosine_decay_schedule(settings.learning_rate, settings.num_steps, _LAST_RATE)
        ),
    )
    key = jax.random.key(settings.seed)
    shape = jax.ShapeDtypeStruct((1, 1, config.latent_channels), jnp.float32)
    parameters = guide.first_parameters(
        layers.init(module, key, shape),
        _floats(examples.latents).reshape(-1, config.latent_channels),
        _floats(examples.magnitudes),
    )
    average, state = parameters, optimizer.init(parameters)
    update = jax.jit(functools.partial(_update, module, optimizer))
    random = np.random.default_rng(settings.seed)
    noise = _LATENT_NOISE * _floats(examples.latents).std(axis=(0, 1))
    for step in range(1, settings.num_steps + 1):
        latents, magnitudes = _crops(examples, config, random)
        latents += noise * random.standard_normal(latents.shape, np.float32)
        parameters, state, average = update(parameters, state, average, latents, magnitudes)
        if step % _LOG_EVERY == 0 or step == settings.num_steps:
            errors = ", ".join(
                f"{error:.2f}" for error in validation_db(module, average, validation)
            )
            logging.info("%s: step %d, %s dB off in validation", name, step, errors)
    return jax.tree.map(np.asarray, average)


def loss(module: guide.Guide, parameters: Parameters, latents, magnitudes) -> Float[jax.Array, ""]:
    """Returns the mean absolute error of log-magnitudes."""
    return jnp.abs(module.apply({"params": parameters}, latents) - magnitudes).mean()


def validation_db(module: guide.Guide, parameters: Parameters, examples: Examples) -> list[float]:
    """Returns the mean absolute error in decibels for each version of the latents."""
    magnitudes = _floats(examples.magnitudes)
    return [
        _DB * float(loss(module, parameters, _floats(latents), magnitudes))
        for latents in examples.latents
    ]


def _update(module, optimizer, parameters, state, average, latents, magnitudes):
    grads = jax.grad(loss, argnums=1)(module, parameters, latents, magnitudes)
    updates, state = optimizer.update(grads, state, parameters)
    parameters = optax.apply_updates(parameters, updates)
    average = optax.incremental_update(parameters, average, 1 - _EMA_DECAY)
    return parameters, state, average


def _crops(examples, config, random):
    """Returns latents, [B, F, Z], and log-magnitudes, [B, N, M], of random stretches.

    Each has the latents of a random version.
    """
    per_latent = config.pool_samples // config.guide_hop_samples
    wanted = round(_CROP_SECONDS * config.sample_rate_hz / config.pool_samples)
    num_versions, num_frames, _ = examples.latents.shape
    length = min(max(1, wanted), num_frames)
    starts = random.integers(0, num_frames - length + 1, _CROPS)
    versions = random.integers(0, num_versions, _CROPS)
    latents = [
        examples.latents[version, start : start + length]
        for version, start in zip(versions, starts, strict=True)
    ]
    magnitudes = [
        examples.magnitudes[per_latent * start : per_latent * (start + length)] for start in starts
    ]
    return _floats(np.stack(latents)), _floats(np.stack(magnitudes))


def _floats(array):
    return np.asarray(array, np.float32)
