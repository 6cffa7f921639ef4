"""Encodes and generates many recordings' latent frames by the C++ core, with NumPy arrays.

`frames.cc` does it, called through ctypes; `compiler` compiles it.
"""

import ctypes
import functools
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from umt_jax.config import ModelConfig, SamplingConfig
from umt_jax.core import compiler, packing
from umt_jax.shapes import Float, UInt8

_SOURCE = Path(__file__).with_suffix(".cc")
_ENCODER_ARRAYS = tuple(
    f"encoder.{name}.{part}"
    for name in ("first", "layers.dilated", "layers.mix", "latent")
    for part in ("kernel", "bias")
)
_POINTER, _COUNT, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_REAL = ctypes.c_float
_LEVELS = 256  # Mu-law codes: `mu_law.NUM_LEVELS`.

ROWS_AT_ONCE = 32
"""Samples of all streams that share one product for a layer's past tap, where the dilation lets
them; 16 and 32 were measured alike for one stream."""

_FIRST_INPUTS = {"rounded": (0.0, 0.0), "truncated": (0.0, float(np.float32(128 / 255)) - 0.5)}
"""Scaled codes that come before the first sample, by mu-law; see `generate.init_cache`."""


@functools.cache
def library() -> ctypes.CDLL:
    """Returns the compiled functions with their types; raises what `compiler.load` raises."""
    return compiler.functions(
        _SOURCE,
        ("encoder_new", _POINTER, *[_NUMBER] * 7, _POINTER),
        ("encoder_free", None, _POINTER),
        ("recording_new", _POINTER, _POINTER),
        ("recording_free", None, _POINTER),
        ("recording_latency", _COUNT, _POINTER),
        ("recording_push", _COUNT, _POINTER, _POINTER, _COUNT, _POINTER),
        ("recording_finish", _COUNT, _POINTER, _POINTER),
        ("draw_noise", None, *[_NUMBER] * 3, *[_POINTER] * 3, _REAL, _NUMBER, _POINTER),
        (
            "generate_frame",
            *(None, _POINTER, _NUMBER, _POINTER, _COUNT, _POINTER, _COUNT, *[_POINTER] * 6),
            *(_REAL, _REAL, _NUMBER, _NUMBER, _POINTER),
        ),
    )


