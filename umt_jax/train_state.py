"""What training carries from step to step, and its two optimizers (§3.3)."""

import dataclasses

import jax.numpy as jnp
import optax
from flax import struct

from umt_jax.config import TrainingConfig
from umt_jax.networks import NetworkParameters
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
        autoencoder_optimizer: State over `{"encoder": ..., "decoders": ...}`.
        classifier_optimizer: State over the classifier's parameters.
    """

    step: Leaf
    parameters: NetworkParameters
    autoencoder_optimizer: PyTree
    classifier_optimizer: PyTree

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
        self, encoder_grads: Parameters, decoder_grads: Parameters, optimizers: Optimizers
    ) -> "TrainState":
        """Returns the state after one step of the autoencoder's optimizer."""
        updates, optimizer = optimizers.autoencoder.update(
            {"encoder": encoder_grads, "decoders": decoder_grads},
            self.autoencoder_optimizer,
            autoencoder_parameters(self.parameters),
        )
        updated = optax.apply_updates(autoencoder_parameters(self.parameters), updates)
        return self.replace(
            parameters=self.parameters.replace(**updated), autoencoder_optimizer=optimizer
        )


def autoencoder_parameters(parameters: NetworkParameters) -> dict[str, Parameters]:
    """Returns what the autoencoder's optimizer moves."""
    return {"encoder": parameters.encoder, "decoders": parameters.decoders}


def learning_rate(config: TrainingConfig) -> optax.Schedule:
    """Returns the autoencoder's step size as a function of the step."""
    return optax.exponential_decay(
        config.learning_rate, config.decay_steps, config.learning_rate_decay, staircase=True
    )


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


def create(parameters: NetworkParameters, optimizers: Optimizers) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        parameters=parameters,
        autoencoder_optimizer=optimizers.autoencoder.init(autoencoder_parameters(parameters)),
        classifier_optimizer=optimizers.classifier.init(parameters.classifier),
    )
