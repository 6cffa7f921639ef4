import itertools
import math
import os
import re

import commands
import mido
import numpy as np
import pytest
import soundfile

from data_prep import instruments, midi, render
from umt_jax.audio import sound_files

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def soundfont():
    return instruments.find_soundfont(None)


def write_midi(path, notes, *, channel=0, ticks_per_beat=480):
    """Writes (onset, offset, pitch) in beats of half a second, MIDI's own default."""
    events = [(on, "note_on", pitch) for on, _, pitch in notes]
    events += [(off, "note_off", pitch) for _, off, pitch in notes]
    track, now = mido.MidiTrack(), 0
    for beat, kind, pitch in sorted(events, key=lambda event: (event[0], event[1] == "note_on")):
        tick = round(beat * ticks_per_beat)
        message = mido.Message(kind, channel=channel, note=pitch, velocity=80, time=tick - now)
        track.append(message)
        now = tick
    mido.MidiFile(tracks=[track], ticks_per_beat=ticks_per_beat).save(path)


def chords(num_chords, seconds=0.4):
    return [
        midi.Note(i * seconds, (i + 1) * seconds, pitch, 80)
        for i in range(num_chords)
        for pitch in (48 + i % 12, 60 + i % 7)
    ]


def test_reading_gives_the_notes_that_were_written(tmp_path):
    write_midi(tmp_path / "a.mid", [(0, 1, 60), (1, 3, 64), (1, 2, 67)])
    notes = midi.read(tmp_path / "a.mid")
    assert [note[2] for note in notes] == [60, 64, 67]
    np.testing.assert_allclose([note[:2] for note in notes], [(0, 0.5), (0.5, 1.5), (0.5, 1.0)])


def test_changes_of_tempo_are_followed(tmp_path):
    track = mido.MidiTrack(
        [
            mido.Message("note_on", note=60, velocity=80),
            mido.MetaMessage("set_tempo", tempo=2_000_000, time=480),
            mido.Message("note_off", note=60, time=480),
        ]
    )
    mido.MidiFile(tracks=[track], ticks_per_beat=480).save(tmp_path / "a.mid")
    assert midi.read(tmp_path / "a.mid") == [midi.Note(0.0, 2.5, 60, 80)]


@pytest.mark.parametrize(
    ("division", "onset_s", "offset_s"),
    [
        # 25 frames of 40 ticks a second: a tick is a millisecond.
        (b"\xe7\x28", 0.5, 2.0),
        # 24 of 80: 500 and 2000 of 1920 ticks a second.
        (b"\xe8\x50", 500 / 1920, 2000 / 1920),
        # NTSC's 30000 / 1001 frames of 100.
        (b"\xe3\x64", 500 * 1001 / 3_000_000, 2000 * 1001 / 3_000_000),
        (b"\xe2\x01", 500 / 30, 2000 / 30),
    ],
)
def test_ticks_of_smpte_time_are_parts_of_frames_whatever_the_tempo(
    tmp_path, division, onset_s, offset_s
):
    track = (
        b"\x00\xff\x51\x03\x1e\x84\x80"  # Two seconds a beat.
        b"\x83\x74\x90\x3c\x50"  # After 3 * 128 + 116 = 500 ticks.
        b"\x8b\x5c\x80\x3c\x00"  # After 11 * 128 + 92 = 1500 more.
        b"\x00\xff\x2f\x00"
    )
    header = b"MThd\0\0\0\x06\0\0\0\x01" + division
    path = tmp_path / "a.mid"
    path.write_bytes(header + b"MTrk" + len(track).to_bytes(4, "big") + track)
    (note,) = midi.read(path)
    assert note == pytest.approx((onset_s, offset_s, 60, 80))


@pytest.mark.parametrize("division", [b"\0\0", b"\xe7\0", b"\xf0\x28"])
def test_a_header_that_divides_time_in_no_known_way_is_named(tmp_path, division):
    path = tmp_path / "a.mid"
    track = b"\x00\x90\x3c\x50\x10\x80\x3c\x00\x00\xff\x2f\x00"
    header = b"MThd\0\0\0\x06\0\0\0\x01" + division
    path.write_bytes(header + b"MTrk\0\0\0" + bytes([len(track)]) + track)
    with pytest.raises(ValueError, match=f"divides time by 0x{division.hex()}, which"):
        midi.read(path)


