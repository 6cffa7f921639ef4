"""The page that `experiments.report` writes, as HTML that needs no other file."""

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence

from experiments.pages import parts
from umt_jax.audio import mu_law
from umt_jax.config import Config
from umt_jax.plots import loss_curves, spectrograms
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
        shipped: By target domain, [T]: translations by the model that ships with umt_jax, if any.
    """

    name: str
    source_domain: str
    source: Waveform
    translations: dict[str, Waveform]
    true_pairs: dict[str, Waveform]
    shipped: dict[str, Waveform] = dataclasses.field(default_factory=dict)


def page(config: Config, metrics: Sequence[Mapping[str, float]], pieces: Sequence[Piece]) -> str:
    """Returns the whole page as HTML."""
    rate_hz = config.model.sample_rate_hz
    sources = sorted({piece.source_domain for piece in pieces})
    made = [name for name in config.domains if any(name in piece.translations for piece in pieces)]
    if len(sources) == 1:
        targets = [target for target in made if target != sources[0]] or made
        headline = f"{parts.words(sources[0])}, played back as {_join(targets)}"
    else:
        headline = "Recordings, played back as other instruments"
    losses = spectrograms.to_png(loss_curves.loss_curves(metrics, config.trained_domains))
    return _PAGE.format(
        headline=html.escape(headline),
        style=parts.STYLE + _STYLE,
        picture_s=PICTURE_S,
        pieces="\n".join(_piece_section(piece, rate_hz) for piece in pieces),
        curves=parts.image(
            losses, "Curves of losses and accuracy; the table below has the last values"
        ),
        training=_training(config, metrics),
    )


def _piece_section(piece: Piece, rate_hz: int) -> str:
    sounds = [
        piece.source,
        *piece.translations.values(),
        *piece.true_pairs.values(),
        *piece.shipped.values(),
    ]
    num_samples = round(PICTURE_S * rate_hz)
    loudest_db = max(
        float(spectrograms.log_mel(sound[:num_samples], rate_hz).max()) for sound in sounds
    )
    picture_s = min(PICTURE_S, max(len(sound) for sound in sounds) / rate_hz)

    def card(place: str, title: str, note: str, sound: Waveform) -> str:
        figure = spectrograms.log_mel_row(
            {"": sound}, rate_hz, seconds=picture_s, loudest_db=loudest_db
        )
        return _CARD.format(
            place=place,
            title=html.escape(title),
            note=note,
            sound=parts.player(sound, rate_hz, f"{title}: {piece.name}"),
            image=parts.image(spectrograms.to_png(figure), f"Log-mel spectrogram of {title}"),
        )

    source = parts.words(piece.source_domain)
    cards = [card("source", f"{source}, the original", "What the network was given.", piece.source)]
    for domain, translation in piece.translations.items():
        target = parts.words(domain)
        cards.append(
            card("made", f"{target}, by the network", "What it made of the original.", translation)
        )
        if domain in piece.shipped:
            note = "What the model that ships with umt_jax made of it."
            title = f"{target}, by the shipped model"
            cards.append(card("shipped", title, note, piece.shipped[domain]))
        if domain != piece.source_domain:
            note = "The same notes on that instrument."
            cards.append(card("true", f"{target}, for comparison", note, piece.true_pairs[domain]))
    return _SECTION.format(
        title=html.escape(parts.words(piece.name)),
        num_targets=len(piece.translations),
        num_columns=4 if piece.shipped else 3,
        cards="\n".join(cards),
    )


def _training(config: Config, metrics: Sequence[Mapping[str, float]]) -> str:
    """Says how long the run took, and tabulates the last losses."""
    last: dict[str, float] = {}
    for row in metrics:
        last |= row
    rows = []
    of_domains = ((parts.words(name), f"/{name}") for name in config.trained_domains)
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


def _join(names: Sequence[str]) -> str:
    words = [parts.words(name) for name in names]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{headline}</title>
<style>
{style}</style>
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
<div class="cards" style="--targets: {num_targets}; --columns: {num_columns}">
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
  --preset=musicnet \\
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

_STYLE = """@media (min-width: 56rem) {
  .cards { grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); align-items: start; }
  .source { grid-column: 1; grid-row: 1 / span var(--targets); position: sticky; top: 1rem; }
  .made { grid-column: 2; }
  .shipped { grid-column: 3; }
  .true { grid-column: var(--columns); }
}
"""
