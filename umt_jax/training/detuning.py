"""A past of wandering pitch: what makes decoders believe the latents (beyond the paper).

With the true past before it a decoder knows the pitch from there, and learns to ignore the latents;
playing freely it then holds whatever pitch it has drifted to. Here, as if §3.2 modulated the pitch
of the past, it reads the recording at a rate that wanders, and must give the sample that follows
where it stands at the true rate. Only the latents tell that rate.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct

from umt_jax.audio import mu_law
from umt_jax.config import Config
from umt_jax.data.dataset import Batch
from umt_jax.shapes import Array, Float, Integer, Key, Leaf

_HOLDS = (0.5, 5 / 3)
"""Shortest and longest time that a detuning lasts, as multiples of `past_detune_samples`."""

_LEAST_NOISE_SHARE = 1 / 30
"""The least noise that is drawn, as a share of the most."""

_STEEPEST = 16.0
"""Factor by which the rate may change faster than a sine between sharp and flat."""

_TAPS = range(-3, 5)
_HALF_WIDTH = 4


class Lesson(struct.PyTreeNode):
    """Inputs and targets of one step.

    Attributes:
        past: Codes that the decoders read, [K, B, T].
        targets: Codes to predict from what comes before them in `past`, and latents, [K, B, T].
        counted: Whether each target counts, bool [K, B, T]; None if all of them do.
        augmented: Codes that the encoder hears, [K, B, T].
        latent_noise: What is added to the latents, float32 [K, B, F, Z]; None for nothing.
        frames: Of each latent frame that the decoders read, which one of the encoder's it is,
            int32 [K, B, F]; None where each is its own.
    """

    past: Leaf
    targets: Leaf
    counted: Leaf | None
    augmented: Leaf
    latent_noise: Leaf | None
    frames: Leaf | None


def make_lesson(batch: Batch, config: Config, *, step: Leaf, first_segment: Leaf = 0) -> Lesson:
    """Returns the batch as a lesson, its past detuned as the configuration says.

    What is drawn for a segment depends on seed, step, domain and the segment's place in the whole
    batch alone, so that devices may share a batch in any way.

    Args:
        batch: Segments of every domain.
        config: What to detune, and how far.
        step: Number of the step.
        first_segment: Place of the first of these segments among the B of the whole batch.
    """
    training = config.training
    detunes = training.past_detune_semitones or training.past_noise
    if not (detunes or training.latent_noise):
        return true_lesson(batch)
    num_domains, num_segments, num_samples = batch.codes.shape
    step_key = jax.random.fold_in(jax.random.key(training.seed), step)
    noise_shape = (num_samples // config.model.pool_samples, config.model.latent_channels)

    def lesson_of(domain, segment, codes, augmented):
        key = jax.random.fold_in(jax.random.fold_in(step_key, domain), segment)
        past_key, latent_key = jax.random.split(key)
        lesson = Lesson(codes, codes, None, augmented, None, None)
        if detunes:
            lesson = _detuned(lesson, past_key, config)
        if training.latent_noise:
            noise = training.latent_noise * jax.random.normal(latent_key, noise_shape)
            lesson = lesson.replace(latent_noise=noise)
        return lesson

    of_domain = jax.vmap(lesson_of, in_axes=(None, 0, 0, 0))
    return jax.vmap(of_domain, in_axes=(0, None, 0, 0))(
        jnp.arange(num_domains),
        first_segment + jnp.arange(num_segments),
        batch.codes,
        batch.augmented,
    )


def true_lesson(batch: Batch) -> Lesson:
    """Returns the batch as a lesson whose past is the true one."""
    return Lesson(batch.codes, batch.codes, None, batch.augmented, None, None)


def _detuned(lesson, key, config):
    """Returns the lesson of one segment, leaves [T], with another past."""
    training, convention, codes = config.training, config.model.mu_law, lesson.past
    wander_key, choice_key, noise_key = jax.random.split(key, 3)
    wanders = jax.random.bernoulli(choice_key, training.past_detune_share)
    wanders &= training.past_detune_semitones > 0
    positions = wandering_positions(
        wander_key,
        len(codes),
        semitones=training.past_detune_semitones,
        hold_samples=training.past_detune_samples,
    )
    positions = jnp.where(wanders, positions, jnp.arange(len(codes), dtype=positions.dtype))
    past, one_later = read(mu_law.decode(codes, convention), positions, [0, 1])
    # The target at t stands one true sample after the past at t - 1.
    targets = jnp.concatenate([codes[:1], mu_law.encode(one_later[:-1], convention)])
    counted = jnp.concatenate([jnp.ones(1, bool), positions[:-1] <= len(codes) - 2])
    past = _with_noise(past, noise_key, training.past_noise, convention)
    frames = None
    if training.past_detune_semitones:
        frames = frames_at(positions, config.model.pool_samples)
    return lesson.replace(past=past, targets=targets, counted=counted, frames=frames)


def wandering_positions(
    key: Key[Array, ""], num_samples: int, *, semitones: float, hold_samples: int
) -> Float[Array, "T"]:
    """Draws where in a recording a past of wandering rate stands at each sample.

    It starts at 0 and moves on by 2^(d / 12) samples at each sample. The detuning d goes through
    values drawn evenly from [-semitones, semitones], one every L samples, and changes between them
    evenly or in a part of that time alone: the past then holds a wrong pitch for longer than a
    decoder looks back, as a decoder does that has gone astray. L and the steepness are drawn once.

    The values are even, with none that are likelier near 0: otherwise a past that is nearly in tune
    would tell the true pitch more exactly than the latents do, and decoders would believe it.

    Args:
        key: Decides d, L and the steepness.
        num_samples: T.
        semitones: The most that the past may be sharp or flat.
        hold_samples: About how long one detuning lasts, L.
    """
    detune_key, hold_key, start_key, slope_key = jax.random.split(key, 4)
    shortest, longest = (share * hold_samples for share in _HOLDS)
    hold = jax.random.uniform(hold_key, minval=shortest, maxval=longest)
    slope = jnp.exp(jax.random.uniform(slope_key, maxval=math.log(_STEEPEST)))
    place = jax.random.uniform(start_key) + jnp.arange(num_samples, dtype=jnp.float32) / hold
    most_values = int(num_samples / shortest) + 3
    detunings = jax.random.uniform(detune_key, (most_values,), minval=-semitones, maxval=semitones)
    whole = jnp.floor(place)
    change = jnp.clip((place - whole - 0.5) * slope + 0.5, 0, 1)
    before = whole.astype(jnp.int32)
    detuning = detunings[before] + change * (detunings[before + 1] - detunings[before])
    rates = 2 ** (detuning / 12)
    return jnp.cumsum(rates) - rates[0]


def frames_at(positions: Float[Array, "T"], pool_samples: int) -> Integer[Array, "F"]:
    """Returns the latent frame in which the past stands in the middle of each frame.

    The past may stand anywhere in the recording: what the decoders read of the latents goes along,
    so that it says what sounds there.
    """
    middles = positions[pool_samples // 2 :: pool_samples]
    return jnp.clip(middles // pool_samples, 0, len(middles) - 1).astype(jnp.int32)


def read(
    waveform: Float[Array, "T"], positions: Float[Array, "T"], ahead: Sequence[int]
) -> list[Float[Array, "T"]]:
    """Reads a waveform between its samples, by a windowed sinc of eight taps.

    Args:
        waveform: Samples, [T].
        positions: Where to read, in samples; the first and last sample continue beyond the ends.
        ahead: How many samples after these positions to read.

    Returns:
        For each of `ahead` the waveform there, [T].
    """
    whole = jnp.floor(positions)
    fraction = positions - whole
    first = whole.astype(jnp.int32)
    weights = [_window(fraction - tap) for tap in _TAPS]
    total = sum(weights)

    def sample(offset):
        return waveform[jnp.clip(first + offset, 0, len(waveform) - 1)]

    return [
        sum(weight * sample(n + tap) for weight, tap in zip(weights, _TAPS, strict=True)) / total
        for n in ahead
    ]


def _window(distance):
    """Returns a sinc that a raised cosine brings to zero at `_HALF_WIDTH` samples."""
    inside = jnp.abs(distance) < _HALF_WIDTH
    cosine = jnp.cos(jnp.pi / (2 * _HALF_WIDTH) * distance)
    return jnp.where(inside, jnp.sinc(distance) * cosine * cosine, 0)


def _with_noise(waveform, key, most_noise, convention) -> Integer[Array, "T"]:
    """Returns the codes of a waveform; noise of a strength that is drawn moves what they round."""
    levels = mu_law.compress(waveform)
    if most_noise:
        strength_key, noise_key = jax.random.split(key)
        most, range_ = math.log(most_noise), math.log(_LEAST_NOISE_SHARE)
        strength = jnp.exp(jax.random.uniform(strength_key, minval=most + range_, maxval=most))
        levels = levels + strength * jax.random.normal(noise_key, levels.shape)
    return mu_law.quantise(levels.clip(-1, 1), convention)
