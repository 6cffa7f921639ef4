"""A scale and its sound, for the tests of evaluation.

To import it skips a file of tests where the evaluators are not installed.
"""

import functools

import pytest

from data_prep import instruments, midi
from experiments import evaluate

try:
    evaluate.check_extra()
except ValueError as error:
    pytest.skip(f"{error}", allow_module_level=True)

RATE_HZ = 8000
SCALE = [midi.Note(0.5 * i, 0.5 * i + 0.45, pitch, 90) for i, pitch in enumerate(range(60, 72))]


@functools.cache
def played(name):
    """The scale as an instrument plays it."""
    return instruments.play(
        SCALE,
        program=instruments.PROGRAMS[name],
        soundfont=instruments.find_soundfont(None),
        sample_rate_hz=RATE_HZ,
    )
