"""A model's encoder and decoders by the C++ core, with NumPy alone: JAX is not imported.

Windows, pieces and samples are those of `jax_model`, but for rounding.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from umt_jax.audio import mu_law
from umt_jax.config import Config, ModelConfig, SamplingConfig
from umt_jax.core import frames, packing
from umt_jax.generation import guiding, pieces, validation
from umt_jax.model import array_shapes
from umt_jax.processes import cores
from umt_jax.shapes import Array, Float


class NativeModel:
    """What a `Translator` with the native engine plays."""

    def __init__(
        self,
        config: Config,
        arrays: Mapping[str, np.ndarray],
        decoders: Sequence[int],
        *,
        weights: str,
        threads: int | None,
    ) -> None:
        """Packs the encoder and some decoders.

        Args:
            config: Of the model.
            arrays: By the names of `array_shapes`.
            decoders: Which of the model's are kept.
            weights: Type in which the decoders' are kept.
            threads: How many generate; None for as many as are measured to be the fastest.

        Raises:
            OSError: There is no C++ compiler, or it fails.
            ValueError: The decoders' convolutions have more than two taps.
        """
        self._config, self._decoders, self._threads = config.model, decoders, threads
        kept = {
            name: array[list(decoders)] if name.startswith("decoders.") else array
            for name, array in arrays.items()
        }
        self._encoder_arrays = {
            name: array for name, array in arrays.items() if name.startswith("encoder.")
        }
        nested = array_shapes.nested(kept, "decoders")
        library = frames.library()
        self._packed = packing.pack(nested, config.model, type_=weights, library=library)
        packed = self._packed.weights
        packing.prefer_huge_pages(library, packed.ctypes.data, packed.nbytes)
        self._conditions = frames.Conditions(nested)

    @functools.cached_property
    def _encoder(self) -> frames.Encoder:
        """Not before it is asked for: for a constant-Q transform there is no C++."""
        return frames.Encoder(self._config, self._encoder_arrays)

    @property
    def latency_samples(self) -> int:
        """Number of samples that must have arrived before the first window is encoded."""
        pool = self._config.pool_samples
        window = pieces.window_frames(self._config) * pool
        return window - pool + frames.Recording(self._encoder).latency_samples

    def encode(
        self, blocks: Iterable[Float[Array, "*B _"]]
    ) -> Iterator[tuple[Float[np.ndarray, "*B F Z"], int]]:
        """Encodes waveforms that arrive in blocks; see `jax_model.WindowEncoder.encode`."""
        pool, window = self._config.pool_samples, pieces.window_frames(self._config)
        part = pieces.piece_frames(self._config) * pool
        recordings: list[frames.Recording] = []
        batch: tuple[int, ...] = ()
        complete = np.empty(0)  # Latent frames, [B, F, Z].
        left = 0  # Samples that no window yielded stands for.

        def push(codes):
            rows = codes.reshape(len(recordings), -1)
            new = [recording.push(row) for recording, row in zip(recordings, rows, strict=True)]
            return np.concatenate([complete, np.stack(new)], axis=1)

        for block in blocks:
            if not np.isfinite(block).all():
                raise ValueError("The waveform holds values that are not finite numbers.")
            if not recordings:
                batch = block.shape[:-1]
                recordings = [frames.Recording(self._encoder) for _ in range(math.prod(batch))]
                shape = len(recordings), 0, self._config.latent_channels
                complete = np.zeros(shape, np.float32)
            codes = mu_law.encode(np.asarray(block), self._config.mu_law)
            # In parts, so that the first window does not wait for all of a long block.
            for start in range(0, codes.shape[-1], part):
                arrived = codes[..., start : start + part]
                complete = push(arrived)
                left += arrived.shape[-1]
                while complete.shape[1] >= window:
                    yield complete[:, :window].reshape(*batch, window, -1), window * pool
                    complete, left = complete[:, window:], left - window * pool
        if not recordings:
            return
        # The rest of the last latent frame is silence.
        silence = mu_law.silence(self._config.mu_law)
        complete = push(np.full((len(recordings), -left % pool), silence, np.uint8))
        rest = np.stack([recording.finish() for recording in recordings])
        complete = np.concatenate([complete, rest], axis=1)
        while left > 0:
            latents = complete[:, :window]
            yield latents.reshape(*batch, *latents.shape[1:]), min(left, window * pool)
            complete, left = complete[:, window:], left - window * pool

    def streams(
        self,
        decoders: Sequence[int],
        domain_indices: Sequence[int],
        *,
        num_streams: int,
        sampling: SamplingConfig,
    ) -> "NativeStreams":
        """Returns B streams by K of the decoders that are kept.

        Args:
            decoders: Which.
            domain_indices: Each one's place among all the domains of the model.
            num_streams: B.
            sampling: How codes are drawn.
        """
        core = frames.Decoders(
            self._config,
            self._packed,
            self._conditions,
            decoders,
            domain_indices,
            num_streams=num_streams,
            sampling=sampling,
            threads=self._threads,
            most_threads=cores.usable(),
        )
        return NativeStreams(self._config, core, sampling.guide_strength)


class NativeStreams:
    """B streams of latents, each translated by the same K decoders, as `streams.Streams`.

    Attributes:
        config: Sizes.
        num_domains: K.
        num_streams: B.
    """

    def __init__(
        self, config: ModelConfig, core: frames.Decoders, guide_strength: float = 0.0
    ) -> None:
        """Starts with no stream begun."""
        self.config, self._core, self._guide_strength = config, core, guide_strength
        self.num_domains, self.num_streams = core.num_domains, core.num_streams

    def begin(self, stream: int, seed: int, *, first_sample: int = 0) -> None:
        """Makes a stream new: no past, and random numbers by `seed`; see `streams.Streams`.

        Raises:
            ValueError: The seed has more than 32 bits.
        """
        validation.check_seed(seed)
        self._core.begin(stream, seed, first_sample)

    def advance(
        self,
        latents: Float[np.ndarray, "B F Z"],
        guide: Float[np.ndarray, "K B _"] | None = None,
    ) -> Iterator[Float[np.ndarray, "K B _"]]:
        """Yields the waveforms of the streams' next latent frames; see `scheduler.Generator`."""
        piece = pieces.piece_frames(self.config)
        for start in range(0, latents.shape[1], piece):
            codes = [
                self._core.generate(latents[:, frame], self._bias(guide, frame))
                for frame in range(start, min(start + piece, latents.shape[1]))
            ]
            yield mu_law.decode(np.concatenate(codes, axis=-1), self.config.mu_law)

    def _bias(self, guide, frame):
        """Returns what draws the codes of a latent frame towards the guide's, [K, B, T, Q]."""
        if guide is None:
            return None
        pool = self.config.pool_samples
        of_frame = guide[..., frame * pool : (frame + 1) * pool]
        codes = mu_law.encode(of_frame, self.config.mu_law)
        return guiding.log_likelihoods(codes, self._guide_strength)
