"""`experiments.evaluate` as a whole, on decoys and on an untrained model."""

import csv
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from experiments import evaluate

ROOT = Path(__file__).parents[2]


def command(*arguments):
    """Runs the command; returns its exit status and the last line of what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.evaluate", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return done.returncode, (done.stderr or done.stdout).strip().splitlines()[-1]


def test_a_missing_evaluator_is_said_with_the_command_that_installs_it(monkeypatch):
    find_spec = evaluate.importlib.util.find_spec
    monkeypatch.setattr(
        evaluate.importlib.util,
        "find_spec",
        lambda name: None if name in ("basic_pitch", "sklearn") else find_spec(name),
    )
    with pytest.raises(ValueError, match=r"needs .*scikit-learn, .*basic-pitch.*pip .*--no-deps"):
        evaluate.check_extra()


def test_flags_that_cannot_go_together_are_one_line(tmp_path):
    status, line = command(f"--output={tmp_path}")
    assert status == 1
    assert line.startswith("error: Nothing to translate: name --pairs")
    status, line = command(f"--output={tmp_path}", "--audio_dir=a", "--pairs=b")
    assert status == 1
    assert line.startswith("error: --audio_dir holds outputs that were made already")


def test_outputs_of_other_systems_are_named_once_and_belong_to_pairs(tmp_path):
    folder = f"--output={tmp_path}"
    status, line = command(folder, "--outputs=a=b", "--data_dir=c")
    assert (status, line) == (1, "error: --outputs are translations of --pairs: name both.")
    _, line = command(folder, "--pairs=c", "--outputs=translated")
    assert line.startswith("error: --outputs=translated must be NAME=FOLDER, such as")
    _, line = command(folder, "--pairs=c", "--outputs=a=b", "--outputs=a=c")
    assert line == "error: --outputs names a twice. Each system needs its own name."


def test_sampling_is_chosen_on_named_pieces_among_named_values(tmp_path):
    folders = (f"--output={tmp_path}", "--checkpoint=a", "--pairs=b")
    status, line = command(*folders, "--choose_temperature=0.4,1")
    assert status == 1
    assert line.startswith("error: --choose_on names the pieces to choose on")
    status, line = command(
        *folders, "--choose_on=c", "--choose_temperature=0.4,1", "--temperature=1"
    )
    assert line == "error: --choose_temperature chooses --temperature: give one of them."
    status, line = command(*folders, "--choose_on=c", "--choose_temperature=warm,hot")
    assert line.startswith("error: --choose_temperature=warm,hot must be numbers with commas")
    status, line = command(
        f"--output={tmp_path}", "--data_dir=a", "--choose_on=c", "--choose_top_p=0.9"
    )
    assert line.startswith("error: --choose_on chooses how a --checkpoint plays --pairs")


@pytest.fixture(scope="module")
def pairs_dir(tmp_path_factory):
    """A few seconds of two pieces as piano and as cello, and training music beside them."""
    try:
        evaluate.check_extra()
    except ValueError as error:
        pytest.skip(f"{error}")
    from data_prep import instruments, midi, render

    folder = tmp_path_factory.mktemp("evaluate")
    notes = midi.melody(midi.read(midi.EMBEDDED / "johnson_lift_every_voice.mid"))
    recordings = {
        f"pairs/{domain}/{piece}": [n for n in notes if start_s <= n.onset_s < start_s + 11.5]
        for domain in ("Cello", "Piano")
        for piece, start_s in (("verse", 0.0), ("chorus", 25.0))
    }
    render.render(
        recordings,
        output=folder,
        soundfont=instruments.find_soundfont(None),
        sample_rate_hz=8000,
    )
    return folder / "pairs"


def options(pairs_dir, **changes):
    from experiments.evaluation import run

    return run.Options(
        **{
            "outputs": {},
            "checkpoint": None,
            "step": None,
            "pairs": pairs_dir,
            "data_dir": None,
            "audio_dir": None,
            "temperature": None,
            "top_p": None,
            "guide_strength": None,
            "choose_on": None,
            "choose_temperature": [],
            "choose_top_p": [],
            "choose_guide_strength": [],
            "seed": 0,
            "clip_s": 3.0,
            "max_s": 6.0,
            "quick": False,
            "soundfont": None,
            "second_soundfont": "none",
            "resamples": 200,
        }
        | changes,
    )


@pytest.fixture(scope="module")
def decoys_alone(pairs_dir):
    from experiments.evaluation import run

    return run.run(options(pairs_dir))


@pytest.mark.slow
def test_every_decoy_loses_to_the_oracle_and_false_ones_by_far(decoys_alone):
    from experiments.evaluation import decoys

    for table in (decoys_alone.overall, *decoys_alone.by_pair.values()):
        headline = {system: by_name["headline"].mean for system, by_name in table.items()}
        assert headline.pop(decoys.ORACLE) == 1
        # All that a decoder can say; it may be as good as what it was made of.
        assert 0.9 < headline.pop(decoys.MU_LAW_ORACLE) <= 1
        # No decoy: nearly the oracle, where the instrument is one of the font's and a line is one.
        assert headline.pop(decoys.TRANSCRIBED) > 0.8
        assert max(headline.values()) < 0.6
    overall = {name: scores["headline"].mean for name, scores in decoys_alone.overall.items()}
    for decoy in decoys.FALSE:
        assert overall[decoy] < 0.35


@pytest.mark.slow
def test_copying_wins_content_and_other_music_wins_timbre(decoys_alone):
    from experiments.evaluation import decoys

    scores = decoys_alone.overall
    assert scores[decoys.IDENTITY]["content"].mean > 0.8
    assert scores[decoys.IDENTITY]["frame_f1_to_source"].mean == 1
    assert scores[decoys.WRONG_CONTENT]["timbre"].mean > 0.8
    assert scores[decoys.WRONG_CONTENT]["content"].mean < 0.3
    assert scores[decoys.ORACLE]["log_mel_l1"].mean == 0
    assert scores[decoys.ORACLE]["timbre_accuracy"].mean > 0.8


@pytest.mark.slow
def test_copying_is_in_tune_and_wins_the_jaccard_distance(decoys_alone):
    from experiments.evaluation import decoys

    scores = decoys_alone.overall
    assert scores[decoys.IDENTITY]["pitch_accuracy"].mean > 0.85
    assert scores[decoys.IDENTITY]["median_offset_size"].mean < 0.1
    distance = {system: by_name["jaccard_distance"].mean for system, by_name in scores.items()}
    assert distance[decoys.ORACLE] == 0
    assert distance[decoys.IDENTITY] < 0.4
    assert distance[decoys.WRONG_CONTENT] > 0.9
    frechet = {system: by_name["frechet_distance"].mean for system, by_name in scores.items()}
    assert frechet[decoys.NOISE] == max(frechet.values())


@pytest.mark.slow
def test_what_is_written_holds_the_numbers_and_needs_no_network(decoys_alone, pairs_dir, tmp_path):
    from experiments.evaluation import writing

    writing.write(tmp_path, decoys_alone, options(pairs_dir), seconds=1.0)
    facts = json.loads((tmp_path / "evaluation.json").read_text())
    headline = facts["overall"]["EQ transfer"]["headline"]
    assert headline["low"] <= headline["mean"] <= headline["high"] < 1
    rows = list(csv.DictReader((tmp_path / "clips.csv").read_text().splitlines()))
    assert len(rows) == 2 * 4 * len(facts["overall"])  # Pairs, clips, systems.
    f1 = [float(row["frame_f1"]) for row in rows if row["system"] == "identity"]
    np.testing.assert_allclose(np.mean(f1), facts["overall"]["identity"]["frame_f1"]["mean"], 1e-4)

    page = (tmp_path / "report.html").read_text()
    without_data = re.sub(r'"data:[^"]*"', "", page)
    assert not re.search(r"https?:|//\w|url\(|@import|href", without_data)
    # Of two pairs the source, its transcription rendered and the true pair; and the decoys.
    assert page.count("<audio") == 2 * 3 + 7
    assert page.count("<img") == 2 * 2 + 2
    assert "resamples of clips" in page
    assert "Piano → Cello" in page


@pytest.mark.slow
def test_outputs_of_other_systems_have_rows_of_their_own_beside_the_decoys(pairs_dir, tmp_path):
    """Here the true pairs, half as loud: what they score is the oracle's."""
    from experiments.evaluation import decoys, run, writing
    from umt_jax.audio import sound_files

    for source, target in (("Cello", "Piano"), ("Piano", "Cello")):
        for path in (pairs_dir / target).iterdir():
            output = tmp_path / "halves" / source / f"{path.stem}.{target}.wav"
            output.parent.mkdir(parents=True, exist_ok=True)
            waveform = 0.5 * sound_files.read(path, sample_rate_hz=8000)
            sound_files.write(output, waveform, sample_rate_hz=8000)
    chosen = options(pairs_dir, outputs={"halves": tmp_path / "halves"})
    evaluation = run.run(chosen)
    found, oracle = (evaluation.overall[name] for name in ("halves", decoys.ORACLE))
    for name in ("headline", "content", "timbre", "pitch_accuracy"):
        assert found[name].mean == pytest.approx(oracle[name].mean, abs=0.03)
    writing.write(tmp_path / "written", evaluation, chosen, seconds=1.0)
    facts = json.loads((tmp_path / "written" / "evaluation.json").read_text())
    assert facts["options"]["outputs"] == {"halves": str(tmp_path / "halves")}
    assert "halves" in facts["overall"]
    with pytest.raises(ValueError, match="has the name of another row of the tables"):
        run.run(options(pairs_dir, outputs={decoys.ORACLE: tmp_path / "halves"}))


