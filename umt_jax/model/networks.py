"""The three networks together: their parameters, and K decoders as one stacked tree."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from umt_jax.config import Config
from umt_jax.model import array_shapes, classifier, cqt, decoder, encoder, guide, layers
from umt_jax.shapes import (
    Array,
    Bool,
    CodeLogits,
    Codes,
    DomainLogits,
    Float,
    Integer,
    Key,
    Latents,
    Leaf,
    Parameters,
    PyTree,
)


class NetworkParameters(struct.PyTreeNode):
    """All trained arrays.

    Attributes:
        encoder: Shared by all domains; none, {}, where the encoder is a constant-Q transform.
        decoders: The tree of one decoder, every leaf with a leading axis K.
        classifier: From latents to domain logits.
    """

    encoder: Parameters
    decoders: Parameters
    classifier: Parameters


@dataclasses.dataclass(frozen=True)
class Networks:
    """Pure functions of parameters and data, for one configuration.

    Attributes:
        config: Sizes, domains, and the type of activations.
        unroll_domains: Runs the K decoders one after another instead of under `vmap`, in the memory
            of one; only possible where no mesh axis splits the domains.
        native_threads: Threads by which `native_layers` computes encoder and decoders, for training
            on CPUs; 0 has XLA compute them. Only possible where the domains are unrolled, and the
            compiler splits no batch over devices.
    """

    config: Config
    unroll_domains: bool = True
    native_threads: int = 0

    @functools.partial(jax.jit, static_argnames="self")
    def init(self, key: Key[Array, ""]) -> NetworkParameters:
        """Returns fresh parameters, float32."""
        encoder_key, decoder_key, classifier_key = jax.random.split(key, 3)
        model = self.config.model
        codes = jax.ShapeDtypeStruct((1, model.pool_samples), jnp.int32)
        latents = jax.ShapeDtypeStruct((1, 1, model.latent_channels), jnp.float32)
        by_xla = functools.partial(layers.Network.clone, native_threads=0)

        def init_decoder(key):
            parameters = layers.init(by_xla(self._decoder), key, codes, latents)
            if not model.guide_channels:
                return parameters
            return {
                **parameters,
                "guide": layers.init(self._guide, jax.random.fold_in(key, 1), latents),
            }

        return NetworkParameters(
            encoder={} if self._is_cqt else layers.init(by_xla(self._encoder), encoder_key, codes),
            decoders=jax.vmap(init_decoder)(
                jax.random.split(decoder_key, len(self.config.domains))
            ),
            classifier=layers.init(self._classifier, classifier_key, latents),
        )

    def encode(
        self, parameters: Parameters, codes: Codes, inside: Bool[Array, "*B T"] | None = None
    ) -> Latents:
        """Returns the latents of codes; see `encoder.Encoder` for `inside`."""
        if self._is_cqt:
            return cqt.encode(codes, self.config.model, inside)
        return self._encoder.apply({"params": parameters}, codes, inside)

    def decode_one(self, parameters: Parameters, codes: Codes, latents: Latents) -> CodeLogits:
        """Returns one decoder's logits of each code given those before it, [*B, T, Q]."""
        return self._decoder.apply({"params": parameters}, codes, latents)

    def code_losses(
        self, parameters: Parameters, codes: Codes, latents: Latents, targets: Codes
    ) -> Float[Array, "*B T"]:
        """Returns what each of the targets costs by one decoder, in nats."""
        return self._decoder.apply({"params": parameters}, codes, latents, targets)

    def decode(
        self,
        decoders: Parameters,
        codes: Integer[Array, "K *B T"],
        latents: Float[Array, "K *B F Z"],
    ) -> Float[Array, "K *B T Q"]:
        """Returns each domain's logits by its own decoder."""
        return self.for_each_domain(self.decode_one, decoders, codes, latents)

    def for_each_domain(self, function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
        """Returns what a function gives for each domain, leaves [K, ...], given such leaves."""
        if self.unroll_domains:
            return jax.lax.map(lambda of_domain: function(*of_domain), arguments)
        return jax.vmap(function)(*arguments)

    def guide(self, parameters: Parameters, latents: Latents) -> Float[Array, "*B N M"]:
        """Returns the spectrogram that one decoder's guide predicts; see `guide.Guide`."""
        return self._guide.apply({"params": parameters["guide"]}, latents)

    def classify(self, parameters: Parameters, latents: Latents) -> DomainLogits:
        """Returns the domain logits of each segment, averaged over its latent frames."""
        return self._classifier.apply({"params": parameters}, latents)

    @functools.cached_property
    def encoder_reach(self) -> int:
        """Latent frames on either side whose samples a latent frame still sees."""
        model = self.config.model
        return -(-model.encoder_reach_samples // model.pool_samples)

    @property
    def _is_cqt(self):
        return self.config.model.encoder_kind == "cqt"

    @functools.cached_property
    def _dtype(self):
        return jnp.dtype(self.config.training.compute_dtype)

    @functools.cached_property
    def _encoder(self):
        remat = self.config.training.remat
        return encoder.Encoder(self.config.model, self._dtype, remat, self.native_threads)

    @functools.cached_property
    def _decoder(self):
        remat = self.config.training.remat
        return decoder.Decoder(self.config.model, self._dtype, remat, self.native_threads)

    @functools.cached_property
    def _guide(self):
        return guide.Guide(self.config.model)

    @functools.cached_property
    def _classifier(self):
        config = self.config
        return classifier.make(config.model, config.training, len(config.domains))


# Compiled once for a configuration, however many translators use it.


@functools.partial(jax.jit, static_argnames="nets")
def encode(
    nets: Networks, parameters: Parameters, codes: Codes, inside: Bool[Array, "*B T"]
) -> Latents:
    """Jit-compiled `Networks.encode`."""
    return nets.encode(parameters, codes, inside)


@functools.partial(jax.jit, static_argnames="nets")
def decode_one(
    nets: Networks, parameters: Parameters, codes: Codes, latents: Latents
) -> CodeLogits:
    """Jit-compiled `Networks.decode_one`."""
    return nets.decode_one(parameters, codes, latents)


def select(decoders: Parameters, domain: int | Sequence[int]) -> Parameters:
    """Returns one decoder out of a stacked tree; several, stacked again, for a sequence."""
    index = domain if isinstance(domain, int) else np.asarray(domain)
    return jax.tree.map(lambda leaf: leaf[index], decoders)


def without_guides(decoders: Parameters) -> Parameters:
    """Returns the decoders' own parameters alone."""
    return {name: part for name, part in decoders.items() if name != "guide"}


def transfer(
    parameters: NetworkParameters,
    domains: Sequence[str],
    *,
    source: NetworkParameters,
    source_domains: Sequence[str],
) -> NetworkParameters:
    """Returns `parameters` with all that `source`, of the same sizes, has for the same domains.

    That is the encoder, the classifier's hidden layers, and for each domain that both have its
    decoder and its output of the classifier.
    """
    both = [domain for domain in domains if domain in source_domains]
    here = np.asarray([domains.index(domain) for domain in both], int)
    there = np.asarray([source_domains.index(domain) for domain in both], int)

    def of_domains(leaf, source_leaf, axis=0):
        moved = jnp.moveaxis(leaf, axis, 0).at[here].set(jnp.moveaxis(source_leaf, axis, 0)[there])
        return jnp.moveaxis(moved, 0, axis)

    def classifier_part(name, fresh):
        # What a classifier may have beyond the paper's is new where the source has none.
        if name not in source.classifier:
            return fresh
        if not name.endswith("logits"):
            return source.classifier[name]
        outputs = functools.partial(of_domains, axis=-1)
        return jax.tree.map(outputs, fresh, source.classifier[name])

    return NetworkParameters(
        encoder=source.encoder,
        decoders=jax.tree.map(of_domains, parameters.decoders, without_guides(source.decoders)),
        classifier={
            name: classifier_part(name, fresh) for name, fresh in parameters.classifier.items()
        },
    )


def num_parameters(parameters: Parameters) -> int:
    """Counts the numbers in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(parameters))


def by_name(parameters: NetworkParameters) -> dict[str, Leaf]:
    """Returns all arrays by the names of `array_shapes`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(parameters)
    }


def from_arrays(arrays: Mapping[str, Leaf]) -> NetworkParameters:
    """Returns what `by_name` was given."""
    names = (field.name for field in dataclasses.fields(NetworkParameters))
    return NetworkParameters(*(array_shapes.nested(arrays, name) for name in names))
