"""A model's encoder and decoders by JAX, wherever it runs."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np

from umt_jax.config import Config, SamplingConfig
from umt_jax.generation import generate, morph, streams
from umt_jax.model import networks
from umt_jax.shapes import Array, CodeLogits, Codes, DomainLogits, Float, Latents


class JaxModel:
    """What a `Translator` plays, and asks for logits, on JAX's first device."""

    def __init__(
        self,
        config: Config,
        arrays: Mapping[str, np.ndarray],
        decoders: Sequence[int],
        *,
        engine: generate.Engine | None = None,
    ) -> None:
        """Puts the networks on the device.

        Args:
            config: Of the model.
            arrays: By the names of `array_shapes`.
            decoders: Which of the model's are kept.
            engine: What generates, for `streams`.
        """
        # In whatever type it was trained: engines agree, and most of them play in float32.
        training = dataclasses.replace(config.training, compute_dtype="float32")
        self._config, self._engine = config, engine
        self._networks = networks.Networks(dataclasses.replace(config, training=training))
        parameters = networks.from_arrays(arrays)
        # Chosen by NumPy: on a device every shape would be a program of its own to compile.
        self._decoders = jax.device_put(networks.select(parameters.decoders, decoders))
        self._classifier = parameters.classifier
        self._encoder = streams.WindowEncoder(self._networks, parameters.encoder)
        if engine is not None:
            self._weights = generate.pack(self._decoders, config.model, engine)

    @property
    def latency_samples(self) -> int:
        """Number of samples that must have arrived before the first window is encoded."""
        return self._encoder.latency_samples

    def encode(
        self, blocks: Iterable[Float[Array, "*B _"]]
    ) -> Iterator[tuple[Float[np.ndarray, "*B F Z"], int]]:
        """Encodes waveforms that arrive in blocks; see `streams.WindowEncoder.encode`."""
        return self._encoder.encode(blocks)

    def streams(
        self,
        decoders: Sequence[int],
        domain_indices: Sequence[int],
        *,
        num_streams: int,
        sampling: SamplingConfig,
    ) -> streams.Streams:
        """Returns B streams by K of the decoders that are kept; see `NativeModel.streams`."""
        assert self._engine is not None
        weights = self._weights
        if list(decoders) != list(range(len(self._decoders["logits"]["bias"]))):
            weights = networks.select(weights, decoders)
        return streams.Streams(
            self._config.model,
            weights,
            domain_indices,
            engine=self._engine,
            num_streams=num_streams,
            sampling=sampling,
        )

    def code_logits(self, codes: Codes, latents: Latents, decoder: int) -> CodeLogits:
        """Scores codes by one of the decoders, [*B, T, Q]; see `Translator.code_logits`."""
        parameters = networks.select(self._decoders, decoder)
        return np.asarray(networks.decode_one(self._networks, parameters, codes, latents))

    def classify(self, latents: Latents) -> DomainLogits:
        """Returns the classifier's logits, [*B, K]."""
        return np.asarray(self._networks.classify(self._classifier, latents))

    def morph(
        self,
        decoders: Sequence[int],
        latents: Float[Array, "F Z"],
        weights: Float[Array, "F"],
        *,
        domain_indices: Sequence[int],
        sampling: SamplingConfig,
        seed: int,
    ) -> Iterator[Float[np.ndarray, "_"]]:
        """Yields a waveform between two of the decoders; see `morph.morph`."""
        return morph.morph(
            networks.select(self._decoders, decoders),
            latents,
            weights,
            config=self._config.model,
            domain_indices=domain_indices,
            sampled=sampling,
            seed=seed,
        )