@pytest.fixture(scope="module")
def choice_dir(tmp_path_factory):
    """A few seconds of a third piece, to choose on."""
    from data_prep import instruments, midi, render

    folder = tmp_path_factory.mktemp("choice")
    notes = midi.melody(midi.read(midi.EMBEDDED / "foster_jeanie.mid"))
    render.render(
        {f"pairs/{domain}/start": notes[:12] for domain in ("Cello", "Piano")},
        output=folder,
        soundfont=instruments.find_soundfont(None),
        sample_rate_hz=8000,
    )
    return folder / "pairs"


@pytest.mark.slow
def test_an_untrained_model_scores_no_better_than_noise(
    pairs_dir, choice_dir, trained_dir, tmp_path, monkeypatch
):
    from experiments.evaluation import decoys, learning, pitch_probe, printing, run, tables, writing

    # This model's latents come 800 times a second.
    monkeypatch.setattr(learning, "_SOUNDS_FOR_PROBES", 6)
    monkeypatch.setattr(pitch_probe, "_MOST_FRAMES", 2000)

    chosen = options(
        pairs_dir,
        checkpoint=str(trained_dir),
        choose_on=choice_dir,
        choose_temperature=[0.5, 1.0],
        max_s=9.5,
        quick=True,
    )
    with jax.numpy_dtype_promotion("standard"):  # Adam mixes integers and floats.
        evaluation = run.run(chosen)
    assert evaluation.overall[run.TRANSLATION]["headline"].mean < 0.35
    assert evaluation.overall[run.TRANSLATION]["content"].mean < 0.35
    assert evaluation.step == 8
    losses = evaluation.splits["pairs"].reconstruction
    assert set(losses) == {"Cello", "Piano"}
    assert all(2 < loss < 8 for loss in losses.values())
    assert 0 <= evaluation.probes["pairs"] <= 1
    assert decoys.ORACLE in evaluation.overall

    # Of three clips of each piece the first two.
    assert evaluation.num_clips == 2 * 2
    np.testing.assert_allclose(evaluation.less_sure, np.sqrt(6 / 4))

    # Own domains stand beside the pairs, and are no part of their mean.
    assert set(evaluation.results) == {("Cello", "Piano"), ("Piano", "Cello")}
    assert set(evaluation.own_results) == {("Cello", "Cello"), ("Piano", "Piano")}
    for measure in ("frame_f1", "pitch_accuracy", "target_probability"):
        for table, pairs in (
            (evaluation.overall, evaluation.results),
            (evaluation.own, evaluation.own_results),
        ):
            by_pair = [evaluation.by_pair[pair][run.TRANSLATION][measure].mean for pair in pairs]
            np.testing.assert_allclose(table[run.TRANSLATION][measure].mean, np.mean(by_pair))
    assert "headline" not in evaluation.own[run.TRANSLATION]
    assert decoys.IDENTITY not in evaluation.own
    assert evaluation.own[decoys.ORACLE]["pitch_accuracy"].mean > 0.85

    assert set(evaluation.pitch_probes) == {"Cello", "Piano"}
    assert all(0 <= scores.mlp <= 1 for scores in evaluation.pitch_probes.values())

    assert list(evaluation.choice.pieces) == ["start"]
    headlines = [headline.mean for headline in evaluation.choice.headlines.values()]
    assert len(headlines) == 2
    assert headlines == sorted(headlines, reverse=True)
    assert evaluation.sampling == next(iter(evaluation.choice.headlines))

    text = printing.text(evaluation)
    assert "Cello to Cello" in text
    assert "up to 1.2 times as wide" in text
    writing.write(tmp_path, evaluation, chosen, seconds=1.0)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.wav")}
    assert "translations/Cello/verse.Piano.wav" in written
    assert "translations/Cello/verse.Cello.wav" in written
    facts = json.loads((tmp_path / "evaluation.json").read_text())
    assert facts["choice"]["pieces"] == ["start"]
    assert facts["own_domain"]["translation"]["pitch_accuracy"]["mean"] is not None
    assert set(facts["where_the_notes_are_lost"]) == {"Cello", "Piano"}
    page = (tmp_path / "report.html").read_text()
    for words in (
        "Fresh probe",
        "Own domain",
        "Where the notes are lost",
        "on start, none of which is among those reported",
        *tables.NOTES_LOST,
    ):
        assert words in page


