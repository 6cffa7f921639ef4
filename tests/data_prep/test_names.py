"""Names of domains: they keep their letters, and those of older datasets are kept."""

import os
import unicodedata

import pytest
import tensorflow_datasets as tfds
from conftest import write_domain, write_tone
from etils import epath
from test_build import run_command

from data_prep import build, domains, staging
from umt_jax.config import Config
from umt_jax.data import dataset
from umt_jax.generation import validation

FLUTE = "Flûte"
DECOMPOSED = unicodedata.normalize("NFD", FLUTE)


def found(music, data="data"):
    return domains.find_domains(epath.Path(music), data_dir=epath.Path(data))


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Bach_Solo_Cello", "Bach_Solo_Cello"),
        ("钢琴", "钢琴"),
        ("Ζουρνάς-2", "Ζουρνάς-2"),
        ("हारमोनियम", "हारमोनियम"),
        (DECOMPOSED, FLUTE),
        ("Solo Cello, No. 1", "Solo_Cello__No__1"),
        ("a:b*c", "a_b_c"),
    ],
)
def test_names_of_domains_keep_their_letters(tmp_path, folder, name):
    (tmp_path / folder).mkdir()
    assert list(found(tmp_path)) == [name]


def test_two_forms_of_one_name_are_one_name(tmp_path):
    for folder in (FLUTE, DECOMPOSED):
        (tmp_path / folder).mkdir()
    if len(os.listdir(tmp_path)) < 2:
        pytest.skip("This file system has one form of a name itself.")
    with pytest.raises(ValueError, match=f"would both be the domain {FLUTE}. Rename one"):
        found(tmp_path)


def test_domains_of_any_script_are_built_read_and_asked_for_in_either_form(tmp_path):
    for folder in ("钢琴", "提琴", DECOMPOSED):
        write_tone(tmp_path / "music" / folder / "a.wav", seconds=4)
    finished = run_command(tmp_path / "music", tmp_path / "data", "--num_workers=1")
    assert finished.returncode == 0, finished.stderr
    data = str(tmp_path / "data")
    names = tuple(sorted([FLUTE, "提琴", "钢琴"]))
    assert dataset.find_domains(data) == names
    for name in names:
        builder = tfds.builder_from_directory(tmp_path / "data" / "segments" / name / "1.0.0")
        assert builder.info.config_name == name
        assert len(builder.as_data_source("train")) == builder.info.splits["train"].num_examples > 0
    asked = [DECOMPOSED, "提琴", "钢琴"]
    assert set(dataset.Dataset(data, asked).description) == set(names)
    config = Config(domains=tuple(asked))
    assert config == Config.from_json(config.to_json()) and config.domains[0] == FLUTE
    assert validation.checked_domains([DECOMPOSED], config.domains) == (FLUTE,)


def built_before(data, name):
    """Writes a dataset under a name of earlier versions, as of the file train_0.wav."""
    write_domain(name, data)
    metadata = data / "segments" / name / "1.0.0" / "metadata.json"
    metadata.write_text(
        metadata.read_text().replace(
            '"tracks": []', '"tracks": [{"name": "disc 1/train_0.wav", "sha256": "0"}]'
        )
    )
    return staging.read_metadata(epath.Path(data))


def test_a_domain_that_was_built_under_an_older_name_keeps_it(tmp_path, caplog):
    existing = built_before(tmp_path / "data", "Fl_te")
    write_tone(tmp_path / "music" / FLUTE / "disc 1" / "train_0.wav")
    (tmp_path / "music" / "Flöte").mkdir()
    with caplog.at_level("INFO", logger="absl"):
        named = domains.named_as_built(found(tmp_path / "music"), existing)
    assert {name: folder.name for name, folder in named.items()} == {
        "Fl_te": FLUTE,
        "Flöte": "Flöte",
    }, "not the one that has other files"
    assert "Folder Flûte stays the domain Fl_te" in caplog.text


def test_an_older_name_that_several_folders_had_is_told_of(tmp_path, caplog):
    existing = built_before(tmp_path / "data", "__")
    for folder in ("钢琴", "提琴"):
        write_tone(tmp_path / "music" / folder / "disc 1" / "train_0.wav")
    with caplog.at_level("INFO", logger="absl"):
        named = domains.named_as_built(found(tmp_path / "music"), existing)
    assert set(named) == {"钢琴", "提琴"}
    assert "Remove segments/__ from --data_dir" in caplog.text


@pytest.mark.parametrize(
    ("train", "version", "line"),
    [
        (70, 2, None),
        (69, 2, "Of the music of A 69% is left to train on, as its tracks are few or short"),
        (30, 1, "Of the music of A 30% is left to train on, as an earlier version counted tracks"),
    ],
)
def test_little_music_to_train_on_is_said(train, version, line):
    counts = {"train": train, "validation": 15, "test": 85 - train}
    tracks = [{"name": "a.wav", "seconds": 100.0, "num_segments": counts}]
    metadata = {"tracks": tracks, "left_out": [], "segment_samples": 8000, "sample_rate_hz": 8000}
    if version > 1:
        metadata["split_version"] = version
    lines = build.table({"A": metadata}, built=())
    assert [text.startswith(line) for text in lines[3:]] == [True] if line else len(lines) == 2