def test_drums_are_not_notes(tmp_path):
    write_midi(tmp_path / "a.mid", [(0, 1, 40)], channel=9)
    with pytest.raises(ValueError, match="no notes besides drums"):
        midi.read(tmp_path / "a.mid")


def test_notes_of_one_pitch_never_overlap(tmp_path):
    write_midi(tmp_path / "a.mid", [(0, 4, 60), (1, 3, 60), (1, 2, 60)])
    notes = midi.read(tmp_path / "a.mid")
    assert len(notes) == 2
    assert notes[0].offset_s == notes[1].onset_s


def test_a_file_that_is_no_midi_is_named(tmp_path):
    (tmp_path / "a.mid").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"a\.mid cannot be read"):
        midi.read(tmp_path / "a.mid")


def test_a_pipe_under_the_name_of_a_score_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "a.mid")
    (path,) = midi.find(tmp_path).values()
    with pytest.raises(ValueError, match=r"a\.mid is not a file\. Take it out of the folder\."):
        midi.read(path)


def test_two_files_of_one_piece_are_refused(tmp_path):
    write_midi(tmp_path / "a.mid", [(0, 1, 60)])
    write_midi(tmp_path / "a.midi", [(0, 1, 60)])
    with pytest.raises(ValueError, match="same piece"):
        midi.find(tmp_path)


def test_one_line_has_no_two_notes_at_once():
    first = midi.Note(0, 1, 60, 80)
    assert midi.is_one_line([midi.Note(1, 2, 61, 80), first])
    assert not midi.is_one_line([midi.Note(0.9, 2, 61, 80), first])


@pytest.mark.parametrize("piece", sorted(midi.find(midi.EMBEDDED)))
def test_excerpts_divide_a_score_and_leave_its_notes_whole(piece):
    notes = midi.read(midi.find(midi.EMBEDDED)[piece])
    excerpts = midi.cut(notes, 30.0)
    assert [note for excerpt in excerpts for note in excerpt] == notes
    seconds = [excerpt[-1].onset_s - excerpt[0].onset_s for excerpt in excerpts]
    assert all(15 < length < 45 for length in seconds)


def test_cuts_fall_where_no_note_is_held():
    # Pairs of chords are tied over by a long note: only every other onset is free.
    notes = sorted(chords(100) + [midi.Note(0.8 * i, 0.8 * (i + 1), 90, 80) for i in range(50)])
    for excerpt in midi.cut(notes, 10.0)[1:]:
        assert round(excerpt[0].onset_s / 0.4) % 2 == 0


def test_every_domain_gets_its_own_recordings_and_about_the_same_minutes():
    durations = {f"piece_{i}": 25.0 + i % 10 for i in range(40)}
    hands = render.deal(durations, ["A", "B", "C"])
    assert sorted(sum(hands.values(), [])) == sorted(durations)
    seconds = [sum(durations[name] for name in names) for names in hands.values()]
    assert max(seconds) - min(seconds) <= 34.0


def test_dealing_does_not_depend_on_the_order_of_the_files():
    durations = {f"piece_{i}": 30.0 for i in range(20)}
    backwards = dict(reversed(durations.items()))
    assert render.deal(durations, ["A", "B"]) == render.deal(backwards, ["A", "B"])


def test_too_few_excerpts_are_refused():
    with pytest.raises(ValueError, match="5 excerpts do not give 2 domains 3 each"):
        render.deal({f"piece_{i}": 30.0 for i in range(5)}, ["A", "B"])


def test_the_shortest_piece_is_held_out_unless_named():
    pieces = {"long": chords(9), "short": chords(3), "middle": chords(6)}
    assert render.choose_held_out(pieces, []) == ["short"]
    assert render.choose_held_out(pieces, ["long"]) == ["long"]
    with pytest.raises(ValueError, match="long, middle, short"):
        render.choose_held_out(pieces, ["nothing"])
    with pytest.raises(ValueError, match="some, not all"):
        render.choose_held_out(pieces, list(pieces))