def test_pieces_to_choose_on_are_not_reported(pairs_dir, trained_dir):
    from experiments.evaluation import run

    chosen = options(
        pairs_dir, checkpoint=str(trained_dir), choose_on=pairs_dir, choose_temperature=[1.0]
    )
    with pytest.raises(ValueError, match="holds chorus, verse, which --pairs holds too"):
        run.run(chosen)


@pytest.mark.slow
def test_somebody_s_outputs_are_judged_by_other_pieces(pairs_dir, tmp_path):
    from experiments.evaluation import run

    for kind, domain in (("source", "Piano"), ("output", "Cello"), ("target", "Cello")):
        (tmp_path / kind).symlink_to(pairs_dir / domain)
    chosen = dataclasses.replace(options(None), audio_dir=tmp_path)
    evaluation = run.run(chosen)
    table = evaluation.overall
    # Outputs that are the targets themselves.
    assert table[run.OUTPUT]["headline"].mean > 0.99
    assert table[run.OUTPUT]["log_mel_l1"].mean < 0.05
    assert table["identity"]["timbre"].mean < 0.3


@pytest.mark.slow
def test_prepared_recordings_without_pairs_are_measured_against_their_sources(pairs_dir, tmp_path):
    from data_prep import tfds_files
    from data_prep.settings import Recipe
    from experiments.evaluation import decoys, run
    from umt_jax.audio import mu_law, sound_files

    recipe = Recipe(sample_rate_hz=8000, segment_samples=8000, num_variants=1)
    # Other music in each domain's test split: the same would make wrong content the right one.
    for domain, taught, tested in (("Cello", "verse", "chorus"), ("Piano", "chorus", "verse")):
        tracks = {}
        for split, piece in (("train", taught), ("validation", taught), ("test", tested)):
            sound = sound_files.read(pairs_dir / domain / f"{piece}.wav", sample_rate_hz=8000)
            codes = mu_law.encode(sound[:64_000], "rounded").reshape(-1, 8000)
            tracks[split] = [
                {
                    "codes": segment,
                    "augmented": segment[None],
                    "track": f"{split}.wav",
                    "start_sample": 8000 * index,
                }
                for index, segment in enumerate(codes)
            ]
        tfds_files.write_small_dataset(domain, tracks, recipe, data_dir=epath.Path(tmp_path))
    evaluation = run.run(options(None, data_dir=str(tmp_path)))
    table = evaluation.overall
    assert evaluation.num_clips == 2 * 2
    assert table[decoys.IDENTITY]["content"].mean == 1
    assert table[decoys.IDENTITY]["timbre"].mean < 0.2
    assert decoys.ORACLE not in table
    assert table[decoys.IDENTITY]["headline"].mean < 0.35
    # With eight seconds to learn from, this judge half takes an equalizer for an instrument.
    assert max(table[decoy]["headline"].mean for decoy in decoys.FALSE) < 0.7


def test_pairs_of_another_sound_font_are_refused(pairs_dir, tmp_path):
    from experiments.evaluation import run

    (tmp_path / "pairs").symlink_to(pairs_dir)
    record = {"soundfont": "Other.sf2", "soundfont_sha256": "0"}
    (tmp_path / "render.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"rendered with Other\.sf2, not with .*TimGM6mb\.sf2"):
        run.run(options(tmp_path / "pairs"))
