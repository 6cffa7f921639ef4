"""Translator: a checkpoint's encoder, decoders and codes behind one object."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from umt_jax import audio, checkpoint, engines, generate, networks, schedule, streams
from umt_jax.config import Config
from umt_jax.networks import NetworkParameters, Networks
from umt_jax.shapes import Array, CodeLogits, Codes, DomainLogits, Float, Latents, Waveform


def load(
    workdir: str,
    *,
    domains: Sequence[str] | None = None,
    step: int | None = None,
    engine: str = "auto",
    weights: str = "float32",
) -> "Translator":
    """Opens a trained model.

    Args:
        workdir: Folder of the training run.
        domains: Which decoders to keep in memory; None for all.
        step: Which checkpoint; None for the one with the best validation loss.
        engine: What generates: `auto`, `scan`, `native` or `pallas`; see `engines.choose`.
        weights: Type in which the engine keeps them, `float32` or `bfloat16`.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: It is none of this project's, lacks a domain, or the engine does not run here.
    """
    config = checkpoint.read_config(workdir, step)
    check_domains(domains or (), config.domains)
    parameters = checkpoint.restore_parameters(workdir, step)
    return Translator(config, parameters, domains=domains, engine=engine, weights=weights)


def check_domains(wanted: Sequence[str], there: Sequence[str]) -> None:
    """Raises `ValueError` if a wanted domain is not there."""
    for domain in wanted:
        if domain not in there:
            raise ValueError(
                f"There is no domain {domain!r} in this model. There are: {', '.join(there)}."
            )


class Translator:
    """Plays recordings as other instruments.

    Waveforms are float arrays in [-1, 1], one recording, [T], or several of one length, [B, T];
    what is returned has the same axes. Results are NumPy arrays.

    Attributes:
        config: What the model was trained with.
        domains: Names to translate to.
    """

    def __init__(
        self,
        config: Config,
        parameters: NetworkParameters,
        *,
        domains: Sequence[str] | None = None,
        engine: str = "auto",
        weights: str = "float32",
    ) -> None:
        """Takes trained arrays; keeps only the decoders of `domains` (None: all). See `load`."""
        self.config = config
        self.domains = tuple(domains or config.domains)
        check_domains(self.domains, config.domains)
        self._networks = Networks(config)
        self._decoders = networks.select(
            parameters.decoders, [config.domains.index(domain) for domain in self.domains]
        )
        self._engine = engines.choose(engine, weights)
        self._weights = generate.pack(self._decoders, config.model, self._engine)
        self._classifier = parameters.classifier
        self._encoder = streams.WindowEncoder(self._networks, parameters.encoder)

    @property
    def sample_rate_hz(self) -> int:
        """Rate of every waveform this translator returns."""
        return self.config.model.sample_rate_hz

    @property
    def latency_seconds(self) -> float:
        """How much of a recording must be there before its translation begins."""
        return self._encoder.latency_samples / self.sample_rate_hz

    def encode(self, waveform: Waveform, sample_rate_hz: int) -> Latents:
        """Returns the latents of a waveform at any rate, [*B, F, Z] (§3.1).

        A last, incomplete latent frame is filled up with silence.
        """
        return self._encode(self._resample(waveform, sample_rate_hz))

    def generate(
        self, latents: Latents, *, domain: str, temperature: float = 1.0, seed: int = 0
    ) -> Waveform:
        """Returns a waveform sampled from one domain's decoder, [*B, F * pool_samples].

        Args:
            latents: Latents, [*B, F, Z].
            domain: Name of the decoder.
            temperature: Scale of the randomness; 0 takes the likeliest code every time.
            seed: Decides the random numbers; of B recordings the b-th uses seed + b.
        """
        pieces = self.generate_stream(latents, domain=domain, temperature=temperature, seed=seed)
        return np.concatenate(list(pieces), axis=-1)

    def generate_stream(
        self, latents: Latents, *, domain: str, temperature: float = 1.0, seed: int = 0
    ) -> Iterator[Waveform]:
        """Yields the result of `generate` piece by piece, as soon as each is there."""
        check_domains([domain], self.domains)
        latents = self._check_latents(latents)
        batch = latents.reshape(-1, *latents.shape[-2:])
        generator = self._streams([domain], len(batch), temperature)
        for stream in range(len(batch)):
            generator.begin(stream, seed + stream)
        window = streams.window_frames(self.config.model)
        for start in range(0, batch.shape[1], window):
            waveforms = generator.advance(batch[:, start : start + window])[0]
            yield waveforms.reshape(*latents.shape[:-2], -1)

    def translate(
        self,
        waveform: Waveform,
        sample_rate_hz: int,
        *,
        domain: str,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Float[Array, "*B U"]:
        """Returns the waveform played as `domain`, as long as itself, at `self.sample_rate_hz`."""
        check_domains([domain], self.domains)
        resampled = self._resample(waveform, sample_rate_hz)
        latents = self._encode(resampled)
        audio_out = self.generate(latents, domain=domain, temperature=temperature, seed=seed)
        return audio_out[..., : resampled.shape[-1]]

    def translate_recordings(
        self,
        recordings: Iterable[Iterable[Float[Array, "_"]]],
        *,
        domains: Sequence[str] | None = None,
        temperature: float = 1.0,
        seed: int = 0,
        num_streams: int = 1,
        parallel_segments: int = 1,
    ) -> Iterator[schedule.Piece]:
        """Translates recordings of any lengths into several domains, in bounded memory.

        Args:
            recordings: Each an iterable of its waveform's blocks, [any], at
                `self.sample_rate_hz`. It may raise `ValueError` or `OSError`, which ends that
                recording alone.
            domains: Names to translate to; None for all.
            temperature: Scale of the randomness; 0 takes the likeliest code every time.
            seed: Decides the random numbers, the same for every recording.
            num_streams: How many are under way at once, recordings or segments of them. As one
                ends, the next takes its place.
            parallel_segments: Cuts each recording that is long enough into so many segments, each
                a stream of its own. An approximation: a segment knows no more of the sound before
                it than it made up itself, over as long as its decoder's receptive field, or a
                second where that is longer. Latents of recordings under way are then in memory,
                and sound that comes before its turn is in a temporary file.

        Yields:
            Pieces, those of one recording in order.
        """
        domains = tuple(domains or self.domains)
        check_domains(domains, self.domains)
        generator = self._streams(domains, num_streams, temperature)
        yield from schedule.translate(
            recordings, self._encoder, generator, seed=seed, parallel_segments=parallel_segments
        )

    def code_logits(self, codes: Codes, latents: Latents, *, domain: str) -> CodeLogits:
        """Scores a recording's codes, each given those before it, [*B, T, Q] (teacher-forced).

        Args:
            codes: Codes, [*B, T], T = F * `pool_samples`.
            latents: Latents, [*B, F, Z].
            domain: Name of the decoder.
        """
        check_domains([domain], self.domains)
        latents, codes = self._check_latents(latents), np.asarray(codes)
        *batch, num_frames, _ = latents.shape
        expected = (*batch, num_frames * self.config.model.pool_samples)
        if codes.shape != expected:
            raise ValueError(
                f"codes of shape {codes.shape} do not fit {num_frames} latent frames of "
                f"{self.config.model.pool_samples} samples: give {expected}."
            )
        decoder = networks.select(self._decoders, self.domains.index(domain))
        return np.asarray(networks.decode_one(self._networks, decoder, codes, latents))

    def classify(self, latents: Latents) -> DomainLogits:
        """Returns the classifier's logits, one for each of `config.domains`, [*B, K]."""
        latents = self._check_latents(latents)
        return np.asarray(self._networks.classify(self._classifier, latents))

    def _encode(self, waveform):
        """Returns the latents of a waveform at the model's rate, [*B, F, Z]."""
        windows = self._encoder.encode([waveform])
        return np.concatenate([latents for latents, _ in windows], axis=-2)

    def _streams(self, domains, num_streams, temperature):
        weights = self._weights
        if tuple(domains) != self.domains:
            weights = networks.select(weights, [self.domains.index(domain) for domain in domains])
        return streams.Streams(
            self.config.model,
            weights,
            [self.config.domains.index(domain) for domain in domains],
            engine=self._engine,
            num_streams=num_streams,
            temperature=temperature,
        )

    def _resample(self, waveform, sample_rate_hz):
        """Checks type and shape of a waveform and returns it at the model's rate."""
        if np.issubdtype(np.asarray(waveform).dtype, np.integer):
            raise ValueError(
                "The waveform holds integers, not amplitudes in [-1, 1]. Divide 16-bit samples by "
                "32768."
            )
        if not sample_rate_hz > 0:
            raise ValueError(f"sample_rate_hz={sample_rate_hz} must be above 0.")
        waveform = np.asarray(waveform, np.float32)
        if waveform.ndim not in (1, 2) or 0 in waveform.shape:
            raise ValueError(
                f"A waveform of shape {waveform.shape} is not [T], mono, or [B, T]. Average the "
                "channels of stereo first."
            )
        # Whether its values are finite the encoder checks: resampling keeps those that are not.
        resampled = audio.resample(waveform, from_hz=sample_rate_hz, to_hz=self.sample_rate_hz)
        if not resampled.size:
            raise ValueError(
                f"{waveform.shape[-1]} samples at {sample_rate_hz} Hz are less than one at "
                f"{self.sample_rate_hz} Hz."
            )
        return resampled

    def _check_latents(self, latents):
        """Returns latents as float32, [F, Z] or [B, F, Z]."""
        latents = np.asarray(latents, np.float32)
        channels = self.config.model.latent_channels
        if latents.ndim not in (2, 3) or latents.shape[-1] != channels or 0 in latents.shape:
            raise ValueError(
                f"latents of shape {latents.shape} are not [F, {channels}] or [B, F, {channels}]."
            )
        return latents
