"""The evaluation from beginning to end: music, judge, translations, measures, summary."""

import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tqdm

from data_prep import instruments
from experiments.evaluation import (
    checkpoint_scores,
    content,
    judge_music,
    measuring,
    pieces,
    summary,
    timbre,
)
from experiments.evaluation.checkpoint_scores import SplitScores
from experiments.evaluation.measuring import Pair, PairResults
from experiments.evaluation.pieces import Music
from umt_jax import checkpoint, dataset
from umt_jax.config import Config
from umt_jax.networks import NetworkParameters
from umt_jax.shapes import Waveform
from umt_jax.translator import Translator

TRANSLATION, OUTPUT = "translation", "output"
"""Names of what is measured: a checkpoint's, and somebody else's."""

_SOUNDS_PER_FONT, _SOUNDS_PER_DOMAIN = 16, 32
_MOST_SEGMENTS = 64  # Of each domain and split, for losses and probes.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is evaluated; the command's flags say what each is."""

    checkpoint: str | None
    step: int | None
    pairs: pathlib.Path | None
    data_dir: str | None
    audio_dir: pathlib.Path | None
    temperature: float
    seed: int
    clip_s: float
    max_s: float
    soundfont: str | None
    second_soundfont: str | None
    resamples: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came out.

    Attributes:
        music: The test.
        outputs: What was measured, by pair, system and piece; nothing for decoys alone.
        decoys: Sounds of the first pair's first piece, for the ear.
        results: Every clip's measures, by pair.
        overall: The mean table of all pairs.
        by_pair: Each pair's.
        config: Of the checkpoint, if there is one.
        step: Its step.
        splits: Losses and accuracy of the checkpoint, by split.
        probes: Accuracy of a fresh classifier on frozen latents, by what it was tested on.
        judged_by: What the judge of timbre learned from, in words.
    """

    music: Music
    outputs: Mapping[Pair, Mapping[str, Mapping[str, Waveform]]]
    decoys: Mapping[str, Waveform]
    results: Mapping[Pair, PairResults]
    overall: summary.Table
    by_pair: Mapping[Pair, summary.Table]
    config: Config | None
    step: int | None
    splits: Mapping[str, SplitScores]
    probes: Mapping[str, float]
    judged_by: str

    @property
    def num_clips(self) -> int:
        """How many clips of sources there are in all."""
        return len({clip for of_pair in self.results.values() for clip in of_pair.clips})


def run(options: Options) -> Evaluation:
    """Evaluates as the options say.

    Raises:
        FileNotFoundError: A folder or file is missing.
        ValueError: What is there does not fit together.
    """
    config = (
        checkpoint.read_config(options.checkpoint, options.step) if options.checkpoint else None
    )
    music, outputs = _read(options, config)
    fonts = _soundfonts(options) if options.pairs and _playable(music.domains) else []
    learned, judged_by = _learned(options, music, fonts)
    step = options.step
    splits: dict[str, SplitScores] = {}
    probes: dict[str, float] = {}
    if config and options.checkpoint:
        step = checkpoint.best_step(options.checkpoint) if step is None else step
        parameters = checkpoint.restore_parameters(options.checkpoint, options.step)
        splits, probes = _checkpoint_scores(options, config, parameters, music, learned)
        model = Translator(config, parameters)
        outputs = translate(model, music, temperature=options.temperature, seed=options.seed)
    judge_of = _judges(options, music, learned)
    measured = measuring.Measuring(music, judge_of, _other_font(music, fonts[1:]))
    pairs = list(outputs) or list(itertools.permutations(music.domains, 2))
    results = {
        pair: measured.measure(pair, outputs.get(pair, {}))
        for pair in tqdm.tqdm(pairs, desc="Measuring", unit="pair")
    }
    overall, by_pair = summary.summarise(results, resamples=options.resamples, seed=options.seed)
    return Evaluation(
        music=music,
        outputs=outputs,
        decoys=measured.decoys(pairs[0], next(iter(music.recordings[pairs[0][0]]))),
        results=results,
        overall=overall,
        by_pair=by_pair,
        config=config,
        step=step,
        splits=splits,
        probes=probes,
        judged_by=judged_by,
    )


def _read(
    options: Options, config: Config | None
) -> tuple[Music, dict[Pair, dict[str, dict[str, Waveform]]]]:
    """Reads the test, and somebody's outputs if that is what is measured."""
    lengths = {"clip_s": options.clip_s, "max_s": options.max_s}
    if options.audio_dir:
        rate_hz = pieces.file_rate_hz(options.audio_dir / "target")
        music, by_piece = pieces.read_outputs(options.audio_dir, sample_rate_hz=rate_hz, **lengths)
        return music, {("source", "target"): {OUTPUT: by_piece}}
    if options.pairs:
        rate_hz = config.model.sample_rate_hz if config else pieces.file_rate_hz(options.pairs)
        wanted = config.domains if config else None
        return pieces.read_pairs(options.pairs, wanted, sample_rate_hz=rate_hz, **lengths), {}
    assert options.data_dir
    domains = config.domains if config else dataset.find_domains(options.data_dir)
    if len(domains) < 2:
        raise ValueError(f"{domains[0]} alone cannot be translated into another domain.")
    prepared = dataset.Dataset(options.data_dir, domains)
    if config:
        prepared.check(config)
    return pieces.read_dataset(prepared, **lengths), {}