class Encoder:
    """An encoder's arrays, packed."""

    def __init__(self, config: ModelConfig, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes arrays by the names of `array_shapes`; those of the encoder are copied.

        Raises:
            MemoryError: There is none left.
        """
        self.config = config
        ours = [np.ascontiguousarray(arrays[name], np.float32) for name in _ENCODER_ARRAYS]
        self._pointer = library().umt_encoder_new(
            config.encoder_blocks,
            config.encoder_layers,
            config.encoder_channels,
            config.latent_channels,
            config.pool_samples,
            config.encoder_preactivation,
            config.encoder_activation == "tanh",
            (ctypes.c_void_p * len(ours))(*(array.ctypes.data for array in ours)),
        )
        if self._pointer is None:
            raise MemoryError("There is not enough memory for the encoder.")
        weakref.finalize(self, library().umt_encoder_free, self._pointer)


class Recording:
    """One recording on its way through an encoder.

    Attributes:
        latency_samples: A latent frame is there once so many samples have come, counted from its
            first.
    """

    def __init__(self, encoder: Encoder) -> None:
        """Starts one.

        Raises:
            MemoryError: There is none left.
        """
        self._encoder, self._config = encoder, encoder.config  # The encoder lives as long as it.
        self._pointer = library().umt_recording_new(encoder._pointer)
        if self._pointer is None:
            raise MemoryError("There is not enough memory for a recording.")
        weakref.finalize(self, library().umt_recording_free, self._pointer)
        self.latency_samples: int = library().umt_recording_latency(self._pointer)

    def push(self, codes: UInt8[np.ndarray, "T"]) -> Float[np.ndarray, "F Z"]:
        """Takes codes; returns the latent frames that are complete then."""
        codes = np.ascontiguousarray(codes, np.uint8)
        latents = self._room(codes.size)
        count = library().umt_recording_push(
            self._pointer, codes.ctypes.data, codes.size, latents.ctypes.data
        )
        return latents[:count]

    def finish(self) -> Float[np.ndarray, "F Z"]:
        """Returns the other latent frames of a recording of whole frames, which ends here."""
        latents = self._room(0)
        return latents[: library().umt_recording_finish(self._pointer, latents.ctypes.data)]

    def _room(self, num_samples):
        """Returns an array for as many latent frames as may be complete with so many samples."""
        most = (num_samples + self.latency_samples) // self._config.pool_samples + 1
        return np.empty((most, self._config.latent_channels), np.float32)


class Conditions:
    """What projects latent frames for the gates and heads of K decoders, with their biases."""

    def __init__(self, decoders: packing.Arrays) -> None:
        """Takes K decoders' arrays, leaves [K, ...], and copies what it needs."""
        layout, layers = packing.layout_of(library()), decoders["layers"]
        kernel = packing.gate_columns(layers["condition"]["kernel"], layout)
        K, L, Z, G = kernel.shape
        bias = layers["condition"]["bias"] + layers["dilated"]["bias"]
        head = decoders["condition"]
        # All layers' columns beside each other: one product.
        self._gates = np.moveaxis(kernel, 1, 2).reshape(K, Z, L * G)
        self._gates_bias = packing.gate_columns(bias, layout).reshape(K, 1, L * G)
        self._head = packing.pad_columns(head["kernel"], layout)
        head_bias = head["bias"] + decoders["head"]["bias"]
        self._head_bias = packing.pad_columns(head_bias, layout)[:, np.newaxis]

    def project(
        self, latents: Float[np.ndarray, "B Z"], decoders: Sequence[int]
    ) -> tuple[Float[np.ndarray, "K B _"], Float[np.ndarray, "K B _"]]:
        """Returns what a latent frame adds to all gates, in panels, and to the head, likewise.

        Args:
            latents: Of each stream.
            decoders: Which.
        """
        gates = [latents @ self._gates[k] + self._gates_bias[k] for k in decoders]
        head = [latents @ self._head[k] + self._head_bias[k] for k in decoders]
        return np.stack(gates), np.stack(head)


class Decoders:
    """K decoders and the past of B streams of each.

    Attributes:
        num_domains: K.
        num_streams: B.
    """

    def __init__(
        self,
        config: ModelConfig,
        packed: packing.Packed,
        conditions: Conditions,
        decoders: Sequence[int],
        domain_indices: Sequence[int],
        *,
        num_streams: int,
        sampling: SamplingConfig,
        threads: int | None,
        most_threads: int,
    ) -> None:
        """Starts with no stream begun.

        Args:
            config: Sizes.
            packed: Decoders.
            conditions: Of the same decoders.
            decoders: Which K of them.
            domain_indices: Each one's place among all the domains of the model, which decides its
                random numbers.
            num_streams: B.
            sampling: How codes are drawn.
            threads: How many generate; None for as many as are measured to be the fastest.
            most_threads: Of these.
        """
        K, B, C = len(domain_indices), num_streams, config.residual_channels
        self.num_domains, self.num_streams = K, B
        self._config, self._conditions, self._decoders = config, conditions, decoders
        self._packed = packing.select(packed, decoders)
        self._domain_indices = np.asarray(domain_indices, np.uint32)
        self._sampling, self._threads, self._most_threads = sampling, threads, most_threads
        self._rows = np.zeros((K, sum(config.decoder_dilations), B, C), np.float32)
        self._inputs = np.zeros((K, B, 2), np.float32)
        self._clock = np.zeros(K, np.int32)
        self._seeds, self._samples = np.zeros(B, np.uint32), np.zeros(B, np.uint32)
        for stream in range(B):
            self.begin(stream, 0, 0)

    def begin(self, stream: int, seed: int, first_sample: int) -> None:
        """Makes a stream new, as `generate.restart` does."""
        self._rows[:, :, stream] = 0
        self._inputs[:, stream] = _FIRST_INPUTS[self._config.mu_law]
        self._seeds[stream], self._samples[stream] = seed, first_sample % 2**32

    def generate(
        self,
        latents: Float[np.ndarray, "B Z"],
        bias: Float[np.ndarray, "K B T Q"] | None = None,
    ) -> UInt8[np.ndarray, "K B T"]:
        """Returns the codes of each stream's next latent frame.

        Args:
            latents: Its latents.
            bias: What is added to each sample's logits; None for nothing.
        """
        K, B, T = self.num_domains, self.num_streams, self._config.pool_samples
        config, packed, temperature = self._config, self._packed, self._sampling.temperature
        latents = np.ascontiguousarray(latents, np.float32)  # As what is made of them is read.
        gates, head = self._conditions.project(latents, self._decoders)
        noise = packing.aligned((T, K, B, _LEVELS), np.dtype(np.float32))
        if temperature:
            library().umt_draw_noise(
                *(T, K, B, _data(self._seeds), _data(self._samples), _data(self._domain_indices)),
                *(temperature, self._threads or self._most_threads, _data(noise)),
            )
        else:
            noise[:] = 0
        if bias is not None:
            noise += np.moveaxis(bias, 2, 0)
        codes = np.empty((T, K, B), np.uint8)
        block = max(1, ROWS_AT_ONCE // B)
        sizes = np.array(
            [K, B, T, self._rows.shape[1], config.decoder_blocks, config.decoder_layers]
            + [config.residual_channels, config.skip_channels, block],
            np.intc,
        )
        library().umt_generate_frame(
            _data(sizes),
            packing.TYPES.index(packed.weights.dtype.name),
            *(_data(packed.weights), packed.weights[0].nbytes),
            *(_data(packed.biases), packed.biases.shape[1]),
            *(_data(array) for array in (gates, head, noise)),
            *(_data(array) for array in (self._rows, self._inputs, self._clock)),
            *(temperature, self._sampling.top_p if self._sampling.is_cut else 1.0),
            *(self._threads or 0, self._most_threads, _data(codes)),
        )
        self._samples += np.uint32(T)  # Modulo 2**32, as in `generate`.
        self._clock = (self._clock + np.int32(T)) % np.int32(max(config.decoder_dilations))
        return np.moveaxis(codes, 0, -1)


def _data(array: np.ndarray) -> int:
    return array.ctypes.data
