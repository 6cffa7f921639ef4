"""The page that `experiments.report` writes, as HTML that needs no other file."""

import base64
import dataclasses
import html
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import soundfile

from experiments import curves
from umt_jax import mu_law, pictures
from umt_jax.config import Config
from umt_jax.shapes import Waveform

PICTURE_S = 12.0
"""Pictures show this much from the start of a piece; all of a minute would be a blur."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """A recording, its translations, and the same notes really played by their instruments.

    Attributes:
        name: Name of the piece.
        source_domain: Instrument of the recording.
        source: The recording, [T].
        translations: By target domain, [T].
        true_pairs: By target domain, [T].
    """

    name: str
    source_domain: str
    source: Waveform
    translations: dict[str, Waveform]
    true_pairs: dict[str, Waveform]


def page(config: Config, metrics: Sequence[Mapping[str, float]], pieces: Sequence[Piece]) -> str:
    """Returns the whole page as HTML."""
    rate_hz = config.model.sample_rate_hz
    sources = sorted({piece.source_domain for piece in pieces})
    made = [name for name in config.domains if any(name in piece.translations for piece in pieces)]
    if len(sources) == 1:
        targets = [target for target in made if target != sources[0]] or made
        headline = f"{_words(sources[0])}, played back as {_join(targets)}"
    else:
        headline = "Recordings, played back as other instruments"
    losses = pictures.to_png(curves.loss_curves(metrics, config.trained_domains))
    return _PAGE.format(
        headline=html.escape(headline),
        picture_s=PICTURE_S,
        pieces="\n".join(_piece_section(piece, rate_hz) for piece in pieces),
        curves=_image(losses, "Curves of losses and accuracy; the table below has the last values"),
        training=_training(config, metrics),
    )


def _piece_section(piece: Piece, rate_hz: int) -> str:
    sounds = [piece.source, *piece.translations.values(), *piece.true_pairs.values()]
    num_samples = round(PICTURE_S * rate_hz)
    loudest_db = max(
        float(pictures.log_mel(sound[:num_samples], rate_hz).max()) for sound in sounds
    )
    picture_s = min(PICTURE_S, max(len(sound) for sound in sounds) / rate_hz)

    def card(place: str, title: str, note: str, sound: Waveform) -> str:
        figure = pictures.log_mel_row(
            {"": sound}, rate_hz, seconds=picture_s, loudest_db=loudest_db
        )
        return _CARD.format(
            place=place,
            title=html.escape(title),
            note=note,
            sound=_player(sound, rate_hz, f"{title}: {piece.name}"),
            image=_image(pictures.to_png(figure), f"Log-mel spectrogram of {title}"),
        )

    source = _words(piece.source_domain)
    cards = [card("source", f"{source}, the original", "What the network was given.", piece.source)]
    for domain, translation in piece.translations.items():
        target = _words(domain)
        cards.append(
            card("made", f"{target}, by the network", "What it made of the original.", translation)
        )
        if domain != piece.source_domain:
            note = "The same notes on that instrument."
            cards.append(card("true", f"{target}, for comparison", note, piece.true_pairs[domain]))
    return _SECTION.format(
        title=html.escape(_words(piece.name)),
        num_targets=len(piece.translations),
        cards="\n".join(cards),
    )


def _training(config: Config, metrics: Sequence[Mapping[str, float]]) -> str:
    """Says how long the run took, and tabulates the last losses."""
    last: dict[str, float] = {}
    for row in metrics:
        last |= row
    rows = []
    of_domains = ((_words(name), f"/{name}") for name in config.trained_domains)
    for name, suffix in [("all", ""), *of_domains]:
        cells = (last.get(f"{split}/reconstruction{suffix}") for split in ("train", "eval"))
        values = "".join(f"<td>{'–' if cell is None else f'{cell:.3f}'}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{html.escape(name)}</th>{values}</tr>')
    return _TRAINING.format(
        steps=f"{last['step']:,.0f}",
        time=_duration(last["seconds"]),
        segments=f"{last['step'] * config.training.domain_batch:,.0f}",
        segment_s=f"{config.training.segment_samples / config.model.sample_rate_hz:.3g}",
        guess=f"{math.log(mu_law.NUM_LEVELS):.2f}",
        rows="\n".join(rows),
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _player(sound: Waveform, rate_hz: int, label: str) -> str:
    file = io.BytesIO()
    # MP3, which every browser plays, at the finest of its variable bit rates: a fifth of a wav.
    with soundfile.SoundFile(
        file, "w", rate_hz, 1, format="MP3", bitrate_mode="VARIABLE", compression_level=0.0
    ) as writer:
        writer.write(np.clip(sound, -1, 1))
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<audio controls preload="metadata" aria-label="{html.escape(label)}" '
        f'src="data:audio/mpeg;base64,{data}"></audio>'
    )


def _image(png: bytes, description: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}">'


def _words(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def _join(names: Sequence[str]) -> str:
    words = [_words(name) for name in names]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{headline}</title>
<style>
:root {{ color-scheme: light dark; --card: #f4f3f0; --ink: #1d1d1f; --quiet: #5a5a60;
  --page: #fff; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --card: #26262a; --ink: #ececee; --quiet: #b0b0b8; --page: #17171a; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 4rem; background: var(--page);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }}
h1 {{ font-size: clamp(1.6rem, 5vw, 2.4rem); line-height: 1.2; margin: 0 0 .5rem; }}
h2 {{ margin: 2.5rem 0 .75rem; }}
h3 {{ font-size: 1.05rem; margin: 0; }}
p, pre, .curves {{ max-width: 44rem; }}
.card p {{ color: var(--quiet); }}
.cards {{ display: grid; gap: 1rem; }}
.card {{ background: var(--card); border-radius: .75rem; padding: 1rem; min-width: 0; }}
.card p {{ font-size: .9rem; margin: .15rem 0 .75rem; }}
audio {{ display: block; width: 100%; margin-bottom: .75rem; }}
img {{ display: block; width: 100%; height: auto; background: #fff; border-radius: .5rem; }}
.curves {{ margin-top: 1.5rem; }}
table {{ border-collapse: collapse; min-width: min(100%, 24rem); margin-bottom: 1.5rem;
  font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; color: var(--quiet); padding-bottom: .4rem; }}
th, td {{ padding: .3rem 1rem .3rem 0; text-align: right; border-bottom: 1px solid #8885; }}
th:first-child {{ text-align: left; }}
pre {{ background: var(--card); border-radius: .5rem; padding: .75rem 1rem;
  white-space: pre-wrap; word-break: break-all; font-size: .8rem; }}
p code {{ white-space: nowrap; }}
@media (min-width: 56rem) {{
  .cards {{ grid-template-columns: repeat(3, minmax(0, 1fr)); align-items: start; }}
  .source {{ grid-column: 1; grid-row: 1 / span var(--targets); position: sticky; top: 1rem; }}
  .made {{ grid-column: 2; }}
  .true {{ grid-column: 3; }}
}}
</style>
</head>
<body>
<main>
<h1>{headline}</h1>
<p>A neural network learned to play any of these instruments by listening to each of them on its
own, never to two of them playing the same music. Then it was given recordings of pieces that it
had not heard, and played them back as another instrument. Listen to the original first, then to
what the network made of it, then to how the same notes sound on that instrument: the network never
heard those. The pictures show the first {picture_s:g} seconds, low notes at the bottom.</p>
{pieces}
<h2>How it was trained</h2>
{training}
<div class="curves">{curves}</div>
</main>
</body>
</html>
"""

_SECTION = """<h2>{title}</h2>
<div class="cards" style="--targets: {num_targets}">
{cards}
</div>"""

_CARD = """<section class="card {place}">
<h3>{title}</h3>
<p>{note}</p>
{sound}
{image}
</section>"""

_TRAINING = """<p>This network was trained for <strong>{steps} steps, which took {time}</strong>. It
heard {segments} segments of each instrument, of {segment_s} s each.</p>
<p>A few minutes of training on two CPU cores give a sketch of an instrument: rough, noisy, and not
always on the right notes. The real thing takes the full model, hours of recordings and an
accelerator:</p>
<pre><code>python -m experiments.train \\
  --flagfile=experiments/configs/musicnet.flags \\
  --data_dir=data \\
  --workdir=runs/musicnet</code></pre>
<p>To improve on this one, train it anew with, say, twenty times the <code>--num_steps</code> and
the <code>--decay_steps</code>, in a <code>--workdir</code> of its own.</p>
<table>
<caption>Last reconstruction loss in nats per sample; lower is better, guessing gives {guess}.
</caption>
<thead><tr><th scope="col">Domain</th><th scope="col">Training</th><th scope="col">Validation</th>
</tr></thead>
<tbody>
{rows}
</tbody>
</table>"""
