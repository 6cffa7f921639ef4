"""Sounds to try the studio with; `experiments.studio_examples` makes them."""

import dataclasses
from pathlib import Path

_FOLDER = Path(__file__).parent
_JEANIE = "Stephen Foster, Jeanie With The Light Brown Hair: score in the public domain"


@dataclasses.dataclass(frozen=True)
class Example:
    """A short melody.

    Attributes:
        title: What its button says.
        piece: Which embedded score it is the melody of, a file's name in `data_prep/scores`.
        instrument: Which instrument of a sound font plays it; None for a computed whistle.
        transpose: Semitones up from the score.
        source: What it is, and under which licence.
    """

    title: str
    piece: str
    instrument: str | None
    transpose: int
    source: str

    @property
    def path(self) -> Path:
        """Its file, Ogg Vorbis."""
        return _FOLDER / f"{self.title}.ogg"


ALL = (
    Example(
        "Whistle",
        "foster_jeanie",
        None,
        12,
        _JEANIE,
    ),
    Example(
        "Fiddle",
        "lusitano_allor_che_ignuda",
        "Fiddle",
        12,
        "Vicente Lusitano, Allor che ignuda: score in the public domain, encoded by M. S. A. "
        "Cuthbert (CC0)",
    ),
    Example(
        "Piano",
        "johnson_lift_every_voice",
        "Piano",
        0,
        "J. Rosamond Johnson, Lift Every Voice and Sing: score in the public domain, encoded by "
        "M. S. A. Cuthbert (CC0)",
    ),
    Example(
        "Flute",
        "foster_jeanie",
        "Flute",
        0,
        _JEANIE,
    ),
)
"""All of them, in the order of the page."""

SOUND = (
    "The whistle is computed, the others are played by the sound font TimGM6mb; as sound all are "
    "under the Apache licence 2.0, like this project."
)
"""Source of the sound of all examples."""
