"""The trained arrays of a configuration: their names and shapes, without JAX."""

from collections.abc import Mapping
from typing import Any

from umt_jax.audio import mu_law
from umt_jax.config import Config, ModelConfig, TrainingConfig

_CONTEXT_LAYERS = 3

GUIDE_TAPS = 5, 3, 3
"""Latent frames that a guide's first, dilated and last convolutions see."""

GUIDE_DILATIONS = 1, 2, 4, 8, 16, 32
"""Of a guide's layers, in latent frames."""

_LOOKS_BACK_FROM = 8
"""Dilation from which on a guide's layers see nothing ahead."""

Shapes = dict[str, tuple[int, ...]]


def shapes(config: Config) -> Shapes:
    """Returns the shape of each array, float32, by a name such as `decoders.head.kernel`.

    They come in the order of the leaves of `networks.NetworkParameters`, and the names are those
    of checkpoints and model files.
    """
    model, num_domains = config.model, len(config.domains)
    decoder = {name: (num_domains, *shape) for name, shape in _decoder(model).items()}
    return {
        **_sorted("encoder", _encoder(model)),
        **_sorted("decoders", decoder),
        **_sorted("classifier", _classifier(model, config.training, num_domains)),
    }


def nested(arrays: Mapping[str, Any], network: str) -> dict[str, Any]:
    """Returns one network's arrays as nested dictionaries, as JAX has them.

    Args:
        arrays: By the names of `shapes`.
        network: `encoder`, `decoders` or `classifier`.
    """
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        first, *path, last = name.split(".")
        if first == network:
            branch = tree
            for part in path:
                branch = branch.setdefault(part, {})
            branch[last] = array
    return tree


def _encoder(model: ModelConfig) -> Shapes:
    if model.encoder_kind == "cqt":
        return {}
    channels, num_layers = model.encoder_channels, len(model.encoder_dilations)
    return {
        **_affine("first", (3, 1), channels),
        **_affine("layers.dilated", (3, channels), channels, stacked=(num_layers,)),
        **_affine("layers.mix", (channels,), channels, stacked=(num_layers,)),
        **_affine("latent", (channels,), model.latent_channels),
    }


def _decoder(model: ModelConfig) -> Shapes:
    channels, skips, latents = model.residual_channels, model.skip_channels, model.latent_channels
    taps, stacked = model.decoder_taps, (len(model.decoder_dilations),)
    return {
        **_affine("first", (taps, 1), channels),
        **_affine("skip", (channels,), skips),
        **_affine("layers.dilated", (taps, channels), 2 * channels, stacked=stacked),
        **_affine("layers.condition", (latents,), 2 * channels, stacked=stacked),
        **_affine("layers.residual", (channels,), channels, stacked=stacked),
        **_affine("layers.skip", (channels,), skips, stacked=stacked),
        **_affine("head", (skips,), skips),
        **_affine("condition", (latents,), skips),
        **_affine("logits", (skips,), mu_law.NUM_LEVELS),
        **_guide(model),
    }


def guide_padding(taps: int, dilation: int = 1) -> tuple[int, int]:
    """Returns how many latent frames before and behind one a convolution of a guide sees.

    A guide sees far back, for how long a note has been sounding, and not far ahead.

    Args:
        taps: Of the convolution.
        dilation: Latent frames from one tap to the next.
    """
    span = (taps - 1) * dilation
    ahead = span // 2 if dilation < _LOOKS_BACK_FROM else 0
    return span - ahead, ahead


def _guide(model: ModelConfig) -> Shapes:
    width, (first, dilated, last) = model.guide_channels, GUIDE_TAPS
    if not width:
        return {}
    magnitudes = model.pool_samples // model.guide_hop_samples * (model.guide_fft_samples // 2 + 1)
    found = _affine("guide.first", (first, model.latent_channels), width)
    for index in range(len(GUIDE_DILATIONS)):
        found |= _affine(f"guide.dilated_{index:02d}", (dilated, width), width)
        found |= _affine(f"guide.mix_{index:02d}", (width,), width)
    return found | _affine("guide.magnitudes", (last, width), magnitudes)


def _classifier(model: ModelConfig, training: TrainingConfig, num_domains: int) -> Shapes:
    width, latents = model.classifier_channels, model.latent_channels
    found: Shapes = {}
    inputs = latents
    for index in range(model.classifier_layers):
        found |= _affine(f"layer_{index:02d}", (inputs,), width)
        inputs = width
    found |= _affine("logits", (inputs,), num_domains)
    if training.classifier_standardised:
        found |= {"mean": (latents,), "log_variance": (latents,)}
    if training.classifier_context_frames:
        taps = 1 + 2 * training.classifier_context_frames
        for index in range(_CONTEXT_LAYERS):
            found |= _affine(f"context_{index:02d}", (taps, width if index else latents), width)
        found |= _affine("context_logits", (width,), num_domains)
    return found


def _affine(
    name: str, inputs: tuple[int, ...], outputs: int, *, stacked: tuple[int, ...] = ()
) -> Shapes:
    """Returns the shapes of a convolution's kernel and bias, `stacked` by layers."""
    return {f"{name}.kernel": (*stacked, *inputs, outputs), f"{name}.bias": (*stacked, outputs)}


def _sorted(network: str, found: Shapes) -> Shapes:
    """Returns arrays under the name of their network, in JAX's order of nested dictionaries."""
    names = sorted(found, key=lambda name: name.split("."))
    return {f"{network}.{name}": found[name] for name in names}
