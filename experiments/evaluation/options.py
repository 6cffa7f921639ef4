"""What is evaluated and how: the command's flags as one object."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is evaluated; the command's flags say what each is."""

    checkpoint: str | None
    step: int | None
    pairs: pathlib.Path | None
    data_dir: str | None
    audio_dir: pathlib.Path | None
    outputs: Mapping[str, pathlib.Path]
    temperature: float | None
    top_p: float | None
    guide_strength: float | None
    choose_on: pathlib.Path | None
    choose_temperature: Sequence[float]
    choose_top_p: Sequence[float]
    choose_guide_strength: Sequence[float]
    seed: int
    clip_s: float
    max_s: float
    quick: bool
    soundfont: str | None
    second_soundfont: str | None
    resamples: int