def test_no_training_excerpt_is_of_a_held_out_piece_or_in_two_domains():
    pieces = {name: midi.read(path) for name, path in midi.find(midi.EMBEDDED).items()}
    domains = list(render.DEFAULT_INSTRUMENTS)
    recordings = render.plan(pieces, held_out=["foster_jeanie"], domains=domains, excerpt_s=30.0)
    music = [name.split("/")[2] for name in recordings if name.startswith("music/")]
    assert len(set(music)) == len(music)
    assert not any(name.startswith("foster_jeanie") for name in music)
    assert [name for name in recordings if name.startswith("pairs/")] == [
        f"pairs/{domain}/foster_jeanie" for domain in domains
    ]
    num_notes = sum(len(notes) for name, notes in recordings.items() if "music/" in name)
    assert num_notes == sum(map(len, pieces.values())) - len(pieces["foster_jeanie"])


def test_an_unknown_instrument_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match="no Kazoo. Choose from Piano, Harpsichord, .*Flute"):
        instruments.check_names(["Piano", "Kazoo"])
    assert instruments.check_names(["piano", "FLUTE"]) == ["Piano", "Flute"]


def test_a_missing_package_is_answered_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(instruments.importlib.util, "find_spec", lambda name: None)
    command = r"pip install --no-deps tinysoundfont==0\.3\.7 pretty_midi==0\.2\.11\.post0"
    with pytest.raises(ValueError, match=command):
        instruments.find_soundfont(None)


def fundamental_hz(waveform, expected_hz):
    """Returns the lag of the autocorrelation's peak within a fifth of the expected, as Hz."""
    spectrum = np.fft.rfft(waveform, 2 * len(waveform))
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)
    first, last = int(RATE_HZ / expected_hz / 1.5), math.ceil(RATE_HZ / expected_hz * 1.5)
    lag = first + np.argmax(correlation[first:last])
    before, peak, after = correlation[lag - 1 : lag + 2]
    return RATE_HZ / (lag + 0.5 * (before - after) / (before - 2 * peak + after))


