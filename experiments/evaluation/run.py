"""The evaluation from beginning to end: music, judge, translations, measures, summary."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import tqdm

from experiments.evaluation import (
    checkpoint_scores,
    decoys,
    fonts,
    learning,
    measuring,
    pieces,
    pitch_probe,
    summary,
    timbre,
    transcribed,
    translating,
)
from experiments.evaluation.checkpoint_scores import SplitScores
from experiments.evaluation.measuring import Pair, PairResults
from experiments.evaluation.options import Options
from experiments.evaluation.pieces import Music
from umt_jax.checkpoints import checkpoint, reading
from umt_jax.config import Config, SamplingConfig
from umt_jax.data import dataset
from umt_jax.shapes import Waveform
from umt_jax.translator import Translator

TRANSLATION, OUTPUT = "translation", "output"
"""Names of what is measured: a checkpoint's, and somebody else's."""

QUICK_CLIPS = 2
"""Number of clips of each piece, the first ones, that a quick evaluation measures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Results of an evaluation.

    Attributes:
        music: The test.
        outputs: What was measured, by pair, system and piece; nothing for decoys alone. Pairs of a
            domain with itself are its own recordings, played by its own decoder.
        decoys: Sounds of the first pair's first piece, for the ear.
        results: Every clip's measures, by pair of two domains.
        own_results: Likewise, of domains played by their own decoders.
        overall: The mean table of all pairs of two domains.
        by_pair: Each pair's, a domain's with itself among them.
        own: The mean table of domains played by their own decoders; nothing where there is none.
        resampled: What intervals are resampled over, pieces or clips.
        less_sure: How many times wider a quick evaluation's intervals are than those of the whole
            music; 1 if it is the whole.
        config: Of the checkpoint, if there is one.
        step: Its step.
        sampling: How its codes were drawn.
        choice: The headlines among which that was chosen, and on which pieces.
        splits: Losses and accuracy of the checkpoint, by split.
        probes: Accuracy of a fresh classifier on frozen latents, by what it was tested on.
        pitch_probes: How well the pitch can be read from the latents, by domain.
        judged_by: What the judge of timbre learned from, in words.
        left_out: What was not measured or not played, in words.
    """

    music: Music
    outputs: Mapping[Pair, Mapping[str, Mapping[str, Waveform]]]
    decoys: Mapping[str, Waveform]
    results: Mapping[Pair, PairResults]
    own_results: Mapping[Pair, PairResults]
    overall: summary.Table
    by_pair: Mapping[Pair, summary.Table]
    own: summary.Table
    resampled: str
    less_sure: float
    config: Config | None
    step: int | None
    sampling: SamplingConfig | None
    choice: "Choice | None"
    splits: Mapping[str, SplitScores]
    probes: Mapping[str, float]
    pitch_probes: Mapping[str, pitch_probe.ProbeScores]
    judged_by: str
    left_out: Sequence[str]

    @property
    def num_clips(self) -> int:
        """Total number of clips of sources."""
        return self.music.num_clips


@dataclasses.dataclass(frozen=True)
class Choice:
    """Record of how the sampling was chosen.

    Attributes:
        headlines: Of each way to sample, the best first.
        pieces: On which; none of them is reported.
    """

    headlines: Mapping[SamplingConfig, summary.Estimate]
    pieces: Sequence[str]


def run(options: Options) -> Evaluation:
    """Evaluates as the options say.

    Raises:
        FileNotFoundError: A folder or file is missing.
        ValueError: What is there does not fit together.
    """
    config = reading.read_config(options.checkpoint, options.step) if options.checkpoint else None
    whole, outputs = _read(options, config)
    _check_names(options)
    music = whole.first_clips(QUICK_CLIPS) if options.quick else whole
    to_choose_on = _read_choice(options, config, music)
    soundfonts = (
        fonts.find(options.pairs, options.soundfont, options.second_soundfont)
        if options.pairs and fonts.playable(music.domains)
        else []
    )
    held_out = {*_names(music), *(_names(to_choose_on) if to_choose_on else ())}
    learned = learning.for_judge(options, music, soundfonts, held_out)
    judge_of = learning.judges(options, music, learned.sounds)
    other_font, false = (
        fonts.play(music, soundfonts[1]) if soundfonts[1:] and music.notes else ({}, ())
    )
    measured = measuring.Measuring(music, judge_of, other_font)

    step, sampling, choice = options.step, None, None
    splits: dict[str, SplitScores] = {}
    probes: dict[str, float] = {}
    pitch_probes: dict[str, pitch_probe.ProbeScores] = {}
    if config and options.checkpoint:
        step = reading.best_step(options.checkpoint) if step is None else step
        parameters = checkpoint.restore_parameters(options.checkpoint, options.step)
        splits, probes = checkpoint_scores.by_split(
            parameters,
            config,
            data_dir=options.data_dir,
            music=music,
            learned=learned.sounds,
            seed=options.seed,
        )
        model = Translator(config, parameters)
        if music.is_one_line or not music.notes:
            heard = learning.for_probes(options, music, soundfonts, held_out)
            pitch_probes = pitch_probe.probe(model, heard, music, seed=options.seed)
        sampling = config.sampling.override(
            temperature=options.temperature,
            top_p=options.top_p,
            guide_strength=options.guide_strength,
        )
        if to_choose_on:
            choice = _choose(options, model, sampling, to_choose_on, judge_of)
            sampling = next(iter(choice.headlines))
        translations = translating.translate(model, music, sampling=sampling, seed=options.seed)
        outputs = {pair: {TRANSLATION: by_piece} for pair, by_piece in translations.items()}
    for name, folder in options.outputs.items():
        for pair, by_piece in pieces.read_translations(folder, name, music).items():
            outputs[pair] = {**outputs.get(pair, {}), name: by_piece}
    if soundfonts:
        played = transcribed.outputs(music, translating.across(music), soundfonts[0])
        for pair, by_piece in played.items():
            outputs[pair] = outputs.get(pair, {}) | {decoys.TRANSCRIBED: by_piece}
    pairs = [pair for pair in outputs if pair[0] != pair[1]] or translating.across(music)
    own_pairs = [pair for pair in outputs if pair[0] == pair[1]]
    every = {
        pair: measured.measure(pair, outputs.get(pair, {}))
        for pair in tqdm.tqdm([*pairs, *own_pairs], desc="Measuring", unit="pair")
    }
    results, own_results = ({pair: every[pair] for pair in of} for of in (pairs, own_pairs))
    summarise = functools.partial(summary.summarise, resamples=options.resamples, seed=options.seed)
    overall, by_pair = summarise(results)
    own, by_domain = summarise(own_results, normalise=False) if own_results else ({}, {})
    return Evaluation(
        config=config,
        step=step,
        music=music,
        outputs=outputs,
        decoys=measured.decoys(pairs[0], next(iter(music.recordings[pairs[0][0]]))),
        results=results,
        own_results=own_results,
        overall=overall,
        by_pair=by_pair | by_domain,
        own=own,
        resampled=summary.resampled(results),
        less_sure=math.sqrt(whole.num_clips / music.num_clips),
        sampling=sampling,
        choice=choice,
        splits=splits,
        probes=probes,
        pitch_probes=pitch_probes,
        judged_by=learned.words,
        left_out=(*music.left_out, *learned.left_out, *false),
    )


def _read(
    options: Options, config: Config | None
) -> tuple[Music, dict[Pair, dict[str, Mapping[str, Waveform]]]]:
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


def _check_names(options: Options) -> None:
    """Raises `ValueError` if another system has the name of a row that tables have already."""
    for name in options.outputs:
        if name in (TRANSLATION, *decoys.EXPLANATIONS):
            raise ValueError(
                f"--outputs={name}={options.outputs[name]} has the name of another row of the "
                "tables. Choose another."
            )


def _read_choice(options: Options, config: Config | None, music: Music) -> Music | None:
    """Reads the pieces on which sampling is chosen, if it is.

    Raises:
        ValueError: They are not all of the test's domains, or one of them is in the test.
    """
    if not options.choose_on or not config:
        return None
    choice = pieces.read_pairs(
        options.choose_on,
        config.domains,
        sample_rate_hz=config.model.sample_rate_hz,
        clip_s=options.clip_s,
        max_s=options.max_s,
    )
    both = sorted(set(_names(choice)) & set(_names(music)))
    if both:
        raise ValueError(
            f"--choose_on={options.choose_on} holds {', '.join(both)}, which --pairs holds too: "
            "what is chosen on a piece says too much of it. Render other pieces to choose on."
        )
    if choice.domains != music.domains:
        raise ValueError(
            f"--choose_on={options.choose_on} holds {', '.join(choice.domains)}, but --pairs "
            f"{', '.join(music.domains)}. They must be the same instruments."
        )
    return choice


def _names(music: Music) -> list[str]:
    return list(next(iter(music.recordings.values())))


def _choose(
    options: Options,
    model: Translator,
    own: SamplingConfig,
    music: Music,
    judge_of: Callable[[str], timbre.Judge],
) -> Choice:
    """Tries the ways to sample that the options name on music that is not reported."""
    candidates = [
        own.override(temperature=temperature, top_p=top_p, guide_strength=guide_strength)
        for temperature, top_p, guide_strength in itertools.product(
            options.choose_temperature or [own.temperature],
            options.choose_top_p or [own.top_p],
            options.choose_guide_strength or [own.guide_strength],
        )
    ]
    headlines = translating.choose(
        candidates,
        lambda sampling: translating.translate(
            model, music, sampling=sampling, seed=options.seed, own=False
        ),
        measuring.Measuring(music, judge_of, {}),
        music,
    )
    return Choice(headlines, _names(music))
