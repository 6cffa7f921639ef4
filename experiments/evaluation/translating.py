"""What is measured: a checkpoint's translations, and how its sampling is chosen."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import tqdm

from experiments.evaluation import measuring, summary, tables
from experiments.evaluation.measuring import Pair
from experiments.evaluation.pieces import Music
from umt_jax.config import SamplingConfig
from umt_jax.shapes import Waveform
from umt_jax.translator import Translator

Outputs = Mapping[Pair, Mapping[str, Waveform]]
"""By pair of domains and piece, [T]."""


def translate(
    model: Translator, music: Music, *, sampling: SamplingConfig, seed: int, own: bool = True
) -> dict[Pair, dict[str, Waveform]]:
    """Plays every piece of every domain by the decoders of all domains, its own too if wanted."""
    translations: dict[Pair, dict[str, Waveform]] = {}
    for source, by_piece in tqdm.tqdm(music.recordings.items(), desc="Translating", unit="domain"):
        targets = [domain for domain in music.domains if own or domain != source]
        translated = model.translate_many(
            list(by_piece.values()),
            domains=targets,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            guide_strength=sampling.guide_strength,
            seed=seed,
            num_streams=len(by_piece),
        )
        for target in targets:
            translations[source, target] = {
                piece: by_target[target]
                for piece, by_target in zip(by_piece, translated, strict=True)
            }
    return translations


def across(music: Music) -> list[Pair]:
    """Returns all pairs of two domains."""
    return [(a, b) for a in music.domains for b in music.domains if a != b]


def choose(
    candidates: Sequence[SamplingConfig],
    translated: Callable[[SamplingConfig], Outputs],
    measured: measuring.Measuring,
    music: Music,
) -> dict[SamplingConfig, summary.Estimate]:
    """Returns the headline of each way to sample, the best one first.

    Args:
        candidates: Ways to sample.
        translated: Translates the music, sampled in one of these ways.
        measured: Measures it.
        music: Pieces that are not among those that are reported.
    """
    outputs = {candidate: translated(candidate) for candidate in candidates}
    results = {
        pair: measured.measure(
            pair, {name(candidate): outputs[candidate][pair] for candidate in candidates}
        )
        for pair in tqdm.tqdm(across(music), desc="Choosing", unit="pair")
    }
    overall, _ = summary.summarise(results)
    headlines = {candidate: overall[name(candidate)][summary.HEADLINE] for candidate in candidates}
    return dict(sorted(headlines.items(), key=lambda found: -found[1].mean))


def name(sampling: SamplingConfig) -> str:
    """Returns a way to sample in words."""
    return tables.sampling_words(**dataclasses.asdict(sampling))
