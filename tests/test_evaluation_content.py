"""How `experiments.evaluate` hears notes and pitches, and counts them."""

import numpy as np
import pytest
from played_scale import RATE_HZ, SCALE, played

from data_prep import scores
from experiments.evaluation import content, transcription


def note(onset_s, offset_s, pitch):
    return scores.Note(onset_s, offset_s, pitch, 80)


def random_roll(rng, num_frames=200):
    return rng.random((num_frames, 128)) < 0.02


def test_frame_f1_counts_as_its_definition(rng):
    found, expected = random_roll(rng), random_roll(rng)
    hits = misses = extras = 0
    for frame in range(len(found)):
        for pitch in range(128):
            hits += found[frame, pitch] and expected[frame, pitch]
            misses += not found[frame, pitch] and expected[frame, pitch]
            extras += found[frame, pitch] and not expected[frame, pitch]
    precision, recall = hits / (hits + extras), hits / (hits + misses)
    f1 = 2 * precision * recall / (precision + recall)
    np.testing.assert_allclose(content.frame_f1(found, expected), f1)


def test_jaccard_distance_is_the_mean_over_sounding_frames(rng):
    found, expected = random_roll(rng), random_roll(rng)
    found[50:60] = expected[50:60] = False
    distances = []
    for frame in range(len(found)):
        a, b = set(np.flatnonzero(found[frame])), set(np.flatnonzero(expected[frame]))
        if a | b:
            distances.append(1 - len(a & b) / len(a | b))
    np.testing.assert_allclose(content.jaccard_distance(found, expected), np.mean(distances))


def test_a_roll_holds_each_note_from_onset_to_offset():
    roll = content.roll([note(-0.5, 0.1, 60), note(0.2, 0.3, 61), note(0.2, 9.0, 62)], 1.0)
    assert roll.shape == (100, 128)
    assert [roll[:, pitch].sum() for pitch in (60, 61, 62)] == [10, 10, 80]
    assert roll[20:30, 61].all()


def test_note_f1_forgives_50_ms_and_nothing_that_began_before_the_clip():
    expected = [note(-0.2, 0.4, 50), note(0.5, 1.0, 60), note(1.0, 1.5, 62)]
    assert content.note_f1(expected, expected) == 1
    assert content.note_f1([note(0.54, 0.9, 60), note(1.0, 1.2, 62)], expected) == 1
    np.testing.assert_allclose(
        content.note_f1([note(0.56, 0.9, 60), note(1.0, 1.2, 62)], expected), 0.5
    )
    assert content.note_f1([note(0.5, 1.0, 61)], expected) == 0
    assert content.note_f1([], expected) == 0
    assert content.note_f1([], []) == 1


def test_cutting_keeps_what_sounds_and_tells_what_began_before():
    notes = [note(0.0, 1.0, 60), note(0.9, 2.5, 61), note(2.0, 5.0, 62), note(5.0, 6.0, 63)]
    cut = content.cut(notes, 1.0, 3.0)
    assert [(n.pitch, n.onset_s < 0) for n in cut] == [(61, True), (62, False)]
    np.testing.assert_allclose([n[:2] for n in cut], [(-0.1, 1.5), (1.0, 2.0)])


def test_pitch_accuracy_is_the_share_of_frames_within_50_cents():
    times_s = np.arange(0, 2, 0.01)
    pitches_hz = np.full(200, 440.0)
    pitches_hz[150:] = 440 * 2 ** (0.51 / 12)
    accuracy = content.pitch_accuracy((times_s, pitches_hz), [note(1.0, 2.0, 69)])
    np.testing.assert_allclose(accuracy, 0.5, atol=0.01)
    assert np.isnan(content.pitch_accuracy((times_s, pitches_hz), []))


def test_one_line_has_no_two_notes_at_once():
    assert content.is_one_line([note(0, 1, 60), note(1, 2, 61)])
    assert not content.is_one_line([note(0, 1.1, 60), note(1, 2, 61)])


@pytest.mark.parametrize("name", ["Piano", "Flute"])
def test_a_scale_is_heard_as_it_was_written(name):
    waveform = played(name)
    written = [n._replace(onset_s=n.onset_s + 0.1, offset_s=n.offset_s + 0.1) for n in SCALE]
    (clip,) = content.listen(waveform, RATE_HZ, [(0, len(waveform))])
    seconds = len(waveform) / RATE_HZ
    assert content.frame_f1(content.roll(clip.notes, seconds), content.roll(written, seconds)) > 0.7
    assert content.pitch_accuracy(clip.pitch, written) > 0.85
    off_by_one = [n._replace(pitch=n.pitch + 1) for n in written]
    assert content.pitch_accuracy(clip.pitch, off_by_one) < 0.15


def test_silence_has_no_notes():
    assert transcription.notes(np.zeros(3 * RATE_HZ, np.float32), RATE_HZ) == []
