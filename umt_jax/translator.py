"""Translator: a checkpoint's encoder, decoders and codes behind one object."""

import functools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from umt_jax.audio import level, sound_files
from umt_jax.checkpoints import demo_model, reading
from umt_jax.config import Config, SamplingConfig
from umt_jax.data import latent_file
from umt_jax.generation import guiding, native_model, pieces, scheduler, segments, validation
from umt_jax.generation.engines import choose
from umt_jax.generation.segments import Window
from umt_jax.model import array_shapes, encoder_fingerprint
from umt_jax.shapes import Array, CodeLogits, Codes, DomainLogits, Float, Latents, Waveform

if TYPE_CHECKING:
    from umt_jax.generation.jax_model import JaxModel
else:
    JaxModel = Any  # Imported where it is made, with JAX.


def load(
    workdir: str | None = None,
    *,
    domains: Sequence[str] | None = None,
    step: int | None = None,
    engine: str = "auto",
    weights: str = "float32",
    threads: int | None = None,
) -> "Translator":
    """Opens a trained model.

    Args:
        workdir: Folder of the training run, or a model file (.safetensors, see `umt_jax.export`);
            None for the model that ships with umt_jax.
        domains: Which decoders to keep in memory; None for all.
        step: Which checkpoint; None for the one with the best validation loss.
        engine: What generates: `auto`, `scan` or `native`; see `generation.engines.choose`.
        weights: Type in which the engine keeps them, `float32`, `bfloat16` or `int8`.
        threads: Threads by which `native` generates; None for as many as are the fastest.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: It is none of this project's, lacks a domain, or the engine does not run here.
    """
    workdir = demo_model.path() if workdir is None else workdir
    config = reading.read_config(workdir, step)
    validation.checked_domains(domains or (), config.domains)
    arrays = reading.read_arrays(workdir, step)
    return Translator(
        config, arrays, domains=domains, engine=engine, weights=weights, threads=threads
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
        parameters: Any,
        *,
        domains: Sequence[str] | None = None,
        engine: str = "auto",
        weights: str = "float32",
        threads: int | None = None,
    ) -> None:
        """Keeps only the decoders of `domains` (None: all).

        Args:
            config: What the model was trained with.
            parameters: `networks.NetworkParameters`, or their arrays by the names of
                `array_shapes`.
            domains: See `load`, and so the others.
            engine: Likewise.
            weights: Likewise.
            threads: Likewise.
        """
        self.config = config
        self.domains = validation.checked_domains(domains or config.domains, config.domains)
        self._arrays = _by_name(parameters)
        kept = self._domain_indices(self.domains)
        name = choose.engine_name(engine, weights, taps=config.model.decoder_taps, threads=threads)
        self._model: native_model.NativeModel | JaxModel
        if name == "native":
            self._model = native_model.NativeModel(
                config, self._arrays, kept, weights=weights, threads=threads
            )
        else:
            from umt_jax.generation import jax_model  # Not with `native`, which needs no JAX.

            own = choose.choose(name, weights)
            self._model = jax_model.JaxModel(config, self._arrays, kept, engine=own)

    def __repr__(self) -> str:
        """Returns what it plays, at which rate, and its sizes."""
        model = self.config.model
        preset = f" ({self.config.preset})" if self.config.preset else ""
        encoder = (
            f"encoder of {model.encoder_blocks} x {model.encoder_layers} layers of "
            f"{model.encoder_channels}"
        )
        if model.encoder_kind == "cqt":
            encoder = "constant-Q transform as encoder"
        return (
            f"<Translator{preset} to {', '.join(self.domains)} at {self.sample_rate_hz} Hz: "
            f"{encoder}, latents of {model.latent_channels} at "
            f"{self.frame_rate_hz:g} Hz, decoders of {model.decoder_blocks} x "
            f"{model.decoder_layers} layers of {model.residual_channels}>"
        )

    @property
    def sample_rate_hz(self) -> int:
        """Rate of every waveform this translator returns."""
        return self.config.model.sample_rate_hz

    @property
    def frame_rate_hz(self) -> float:
        """Latent frames in a second."""
        return self.sample_rate_hz / self.config.model.pool_samples

    @property
    def latency_seconds(self) -> float:
        """Length of a recording that must have arrived before its translation starts."""
        model, samples = self.config.model, self._encoder.latency_samples
        guides = self._guides(self.domains[:1], self.config.sampling)
        if guides:  # They wait for as many windows as they see ahead.
            window = pieces.window_frames(model)
            samples += math.ceil(guides.ahead_frames / window) * window * model.pool_samples
        return samples / self.sample_rate_hz

    def encode(self, waveform: Waveform, sample_rate_hz: int) -> Latents:
        """Returns the latents of a waveform at any rate, [*B, F, Z] (§3.1).

        Each recording is brought to the model's level first (see `level`). A last, incomplete
        latent frame is filled up with silence.
        """
        return self._encode(self._levelled(self._at_own_rate(waveform, sample_rate_hz)))

    def level(self, waveform: Waveform) -> Waveform:
        """Returns recordings at `self.sample_rate_hz`, [*B, T], as the encoder hears them.

        Each is brought to the root mean square of the tracks that the model was trained on,
        `config.model.rms_dbfs`, peaks beyond full scale left to be clipped; silence stays as it is,
        and so does everything where that is None.
        """
        return self._levelled(validation.checked_waveform(waveform))

    def generate(
        self,
        latents: Latents,
        *,
        domain: str,
        temperature: float | None = None,
        top_p: float | None = None,
        guide_strength: float | None = None,
        seed: int = 0,
    ) -> Waveform:
        """Returns a waveform sampled from one domain's decoder, [*B, F * pool_samples].

        Args:
            latents: Latents, [*B, F, Z].
            domain: Name of the decoder.
            temperature: Scale of the randomness; 0 takes the likeliest code every time. None
                is the model's own, `config.sampling`.
            top_p: Draws from the likeliest codes alone, as few as have so much of the probability
                together; 1 draws from all. None is the model's own.
            guide_strength: How closely the decoder follows its guide, where it has one (see
                `SamplingConfig`); 0 leaves it free. None is the model's own.
            seed: Decides the random numbers; of B recordings the b-th uses seed + b.
        """
        pieces = self.generate_stream(
            latents,
            domain=domain,
            temperature=temperature,
            top_p=top_p,
            guide_strength=guide_strength,
            seed=seed,
        )
        return np.concatenate(list(pieces), axis=-1)

    def generate_stream(
        self,
        latents: Latents,
        *,
        domain: str,
        temperature: float | None = None,
        top_p: float | None = None,
        guide_strength: float | None = None,
        seed: int = 0,
    ) -> Iterator[Waveform]:
        """Yields the result of `generate` chunk by chunk, as soon as each is generated."""
        (domain,) = validation.checked_domains([domain], self.domains)
        latents = self._checked(latents)
        batch = latents.reshape(-1, *latents.shape[-2:])
        sampling = self._sampling(temperature, top_p, guide_strength)
        generator = self._streams([domain], len(batch), sampling)
        guides = self._guides([domain], sampling)
        for stream in range(len(batch)):
            generator.begin(stream, seed + stream)
        for window, guide in self._with_guides(batch, guides):
            for (waveforms,) in generator.advance(window, guide):
                yield waveforms.reshape(*latents.shape[:-2], -1)

    def morph(
        self,
        latents: Float[Array, "F Z"],
        *,
        domains: tuple[str, str],
        weights: Float[Array, "_"],
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> Iterator[Waveform]:
        """Yields a waveform between two decoders piece by piece, [F * pool_samples] in all.

        Each code is drawn from both decoders' distributions, mixed by weight, without guides.
        Slower than `generate`.

        Args:
            latents: Latents, [F, Z].
            domains: Names of the two.
            weights: Of the second at each latent frame, in [0, 1], [F]; see `blending`.
            temperature: Scale of the randomness; 0 takes the likeliest code every time. None
                is the model's own, `config.sampling`.
            top_p: Draws from the likeliest codes alone, as few as have so much of the probability
                together; 1 draws from all. None is the model's own.
            seed: Decides the random numbers.
        """
        first, second = validation.checked_domains(domains, self.domains)
        domains = first, second
        sampling = self._sampling(temperature, top_p, None)
        validation.check_seed(seed)
        latents = self._checked(latents)
        weights = validation.checked_weights(weights, latents)
        return self._jax_model.morph(
            [self.domains.index(domain) for domain in domains],
            latents,
            weights,
            domain_indices=self._domain_indices(domains),
            sampling=sampling,
            seed=seed,
        )

    def translate(
        self,
        waveform: Waveform,
        sample_rate_hz: int,
        *,
        domain: str,
        temperature: float | None = None,
        top_p: float | None = None,
        guide_strength: float | None = None,
        seed: int = 0,
    ) -> Float[Array, "*B U"]:
        """Returns the waveform played as `domain`, as long as itself, at `self.sample_rate_hz`."""
        (domain,) = validation.checked_domains([domain], self.domains)
        resampled = self._at_own_rate(waveform, sample_rate_hz)
        latents = self._encode(self._levelled(resampled))
        audio_out = self.generate(
            latents,
            domain=domain,
            temperature=temperature,
            top_p=top_p,
            guide_strength=guide_strength,
            seed=seed,
        )
        return audio_out[..., : resampled.shape[-1]]

    def translate_many(
        self,
        waveforms: Sequence[Float[Array, "_"]],
        *,
        domains: Sequence[str] | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        guide_strength: float | None = None,
        seed: int = 0,
        num_streams: int = 8,
        parallel_segments: int = 1,
    ) -> list[dict[str, Float[np.ndarray, "_"]]]:
        """Translates whole recordings of any lengths into several domains.

        The result is in memory; `translate_recordings`, whose arguments the others are, yields it
        bit by bit.

        Args:
            waveforms: Recordings, each [T] of its own length, at `self.sample_rate_hz`.
            domains: Names to translate to; None for all.
            temperature: As of `translate_recordings`.
            top_p: Likewise.
            guide_strength: Likewise.
            seed: Likewise.
            num_streams: How many are under way at once, if there are so many.
            parallel_segments: As of `translate_recordings`.

        Returns:
            For each recording its translations by domain, each as long as the recording.

        Raises:
            ValueError: A recording is not finite, or an argument is not allowed.
        """
        if isinstance(waveforms, Array):
            waveforms = validation.checked_recordings(waveforms)
        wanted = tuple(domains or self.domains)
        parts: list[list[np.ndarray]] = [[] for _ in waveforms]
        pieces = self.translate_recordings(
            ([waveform] for waveform in waveforms),
            domains=wanted,
            temperature=temperature,
            top_p=top_p,
            guide_strength=guide_strength,
            seed=seed,
            num_streams=max(1, min(num_streams, len(waveforms) * parallel_segments)),
            parallel_segments=parallel_segments,
        )
        for piece in scheduler.raising(pieces):
            parts[piece.recording].append(piece.waveforms)
        return [
            dict(zip(wanted, np.concatenate(of_recording, axis=-1), strict=True))
            for of_recording in parts
        ]

    def translate_file(
        self,
        input: str | os.PathLike[str],
        domain: str,
        output: str | os.PathLike[str],
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        guide_strength: float | None = None,
        seed: int = 0,
    ) -> Path:
        """Plays a sound file as `domain` and writes it, in memory that its length does not change.

        Args:
            input: Sound file of any length, rate and number of channels, which are mixed down.
            domain: Name of the decoder.
            output: Sound file to write, which is replaced if it exists; its extension names the
                format. Its folder is made if need be, and it appears when it is whole.
            temperature: See `generate`.
            top_p: See `generate`.
            guide_strength: See `generate`.
            seed: Decides the random numbers.

        Returns:
            The output's path.

        Raises:
            FileNotFoundError: There is no input.
            ValueError: There is no such domain, the input is no sound or damaged, or the output is
                no format that is written.
        """
        output = Path(output)
        writer = sound_files.SoundFileWriter(output, sample_rate_hz=self.sample_rate_hz)
        (domain,) = validation.checked_domains([domain], self.domains)
        blocks = sound_files.SoundFileBlocks(Path(input), self.sample_rate_hz)
        pieces = self.translate_recordings(
            [blocks],
            domains=[domain],
            temperature=temperature,
            top_p=top_p,
            guide_strength=guide_strength,
            seed=seed,
        )
        output.parent.mkdir(parents=True, exist_ok=True)
        with writer:
            for piece in scheduler.raising(pieces):
                writer.write(piece.waveforms[0])
        return output

    def translate_recordings(
        self,
        recordings: Iterable[Iterable[Float[Array, "_"]]],
        *,
        domains: Sequence[str] | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        guide_strength: float | None = None,
        seed: int = 0,
        num_streams: int = 1,
        parallel_segments: int = 1,
    ) -> Iterator[scheduler.Piece]:
        """Translates recordings of any lengths into several domains, in bounded memory.

        Args:
            recordings: Each an iterable of its waveform's blocks, [any], at
                `self.sample_rate_hz`, brought to the model's level as `encode_blocks` does. It may
                raise `ValueError` or `OSError`, which ends that recording alone.
            domains: Names to translate to; None for all.
            temperature: Scale of the randomness; 0 takes the likeliest code every time. None
                is the model's own, `config.sampling`.
            top_p: Draws from the likeliest codes alone, as few as have so much of the probability
                together; 1 draws from all. None is the model's own.
            guide_strength: How closely the decoder follows its guide, where it has one (see
                `SamplingConfig`); 0 leaves it free. None is the model's own.
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
        yield from self.generate_recordings(
            map(self.encode_blocks, recordings),
            domains=domains,
            temperature=temperature,
            top_p=top_p,
            guide_strength=guide_strength,
            seed=seed,
            num_streams=num_streams,
            parallel_segments=parallel_segments,
        )

    def encode_blocks(self, blocks: Iterable[Float[Array, "_"]]) -> Iterator[Window]:
        """Encodes a recording that comes in blocks, [any], at `self.sample_rate_hz`.

        A model that was trained at one level (`config.model.rms_dbfs`) hears the recording at it.
        Blocks that can be iterated twice, as a list or `sound_files.SoundFileBlocks`, are measured
        to their end first. Those of an iterator are encoded as they come, at a gain that follows
        what was heard so far (`level.follow`).

        Yields:
            Latents of a window, [F, Z], and how many samples they stand for: the recording may end
            inside the last latent frame.
        """
        model = self.config.model
        levelled = level.bring_blocks_to(
            validation.checked_blocks(blocks), model.rms_dbfs, sample_rate_hz=model.sample_rate_hz
        )
        yield from self._encoder.encode(levelled)

    def windows(
        self, latents: Float[Array, "F Z"], num_samples: int | None = None
    ) -> Iterator[Window]:
        """Cuts latents into windows for `generate_recordings`.

        Args:
            latents: Latents, [F, Z].
            num_samples: How many samples they stand for; None for whole latent frames.
        """
        model = self.config.model
        latents = validation.checked_recording_latents(latents, model)
        return segments.windows_of(
            latents,
            len(latents) * model.pool_samples if num_samples is None else num_samples,
            window_frames=pieces.window_frames(model),
            pool_samples=model.pool_samples,
        )

    def generate_recordings(
        self,
        recordings: Iterable[Iterable[Window]],
        *,
        domains: Sequence[str] | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        guide_strength: float | None = None,
        seed: int = 0,
        num_streams: int = 1,
        parallel_segments: int = 1,
    ) -> Iterator[scheduler.Piece]:
        """Runs `translate_recordings` on latents: `windows` of them, or from `encode_blocks`."""
        domains = validation.checked_domains(domains or self.domains, self.domains)
        sampling = self._sampling(temperature, top_p, guide_strength)
        yield from scheduler.generate(
            recordings,
            self._streams(domains, num_streams, sampling),
            seed=seed,
            parallel_segments=parallel_segments,
            guides=self._guides(domains, sampling),
        )

    @functools.cached_property
    def encoder_fingerprint(self) -> str:
        """Fingerprint of this encoder, which files of latents record."""
        return encoder_fingerprint.fingerprint(
            array_shapes.nested(self._arrays, "encoder"), self.config.model
        )

    def save_latents(
        self,
        path: str | os.PathLike[str],
        latents: Float[Array, "F Z"],
        *,
        source: str = "",
        num_samples: int | None = None,
    ) -> None:
        """Writes a recording's latents to an .npz file; see `latent_file.write`.

        Args:
            path: The file, which is replaced if it is there.
            latents: Latents, [F, Z].
            source: Name of the recording, for whoever reads the file.
            num_samples: Length of the recording at `self.sample_rate_hz`; None for whole frames.
        """
        model = self.config.model
        latents = validation.checked_recording_latents(latents, model)
        file = latent_file.LatentFile(
            latents=latents,
            num_samples=num_samples or len(latents) * model.pool_samples,
            source=source,
            encoder=self.encoder_fingerprint,
            preset=self.config.preset,
            model=model,
        )
        latent_file.write(path, file)

    def load_latents(self, path: str | os.PathLike[str]) -> Latents:
        """Returns the latents of a file, [F, Z]; refuses those of another encoder.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no such file, is damaged, or its latents are another encoder's.
        """
        return latent_file.read(
            path, encoder=self.encoder_fingerprint, model=self.config.model
        ).latents

    def code_logits(self, codes: Codes, latents: Latents, *, domain: str) -> CodeLogits:
        """Scores a recording's codes, each given those before it, [*B, T, Q] (teacher-forced).

        Args:
            codes: Codes, [*B, T], T = F * `pool_samples`.
            latents: Latents, [*B, F, Z].
            domain: Name of the decoder.
        """
        (domain,) = validation.checked_domains([domain], self.domains)
        latents = self._checked(latents)
        codes = validation.checked_codes(codes, latents, self.config.model)
        return self._jax_model.code_logits(codes, latents, self.domains.index(domain))

    def classify(self, latents: Latents) -> DomainLogits:
        """Returns the classifier's logits, one for each of `config.domains`, [*B, K]."""
        latents = self._checked(latents)
        return self._jax_model.classify(latents)

    @property
    def _encoder(self) -> "native_model.NativeModel | JaxModel":
        """What encodes: a constant-Q transform is computed by JAX, whatever generates."""
        return self._jax_model if self.config.model.encoder_kind == "cqt" else self._model

    @functools.cached_property
    def _jax_model(self) -> JaxModel:
        """What computes that for which there is no C++."""
        from umt_jax.generation import jax_model

        if isinstance(self._model, jax_model.JaxModel):
            return self._model
        kept = self._domain_indices(self.domains)
        return jax_model.JaxModel(self.config, self._arrays, kept)

    def _encode(self, waveform):
        """Returns the latents of a waveform at the model's rate, [*B, F, Z]."""
        windows = self._encoder.encode([waveform])
        return np.concatenate([latents for latents, _ in windows], axis=-2)

    def _levelled(self, waveform):
        """Returns checked recordings at the model's rate, [*B, T], as `level` does."""
        return level.bring_to(waveform, self.config.model.rms_dbfs)

    def _sampling(self, temperature, top_p, guide_strength) -> SamplingConfig:
        """Returns how codes are drawn: as is asked for, else as the model says."""
        validation.check_guides(guide_strength, self.config.model)
        return self.config.sampling.override(
            temperature=temperature, top_p=top_p, guide_strength=guide_strength
        )

    def _guides(self, domains, sampling) -> guiding.Guides | None:
        """Returns the guides of these domains, if their decoders are to follow them."""
        model = self.config.model
        if not (model.guide_channels and sampling.guide_strength):
            return None
        nested = array_shapes.nested(self._arrays, "decoders")
        return guiding.Guides(model, nested, self._domain_indices(domains))

    def _streams(self, domains, num_streams, sampling):
        if self.config.model.guide_channels and sampling.follows_alone:
            return guiding.Alone(self.config.model, len(domains), num_streams)
        return self._model.streams(
            [self.domains.index(domain) for domain in domains],
            self._domain_indices(domains),
            num_streams=num_streams,
            sampling=sampling,
        )

    def _with_guides(self, batch, guides):
        """Yields windows of several recordings' latents, [B, F, Z], and their guides, if any."""
        if guides is None:
            yield batch, None
            return
        followed = (guides.follow(self.windows(latents)) for latents in batch)
        for windows in zip(*followed, strict=True):
            latents = np.stack([window.latents for window in windows])
            yield latents, np.stack([window.guide for window in windows], axis=1)

    def _domain_indices(self, domains):
        """Returns their places among all the domains of the model."""
        return [self.config.domains.index(domain) for domain in domains]

    def _at_own_rate(self, waveform, sample_rate_hz):
        return validation.resampled(waveform, sample_rate_hz, to_hz=self.sample_rate_hz)

    def _checked(self, latents):
        return validation.checked_latents(latents, self.config.model)


def _by_name(parameters: Any) -> dict[str, np.ndarray]:
    """Returns a model's arrays, NumPy's, by the names of `array_shapes`."""
    if not isinstance(parameters, Mapping):
        from umt_jax.model import networks  # Whose class it is.

        parameters = networks.by_name(parameters)
    return {name: np.asarray(array) for name, array in parameters.items()}
