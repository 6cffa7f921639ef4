"""Translations and blends of the studio, with estimates of the time that they still take."""

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from umt_jax import translator
from umt_jax.audio import mel_spectrogram, sound_files
from umt_jax.generation import blending, scheduler
from umt_jax.plots import spectrograms
from umt_jax.shapes import Float, Waveform
from umt_jax.studio import uploads

_NAME_BYTES = 120  # Of 255 that file systems take, and 200 that Gradio keeps.


@dataclasses.dataclass(frozen=True)
class Take:
    """Sounds that are being made out of others.

    Attributes:
        sources: What goes in, as the model hears it: waveforms [T] by title.
        domains: What each of the K sounds that come out is played as.
        name: What files of them are called, before the domain.
        num_samples: T, the length of each of them.
        pieces: Consecutive stretches of all of them, each [K, any].
    """

    sources: dict[str, Waveform]
    domains: tuple[str, ...]
    name: str
    num_samples: int
    pieces: Iterator[Float[np.ndarray, "K _"]]


@dataclasses.dataclass(frozen=True)
class Studio:
    """A model, and what may be asked of it.

    Attributes:
        model: What encodes and generates.
        max_seconds: Length of the longest sound that is taken.
    """

    model: translator.Translator
    max_seconds: float

    def translate(
        self, path: str | None, domains: Sequence[str], *, temperature: float, seed: int
    ) -> Take:
        """Plays a sound file as each of `domains`; nothing is generated before it is asked for.

        Raises:
            ValueError: What is wrong with the file, or that there is no domain.
        """
        if not domains:
            raise ValueError("No domain is chosen. Choose at least one to translate to.")
        source = self.model.level(self._read(path))
        # In the model's order, in whichever they were chosen.
        wanted = tuple(domain for domain in self.model.domains if domain in domains)
        pieces = self.model.translate_recordings(
            [[source]], domains=wanted, temperature=temperature, seed=seed
        )
        return Take({"Source": source}, wanted, _name(path), len(source), _waveforms(pieces))

    def blend(
        self,
        first: str | None,
        second: str | None,
        *,
        weight: float,
        domain: str,
        temperature: float,
        seed: int,
    ) -> Take:
        """Plays a mixture of two sounds' latents, brought to one level, as long as the shorter one.

        Args:
            first: A sound file.
            second: Another one.
            weight: Share of the second one, 0 to 1.
            domain: What plays them.
            temperature: Scale of the randomness; 0 takes the likeliest code every time.
            seed: Decides the random numbers.
        """
        sounds = blending.match_levels([self._read(first), self._read(second)])
        first_sound, second_sound = map(self.model.level, sounds)
        sources: dict[str, Waveform] = {"First": first_sound, "Second": second_sound}
        num_samples = min(map(len, sources.values()))
        first_latents, second_latents = (
            self.model.encode(source[:num_samples], self.model.sample_rate_hz)
            for source in sources.values()
        )
        weights = np.full(len(first_latents), weight)
        waveforms = self.model.generate_stream(
            blending.mix(first_latents, second_latents, weights),
            domain=domain,
            temperature=temperature,
            seed=seed,
        )
        pieces = _cut(waveforms, num_samples)
        return Take(sources, (domain,), _name(first, second), num_samples, pieces)

    def _read(self, path):
        return uploads.read(
            path, sample_rate_hz=self.model.sample_rate_hz, max_seconds=self.max_seconds
        )


def _waveforms(pieces):
    """Yields the waveforms of one recording's pieces, [K, any]; raises what ends it early."""
    for piece in scheduler.raising(pieces):
        if piece.waveforms.size:
            yield piece.waveforms


def _name(*paths: str | None) -> str:
    """Returns what is made of sounds is called: after them, each cut so that any domain fits in."""
    most = _NAME_BYTES // len(paths)
    stems = (os.fsencode(Path(str(path)).stem)[:most] for path in paths)
    return "+".join(stem.decode(errors="ignore").rstrip() for stem in stems)


def _cut(waveforms, num_samples):
    """Yields the first samples of a waveform as pieces [1, any]."""
    for waveform in waveforms:
        yield waveform[None, :num_samples]
        num_samples -= len(waveform)


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a take.

    Attributes:
        piece: The newest stretch, [K, any].
        num_samples: How many samples of each sound are there.
        seconds_left: About how long the rest takes; None while that is unknown.
    """

    piece: Float[np.ndarray, "K _"]
    num_samples: int
    seconds_left: float | None


def play(take: Take, *, at_least: int = 1) -> Iterator[Progress]:
    """Makes a take, in pieces of so many samples or more, but for the last."""
    num_samples = 0
    first_samples, first_time = 0, 0.0
    for piece in _joined(take.pieces, at_least=at_least):
        num_samples += piece.shape[-1]
        seconds_left = None
        if first_samples:
            seconds_per_sample = (time.monotonic() - first_time) / (num_samples - first_samples)
            seconds_left = seconds_per_sample * (take.num_samples - num_samples)
        else:
            # The first piece waits for compilation and says nothing about the others.
            first_samples, first_time = num_samples, time.monotonic()
        yield Progress(piece, num_samples, seconds_left)


def _joined(pieces, *, at_least):
    """Yields the same sound in pieces of so many samples or more, but for the last."""
    waiting, num_samples = [], 0
    for piece in pieces:
        waiting.append(piece)
        num_samples += piece.shape[-1]
        if num_samples >= at_least:
            yield np.concatenate(waiting, axis=-1)
            waiting, num_samples = [], 0
    if waiting:
        yield np.concatenate(waiting, axis=-1)


@dataclasses.dataclass(frozen=True)
class Track:
    """One sound of a take that is done, and its picture, as files."""

    title: str
    sound: Path
    picture: Path


def write(
    take: Take, waveforms: Float[np.ndarray, "K T"], folder: Path, *, sample_rate_hz: int
) -> tuple[list[Track], list[Track]]:
    """Writes the sources and what was made of them, with pictures in one scale.

    Returns:
        Sources, and one track for each domain.
    """
    made = dict(zip(take.domains, waveforms, strict=True))
    sounds = [*take.sources.items(), *made.items()]
    seconds = max(len(waveform) for _, waveform in sounds) / sample_rate_hz
    loudest_db = max(
        float(mel_spectrogram.log_mel(waveform, sample_rate_hz).max()) for _, waveform in sounds
    )

    def track(title: str, waveform: Waveform) -> Track:
        sound = folder / f"{take.name}.{title}.wav"
        sound_files.write(sound, waveform, sample_rate_hz=sample_rate_hz)
        figure = spectrograms.log_mel_row(
            {title: waveform}, sample_rate_hz, seconds=seconds, loudest_db=loudest_db
        )
        picture = sound.with_suffix(".png")
        picture.write_bytes(spectrograms.to_png(figure))
        return Track(title, sound, picture)

    return (
        [track(title, waveform) for title, waveform in take.sources.items()],
        [track(title, waveform) for title, waveform in made.items()],
    )
