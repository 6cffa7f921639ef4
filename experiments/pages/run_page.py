"""The page that `experiments.report` writes, as HTML that needs no other file."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from matplotlib.figure import Figure

from experiments.pages import parts
from umt_jax.audio import mel_spectrogram, mu_law
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
    sources = sorted({piece.source_domain for piece in pieces})
    made = [name for name in config.domains if any(name in piece.translations for piece in pieces)]
    title = "Recordings, played back as other instruments"
    if len(sources) == 1:
        targets = [target for target in made if target != sources[0]] or made
        title = f"{parts.words(sources[0])}, played back as {_join(targets)}"
    last: dict[str, float] = {}
    for row in metrics:
        last |= row
    rate_hz = config.model.sample_rate_hz
    return parts.render(
        "pages/run_page.html",
        title=title,
        picture_s=PICTURE_S,
        rate_hz=rate_hz,
        pieces=[_PieceSection(piece, rate_hz) for piece in pieces],
        curves=loss_curves.loss_curves(metrics, config.trained_domains),
        last=last,
        time=_duration(last["seconds"]),
        num_segments=last["step"] * config.training.domain_batch,
        segment_s=config.training.segment_samples / rate_hz,
        guess=math.log(mu_law.NUM_LEVELS),
        losses={
            name: [last.get(f"{split}/reconstruction{suffix}") for split in ("train", "eval")]
            for name, suffix in [
                ("all", ""),
                *((parts.words(name), f"/{name}") for name in config.trained_domains),
            ]
        },
    )


@dataclasses.dataclass(frozen=True)
class _Card:
    """A sound on the page.

    Attributes:
        column: Where it stands: `source`, `made`, `shipped` or `true`.
        title: Whose it is.
        note: What it is.
        sound: What is played, [T].
    """

    column: str
    title: str
    note: str
    sound: Waveform


class _PieceSection:
    """A piece on the page.

    Attributes:
        name: Name of the piece.
        num_targets: How many domains it is translated to.
        num_columns: Columns of cards on a wide screen.
        cards: The recording; for each target the translations and the true pair.
    """

    def __init__(self, piece: Piece, rate_hz: int) -> None:
        """Arranges the sounds of a piece."""
        self.name = piece.name
        self.num_targets, self.num_columns = len(piece.translations), 4 if piece.shipped else 3
        self.cards = list(_cards(piece))
        self._rate_hz = rate_hz
        num_samples = round(PICTURE_S * rate_hz)
        sounds = [
            piece.source,
            *piece.translations.values(),
            *piece.true_pairs.values(),
            *piece.shipped.values(),
        ]
        self._loudest_db = max(
            float(mel_spectrogram.log_mel(sound[:num_samples], rate_hz).max()) for sound in sounds
        )
        self._picture_s = min(PICTURE_S, max(map(len, sounds)) / rate_hz)

    def picture(self, sound: Waveform) -> Figure:
        """Returns a sound's spectrogram, in the piece's one scale of colours."""
        return spectrograms.log_mel_row(
            {"": sound}, self._rate_hz, seconds=self._picture_s, loudest_db=self._loudest_db
        )


def _cards(piece: Piece) -> Iterator[_Card]:
    source = parts.words(piece.source_domain)
    yield _Card("source", f"{source}, the original", "What the network was given.", piece.source)
    for domain, translation in piece.translations.items():
        target = parts.words(domain)
        if domain in piece.shipped:
            note = "What the model that ships with umt_jax made of it."
            yield _Card("shipped", f"{target}, by the shipped model", note, piece.shipped[domain])
        note = "What the network of this run made of the original."
        yield _Card("made", f"{target}, by the network", note, translation)
        if domain != piece.source_domain:
            note = "The same notes on that instrument."
            yield _Card("true", f"{target}, for comparison", note, piece.true_pairs[domain])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _join(names: Sequence[str]) -> str:
    words = [parts.words(name) for name in names]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
