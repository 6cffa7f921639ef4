"""One step of the CycleGAN: both generators, then both discriminators. Pure functions."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from experiments.cqt import losses
from experiments.cqt.networks import Discriminator, Generator
from experiments.cqt.settings import GanConfig, GanSettings
from umt_jax.model import cqt
from umt_jax.shapes import Array, Codes, Float, Integer, Key, Latents, Leaf, Parameters, PyTree

Both = tuple[Parameters, Parameters]
"""One network's arrays for each domain: generators make it, discriminators know it."""

Metrics = dict[str, Float[Array, ""]]

_BETA_1 = 0.5
_LAST_SHARE = 0.1


class GanState(struct.PyTreeNode):
    """What training carries from step to step.

    Attributes:
        step: Updates so far, int32 [].
        generators: That of a domain makes its frames out of the other's.
        discriminators: That of a domain tells its frames from made ones.
        average: Running average of the generators.
        generator_optimizer: State of Adam over both generators.
        discriminator_optimizer: State of Adam over both discriminators.
    """

    step: Leaf
    generators: Both
    discriminators: Both
    average: Both
    generator_optimizer: PyTree
    discriminator_optimizer: PyTree


@dataclasses.dataclass(frozen=True)
class Optimizers:
    """Adam for the generators, Adam for the discriminators."""

    generators: optax.GradientTransformation
    discriminators: optax.GradientTransformation


def make_optimizers(training: GanSettings) -> Optimizers:
    """Builds both optimizers as the settings say."""

    def adam(learning_rate):
        last = _LAST_SHARE * learning_rate
        schedule = optax.linear_schedule(learning_rate, last, training.decay_steps)
        return optax.adam(schedule, b1=_BETA_1)

    return Optimizers(adam(training.learning_rate), adam(training.discriminator_learning_rate))


def create(config: GanConfig, key: Key[Array, ""]) -> GanState:
    """Returns the state before the first step, fresh; its generators are the identity."""
    training, optimizers = config.training, make_optimizers(config.training)
    frames = jnp.zeros((1, num_frames(config), config.model.latent_channels), jnp.float32)
    keys = jax.random.split(key, 4)
    generators, discriminators = (
        tuple(network.init(key, frames)["params"] for key in of_kind)
        for network, of_kind in (
            (Generator(training), keys[:2]),
            (Discriminator(training), keys[2:]),
        )
    )
    return GanState(
        step=jnp.zeros((), jnp.int32),
        generators=generators,
        discriminators=discriminators,
        average=generators,
        generator_optimizer=optimizers.generators.init(generators),
        discriminator_optimizer=optimizers.discriminators.init(discriminators),
    )


def num_frames(config: GanConfig) -> int:
    """Returns how many frames of a training segment are whole."""
    segment = config.training.segment_samples // config.model.pool_samples
    return segment - 2 * cqt.margin_frames(config.model)


def frames_of(codes: Codes, config: GanConfig) -> Float[Array, "*B F Z"]:
    """Returns the whole frames of training segments, [*B, T]."""
    first = cqt.margin_frames(config.model)
    return cqt.encode(codes, config.model)[..., first : first + num_frames(config), :]


@functools.partial(jax.jit, static_argnames="config")
def all_frames(codes: Codes, config: GanConfig) -> Latents:
    """Returns all frames of a recording, [*B, F, Z]; silence lies beyond its ends."""
    return cqt.encode(codes, config.model)


@functools.partial(jax.jit, static_argnames="training")
def translate(generator: Parameters, frames: Latents, training: GanSettings) -> Latents:
    """Returns frames, [B, F, Z], as the domain of a generator."""
    made: Any = Generator(training).apply({"params": generator}, frames)
    return made


def discriminate(
    discriminator: Parameters, frames: Latents, training: GanSettings
) -> Float[Array, "B N"]:
    """Returns a discriminator's logits of frames."""
    logits: Any = Discriminator(training).apply({"params": discriminator}, frames)
    return logits


def train_step(
    state: GanState, codes: Integer[Array, "2 B T"], *, config: GanConfig
) -> tuple[GanState, Metrics]:
    """Updates the generators against the discriminators as they are, then the discriminators.

    Args:
        state: State before the step.
        codes: Codes of B segments of each domain, [2, B, T]; nothing pairs them.
        config: What is trained.

    Returns:
        The next state, and metrics, scalars.
    """
    return update(state, frames_of(codes, config), training=config.training)


