"""The page about an evaluation, from results that are made up."""

import re

import numpy as np
import pytest
from test_report import Tags

pytest.importorskip("mir_eval")

from experiments.evaluation import decoys, measuring, page, pieces, pitch_probe, run, tables
from experiments.evaluation.summary import Estimate
from umt_jax.config import Config, SamplingConfig

RATE_HZ = 8000
DOMAINS = ("<b>Piano", "Pan_Flute & Co")
PAIR, BACK = DOMAINS, DOMAINS[::-1]
SYSTEMS = (run.TRANSLATION, decoys.IDENTITY, decoys.NOISE)
PIECE = "a <i>song"


def table(number):
    """Returns measures of all systems, each of another value."""
    return {
        system: {
            name: Estimate(number + 0.01 * row, number - 0.1, number + 0.1)
            for name in tables.COLUMNS
        }
        for row, system in enumerate(SYSTEMS)
    }


@pytest.fixture(scope="module")
def html():
    """Returns the page about a checkpoint whose names would be tags."""
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, RATE_HZ // 2).astype(np.float32)
    music = pieces.Music(
        sample_rate_hz=RATE_HZ,
        recordings={domain: {PIECE: sound} for domain in DOMAINS},
        notes={},
        paired=True,
        spans={domain: {PIECE: [(0, RATE_HZ // 2)]} for domain in DOMAINS},
        left_out=(),
    )
    results = measuring.PairResults(clips=(), values={}, frechet={}, offsets={"x": [sound]})
    own = [(domain, domain) for domain in DOMAINS]
    by_pair = {pair: table(0.2 + 0.1 * i) for i, pair in enumerate([PAIR, BACK, *own])}
    by_pair[BACK][run.TRANSLATION]["pitch_accuracy"] = Estimate(*[float("nan")] * 3)
    evaluation = run.Evaluation(
        music=music,
        outputs={pair: {run.TRANSLATION: {PIECE: sound}} for pair in (PAIR, BACK)},
        decoys={decoys.NOISE: sound},
        results=dict.fromkeys((PAIR, BACK), results),
        own_results=dict.fromkeys(own, results),
        overall=table(0.5),
        by_pair=by_pair,
        own=table(0.4),
        resampled="clips",
        less_sure=1.25,
        config=Config(domains=DOMAINS),
        step=1234,
        sampling=SamplingConfig(),
        choice=None,
        splits={},
        probes={},
        pitch_probes={
            domain: pitch_probe.ProbeScores(0.71, 0.82, float("nan"), 9) for domain in DOMAINS
        },
        judged_by="5 <i>pieces",
        left_out=[],
    )
    scores = dict.fromkeys(DOMAINS, 2.5)
    facts = {
        "clips": 17,
        "pieces": {domain: [PIECE] for domain in DOMAINS},
        "left_out": [],
        "options": {"clip_s": 5.0, "seed": 3, "resamples": 1000},
        "sample_rate_hz": RATE_HZ,
        "judged_by": evaluation.judged_by,
        "resampled": "clips",
        "seconds": 12.3,
        "sampling": {"temperature": 0.7, "top_p": 0.9},
        "choice": {
            "pieces": ["other"],
            "tried": [
                {"sampling": {"temperature": 0.7, "top_p": 0.9}, "headline": {"mean": 0.5}},
                {"sampling": {"temperature": 1.0, "top_p": 1.0}, "headline": {"mean": 0.4}},
            ],
        },
        "checkpoint": {
            "chance": 0.5,
            "splits": {
                "train": {
                    "nats_per_sample": scores,
                    "bits_per_sample": scores,
                    "classifier_accuracy": None,
                }
            },
            "fresh_probe_accuracy": {"train": 0.75},
        },
    }
    return page.page(evaluation, facts, [])


def test_names_on_the_page_are_escaped_and_all_tags_closed(html):
    tags = {tag for tag, _ in Tags(html).found}
    assert not {"b", "i"} & tags
    assert "&lt;b&gt;Piano → Pan Flute &amp; Co" in html


def test_every_sound_and_picture_is_there(html):
    tags = Tags(html)
    assert len(tags.named("audio")) == 2 * 3 + 1
    assert len(tags.named("img")) == 2 * 2 + 1
    assert all(player["aria-label"].endswith(PIECE) for player in tags.named("audio"))


def test_the_page_says_the_numbers_in_words(html):
    text = " ".join(re.sub(r"<style>.*</style>|<[^>]*>", " ", html, flags=re.DOTALL).split())
    for words in (
        "0.50 [0.40, 0.60] The headline of step 1234, mean over 2 pairs of domains and 17 clips",
        "Quick: the first 2 clips of each piece alone; intervals are up to 1.2 times as wide",
        "0.71 0.82 –",
        "train 2.500 2.500 bits 2.500 2.500 bits – 75%",
        "at 8,000 Hz, in clips of 5 s; left out: nothing. Temperature 0.7, top p 0.9, chosen by "
        "the headline (temperature 0.7, top p 0.9: 0.50; temperature 1: 0.40) on other, none of "
        "which is among those reported. Seed 3.",
        "Intervals: 95 % of 1,000 bootstrap resamples of clips. It took 12 s.",
    ):
        assert words in text, words
