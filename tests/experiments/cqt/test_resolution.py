"""`experiments.cqt_resolution`: its measure of pitch, its figure, and bad input."""

import commands
import numpy as np
import pytest

from data_prep import midi
from experiments import cqt_resolution
from experiments.cqt import resolution
from experiments.cqt_resolution import Row

RATE_HZ = 8000


def _tone(cents):
    """Returns five partials of 220 Hz, whose pitch is so many cents above that at each moment."""
    phases = 2 * np.pi * np.cumsum(220 * 2 ** (cents / 1200)) / RATE_HZ
    partials = [np.sin(number * phases) / number for number in range(1, 6)]
    return (0.2 * np.sum(partials, axis=0)).astype(np.float32)


def test_the_share_of_a_vibrato_that_is_left_and_a_shift_of_pitch_are_measured():
    times_s = np.arange(4 * RATE_HZ) / RATE_HZ
    vibrato = 30 * np.sin(2 * np.pi * resolution.VIBRATO_HZ * times_s)
    notes = [[midi.Note(0.1, 2.0, 57, 80), midi.Note(2.0, 3.9, 57, 80)]]
    for trip, cents, share in (
        (vibrato, 0, 1),
        (vibrato / 2 + 20, 20, 0.5),
        (0 * vibrato - 7, 7, 0),
    ):
        moved, left = resolution.lost_in_pitch([_tone(vibrato)], [_tone(trip)], notes, RATE_HZ)
        assert moved == pytest.approx(cents, abs=1)
        assert left == pytest.approx(share, abs=0.02)


def test_the_pitch_of_a_tone_is_how_far_it_is_above_its_key():
    found = resolution.pitch_cents(_tone(np.full(RATE_HZ, 40.0)), 57, RATE_HZ)
    np.testing.assert_allclose(found[1000:-1000], 40, atol=0.5)


def test_the_figure_has_a_row_for_each_domain_and_a_line_for_each_number_of_bins():
    rows = [
        Row(
            domain, hop_ms, bins, onset_ms=hop_ms + bins, attack_ms=1, pitch_cents=2, vibrato_left=1
        )
        for domain in ("Piano", "Cello")
        for hop_ms in (25.0, 8.0)
        for bins in (24, 12)
    ]
    axes = np.reshape(cqt_resolution.draw(rows).axes[:8], (2, 4))
    assert [of_domain[0].get_title() for of_domain in axes] == ["Piano", "Cello"]
    # One scale for both, in which nothing is cut off.
    for of_domain in axes:
        low, high = of_domain[0].get_ylim()
        assert low <= 0 < 49 < high < 60
    twelve, twenty_four = axes[1, 0].lines
    np.testing.assert_array_equal(twelve.get_xydata(), [[8, 20], [25, 37]])
    np.testing.assert_array_equal(twenty_four.get_xydata(), [[8, 32], [25, 49]])


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--hops=64,long", "--hops=64,long must be whole numbers with commas between them"),
        ("--bins_per_octave=0", "--bins_per_octave=0 must be at least 1 each"),
    ],
)
def test_what_is_no_number_is_one_line(tmp_path, flag, said):
    finished = commands.run(
        "experiments.cqt_resolution", f"--pairs={tmp_path}", f"--output={tmp_path}", flag
    )
    assert finished.returncode == 1
    assert f"error: {said}" in finished.stderr
