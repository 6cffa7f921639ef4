"""Damage to real shards: each is named, file and record, and stops the run with one line."""

import dataclasses
import itertools
import re
import shutil

import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from conftest import NUM_SEGMENTS, PREPARED

from data_prep import tfds_files
from umt_jax.config import TrainingConfig
from umt_jax.data import dataset, records

NUM_TRAIN = sum(NUM_SEGMENTS["train"])


@pytest.fixture
def damaged(prepared_dir, tmp_path):
    """A copy of the prepared domains; returns the path of Cello's training shard in it."""
    shutil.copytree(prepared_dir, tmp_path / "data")
    (shard,) = tmp_path.glob("data/segments/Cello/1.0.0/*-train.*")
    return shard


def read_all(shard):
    return list(records.Records(shard.parent, "train"))


def test_records_are_those_that_tfds_reads(prepared_dir):
    folder = prepared_dir / "segments" / "Cello" / "1.0.0"
    for split, counts in NUM_SEGMENTS.items():
        ours = list(records.Records(folder, split))
        theirs = list(tfds.builder_from_directory(folder).as_data_source(split))
        assert len(ours) == len(theirs) == sum(counts)
        for record, expected in zip(ours, theirs, strict=True):
            assert record.keys() == expected.keys()
            assert record["track"] == expected["track"].decode()
            assert record["start_sample"] == expected["start_sample"]
            for name in ("codes", "augmented"):
                assert (record[name] == expected[name]).all()
                assert record[name].dtype == expected[name].dtype


def test_a_flipped_bit_is_named_by_file_and_record(damaged):
    whole = damaged.read_bytes()
    for index in range(NUM_TRAIN):
        content = read_all(damaged)[index]["codes"].tobytes()
        damage = bytearray(whole)
        # Codes are noise here, which does not compress: they are in the file as they are.
        place = whole.find(content[100:150])
        assert place >= 0
        damage[place] ^= 4
        damaged.write_bytes(damage)
        opened = records.Records(damaged.parent, "train")
        named = f"{re.escape(str(damaged))}: record {index} is damaged .*hash mismatch"
        with pytest.raises(OSError, match=named):
            opened[index]
        assert [opened[i]["start_sample"] for i in range(NUM_TRAIN) if i != index]
        damaged.write_bytes(whole)


@pytest.mark.parametrize("left", [0, 100, 65_536, -1])
def test_a_shard_that_was_cut_off_is_named_before_training_begins(damaged, left):
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:left])
    with pytest.raises(OSError, match=f"{re.escape(str(damaged))}.*damaged.*[Pp]repare"):
        read_all(damaged)


def test_a_shard_that_is_missing_is_named(damaged):
    damaged.unlink()
    with pytest.raises(FileNotFoundError, match=f"{re.escape(str(damaged))} is missing"):
        read_all(damaged)


def test_a_shard_of_another_dataset_is_named(damaged):
    other = damaged.with_name(damaged.name.replace("train", "test"))
    shutil.copy(other, damaged)
    with pytest.raises(OSError, match=f"it has {sum(NUM_SEGMENTS['test'])} records instead of"):
        read_all(damaged)


def write_raw(path, record):
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for _ in range(NUM_TRAIN):
        writer.write(record)
    writer.close()


def test_a_record_of_another_form_is_named(damaged):
    fewer = dataclasses.replace(PREPARED, num_variants=1)
    example = read_all(damaged)[0]
    example["augmented"] = example["augmented"][:1]
    tfds_files.write_records(damaged, [example] * NUM_TRAIN, fewer)
    with pytest.raises(OSError, match=r"record 0 is damaged \(cannot reshape array of size 1024"):
        read_all(damaged)
    for record in (b"", b"no record"):
        write_raw(damaged, record)
        with pytest.raises(OSError, match="record 0 is damaged"):
            read_all(damaged)


def test_training_stops_at_a_damaged_record_with_one_line(damaged, tmp_path):
    prepared = dataset.Dataset(str(tmp_path / "data"), ["Cello", "Piano"])
    codes = read_all(damaged)[3]["codes"].tobytes()
    damage = bytearray(damaged.read_bytes())
    damage[bytes(damage).find(codes[:50])] ^= 1
    damaged.write_bytes(damage)
    config = TrainingConfig(segment_samples=700, domain_batch=2)
    named = f"{re.escape(str(damaged))}: record 3 is damaged"
    with pytest.raises(OSError, match=named):
        for _ in itertools.islice(prepared.train_batches(config, first_step=0), NUM_TRAIN):
            pass
