"""The authors' PyTorch release in terms of this project: its options, its arrays.

NumPy in, parameters out; `umt_jax.published` reads the files.
"""

import reprlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from umt_jax.config import ENCODER_ACTIVATIONS, Config, ModelConfig, TrainingConfig
from umt_jax.model.networks import NetworkParameters, Networks
from umt_jax.shapes import Parameters

Arrays = Mapping[str, np.ndarray]
"""A PyTorch module's `state_dict`: weights [out, in, tap], biases [out]."""

# What each of our fields is called there. Options that are not here were never used, or can have
# but one value.
_MODEL_OPTIONS = {
    "encoder_blocks": "encoder_blocks",
    "encoder_layers": "encoder_layers",
    "encoder_channels": "encoder_channels",
    "latent_channels": "latent_d",
    "pool_samples": "encoder_pool",
    "decoder_blocks": "blocks",
    "decoder_layers": "layers",
    "decoder_taps": "kernel_size",
    "residual_channels": "residual_channels",
    "skip_channels": "skip_channels",
    "classifier_channels": "d_channels",
    "classifier_layers": "d_layers",
}
_TRAINING_OPTIONS = {
    "segment_samples": "seq_len",
    "domain_batch": "batch_size",
    "learning_rate": "lr",
    "classifier_learning_rate": "lr",
    "learning_rate_decay": "lr_decay",
    "decay_steps": "epoch_len",
    "gradient_clip": "grad_clip",
    "confusion_weight": "d_lambda",
    "seed": "seed",
}

# For files of a release older than the option, and for options that were not set.
_DEFAULTS = {"encoder_pool": 800, "grad_clip": 0.0}


def config_from_options(options: Mapping[str, Any], domains: Sequence[str]) -> Config:
    """Returns the configuration of a published run.

    Args:
        options: Its options by name.
        domains: Names, in the order of its decoders.

    Raises:
        ValueError: An option is missing or has no counterpart here.
    """
    options = _DEFAULTS | {name: value for name, value in options.items() if value is not None}
    activation = options.get("encoder_func")
    if activation not in ENCODER_ACTIVATIONS:
        # glu is offered there, but halves the channels, which do not fit the residual stream then.
        raise ValueError(
            f"encoder_func is {reprlib.repr(activation)}; runs of the published code have "
            f"{' or '.join(ENCODER_ACTIVATIONS)}."
        )
    sizes = _fields(ModelConfig(), _MODEL_OPTIONS, options)
    training = _fields(TrainingConfig(), _TRAINING_OPTIONS, options)
    if len(domains) == 1:  # Nothing to confuse, and so it was in that run.
        training["confusion_weight"] = 0.0
    return Config(
        domains=tuple(domains),
        model=ModelConfig(mu_law="truncated", encoder_activation=activation, **sizes),
        # There the schedule moved the autoencoder's step size alone.
        training=TrainingConfig(classifier_learning_rate_decay=1.0, **training),
    )


def parameters_from_arrays(
    config: Config, *, encoder: Arrays, decoders: Sequence[Arrays], classifier: Arrays
) -> NetworkParameters:
    """Returns PyTorch's arrays as parameters of this project.

    Args:
        config: Sizes and domains.
        encoder: The encoder's arrays.
        decoders: Each domain's.
        classifier: The classifier's.

    Raises:
        ValueError: An array is missing, is one too many, has another shape or is not finite.
    """
    shapes = jax.eval_shape(Networks(config).init, jax.random.key(0))
    one_decoder = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), shapes.decoders
    )
    trees = [
        _tree(arrays, one_decoder, _DECODER_NAMES, f"decoder {index}")
        for index, arrays in enumerate(decoders)
    ]
    return NetworkParameters(
        encoder=_tree(encoder, shapes.encoder, _ENCODER_NAMES, "encoder"),
        decoders=jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees),
        classifier=_tree(
            classifier,
            shapes.classifier,
            _classifier_names(config.model.classifier_layers),
            "classifier",
        ),
    )


def _fields(defaults, names, options):
    """Returns fields of a configuration by our names, in the types of their defaults."""
    fields = {}
    for field, name in names.items():
        kind, value = type(getattr(defaults, field)), options.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_finite = is_number and abs(value) <= sys.float_info.max
        if not is_finite or kind(value) != value:
            wanted = "a whole number" if kind is int else "a number"
            raise ValueError(f"{name} is {reprlib.repr(value)} instead of {wanted}.")
        fields[field] = kind(value)
    return fields


def _tree(arrays: Arrays, shapes: Parameters, names: Mapping[str, str], what: str) -> Parameters:
    """Puts arrays in the places of a tree.

    Args:
        arrays: By PyTorch's names.
        shapes: The tree that is to be made.
        names: PyTorch's name of each of our convolutions; {} stands for the layer's number.
        what: What the arrays belong to, for messages.
    """
    tree, known = {}, set()
    for (*path, parameter), leaf in traverse_util.flatten_dict(shapes).items():
        suffix = "weight" if parameter == "kernel" else "bias"
        name = f"{names['/'.join(path)]}.{suffix}"
        if path[0] == "layers":
            of_layers = [name.format(index) for index in range(leaf.shape[0])]
            rows = [_array(arrays, name, leaf.shape[1:], what) for name in of_layers]
            tree[*path, parameter] = jnp.stack(rows)
            known.update(of_layers)
        else:
            tree[*path, parameter] = _array(arrays, name, leaf.shape, what)
            known.add(name)
    unknown = sorted(set(arrays) - known)
    if unknown:
        raise ValueError(f"the {what} has {unknown[0]}, for which there is no place.")
    return traverse_util.unflatten_dict(tree)


def _array(arrays, name, shape, what):
    """Returns one array as a parameter of that shape."""
    if name not in arrays:
        raise ValueError(f"the {what} lacks {name}.")
    array = np.asarray(arrays[name], np.float32)
    # Kernels: ours are [tap, in, out], or [in, out] where there is one tap.
    wanted = tuple(shape[::-1]) if len(shape) != 2 else (*shape[::-1], 1)
    if array.shape != wanted:
        raise ValueError(f"the {what}'s {name} has shape {array.shape}, not {wanted}.")
    if not np.isfinite(array).all():
        raise ValueError(f"the {what}'s {name} holds values that are not finite numbers.")
    return jnp.asarray(array.T.reshape(shape))


_ENCODER_NAMES = {
    "first": "start",
    "layers/dilated": "dilated_convs.{}.dilated_conv",
    "layers/mix": "dilated_convs.{}.conv_1x1",
    "latent": "conv_1x1",
}

_DECODER_NAMES = {
    "first": "first_conv",
    "skip": "skip_conv",
    "layers/dilated": "layers.{}.causal",
    "layers/condition": "layers.{}.condition",
    "layers/residual": "layers.{}.residual",
    "layers/skip": "layers.{}.skip",
    "head": "fc",
    "condition": "condition",
    "logits": "logits",
}


def _classifier_names(num_layers):
    # Every second of its layers is an ELU, without arrays.
    hidden = {f"layer_{index:02d}": f"convs.{2 * index}" for index in range(num_layers)}
    return hidden | {"logits": f"convs.{2 * num_layers}"}
