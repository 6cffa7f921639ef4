"""Sounds as users of a server send them: decoded, or refused with a sentence that they understand.

Messages name a sound as its sender does, never the folder on the server.
"""

from pathlib import Path

import numpy as np

from umt_jax.audio import level, sound_files
from umt_jax.audio.decoding import SoundFileError
from umt_jax.shapes import Waveform


def read(path: str | None, *, sample_rate_hz: int, max_seconds: float) -> Waveform:
    """Returns the whole of a sound, [T], mono, at the given rate.

    Args:
        path: Where the server has put it; None if nothing was sent.
        sample_rate_hz: Rate of what is returned; the file may have any.
        max_seconds: What is longer is refused, and decoded no further than that.

    Raises:
        ValueError: There is none, or it is empty, not sound, damaged, too long or silent.
    """
    if path is None:
        raise ValueError("There is no sound yet. Drop a file, or record something, first.")
    name = Path(path).name
    blocks, num_samples = [], 0
    try:
        for block in sound_files.read_blocks(path, sample_rate_hz=sample_rate_hz):
            blocks.append(block)
            num_samples += len(block)
            if num_samples > max_seconds * sample_rate_hz:
                raise ValueError(
                    f"{name} is longer than {max_seconds:g} s, the most that is taken here. Cut "
                    "it first."
                )
    except SoundFileError as error:
        raise ValueError(f"{name} {error.reason}.") from error
    except FileNotFoundError as error:
        raise ValueError(f"{name} is no longer on the server. Send it again.") from error
    waveform = np.concatenate(blocks)
    if level.measure(blocks).is_silent:
        raise ValueError(f"{name} is silent: nothing in it is louder than -60 dB of full scale.")
    return waveform