def _playable(domains: Sequence[str]) -> bool:
    """Whether all domains are instruments that can be rendered."""
    known = {name.lower() for name in instruments.PROGRAMS}
    return all(domain.lower() in known for domain in domains)


def _soundfonts(options: Options) -> list[pathlib.Path]:
    """Returns the sound font of the pairs, and the second one if it is wanted.

    Raises:
        ValueError: The pairs say that another one rendered them.
    """
    assert options.pairs
    first = instruments.find_soundfont(options.soundfont)
    record = options.pairs.parent / "render.json"
    if record.is_file():
        rendered_by = json.loads(record.read_text())
        if rendered_by["soundfont_sha256"] != hashlib.sha256(first.read_bytes()).hexdigest():
            raise ValueError(
                f"--pairs={options.pairs} was rendered with {rendered_by['soundfont']}, not with "
                f"{first}. Name that font with --soundfont, so that the judge of timbre knows it."
            )
    second = judge_music.find_second_soundfont(options.second_soundfont)
    return [first, second] if second else [first]


def _learned(
    options: Options, music: Music, fonts: Sequence[pathlib.Path]
) -> tuple[dict[str, list[Waveform]], str]:
    """Returns sounds of each domain that are not in the test, and what they are in words.

    Nothing for somebody's outputs, where the pieces of the test judge one another.
    """
    rate_hz = music.sample_rate_hz
    if options.audio_dir:
        return {}, "the sources and targets of the other pieces"
    if fonts:
        held_out = next(iter(music.recordings.values()))
        excerpts = judge_music.choose_excerpts(
            held_out=held_out,
            melody=all(content.is_one_line(notes) for notes in music.notes.values()),
            number=_SOUNDS_PER_FONT,
        )
        learned: dict[str, list[Waveform]] = {domain: [] for domain in music.domains}
        for domain in music.domains:
            for font in fonts:
                learned[domain] += judge_music.rendered(
                    domain, excerpts, soundfont=font, sample_rate_hz=rate_hz
                )
        return learned, f"other scores, rendered with {' and '.join(font.name for font in fonts)}"
    if not options.data_dir:
        raise ValueError(
            f"--pairs={options.pairs} has domains that cannot be rendered, and the judge of timbre "
            f"needs music of {', '.join(music.domains)} that is not in the test. Name prepared "
            "recordings of theirs with --data_dir."
        )
    return (
        judge_music.prepared(
            dataset.Dataset(options.data_dir, music.domains),
            sample_rate_hz=rate_hz,
            sounds_per_domain=_SOUNDS_PER_DOMAIN,
        ),
        f"the training split in {options.data_dir}",
    )


