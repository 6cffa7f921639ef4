"""What the pages of this project share: their look, and sounds and pictures inside them."""

import base64
import html
import io

import numpy as np
import soundfile

from umt_jax.shapes import Waveform


def player(sound: Waveform, rate_hz: int, label: str) -> str:
    """Returns a sound [T] and what plays it, as HTML."""
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


def image(png: bytes, description: str) -> str:
    """Returns a picture as HTML."""
    data = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}">'


def words(name: str) -> str:
    """Returns a name as one would write it."""
    spaced = name.replace("_", " ")
    return spaced[:1].upper() + spaced[1:]


STYLE = """:root { color-scheme: light dark; --card: #f4f3f0; --ink: #1d1d1f; --quiet: #5a5a60;
  --page: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --card: #26262a; --ink: #ececee; --quiet: #b0b0b8; --page: #17171a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 4rem; background: var(--page);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: clamp(1.6rem, 5vw, 2.4rem); line-height: 1.2; margin: 0 0 .5rem; }
h2 { margin: 2.5rem 0 .75rem; }
h3 { font-size: 1.05rem; margin: 0; }
p, pre, .curves { max-width: 44rem; }
.card p { color: var(--quiet); }
.cards { display: grid; gap: 1rem; }
.card { background: var(--card); border-radius: .75rem; padding: 1rem; min-width: 0; }
.card p { font-size: .9rem; margin: .15rem 0 .75rem; }
audio { display: block; width: 100%; margin-bottom: .75rem; }
img { display: block; width: 100%; height: auto; background: #fff; border-radius: .5rem; }
.curves { margin-top: 1.5rem; }
table { border-collapse: collapse; min-width: min(100%, 24rem); margin-bottom: 1.5rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--quiet); padding-bottom: .4rem; }
th, td { padding: .3rem 1rem .3rem 0; text-align: right; border-bottom: 1px solid #8885; }
th:first-child { text-align: left; }
pre { background: var(--card); border-radius: .5rem; padding: .75rem 1rem;
  white-space: pre-wrap; word-break: break-all; font-size: .8rem; }
p code { white-space: nowrap; }
"""
