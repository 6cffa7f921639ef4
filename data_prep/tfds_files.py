"""The TFDS dataset of one domain: records in ArrayRecord shards, and the JSON files beside them.

Written without TensorFlow, and not by a builder of TFDS: one shuffles the records, which needs
TensorFlow beyond a gigabyte, the other holds a shard in memory. Readers shuffle anyway.
"""

import dataclasses
import functools
import importlib.metadata
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from etils import epath
from tensorflow_datasets.core import dataset_info, naming
from tensorflow_datasets.proto import tf_example_pb2

from data_prep import augment
from data_prep.segments import Example
from data_prep.settings import Recipe
from data_prep.tracks import SPLIT_VERSION, SPLITS, Domain
from umt_jax import storage
from umt_jax.config import DATASET_NAME

_FILE_FORMAT = "array_record"


def shard_filename(split: str, index: int, num_shards: int) -> str:
    """Returns the name of a shard."""
    return f"{DATASET_NAME}-{split}.{_FILE_FORMAT}-{index:05d}-of-{num_shards:05d}"


def write_records(shard: epath.Path | Path, examples: Iterable[Example], recipe: Recipe) -> int:
    """Writes a shard, one record in memory at a time, and returns its bytes.

    It appears as a whole.

    Raises:
        OSError: It could not be written.
    """
    features = _features(recipe.num_augmented, recipe.segment_samples)
    with storage.whole_file(shard) as path:
        try:
            # One record a group: readers want records one by one, in any order.
            writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")
            try:
                for example in examples:
                    writer.write(_sorted_by_name(features.serialize_example(example)))
            finally:
                writer.close()
        except RuntimeError as error:
            # What the writer raises when the disk is full; it goes on to name the file twice.
            reason = str(error).partition(";")[0]
            raise OSError(f"{shard} could not be written: {reason}") from error
        return path.stat().st_size


def write_small_dataset(
    name: str, examples: Mapping[str, Sequence[Example]], recipe: Recipe, *, data_dir: epath.Path
) -> None:
    """Writes a dataset out of given examples, one shard for each split."""
    folder = data_dir / DATASET_NAME / name / "1.0.0"
    folder.mkdir(parents=True)
    for split in SPLITS:
        write_records(Path(folder, shard_filename(split, 0, 1)), examples[split], recipe)
    domain = Domain(name=name, tracks=(), left_out=(), stretches={})
    lengths = {split: [len(examples[split])] for split in SPLITS}
    write_information(domain, lengths, dict.fromkeys(SPLITS, 0), recipe, folder=folder)


def _sorted_by_name(record: bytes) -> bytes:
    """Returns the same record with features in the order of their names.

    TFDS leaves the order to protobuf, which takes another one in each process.
    """
    return tf_example_pb2.Example.FromString(record).SerializeToString(deterministic=True)


def write_information(
    domain: Domain,
    shard_lengths: Mapping[str, Sequence[int]],
    num_bytes: Mapping[str, int],
    recipe: Recipe,
    *,
    folder: epath.Path,
) -> None:
    """Writes what TFDS needs next to the shards; `dataset_info.json`, the last, makes it complete.

    Args:
        domain: Name, tracks and files left out.
        shard_lengths: Records in each shard of each split.
        num_bytes: Bytes of all shards of each split.
        recipe: Settings.
        folder: The dataset's folder. Its name is the version.
    """
    identity = dataset_info.DatasetIdentity(
        name=DATASET_NAME,
        version=tfds.core.Version(folder.name),
        data_dir=os.fspath(folder),
        module_name=__name__,
        config_name=domain.name,
        config_description=f"Domain {domain.name}.",
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description="Segments of music in mu-law codes, and versions in other pitch and timbre.",
        features=_features(recipe.num_augmented, recipe.segment_samples),
        metadata=tfds.core.MetadataDict(describe(domain, recipe)),
    )
    info.set_file_format(_FILE_FORMAT)
    template = naming.ShardedFileTemplate(
        dataset_name=DATASET_NAME, data_dir=folder, filetype_suffix=_FILE_FORMAT
    )
    info.set_splits(
        tfds.core.splits.SplitDict(
            [
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=list(shard_lengths[split]),
                    num_bytes=num_bytes[split],
                    filename_template=template.replace(split=split),
                )
                for split in SPLITS
            ]
        )
    )
    info.write_to_directory(folder)


def describe(domain: Domain, recipe: Recipe) -> dict[str, Any]:
    """Returns how a domain was made, as it is kept in its `metadata.json`."""
    num_segments = {track.file.name: dict.fromkeys(SPLITS, 0) for track in domain.tracks}
    for split, stretches in domain.stretches.items():
        for stretch in stretches:
            num_segments[stretch.track.file.name][split] += stretch.num_segments
    return {
        "domain": domain.name,
        **dataclasses.asdict(recipe),
        "augmentation_version": augment.VERSION,
        "split_version": SPLIT_VERSION,
        "librosa_version": importlib.metadata.version("librosa"),
        "tracks": [
            {
                "name": track.file.name,
                "sha256": track.file.sha256,
                "seconds": round(track.num_samples / recipe.sample_rate_hz, 2),
                "num_segments": num_segments[track.file.name],
            }
            for track in domain.tracks
        ],
        "left_out": [
            {
                "name": file.file.name,
                "sha256": file.file.sha256,
                "reason": file.reason,
                "needs": file.needs,
                "could_be_read": file.could_be_read,
            }
            for file in domain.left_out
        ],
    }


@functools.cache
def _features(num_augmented: int, segment_samples: int) -> tfds.features.FeaturesDict:
    return tfds.features.FeaturesDict(
        {
            "codes": _codes_feature(segment_samples),
            "augmented": _codes_feature(num_augmented, segment_samples),
            "track": tfds.features.Text(),
            "start_sample": tfds.features.Scalar(dtype=np.int64),
        }
    )


def _codes_feature(*shape: int) -> tfds.features.Tensor:
    # BYTES: the default, a list of integers, takes 1.5 times the space and 3 times the time.
    encoding = tfds.features.Encoding.BYTES
    return tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=encoding)