def _judges(
    options: Options, music: Music, learned: Mapping[str, Sequence[Waveform]]
) -> Callable[[str], timbre.Judge]:
    """Returns the judge of each piece: one for all, or for each one that has not heard it."""
    if learned:
        examples = timbre.examples(learned, music.sample_rate_hz, seed=options.seed)
        judge = timbre.fit(examples)
        return lambda piece: judge
    by_piece = {
        piece: timbre.examples(sounds, music.sample_rate_hz, seed=options.seed)
        for piece, sounds in judge_music.of_pieces(music.recordings, music.sample_rate_hz).items()
    }

    @functools.cache
    def judge_of(piece: str) -> timbre.Judge:
        return timbre.fit(
            {
                kind: [
                    example
                    for other, of_kinds in by_piece.items()
                    if other != piece
                    for example in of_kinds[kind]
                ]
                for kind in by_piece[piece]
            }
        )

    return judge_of


def _other_font(music: Music, fonts: Sequence[pathlib.Path]) -> dict[str, dict[str, Waveform]]:
    """Renders the test with another sound font, if there is one and the notes are known."""
    if not fonts or not music.notes:
        return {}
    return {
        domain: {
            piece: pieces.fit(
                instruments.play(
                    music.notes[piece],
                    program=instruments.PROGRAMS[instruments.check_names([domain])[0]],
                    soundfont=fonts[0],
                    sample_rate_hz=music.sample_rate_hz,
                ),
                len(waveform),
            )
            for piece, waveform in of_domain.items()
        }
        for domain, of_domain in music.recordings.items()
    }


def translate(
    model: Translator, music: Music, *, temperature: float, seed: int
) -> dict[Pair, dict[str, dict[str, Waveform]]]:
    """Translates every piece of every domain into every other domain."""
    translations: dict[Pair, dict[str, dict[str, Waveform]]] = {}
    for source, by_piece in tqdm.tqdm(music.recordings.items(), desc="Translating", unit="domain"):
        targets = [domain for domain in music.domains if domain != source]
        parts: list[list[np.ndarray]] = [[] for _ in by_piece]
        for part in model.translate_recordings(
            ([waveform] for waveform in by_piece.values()),
            domains=targets,
            temperature=temperature,
            seed=seed,
            num_streams=len(by_piece),
        ):
            if part.error:
                raise part.error
            parts[part.recording].append(part.waveforms)
        whole = [np.concatenate(of_piece, axis=-1) for of_piece in parts]
        for place, target in enumerate(targets):
            translations[source, target] = {
                TRANSLATION: {
                    piece: waveforms[place]
                    for piece, waveforms in zip(by_piece, whole, strict=True)
                }
            }
    return translations


def _checkpoint_scores(
    options: Options,
    config: Config,
    parameters: NetworkParameters,
    music: Music,
    learned: Mapping[str, Sequence[Waveform]],
) -> tuple[dict[str, SplitScores], dict[str, float]]:
    """Returns losses and accuracy by split, and what fresh probes find in the latents."""
    segments = {}
    if options.data_dir:
        prepared = dataset.Dataset(options.data_dir, config.trained_domains)
        prepared.check(config)
        for split in ("train", "validation", "test"):
            segments[split] = checkpoint_scores.split_segments(
                prepared, config, split, _MOST_SEGMENTS
            )
    is_whole = set(config.trained_domains) <= set(music.domains)
    if music.paired and is_whole:
        recordings = {domain: list(of.values()) for domain, of in music.recordings.items()}
        segments["pairs"] = checkpoint_scores.segments_of(recordings, config, _MOST_SEGMENTS)
    splits = {
        split: checkpoint_scores.score(parameters, config, codes)
        for split, codes in segments.items()
    }
    probes: dict[str, float] = {}
    for test in ("test", "pairs"):
        if test in segments:
            train = segments.get("train")
            # The same notes in all domains, as in the pairs: nothing but the instrument to go by.
            if test == "pairs" and is_whole:
                train = checkpoint_scores.segments_of(learned, config, _MOST_SEGMENTS)
            assert train is not None
            probes[test] = checkpoint_scores.probe_accuracy(
                parameters, config, train=train, test=segments[test], seed=options.seed
            )
    return splits, probes
