"""What a model is loaded and played without, since to import it takes longer than all the rest."""

import subprocess
import sys

import pytest

PLAY = """
import sys
import numpy as np
import umt_jax
model = umt_jax.load(engine={engine!r})
waveform = np.sin(np.arange(900) / 9).astype(np.float32)
sound = model.translate(waveform, 8000, domain=model.domains[0])
assert sound.shape == (900,) and np.abs(sound).max() > 0.01
print(*sorted({{"jax", "flax", "optax", "orbax", "librosa", "scipy"}} & set(sys.modules)))
"""


def imported(engine):
    command = [sys.executable, "-c", PLAY.format(engine=engine)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("engine", ["auto", "native"])
def test_the_shipped_model_is_loaded_and_played_natively_without_jax(engine):
    assert imported(engine) == []


def test_the_engine_scan_needs_jax():
    assert "jax" in imported("scan")  # So the test above looks where it can be found.
