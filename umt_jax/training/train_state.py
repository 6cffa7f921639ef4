"""The state that training carries from step to step, and its two optimizers (§3.3)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from umt_jax.config import Config, TrainingConfig
from umt_jax.model import networks
from umt_jax.model.networks import NetworkParameters
from umt_jax.shapes import Leaf, Parameters, PyTree


@dataclasses.dataclass(frozen=True)
class Optimizers:
    """Adam for the autoencoder, Adam for the classifier, each with its own schedule."""

    autoencoder: optax.GradientTransformation
    classifier: optax.GradientTransformation


class TrainState(struct.PyTreeNode):
    """Parameters, both optimizers' states and the number of steps taken.

    Attributes:
        step: Updates so far, int32 [].
        parameters: All trained arrays.
        autoencoder_optimizer: State over `trained_parameters`.
        classifier_optimizer: State over the classifier's parameters.
        average: Running average of the parameters, which moves less from step to step; None where
            the configuration has `ema_decay=0`.
        recent_latents: Of the last steps, in a ring, float32 [M, K, B, F, Z]; None where the
            classifier is updated once a step.
    """

    step: Leaf
    parameters: NetworkParameters
    autoencoder_optimizer: PyTree
    classifier_optimizer: PyTree
    average: PyTree = None
    recent_latents: Leaf | None = None

    @property
    def best_parameters(self) -> NetworkParameters:
        """Parameters for evaluation, checkpoints and inference: the average if there is one."""
        return self.parameters if self.average is None else self.average

    def finish_step(self, config: TrainingConfig) -> "TrainState":
        """Returns the state with the step counted and the average moved."""
        average = self.average
        if average is not None:
            # The first steps weigh more, so that the average does not stay at where they began.
            decay = jnp.minimum(config.ema_decay, (1 + self.step) / (10 + self.step))
            # Not a weighted sum: what was not trained keeps its bits, and with them the encoder's
            # fingerprint.
            average = jax.tree.map(
                lambda before, now: before + (1 - decay) * (now - before), average, self.parameters
            )
        return self.replace(step=self.step + 1, average=average)

    def update_classifier(self, grads: Parameters, optimizers: Optimizers) -> "TrainState":
        """Returns the state after one step of the classifier's optimizer."""
        updates, optimizer = optimizers.classifier.update(
            grads, self.classifier_optimizer, self.parameters.classifier
        )
        classifier = optax.apply_updates(self.parameters.classifier, updates)
        return self.replace(
            parameters=self.parameters.replace(classifier=classifier),
            classifier_optimizer=optimizer,
        )

    def update_autoencoder(
        self, grads: dict[str, Parameters], optimizers: Optimizers, config: Config
    ) -> "TrainState":
        """Returns the state after one step of the autoencoder's optimizer.

        Args:
            grads: Gradients of `trained_parameters`.
            optimizers: The optimizers that made this state.
            config: Says what is trained.
        """
        before = trained_parameters(self.parameters, config)
        updates, optimizer = optimizers.autoencoder.update(
            grads, self.autoencoder_optimizer, before
        )
        trained = optax.apply_updates(before, updates)
        if config.train_domains:
            indices = np.asarray(config.trained_indices)
            trained["decoders"] = jax.tree.map(
                lambda leaf, new: leaf.at[indices].set(new),
                self.parameters.decoders,
                trained["decoders"],
            )
        return self.replace(
            parameters=self.parameters.replace(**trained), autoencoder_optimizer=optimizer
        )


def trained_parameters(parameters: NetworkParameters, config: Config) -> dict[str, Parameters]:
    """Returns what the autoencoder's optimizer moves: decoders, and the encoder if trained."""
    decoders = parameters.decoders
    if config.train_domains:
        decoders = networks.select(decoders, config.trained_indices)
    if not config.trains_encoder:
        return {"decoders": decoders}
    return {"encoder": parameters.encoder, "decoders": decoders}


def _no_latents(config: Config) -> Leaf:
    training, model = config.training, config.model
    num_frames = training.segment_samples // model.pool_samples
    segments = (len(config.trained_domains), training.domain_batch)
    shape = (training.classifier_memory_steps, *segments, num_frames, model.latent_channels)
    return jnp.zeros(shape, jnp.float32)


def learning_rate(config: TrainingConfig) -> optax.Schedule:
    """Returns the autoencoder's step size as a function of the step."""
    return optax.exponential_decay(
        config.learning_rate, config.decay_steps, config.learning_rate_decay, staircase=True
    )


def confusion_weight(config: TrainingConfig, step: Leaf) -> Leaf:
    """Returns lambda at a step, which may grow from 0."""
    if not config.confusion_ramp_steps:
        return config.confusion_weight
    return config.confusion_weight * jnp.minimum(1, (1 + step) / config.confusion_ramp_steps)


def make_optimizers(config: TrainingConfig) -> Optimizers:
    """Builds both optimizers as the configuration says."""
    classifier_learning_rate = optax.exponential_decay(
        config.classifier_learning_rate,
        config.decay_steps,
        config.classifier_learning_rate_decay,
        staircase=True,
    )
    clip = optax.clip(config.gradient_clip) if config.gradient_clip else optax.identity()
    return Optimizers(
        autoencoder=optax.chain(clip, optax.adam(learning_rate(config))),
        classifier=optax.adam(classifier_learning_rate),
    )


def create(parameters: NetworkParameters, optimizers: Optimizers, config: Config) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        parameters=parameters,
        autoencoder_optimizer=optimizers.autoencoder.init(trained_parameters(parameters, config)),
        classifier_optimizer=optimizers.classifier.init(parameters.classifier),
        average=parameters if config.training.ema_decay else None,
        recent_latents=_no_latents(config) if config.training.classifier_updates > 1 else None,
    )
