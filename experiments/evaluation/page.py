"""The page about an evaluation, as HTML that needs no other file."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.evaluation import decoys, summary, tables
from experiments.evaluation.measuring import Pair
from experiments.evaluation.run import QUICK_CLIPS, Evaluation
from experiments.pages import parts as page_parts
from umt_jax.plots import loss_curves, rainbowgram, spectrograms
from umt_jax.shapes import Waveform

HEARD_S = 12.0
"""The page plays, and shows, this much of a piece."""


def page(
    evaluation: Evaluation, facts: Mapping[str, Any], metrics: Sequence[Mapping[str, float]]
) -> str:
    """Returns the whole page as HTML.

    Args:
        evaluation: What is on it.
        facts: What its JSON holds.
        metrics: What the checkpoint's run recorded, for curves; may be empty.
    """
    pairs = list(evaluation.results)
    measured = [name for name in evaluation.overall if name not in decoys.EXPLANATIONS]
    return _PAGE.format(
        style=page_parts.STYLE + _STYLE,
        lead=_lead(evaluation, facts, measured),
        overall=_table(evaluation.overall, tables.MAIN, "Mean over all pairs"),
        legend=_legend(),
        heat=_heat_map(evaluation, measured) + _pitch_map(evaluation, measured),
        own=_own(evaluation),
        notes=_notes(evaluation),
        checkpoint=_checkpoint(facts["checkpoint"], evaluation, metrics),
        pairs="\n".join(_pair_section(evaluation, pair) for pair in pairs),
        decoys=_decoys_section(evaluation, pairs[0]),
        everything="\n".join(
            f"<h3>{_arrow(pair)}</h3>"
            + _table(evaluation.by_pair[pair], tuple(tables.COLUMNS), "Every measure")
            for pair in (*pairs, *evaluation.own_results)
        ),
        setting=_setting(facts),
    )


def _lead(evaluation: Evaluation, facts: Mapping[str, Any], measured: Sequence[str]) -> str:
    if not measured:
        return "<p>Decoys alone: what measures say of sounds that are no translations.</p>"
    estimate = evaluation.overall[measured[0]][summary.HEADLINE]
    what = f"step {evaluation.step}" if evaluation.config else "outputs"
    return (
        f'<p class="headline"><strong>{estimate.mean:.2f}</strong> '
        f"<span>[{estimate.low:.2f}, {estimate.high:.2f}]</span></p>"
        f"<p>The headline of {what}, mean over {len(evaluation.results)} pairs of domains and "
        f"{facts['clips']} clips: 0 is no better than the worst decoy in content or in timbre, 1 "
        f"as good as the true pair in both.{_how_sure(evaluation)}</p>"
    )


def _how_sure(evaluation: Evaluation) -> str:
    if evaluation.less_sure == 1:
        return ""
    return (
        f" <strong>Quick:</strong> the first {QUICK_CLIPS} clips of each piece alone; intervals "
        f"are up to {evaluation.less_sure:.1f} times as wide as those of the whole pieces."
    )


def _table(table: summary.Table, names: Sequence[str], caption: str) -> str:
    names = [name for name in names if any(name in by_name for by_name in table.values())]
    head = "".join(
        f'<th scope="col" title="{html.escape(tables.COLUMNS[name].explanation)}">'
        f"{html.escape(tables.COLUMNS[name].title)}</th>"
        for name in names
    )
    rows = []
    for system in tables.order(table):
        kind = "decoy" if system in decoys.EXPLANATIONS else "measured"
        cells = "".join(f"<td>{_cell(table[system], name)}</td>" for name in names)
        rows.append(f'<tr class="{kind}"><th scope="row">{html.escape(system)}</th>{cells}</tr>')
    return (
        f'<div class="wide"><table><caption>{html.escape(caption)}</caption><thead><tr><th></th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(by_name: Mapping[str, summary.Estimate], name: str) -> str:
    estimate = by_name.get(name)
    if estimate is None or np.isnan(estimate.mean):
        return "–"
    digits = tables.COLUMNS[name].digits
    sign = "+" if name == summary.OFFSET else ""
    interval = (
        ""
        if np.isnan(estimate.low)
        else f"<small>{estimate.low:{sign}.{digits}f} to {estimate.high:{sign}.{digits}f}</small>"
    )
    return f"{estimate.mean:{sign}.{digits}f}{interval}"


def _legend() -> str:
    rows = (
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>"
        for name, text in decoys.EXPLANATIONS.items()
    )
    columns = (
        f"<dt>{html.escape(column.title)}</dt><dd>{html.escape(column.explanation)}</dd>"
        for column in tables.COLUMNS.values()
    )
    return (
        f"<details><summary>What the rows and columns are</summary>"
        f"<dl>{''.join(rows)}</dl><dl>{''.join(columns)}</dl></details>"
    )


def _heat_map(evaluation: Evaluation, measured: Sequence[str]) -> str:
    """Returns the headline of every pair as a coloured table, source by target."""
    system = measured[0] if measured else decoys.EQ_TRANSFER

    def of_pair(by_name: Mapping[str, summary.Estimate]) -> tuple[float, str, str] | None:
        if summary.HEADLINE not in by_name:
            return None
        scores = {name: by_name[name].mean for name in summary.NORMALISED}
        small = f"content {scores[summary.CONTENT]:.2f}, timbre {scores[summary.TIMBRE]:.2f}"
        return scores[summary.HEADLINE], f"{scores[summary.HEADLINE]:.2f}", small

    return _map(evaluation, system, f"Headline of {system} by pair", of_pair)


def _pitch_map(evaluation: Evaluation, measured: Sequence[str]) -> str:
    """Returns how well every pair is in tune; a domain into itself too."""
    if not measured or not any(of_pair.offsets for of_pair in evaluation.results.values()):
        return ""

    def of_pair(by_name: Mapping[str, summary.Estimate]) -> tuple[float, str, str] | None:
        pitch, offset = by_name["pitch_accuracy"].mean, by_name[summary.OFFSET].mean
        return pitch, f"{pitch:.2f}", f"median {offset:+.2f} semitones"

    caption = (
        f"f0 of {measured[0]} within 50 cents of the score's, and its median offset; on the "
        "diagonal a domain's own recordings, played by its own decoder"
    )
    return _map(evaluation, measured[0], caption, of_pair)


def _map(
    evaluation: Evaluation,
    system: str,
    caption: str,
    of_pair: Callable[[Mapping[str, summary.Estimate]], tuple[float, str, str] | None],
) -> str:
    """Returns a coloured table, source by target.

    Args:
        evaluation: What is shown.
        system: Of which row.
        caption: What it is.
        of_pair: Of the measures of a pair, a share in [0, 1], the same in words, and what else to
            say; None to say nothing.
    """
    sources = list(dict.fromkeys(source for source, _ in evaluation.by_pair))
    reached = {target for _, target in evaluation.by_pair}
    # In the order of the sources, where they are the same.
    targets = sources if reached == set(sources) else sorted(reached)
    head = "".join(f'<th scope="col">to {html.escape(page_parts.words(t))}</th>' for t in targets)
    rows = []
    for source in sources:
        cells = []
        for target in targets:
            table = evaluation.by_pair.get((source, target))
            said = of_pair(table[system]) if table and system in table else None
            if said is None or np.isnan(said[0]):
                cells.append("<td>–</td>")
                continue
            share, words, small = said
            cells.append(
                f'<td class="heat" style="--share: {round(100 * share)}%"><strong>{words}</strong>'
                f"<small>{html.escape(small)}</small></td>"
            )
        name = html.escape(page_parts.words(source))
        rows.append(f'<tr><th scope="row">from {name}</th>{"".join(cells)}</tr>')
    return (
        f'<div class="wide"><table class="map"><caption>{html.escape(caption)}</caption>'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _own(evaluation: Evaluation) -> str:
    """Returns the table of domains played by their own decoders, if there is a checkpoint."""
    if not evaluation.own:
        return ""
    return (
        "<h2>Own domain</h2><p>Recordings of each domain, encoded and played freely by its own "
        "decoder, mean over domains; no part of the headline. What is wrong here is the decoder's "
        "fault; what is wrong across domains alone is the encoder's.</p>"
        + _table(evaluation.own, tables.OWN, "Mean over domains")
    )


def _notes(evaluation: Evaluation) -> str:
    """Returns what the latents know of the pitch beside what is played, by domain."""
    if not evaluation.pitch_probes:
        return ""
    rows = []
    for domain, row in tables.notes_lost(evaluation.pitch_probes, evaluation.by_pair).items():
        cells = "".join(
            f"<td>{'–' if np.isnan(value) else format(value, '.2f')}</td>" for value in row.values()
        )
        name = html.escape(page_parts.words(domain))
        rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in tables.NOTES_LOST)
    return (
        "<h2>Where the notes are lost</h2><p>How often a probe names the exact key from three "
        "neighbouring latent frames of recordings that it has not learned from, and how often "
        "what is then played is within 50 cents of the score. A probe trained on the other domains "
        "falls behind where the encoder puts one note of two timbres at two places.</p>"
        f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _checkpoint(
    scores: Mapping[str, Any] | None,
    evaluation: Evaluation,
    metrics: Sequence[Mapping[str, float]],
) -> str:
    """Returns losses by domain and split, what classifiers find in the latents, and the curves."""
    if scores is None or evaluation.config is None:
        return ""
    domains = evaluation.config.trained_domains
    head = "".join(f'<th scope="col">{html.escape(page_parts.words(d))}</th>' for d in domains)
    rows = []
    for split, of_split in scores["splits"].items():
        cells = "".join(
            f"<td>{of_split['nats_per_sample'][d]:.3f}<small>"
            f"{of_split['bits_per_sample'][d]:.3f} bits</small></td>"
            for d in domains
        )
        accuracy = of_split["classifier_accuracy"]
        own = "–" if accuracy is None else f"{accuracy:.0%}"
        probe = scores["fresh_probe_accuracy"].get(split)
        fresh = "–" if probe is None else f"{probe:.0%}"
        rows.append(
            f'<tr><th scope="row">{html.escape(split)}</th>{cells}<td>{own}</td>'
            f"<td>{fresh}</td></tr>"
        )
    table = (
        '<div class="wide"><table><caption>Reconstruction loss, nats per sample, and how often '
        f"the domain is told from the latents (chance: {scores['chance']:.0%})</caption><thead><tr>"
        f'<th></th>{head}<th scope="col">Own classifier</th><th scope="col">Fresh probe</th></tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
    if metrics:
        png = spectrograms.to_png(loss_curves.loss_curves(metrics, domains))
        table += (
            f'<div class="curves">{page_parts.image(png, "Curves of losses in training")}</div>'
        )
    return f"<h2>The checkpoint itself</h2>{table}"


def _pair_section(evaluation: Evaluation, pair: Pair) -> str:
    """Returns the sounds of a pair beside each other, and its table."""
    source, target = pair
    music = evaluation.music
    piece = next(iter(music.recordings[source]))
    sounds = {f"{page_parts.words(source)}, the source": music.recordings[source][piece]}
    for system, by_piece in evaluation.outputs.get(pair, {}).items():
        sounds[f"{page_parts.words(target)}, {system}"] = by_piece[piece]
    if music.paired:
        name = f"{page_parts.words(target)}, the true pair"
        sounds[name] = music.recordings[target][piece]
    return (
        f"<h2>{_arrow(pair)}</h2>{_players(sounds, piece, music.sample_rate_hz)}"
        + _pictures(sounds, music.sample_rate_hz)
        + _rainbowgrams(sounds, music.sample_rate_hz)
        + _table(evaluation.by_pair[pair], tables.MAIN, "This pair")
    )


def _decoys_section(evaluation: Evaluation, pair: Pair) -> str:
    """Returns the sounds of the decoys of one pair."""
    music = evaluation.music
    piece = next(iter(music.recordings[pair[0]]))
    return (
        f"<h2>What the decoys sound like</h2><p>{_arrow(pair)}.</p>"
        f"{_players(evaluation.decoys, piece, music.sample_rate_hz)}"
        f"{_pictures(evaluation.decoys, music.sample_rate_hz, in_row=4)}"
    )


def _beginning(sound: Waveform, rate_hz: int) -> Waveform:
    return decoys.at_level(sound[: round(HEARD_S * rate_hz)])


def _players(sounds: Mapping[str, Waveform], piece: str, rate_hz: int) -> str:
    cards = (
        f'<section class="card"><h3>{html.escape(title)}</h3>'
        f"{page_parts.player(_beginning(sound, rate_hz), rate_hz, f'{title}: {piece}')}</section>"
        for title, sound in sounds.items()
    )
    return f'<div class="cards">{"".join(cards)}</div>'


def _pictures(sounds: Mapping[str, Waveform], rate_hz: int, in_row: int = 3) -> str:
    """Returns log-mel spectrograms of sounds beside each other, in one scale of colours."""
    beginnings = {title: _beginning(sound, rate_hz) for title, sound in sounds.items()}
    loudest_db = max(
        float(spectrograms.log_mel(sound, rate_hz).max()) for sound in beginnings.values()
    )
    parts = []
    for first in range(0, len(beginnings), in_row):
        row = dict(list(beginnings.items())[first : first + in_row])
        figure = spectrograms.log_mel_row(row, rate_hz, loudest_db=loudest_db)
        parts.append(_picture(figure, f"Log-mel spectrograms of {', '.join(row)}"))
    return "".join(parts)


def _rainbowgrams(sounds: Mapping[str, Waveform], rate_hz: int) -> str:
    row = {title: _beginning(sound, rate_hz) for title, sound in sounds.items()}
    return _picture(rainbowgram.row(row, rate_hz), f"Rainbowgrams of {', '.join(row)}")


def _picture(figure: Figure, description: str) -> str:
    png = spectrograms.to_png(figure, dots_per_inch=90)
    return f'<div class="picture">{page_parts.image(png, description)}</div>'


def _setting(facts: Mapping[str, Any]) -> str:
    """Says what was measured and how."""
    pieces = sorted({piece for names in facts["pieces"].values() for piece in names})
    left_out = "; ".join(facts["left_out"]) or "nothing"
    options = facts["options"]
    return (
        f"<p>{html.escape(', '.join(pieces))}, at {facts['sample_rate_hz']:,} Hz, in clips of "
        f"{options['clip_s']:g} s; left out: {html.escape(left_out)}. {_sampling(facts)}Seed "
        f"{options['seed']}. The judge of timbre learned from {html.escape(facts['judged_by'])}. "
        f"Intervals: 95 % of {options['resamples']:,} bootstrap resamples of "
        f"{facts['resampled']}. It took {facts['seconds']:.0f} s.</p>"
    )


def _sampling(facts: Mapping[str, Any]) -> str:
    """Says how codes were drawn, and how that was chosen."""
    if facts["sampling"] is None:
        return ""
    words = tables.sampling_words(**facts["sampling"])
    choice = facts["choice"]
    if choice is None:
        return f"{words.capitalize()}. "
    tried = "; ".join(
        f"{tables.sampling_words(**tried['sampling'])}: {tried['headline']['mean']:.2f}"
        for tried in choice["tried"]
    )
    return html.escape(
        f"{words.capitalize()}, chosen by the headline ({tried}) on {', '.join(choice['pieces'])}, "
        "none of which is among those reported. "
    )


def _arrow(pair: Pair) -> str:
    source, target = (html.escape(page_parts.words(name)) for name in pair)
    return f"{source} → {target}"


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Translation quality</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>Translation quality</h1>
{lead}
{overall}
{legend}
<h2>By pair of domains</h2>
{heat}
{own}
{notes}
{pairs}
{checkpoint}
{decoys}
<h2>Every measure</h2>
{everything}
<h2>How it was measured</h2>
{setting}
</main>
</body>
</html>
"""

_STYLE = """.headline strong { font-size: 3rem; }
.headline span, small { color: var(--quiet); }
td small { display: block; font-size: .75rem; white-space: nowrap; }
.wide { overflow-x: auto; margin-top: 1rem; }
.wide th, .wide td { overflow-wrap: normal; }
.wide th[scope=row] { min-width: 8rem; }
th, td { padding-right: .9rem; vertical-align: top; }
tr.measured { font-weight: 600; }
td.heat { background: color-mix(in srgb, #009E73 var(--share), transparent);
  padding: .6rem .9rem; text-align: center; }
dt { font-weight: 600; margin-top: .4rem; }
dd { margin: 0 0 0 1.5rem; color: var(--quiet); }
details { margin: .5rem 0 1rem; }
.cards { grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); margin-top: 1rem; }
.card h3 { margin-bottom: .5rem; }
.card audio { margin: 0; }
.picture { margin-top: 1rem; }
"""