def update(
    state: GanState, true: Float[Array, "2 B F Z"], *, training: GanSettings
) -> tuple[GanState, Metrics]:
    """Returns the next state and metrics, given the frames of B segments of each domain."""
    optimizers = make_optimizers(training)
    (_, (fakes, metrics)), grads = jax.value_and_grad(generator_loss, has_aux=True)(
        state.generators, state.discriminators, true, step=state.step, training=training
    )
    moves, generator_optimizer = optimizers.generators.update(grads, state.generator_optimizer)
    generators = optax.apply_updates(state.generators, moves)

    (_, more), grads = jax.value_and_grad(discriminator_loss, has_aux=True)(
        state.discriminators, true, jax.lax.stop_gradient(fakes), training=training
    )
    moves, discriminator_optimizer = optimizers.discriminators.update(
        grads, state.discriminator_optimizer
    )
    # The first steps weigh more, so that the average does not stay at where they began.
    decay = jnp.minimum(training.ema_decay, (1 + state.step) / (10 + state.step))
    return GanState(
        step=state.step + 1,
        generators=generators,
        discriminators=optax.apply_updates(state.discriminators, moves),
        average=optax.incremental_update(generators, state.average, 1 - decay),
        generator_optimizer=generator_optimizer,
        discriminator_optimizer=discriminator_optimizer,
    ), {**metrics, **more}


def generator_loss(
    generators: Both,
    discriminators: Both,
    true: Float[Array, "2 B F Z"],
    *,
    step: Leaf,
    training: GanSettings,
) -> tuple[Float[Array, ""], tuple[Float[Array, "2 B F Z"], Metrics]]:
    """Returns the generators' loss, the frames they made of each domain, and its parts."""
    fakes, same = [], []
    for domain, generator in enumerate(generators):
        # What is to be translated, and what should stay as it is, at once.
        both = jnp.concatenate([true[1 - domain], true[domain]])
        made = jnp.split(translate(generator, both, training), 2)
        fakes.append(made[0])
        same.append(made[1])
    cycles = [
        translate(generator, fakes[1 - domain], training)
        for domain, generator in enumerate(generators)
    ]
    logits = [
        discriminate(discriminator, fake, training)
        for discriminator, fake in zip(discriminators, fakes, strict=True)
    ]
    metrics: Metrics = {
        "fooling": losses.fooling(jnp.stack(logits)),
        "cycle": losses.difference(jnp.stack(cycles), true),
        "identity": losses.difference(jnp.stack(same), true),
        "change": losses.difference(jnp.stack(fakes), true[::-1]),
    }
    loss = (
        metrics["fooling"]
        + training.cycle_weight * metrics["cycle"]
        + losses.identity_weight(training, step) * metrics["identity"]
    )
    return loss, (jnp.stack(fakes), metrics)


def discriminator_loss(
    discriminators: Both,
    true: Float[Array, "2 B F Z"],
    fakes: Float[Array, "2 B F Z"],
    *,
    training: GanSettings,
) -> tuple[Float[Array, ""], Metrics]:
    """Returns the discriminators' loss, mean over both, and its parts."""
    telling, right, penalties = [], [], []
    for domain, discriminator in enumerate(discriminators):
        logits_of = functools.partial(discriminate, discriminator, training=training)
        true_logits, fake_logits = logits_of(true[domain]), logits_of(fakes[domain])
        telling.append(losses.telling_apart(true_logits, fake_logits))
        right.append((jnp.mean(true_logits > 0) + jnp.mean(fake_logits < 0)) / 2)
        penalties.append(losses.gradient_penalty(logits_of, true[domain]))
    metrics: Metrics = {
        "telling_apart": jnp.mean(jnp.stack(telling)),
        "discriminator_accuracy": jnp.mean(jnp.stack(right)),
        "gradient_penalty": jnp.mean(jnp.stack(penalties)),
    }
    loss = metrics["telling_apart"] + training.penalty_weight * metrics["gradient_penalty"]
    return loss, metrics
