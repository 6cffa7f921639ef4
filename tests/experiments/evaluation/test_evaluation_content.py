"""How `experiments.evaluate` hears notes and pitches, and counts them."""

import numpy as np
import pytest
from played_scale import RATE_HZ, SCALE, played

from data_prep import instruments, midi
from experiments.evaluation import content, decoys, transcription


def note(onset_s, offset_s, pitch):
    return midi.Note(onset_s, offset_s, pitch, 80)


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


def track(semitones, voiced=True):
    """A pitch a hundredth of a second each, in semitones above 440 Hz."""
    semitones = np.asarray(semitones, float)
    times_s = np.arange(len(semitones)) / 100
    pitch_hz = 440 * 2 ** (semitones / 12)
    return transcription.PitchTrack(times_s, pitch_hz, np.broadcast_to(voiced, times_s.shape))


def test_pitch_accuracy_is_the_share_of_frames_within_50_cents():
    pitch = track([0] * 150 + [0.51] * 50)
    np.testing.assert_allclose(content.pitch_accuracy(pitch, [note(1.0, 2.0, 69)]), 0.5, atol=0.01)
    assert np.isnan(content.pitch_accuracy(pitch, []))


def test_pitch_accuracy_counts_frames_without_a_voice_too(rng):
    semitones = rng.normal(0, 1, 300)
    pitch = track(semitones, rng.random(300) < 0.5)
    notes = [note(0.2, 0.8, 69), note(0.8, 1.3, 70)]
    hits = [
        abs(semitones[frame] - (sounding.pitch - 69)) <= 0.5
        for frame in range(300)
        for sounding in notes
        if sounding.onset_s <= frame / 100 < sounding.offset_s
    ]
    assert content.pitch_accuracy(pitch, notes) == pytest.approx(np.mean(hits))


def test_correlation_of_curves_is_the_definition_and_0_of_a_constant(rng):
    found, expected = rng.normal(size=50), rng.normal(size=60)
    a, b = found - found.mean(), expected[:50] - expected[:50].mean()
    by_hand = sum(a * b) / np.sqrt(sum(a * a) * sum(b * b))
    assert content.correlation(found, expected) == pytest.approx(by_hand)
    assert content.correlation(found, np.full(50, 3.0)) == 0


def test_the_median_offset_is_of_frames_where_both_have_a_pitch(rng):
    semitones = rng.normal(0.8, 2.0, 200)
    voiced = rng.random(200) < 0.6
    notes = [note(0.2, 0.8, 69), note(0.8, 1.3, 71)]
    expected = []
    for frame in range(200):
        for sounding in notes:
            if sounding.onset_s <= frame / 100 < sounding.offset_s and voiced[frame]:
                expected.append(semitones[frame] - (sounding.pitch - 69))
    pitch = track(semitones, voiced)
    np.testing.assert_allclose(content.voiced_offsets(pitch, notes), expected)
    np.testing.assert_allclose(content.median_offset(pitch, notes), np.median(expected))
    assert np.isnan(content.median_offset(track(semitones, False), notes))
    assert np.isnan(content.median_offset(pitch, []))


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

    assert abs(content.median_offset(clip.pitch, written)) < 0.1
    np.testing.assert_allclose(content.median_offset(clip.pitch, off_by_one), -1, atol=0.1)


def test_silence_has_no_notes():
    assert transcription.notes(np.zeros(3 * RATE_HZ, np.float32), RATE_HZ) == []
    assert transcription.line(np.zeros(3 * RATE_HZ, np.float32), RATE_HZ) == []


def test_a_note_at_the_end_of_a_long_sound_is_heard_at_its_time():
    seconds, onset_s = 64.0, 63.55
    waveform = np.zeros(round(seconds * RATE_HZ), np.float32)
    tone = played("Piano")[: round(0.45 * RATE_HZ)]  # Its first note, after a tenth of a second.
    waveform[-len(tone) :] = tone
    heard, *_ = transcription.notes(waveform, RATE_HZ)  # Overtones come after it.
    assert heard.pitch == SCALE[0].pitch
    np.testing.assert_allclose(heard.onset_s, onset_s + 0.1, atol=0.03)
    assert heard.offset_s <= seconds + 0.02


def test_joined_frames_are_where_the_windows_were():
    hop_samples, frames = 36_164, 142
    times_s = transcription._frame_times_s(3, frames, hop_samples)
    for window in range(3):
        for frame in range(frames):
            sample = window * hop_samples + frame * 256
            np.testing.assert_allclose(times_s[window * frames + frame], sample / 22_050)
    np.testing.assert_allclose(times_s[-1], 3 * hop_samples / 22_050)
    assert (np.diff(times_s) > 0).all()


def test_rounding_noise_in_a_rest_is_as_silent_as_silence(rng):
    rest = np.zeros(5 * RATE_HZ, np.float32)
    noise = (rng.uniform(-0.5, 0.5, len(rest)) / 2**15).astype(np.float32)
    music = decoys.at_level(played("Piano"))
    silent, noisy = (np.concatenate([music, after]) for after in (rest, noise))
    # Without a gate it is heard as notes, in outputs alone: renderings rest in digital silence.
    assert transcription.notes(noisy, RATE_HZ) != transcription.notes(silent, RATE_HZ)

    def heard(sound):
        (clip,) = content.listen(sound, RATE_HZ, [(len(music), len(sound))])
        return [n for n in clip.notes if n.onset_s > 0.2], clip.pitch.voiced[20:].any()

    assert heard(noisy) == heard(silent) == ([], False)


def test_the_gate_is_closed_below_its_level_and_open_above(rng):
    block = round(0.05 * RATE_HZ)
    level = 10 ** (transcription.GATE_DBFS / 20)
    sound = np.repeat([1.1, 0.9, 1.1, 0.9], block).astype(np.float32) * np.float32(level)
    gated = transcription.gate(sound[: -block // 2], RATE_HZ)
    assert gated.shape == sound[: -block // 2].shape
    np.testing.assert_array_equal(gated[:block], sound[:block])
    np.testing.assert_array_equal(gated[2 * block : 3 * block], sound[:block])
    assert not gated[block : 2 * block].any()
    assert not gated[3 * block :].any()


@pytest.mark.parametrize("name", ["Cello", "Flute", "Piano"])
def test_a_line_is_written_down_note_by_note(name):
    twice = midi.Note(6.0, 6.45, SCALE[-1].pitch, 90)  # The last note once more.
    sound = instruments.play(
        [*SCALE, twice],
        program=instruments.PROGRAMS[name],
        soundfont=instruments.find_soundfont(None),
        sample_rate_hz=RATE_HZ,
    )
    found = transcription.line(sound, RATE_HZ)
    written = [n._replace(onset_s=n.onset_s + 0.1, offset_s=n.offset_s + 0.1) for n in SCALE]
    seconds = len(sound) / RATE_HZ
    assert content.frame_f1(content.roll(found, seconds), content.roll(written, seconds)) > 0.8
    assert {n.pitch for n in SCALE} <= {n.pitch for n in found}
    assert max(n.velocity for n in found) == 127
