"""The paper's protocols (§4) on a model's translations: pitch, line-ups, blends, single notes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import librosa
import numpy as np

from data_prep import instruments, midi
from experiments.evaluation import paper_measures, pieces, timbre, transcription
from umt_jax import translator
from umt_jax.audio import level
from umt_jax.data import dataset
from umt_jax.generation import blending
from umt_jax.shapes import Float, Waveform

CLIP_S = 5.0
"""Length of a clip, the paper's for blending."""

_MOST_LAG_S = 0.1
_QUIET_DB = -40.0
_PITCHES = range(55, 80, 2)
_NOTE_S, _ATTACK_S = 1.0, 0.1

Clips = Mapping[str, Sequence[Waveform]]
"""By domain, as many of each, [T]."""

Translations = Mapping[tuple[str, str], Sequence[Waveform]]
"""By domain translated from and domain translated to, one of each clip; a domain's own too."""


def choose_clips(prepared: dataset.Dataset, most: int) -> Clips:
    """Returns clips spread over the test tracks of each domain, as many of each.

    Raises:
        ValueError: A domain has fewer than two.
    """
    music = pieces.read_dataset(prepared, clip_s=CLIP_S, max_s=most * CLIP_S)
    clips: dict[str, list[Waveform]] = {}
    for domain, of_pieces in music.spans.items():
        spans = [(piece, span) for piece in of_pieces for span in of_pieces[piece]]
        # The n-th of every piece before the second of any.
        spans.sort(key=lambda found: found[1])
        clips[domain] = [
            music.recordings[domain][piece][first:end] for piece, (first, end) in spans[:most]
        ]
    fewest = min(clips, key=lambda domain: len(clips[domain]))
    if len(clips[fewest]) < 2:
        raise ValueError(
            f"The test split of {fewest} has {len(clips[fewest])} clips of {CLIP_S:g} s; two are "
            "needed. Prepare more of it."
        )
    return {domain: of_domain[: len(clips[fewest])] for domain, of_domain in clips.items()}


def translate(
    model: translator.Translator, clips: Clips, *, temperature: float, seed: int
) -> Translations:
    """Translates every clip into every domain."""
    sources = [(domain, clip) for domain, of_domain in clips.items() for clip in of_domain]
    translated = model.translate_many(
        [clip for _, clip in sources], temperature=temperature, seed=seed
    )
    translations: dict[tuple[str, str], list[Waveform]] = {}
    for (source, _), by_target in zip(sources, translated, strict=True):
        for target, waveform in by_target.items():
            translations.setdefault((source, target), []).append(waveform)
    return translations


def pitch(clips: Clips, translations: Translations, rate_hz: int) -> dict[str, Any]:
    """Compares translations' pitch with their sources'; and, to compare, with the next clip's."""
    contours = {
        domain: [contour(clip, rate_hz) for clip in of_domain]
        for domain, of_domain in clips.items()
    }
    most_lag = round(_MOST_LAG_S / _frame_seconds(next(iter(clips.values()))[0], rate_hz))

    def compare(found, expected):
        both = list(zip(found, expected, strict=True))
        return {
            "ncc": _mean(
                [paper_measures.pitch_correlation(a, b, most_lag=most_lag) for a, b in both]
            ),
            "dtw_semitones": _mean([paper_measures.warped_distance(a, b) for a, b in both]),
        }

    results = {}
    for (source, target), waveforms in translations.items():
        found = [contour(waveform, rate_hz) for waveform in waveforms]
        expected = contours[source]
        results[f"{source} to {target}"] = compare(found, expected) | {
            f"{name}_to_other_music": value
            for name, value in compare(found, [*expected[1:], expected[0]]).items()
        }
    return results


def contour(waveform: Waveform, rate_hz: int) -> Float[np.ndarray, "N"]:
    """Returns the pitch over time in semitones (69 is 440 Hz), NaN where it is quiet."""
    track = transcription.pitch_track(waveform, rate_hz)
    half = round(_frame_seconds(waveform, rate_hz) * rate_hz)
    middles = np.rint(track.times_s * rate_hz).astype(int)
    levels = np.array(
        [
            level.rms(waveform[max(0, middle - half) : middle + half])
            for middle in np.minimum(middles, len(waveform) - 1)
        ]
    )
    heard = levels > max(float(levels.max()) * 10 ** (_QUIET_DB / 20), 1e-6)
    return np.where(heard, librosa.hz_to_midi(np.maximum(track.pitch_hz, 1.0)), np.nan)


