"""What the pages of this project share: Jinja2 templates, and sounds and pictures inside them.

A template lies beside the module that fills it, and is named by its path in `experiments`.
"""

import base64
import io
import math
import pathlib

import jinja2
import numpy as np
import soundfile
from matplotlib.figure import Figure

from umt_jax.plots import spectrograms
from umt_jax.shapes import Waveform


def render(template: str, **values: object) -> str:
    """Returns a page; a value that the template needs and does not get is an error."""
    return _ENVIRONMENT.get_template(template).render(**values)


def words(name: str) -> str:
    """Returns a name as one would write it."""
    spaced = name.replace("_", " ")
    return spaced[:1].upper() + spaced[1:]


def _mp3(sound: Waveform, rate_hz: int) -> str:
    """Returns a sound [T] as a file, in base 64."""
    file = io.BytesIO()
    # MP3, which every browser plays, at the finest of its variable bit rates: a fifth of a wav.
    with soundfile.SoundFile(
        file, "w", rate_hz, 1, format="MP3", bitrate_mode="VARIABLE", compression_level=0.0
    ) as writer:
        writer.write(np.clip(sound, -1, 1))
    return base64.b64encode(file.getvalue()).decode()


def _png(figure: Figure, dots_per_inch: int) -> str:
    """Returns a picture as a file, in base 64."""
    return base64.b64encode(spectrograms.to_png(figure, dots_per_inch=dots_per_inch)).decode()


def _number(value: float | None, form: str) -> str:
    """Returns a number in a form of `str.format`; a dash for None and NaN."""
    return "–" if value is None or math.isnan(value) else form.format(value)


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parents[1]),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters |= {"words": words, "mp3": _mp3, "png": _png, "number": _number}
