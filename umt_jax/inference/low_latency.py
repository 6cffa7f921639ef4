"""Translates sound while it comes, a latent frame at a time, by the C++ core.

Without guides the samples are those of `Translator` with the native engine, which come half-second
window by window. With guides the magnitudes are, and the phases others: they are estimated for
shorter stretches.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from umt_jax.audio import level
from umt_jax.checkpoints import model_file, reading
from umt_jax.config import Config, SamplingConfig
from umt_jax.core import library
from umt_jax.generation import scheduler, validation
from umt_jax.shapes import Array, Float


def open_player(workdir: str, step: int | None = None) -> library.Player:
    """Returns a player of a run's checkpoint, or of a model file; weights keep their precision.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: It is none of this project's, or one that the core cannot play.
        OSError: There is no C++ compiler.
    """
    config = reading.read_config(workdir, step)
    return library.Player(model_file.pack(config, reading.read_arrays(workdir, step)))


def hint(config: Config, sampling: SamplingConfig) -> str:
    """Returns how the sound would come sooner; "" if it cannot."""
    if not (config.model.guide_channels and sampling.guide_strength):
        return ""
    return "Its guides look ahead. With --guide_strength=0 it comes sooner, with more wrong notes."


def choose(
    player: library.Player, config: Config, domain: str, sampling: SamplingConfig, seed: int
) -> None:
    """Sets what a player plays, and how.

    Args:
        player: Plays a model.
        config: Of its model.
        domain: One of the model's.
        sampling: How codes are drawn; decides the latency, too.
        seed: Decides the random numbers.

    Raises:
        ValueError: There is no such domain, the seed has more than 32 bits, or the model has no
            guides to follow.
    """
    (domain,) = validation.checked_domains([domain], player.domains)
    validation.check_seed(seed)
    validation.check_guides(sampling.guide_strength, config.model)
    player.set(
        guide_strength=sampling.guide_strength,
        domain=player.domains.index(domain),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=seed,
    )


def delay_seconds(player: library.Player, config: Config) -> float:
    """Returns how far a player is behind its source, at the model's rate.

    A model that plays sounds at one level waits for as much as sets the first gain.
    """
    delay = player.latency_samples / player.sample_rate_hz
    return delay if config.model.rms_dbfs is None else max(delay, level.FOLLOWING_SECONDS)


def translate(
    player: library.Player, config: Config, blocks: Iterable[Float[Array, "_"]]
) -> Iterator[scheduler.Piece]:
    """Yields the translation of one recording, each latent frame as soon as it can be generated.

    Args:
        player: What `choose` has set.
        config: Of its model.
        blocks: The recording, [any] each, at the player's rate. `ValueError` and `OSError` that it
            raises are the last piece's error.
    """
    frame = config.model.pool_samples
    levelled = level.bring_blocks_to(
        iter(blocks), config.model.rms_dbfs, sample_rate_hz=player.sample_rate_hz
    )

    def pulled() -> Iterator[scheduler.Piece]:
        while (waveform := player.pull(frame)).size:
            yield scheduler.Piece(0, waveform[np.newaxis])

    nothing = np.zeros((1, 0), np.float32)
    try:
        for block in levelled:
            rest = np.ascontiguousarray(block, np.float32)
            while rest.size:
                rest = rest[player.push(rest) :]
                yield from pulled()
    except (ValueError, OSError) as error:
        yield scheduler.Piece(0, nothing, is_last=True, error=error)
        return
    player.finish()
    yield from pulled()
    yield scheduler.Piece(0, nothing, is_last=True)