def line_up(
    clips: Clips, translations: Translations, judge: timbre.Judge, rate_hz: int
) -> dict[str, Any]:
    """Asks the judge which of K sounds is really of each domain."""
    domains = list(clips)
    chosen, of_domains = [], []
    for index, domain in enumerate(domains):
        probabilities = np.stack(
            [
                [
                    judge.measure(embeddings, domain)["target_probability"]
                    for embeddings in timbre.embed(candidates, rate_hz)
                ]
                for candidates in (
                    clips[domain] if origin == domain else translations[origin, domain]
                    for origin in domains
                )
            ],
            axis=1,
        )
        chosen.append(paper_measures.line_up(probabilities))
        of_domains.append(np.full(len(probabilities), index))
    shares = paper_measures.confusion(
        np.concatenate(chosen), np.concatenate(of_domains), len(domains)
    )
    return {
        "real_one_found": float(np.mean(np.diagonal(shares))),
        "chance": 1 / len(domains),
        "taken_for_real": {
            domain: dict(zip(domains, row.tolist(), strict=True))
            for domain, row in zip(domains, shares, strict=True)
        },
    }


def blends(
    model: translator.Translator, clips: Clips, temperature: float, seed: int
) -> dict[str, Waveform]:
    """Joins two clips of each domain by the paper's schedule, and plays them as that domain.

    Returns:
        By name: both clips, `first` and `second`; `latent_blend`, joined as latents; `wave_blend`,
        joined as waveforms and then translated.
    """
    rate_hz = model.sample_rate_hz
    sounds: dict[str, Waveform] = {}
    for domain, of_domain in clips.items():
        first, second = blending.match_levels(of_domain[:2])
        latents = blending.blend(
            *(model.encode(clip, rate_hz) for clip in (first, second)),
            schedule="paper",
            frame_rate_hz=model.frame_rate_hz,
        )
        # The same schedule for samples: latents of one channel.
        waveform = blending.blend(
            first[:, None], second[:, None], schedule="paper", frame_rate_hz=float(rate_hz)
        )[:, 0]
        sounds |= {
            f"{domain}.first": first,
            f"{domain}.second": second,
            f"{domain}.latent_blend": model.generate(
                latents, domain=domain, temperature=temperature, seed=seed
            ),
            f"{domain}.wave_blend": model.translate(
                waveform, rate_hz, domain=domain, temperature=temperature, seed=seed
            ),
        }
    return sounds


def latents_of_notes(model: translator.Translator, soundfont: str | None) -> dict[str, Any] | str:
    """Correlates latents of the same notes on those of the model's instruments that can be played.

    Returns:
        The numbers, or why there are none.
    """
    known = {name.lower(): program for name, program in instruments.PROGRAMS.items()}
    playable = [domain for domain in model.config.domains if domain.lower() in known]
    if len(playable) < 2:
        return "Fewer than two domains are named as instruments that can be rendered."
    font = instruments.find_soundfont(soundfont)
    rate_hz = model.sample_rate_hz
    notes = [
        instruments.play(
            [midi.Note(0.0, _NOTE_S, key, 90)],
            program=known[domain.lower()],
            soundfont=font,
            sample_rate_hz=rate_hz,
        )
        for key in _PITCHES
        for domain in playable
    ]
    latents = model.encode(np.stack(notes), rate_hz)
    start_s = instruments.LEAD_S + _ATTACK_S
    first, end = (
        round(time_s * model.frame_rate_hz) for time_s in (start_s, instruments.LEAD_S + _NOTE_S)
    )
    of_notes = latents[:, first:end].mean(axis=1)
    shape = (len(_PITCHES), len(playable), latents.shape[-1])
    correlations = paper_measures.pitch_correlations(of_notes.reshape(shape))
    return {"instruments": playable, "pitches": list(_PITCHES)} | dataclasses.asdict(correlations)


def _frame_seconds(waveform: Waveform, rate_hz: int) -> float:
    times_s = transcription.pitch_track(waveform, rate_hz).times_s
    return float(times_s[1] - times_s[0])


def _mean(values: Sequence[float]) -> float | None:
    """Returns the mean of the numbers among values; None if there are none."""
    there = [value for value in values if np.isfinite(value)]
    return float(np.mean(there)) if there else None
