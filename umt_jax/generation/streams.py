"""Many recordings at once through the encoder and several decoders, window by window.

Memory depends on the number of streams and the window, not on the length of any recording.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from umt_jax.audio import mu_law
from umt_jax.config import ModelConfig, SamplingConfig
from umt_jax.generation import generate, pieces, validation
from umt_jax.model import networks
from umt_jax.shapes import Array, Float, Parameters


class WindowEncoder:
    """Encodes recordings window by window, with exactly the latents of the whole recording.

    Attributes:
        parameters: The encoder's.
    """

    def __init__(self, nets: networks.Networks, parameters: Parameters) -> None:
        """Takes the encoder's parameters."""
        self._nets, self._config = nets, nets.config.model
        self._reach_frames = nets.encoder_reach
        self.parameters = parameters

    @property
    def latency_samples(self) -> int:
        """Number of samples that must have arrived before the first window is encoded."""
        return (pieces.window_frames(self._config) + self._reach_frames) * self._config.pool_samples

    def encode(
        self, blocks: Iterable[Float[Array, "*B _"]]
    ) -> Iterator[tuple[Float[np.ndarray, "*B F Z"], int]]:
        """Encodes waveforms that arrive in blocks of any length.

        Args:
            blocks: Consecutive blocks of B waveforms at the model's rate, [*B, any].

        Yields:
            Latents of a window, [*B, F, Z], and how many samples it stands for: all
            F x `pool_samples`, except that the recording may end inside the last frame. The
            rest of that frame is encoded as silence.

        Raises:
            ValueError: A sample is not finite.
        """
        pool = self._config.pool_samples
        window = pieces.window_frames(self._config) * pool
        reach = self._reach_frames * pool
        # Zeros outside the recording, on both sides, as far as the encoder reaches.
        codes, inside, unread = None, np.zeros(reach, bool), 0
        for block in blocks:
            if not np.isfinite(block).all():
                raise ValueError("The waveform holds values that are not finite numbers.")
            block_codes = mu_law.encode(block, self._config.mu_law)
            if codes is None:
                codes = np.zeros((*block.shape[:-1], reach), np.uint8)
            codes = np.concatenate([codes, block_codes], axis=-1)
            inside = np.concatenate([inside, np.ones(block.shape[-1], bool)])
            unread += block.shape[-1]
            while codes.shape[-1] >= window + 2 * reach:
                yield self._encode_window(codes, inside), window
                codes, inside, unread = codes[..., window:], inside[window:], unread - window
        if codes is None:
            return
        missing = -unread % pool
        codes = _extend(codes, missing, mu_law.silence(self._config.mu_law))
        inside = _extend(inside, missing, True)
        while unread > 0:
            missing = max(0, window + 2 * reach - codes.shape[-1])
            codes, inside = _extend(codes, missing, 0), _extend(inside, missing, False)
            latents = self._encode_window(codes, inside)
            num_samples = min(unread, window)
            yield latents[..., : -(-num_samples // pool), :], num_samples
            codes, inside, unread = codes[..., window:], inside[window:], unread - window

    def _encode_window(self, codes, inside):
        """Encodes the window at the front of the buffers, [*B, F, Z]."""
        frames = pieces.window_frames(self._config)
        samples = (frames + 2 * self._reach_frames) * self._config.pool_samples
        codes = codes[..., :samples]
        inside = np.broadcast_to(inside[:samples], codes.shape)
        latents = np.asarray(networks.encode(self._nets, self.parameters, codes, inside))
        return latents[..., self._reach_frames : self._reach_frames + frames, :]


class Streams:
    """B streams of latents, each translated by the same K decoders.

    Attributes:
        config: Sizes.
        num_domains: K.
        num_streams: B.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: generate.Weights,
        domain_indices: Sequence[int],
        *,
        engine: generate.Engine,
        num_streams: int,
        sampling: SamplingConfig,
    ) -> None:
        """Starts with no stream begun.

        Args:
            config: Sizes.
            weights: K decoders, packed for the engine.
            domain_indices: Each one's place among all the domains of the model, so that its
                random numbers do not depend on which other decoders run beside it.
            engine: What generates.
            num_streams: B.
            sampling: How codes are drawn.
        """
        self.config, self.num_domains, self.num_streams = config, len(domain_indices), num_streams
        self._weights, self._engine = weights, engine
        self._domain_indices = np.asarray(domain_indices, np.uint32)
        self._temperature = np.float32(sampling.temperature)
        self._top_p = np.float32(sampling.top_p) if sampling.is_cut else None
        self._guide_strength = np.float32(sampling.guide_strength)
        keys, caches = _nothing_begun(len(domain_indices), num_streams, config=config)
        # What `generate` returns is bound to the weights' device, if they are. Were its first
        # arguments not, it would be compiled twice.
        arrays = (leaf for leaf in jax.tree.leaves(weights) if isinstance(leaf, jax.Array))
        device = next((leaf.sharding for leaf in arrays if leaf.committed), None)
        self._keys, self._caches = jax.device_put((keys, caches), device)

    def begin(self, stream: int, seed: int, *, first_sample: int = 0) -> None:
        """Makes a stream new: no past, and random numbers by `seed`.

        Args:
            stream: Which.
            seed: Decides the random numbers, together with each sample's place in its recording.
            first_sample: Place in the recording of what is generated first.

        Raises:
            ValueError: JAX would fold the seed into 32 bits and so repeat another one's numbers.
        """
        validation.check_seed(seed)
        self._keys, self._caches = _begin(
            self._keys,
            self._caches,
            self._domain_indices,
            np.int32(stream),
            np.uint32(seed),
            np.uint32(first_sample % 2**32),
            config=self.config,
        )

    def advance(
        self,
        latents: Float[np.ndarray, "B F Z"],
        guide: Float[np.ndarray, "K B _"] | None = None,
    ) -> Iterator[Float[np.ndarray, "K B _"]]:
        """Yields the waveforms of the streams' next latent frames; see `scheduler.Generator`."""
        frames, pool = pieces.piece_frames(self.config), self.config.pool_samples
        for start in range(0, latents.shape[1], frames):
            piece = latents[:, start : start + frames]
            # Always of one length, so that one compiled program serves any. What lies behind the
            # end is thrown away; a stream is not continued after it.
            missing = frames - piece.shape[1]
            self._caches, codes = generate.generate(
                self._weights,
                self._caches,
                np.pad(piece, [(0, 0), (0, missing), (0, 0)]),
                self._keys,
                self._temperature,
                self._top_p,
                self._guide(guide, start * pool, frames * pool),
                config=self.config,
                engine=self._engine,
            )
            num_samples = piece.shape[1] * pool
            yield mu_law.decode(np.asarray(codes)[..., :num_samples], self.config.mu_law)

    def _guide(self, guide, first, num_samples):
        if guide is None:
            return None
        codes = mu_law.encode(guide[..., first : first + num_samples], self.config.mu_law)
        codes = np.pad(codes, [(0, 0), (0, 0), (0, num_samples - codes.shape[-1])])
        return generate.Guide(codes=codes, strength=self._guide_strength)


# Compiled whole: op by op, each would be a program of its own to load at every start.


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames="config")
def _nothing_begun(num_domains, num_streams, *, config):
    """Returns keys, [K, B], and caches of streams that have not begun."""
    keys = jnp.broadcast_to(jax.random.key(0), (num_domains, num_streams))
    cache = generate.init_cache(config, num_streams)
    return keys, jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (num_domains, *leaf.shape)), cache
    )


@functools.partial(jax.jit, static_argnames="config", donate_argnames=("keys", "caches"))
def _begin(keys, caches, domain_indices, stream, seed, first_sample, *, config):
    """Returns keys, [K, B], and caches in which one stream has just begun."""
    fold_in = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    keys = keys.at[:, stream].set(fold_in(jax.random.key(seed), domain_indices))
    caches = generate.restart(caches, stream, config)
    return keys, caches.replace(sample_index=caches.sample_index.at[:, stream].set(first_sample))


def _extend(array, count, value):
    """Appends `count` times `value` along the last axis."""
    return np.concatenate([array, np.full((*array.shape[:-1], count), value, array.dtype)], axis=-1)