@pytest.mark.parametrize("pitch", [40, 57, 69, 81])
@pytest.mark.parametrize("domain", render.DEFAULT_INSTRUMENTS)
def test_the_pitch_that_is_heard_is_the_pitch_that_was_asked_for(soundfont, domain, pitch):
    note = midi.Note(3.0, 4.5, pitch, 90)
    waveform = instruments.play(
        [note],
        program=instruments.PROGRAMS[domain],
        soundfont=soundfont,
        sample_rate_hz=RATE_HZ,
    )
    expected_hz = 440 * 2 ** ((pitch - 69) / 12)
    heard_hz = fundamental_hz(waveform[RATE_HZ // 2 : 3 * RATE_HZ // 2], expected_hz)
    # A sixth of a semitone: vibrato and the ensemble's chorus are part of the instruments.
    assert abs(12 * math.log2(heard_hz / expected_hz)) < 1 / 6


def test_every_instrument_plays_the_same_length_at_the_same_level(soundfont):
    notes = chords(6)
    for domain, program in instruments.PROGRAMS.items():
        waveform = instruments.play(
            notes, program=program, soundfont=soundfont, sample_rate_hz=RATE_HZ
        )
        assert len(waveform) == round((0.1 + 6 * 0.4 + 1.0) * RATE_HZ), domain
        level_dbfs = 10 * math.log10(np.mean(np.square(waveform, dtype=np.float64)))
        np.testing.assert_allclose(level_dbfs, instruments.LEVEL_DBFS, atol=0.01, err_msg=domain)
        assert np.max(np.abs(waveform)) < 1, domain


def test_notes_sound_when_the_note_list_says(soundfont):
    notes = [midi.Note(2.0, 2.5, 60, 90), midi.Note(3.5, 4.0, 72, 90)]
    waveform = instruments.play(notes, program=0, soundfont=soundfont, sample_rate_hz=RATE_HZ)
    loud = np.abs(waveform) > 0.1 * np.max(np.abs(waveform))
    first = np.argmax(loud) / RATE_HZ
    second = np.argmax(loud[round(1.5 * RATE_HZ) :]) / RATE_HZ + 1.5
    np.testing.assert_allclose([first, second], [0.1, 1.6], atol=0.02)


def test_peaks_that_would_clip_make_the_recording_quieter():
    waveform = np.zeros(10_000, np.float32)
    waveform[0] = 0.5
    assert np.max(np.abs(instruments.at_level(waveform))) == pytest.approx(0.99)


def run_render(*args):
    return commands.run("data_prep.render", *args)


@pytest.mark.thorough
def test_the_command_writes_exact_pairs_and_the_same_bytes_twice(tmp_path):
    scores_dir = tmp_path / "scores"
    scores_dir.mkdir()
    for piece in range(3):
        melody = [(beat, beat + 1, 60 + (beat * (piece + 1)) % 12) for beat in range(60)]
        write_midi(scores_dir / f"piece_{piece}.mid", melody[: 60 if piece else 10])
    args = [f"--scores_dir={scores_dir}", "--instruments=Guitar,Clarinet", "--excerpt_s=8"]
    for folder in ("a", "b"):
        result = run_render(f"--output={tmp_path / folder}", *args)
        assert result.returncode == 0, result.stderr
    files = {
        folder: sorted(
            (path.relative_to(tmp_path / folder), path.read_bytes())
            for path in (tmp_path / folder).rglob("*.*")
        )
        for folder in ("a", "b")
    }
    assert files["a"] == files["b"]

    guitar, clarinet = (
        soundfile.info(tmp_path / "a" / "pairs" / domain / "piece_0.wav")
        for domain in ("Guitar", "Clarinet")
    )
    assert guitar.frames == clarinet.frames == round((0.1 + 5.0 + 1.0) * RATE_HZ)
    assert (guitar.samplerate, guitar.channels, guitar.subtype) == (RATE_HZ, 1, "PCM_16")
    table = (tmp_path / "a" / "pairs" / "piece_0.csv").read_text().splitlines()
    assert table[:3] == [
        "onset_s,offset_s,pitch,velocity",
        "0.1000,0.6000,60,80",
        "0.6000,1.1000,61,80",
    ]
    for domain in ("Guitar", "Clarinet"):
        assert len(sound_files.find_sound_files(tmp_path / "a" / "music" / domain)) >= 3


def notes_at(*pitches):
    return [
        midi.Note(0.5 * beat, 0.5 * beat + 0.5, pitch, 80) for beat, pitch in enumerate(pitches)
    ]


@pytest.mark.thorough
def test_false_keys_are_found_among_those_that_a_domain_is_asked_for(soundfont):
    recordings = {
        "music/Saxophone/a": notes_at(62, 64),
        "music/Oboe/b": notes_at(64, 65),
        "pairs/Saxophone/c": notes_at(60, 64),
        "pairs/Oboe/c": notes_at(60, 64),
    }
    false_keys = render.find_false_keys(recordings, soundfont)
    assert false_keys == {"Saxophone": {64: None}}
    found = render.describe_false_notes(recordings, false_keys)
    assert found == "Saxophone 64 (E4) silent, 2 of 4 notes"
    recordings["music/Oboe/d"] = notes_at(30)
    assert list(render.find_false_keys(recordings, soundfont)) == ["Saxophone", "Oboe"]


def test_pairs_without_false_notes_are_the_same_notes_in_every_domain():
    recordings = {
        f"{kind}/{domain}/{name}": notes_at(60, 64, 67, 72)
        for kind, names in (("music", "abc"), ("pairs", "x"))
        for domain in ("Saxophone", "Oboe")
        for name in names
    }
    false_keys = {"Saxophone": {64: None}, "Oboe": {72: 1200.0}}
    kept = render.leave_out_false_notes(recordings, false_keys)
    assert list(kept) == list(recordings)
    pitches = {name: [note.pitch for note in notes] for name, notes in kept.items()}
    assert pitches["music/Saxophone/a"] == [60, 67, 72]
    assert pitches["music/Oboe/a"] == [60, 64, 67]
    assert pitches["pairs/Saxophone/x"] == pitches["pairs/Oboe/x"] == [60, 67]
    # What stays keeps its time.
    assert kept["pairs/Oboe/x"][1].onset_s == 1.0


def test_leaving_too_little_is_refused():
    false_keys = {"Saxophone": {64: None}}
    music = {f"music/Saxophone/{name}": notes_at(60, 64) for name in "abc"}
    pair = {"pairs/Saxophone/x": notes_at(64, 64)}
    with pytest.raises(ValueError, match="nothing is left of x: choose other --instruments"):
        render.leave_out_false_notes(music | pair, false_keys)
    rests = {"music/Saxophone/a": notes_at(64)}
    with pytest.raises(ValueError, match="2 excerpts are left to Saxophone, which needs 3"):
        render.leave_out_false_notes(music | rests, false_keys)
    music["music/Saxophone/d"] = notes_at(64, 64)
    assert "music/Saxophone/d" not in render.leave_out_false_notes(music, false_keys)


@pytest.fixture
def scores_with_64(tmp_path):
    folder = tmp_path / "scores"
    folder.mkdir()
    for piece in range(3):
        melody = [(beat, beat + 1, 62 + beat % 4) for beat in range(60 if piece else 10)]
        write_midi(folder / f"piece_{piece}.mid", melody)
    return [f"--scores_dir={folder}", "--excerpt_s=8", "--instruments=Saxophone,Oboe"]


@pytest.mark.thorough
def test_notes_that_an_instrument_plays_falsely_are_refused_in_one_line(tmp_path, scores_with_64):
    result = run_render(f"--output={tmp_path / 'music'}", *scores_with_64)
    assert result.returncode == 1 and not (tmp_path / "music").exists()
    assert re.fullmatch(
        r"error: TimGM6mb\.sf2 does not play all notes as they are written: Saxophone 64 \(E4\) "
        r"silent, \d+ of \d+ notes\. Choose other --instruments .* --false_notes=leave_out .*",
        result.stderr.splitlines()[-1],
    )


@pytest.mark.thorough
@pytest.mark.parametrize(
    "answer, done, pitches",
    [
        ("leave_out", "left out", [62, 63, 65, 62, 63, 65, 62, 63]),
        ("play", "played all the same", [62, 63, 64, 65, 62, 63, 64, 65, 62, 63]),
    ],
)
def test_false_notes_are_left_out_or_played_if_one_says_so(
    tmp_path, scores_with_64, answer, done, pitches
):
    result = run_render(f"--output={tmp_path}", *scores_with_64, f"--false_notes={answer}")
    assert result.returncode == 0, result.stderr
    assert f"False notes in TimGM6mb.sf2, {done}: Saxophone 64 (E4) silent" in result.stdout
    table = (tmp_path / "pairs" / "piece_0.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[2]) for row in table] == pitches


def test_only_what_the_command_wrote_is_ever_replaced(tmp_path):
    folder = tmp_path / "music" / "Piano"
    folder.mkdir(parents=True)
    (folder / "written.wav").write_bytes(b"by an earlier run")
    (tmp_path / "render.json").write_text('{"files": ["music/Piano/written.wav"]}')
    with pytest.raises(ValueError, match="Add --overwrite"):
        render.clear(tmp_path, overwrite=False)
    (folder / "mine.wav").write_bytes(b"by somebody")
    with pytest.raises(ValueError, match="did not write"):
        render.clear(tmp_path, overwrite=True)
    assert sorted(os.listdir(folder)) == ["mine.wav", "written.wav"]
    (folder / "mine.wav").unlink()
    render.clear(tmp_path, overwrite=True)
    assert not folder.exists()


def test_the_command_reports_bad_input_in_one_line(tmp_path):
    result = run_render(f"--output={tmp_path}", "--instruments=Kazoo")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: --instruments=Kazoo: there is no")
    assert "Traceback" not in result.stderr


def test_the_melody_is_the_top_line_one_note_at_a_time():
    notes = [
        midi.Note(0.0, 2.0, 60, 80),
        midi.Note(0.0, 1.0, 72, 80),  # Hides the 60 that starts with it.
        midi.Note(0.5, 0.8, 64, 80),  # Below a note that sounds.
        midi.Note(0.9, 1.5, 74, 80),  # Cuts the 72 short.
        midi.Note(1.5, 2.0, 62, 80),  # Nothing higher sounds any more.
    ]
    assert midi.melody(sorted(notes)) == [
        midi.Note(0.0, 0.9, 72, 80),
        midi.Note(0.9, 1.5, 74, 80),
        midi.Note(1.5, 2.0, 62, 80),
    ]
    for path in midi.find(midi.EMBEDDED).values():
        line = midi.melody(midi.read(path))
        assert all(a.offset_s <= b.onset_s for a, b in itertools.pairwise(line))
