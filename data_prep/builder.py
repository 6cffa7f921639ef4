"""The TFDS dataset of one domain, in ArrayRecord shards, written without TensorFlow."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import io
import itertools
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.proto import tf_example_pb2

from data_prep.recipe import Recipe
from data_prep.segments import Example
from data_prep.tracks import SPLITS, Domain

VERSION = "1.0.0"

# TFDS holds the examples of a shard in memory while it writes it.
_SHARD_BYTES = 128 * 2**20

Shard = Callable[[], Iterator[Example]]


def shards(examples: Iterator[Example], num_examples: int, recipe: Recipe) -> list[Shard]:
    """Divides examples among shards of about equal size, to be read one after the other."""
    num_bytes = num_examples * recipe.segment_samples * (1 + recipe.num_variants)
    num_shards = min(num_examples, math.ceil(num_bytes / _SHARD_BYTES))
    ends = [num_examples * i // num_shards for i in range(num_shards + 1)]
    return [
        functools.partial(itertools.islice, examples, end - start)
        for start, end in itertools.pairwise(ends)
    ]


class Segments(tfds.core.ShardBasedBuilder):
    """The TFDS dataset of one domain. Its name is `umt_jax.config.DATASET_NAME`.

    `GeneratorBasedBuilder` would shuffle the examples, which needs TensorFlow beyond a gigabyte;
    readers shuffle anyway.
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self,
        *,
        domain: Domain,
        recipe: Recipe,
        shards: Mapping[str, Sequence[Shard]],
        data_dir: Path,
    ) -> None:
        """Keeps what to write.

        Args:
            domain: Name, tracks and files left out.
            recipe: Settings.
            shards: The examples of each split.
            data_dir: Folder of datasets; this one goes to `segments/<domain>/1.0.0` in it.
        """
        self._domain = domain
        self._recipe = recipe
        self._shards = shards
        config = tfds.core.BuilderConfig(name=domain.name, description=f"Domain {domain.name}.")
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        A, T = self._recipe.num_variants, self._recipe.segment_samples
        features = {
            "codes": _codes_feature(T),
            "augmented": _codes_feature(A, T),
            "track": tfds.features.Text(),
            "start_sample": tfds.features.Scalar(dtype=np.int64),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Segments of music in mu-law codes, and versions with modulated pitch.",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(describe(self._domain, self._recipe)),
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[Callable[[], Iterator[tuple[str, Example]]]]]:
        return {
            split: [functools.partial(_with_keys, shard) for shard in shards]
            for split, shards in self._shards.items()
        }

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return _SameBytesWriter(file_format=self.info.file_format)


class _SameBytesWriter(tfds.core.ExampleWriter):
    """Writes the features of a record in the order of their names.

    TFDS leaves it to protobuf, which takes another order in each process.
    """

    def write(self, path: str, examples: Iterator[tuple[str, bytes]]) -> None:
        super().write(path, ((key, _sorted_by_name(record)) for key, record in examples))


def _sorted_by_name(record: bytes) -> bytes:
    return tf_example_pb2.Example.FromString(record).SerializeToString(deterministic=True)


def write_dataset(
    domain: Domain, shards: Mapping[str, Sequence[Shard]], recipe: Recipe, *, data_dir: Path
) -> Path:
    """Writes a domain's dataset and returns its folder, `data_dir/segments/<domain>/1.0.0`.

    Raises:
        OSError: It could not be written.
    """
    try:
        with _quiet_tfds(data_dir):
            builder = Segments(domain=domain, recipe=recipe, shards=shards, data_dir=data_dir)
            builder.download_and_prepare()
    except RuntimeError as error:
        # What the writer of ArrayRecord raises when the disk is full.
        raise OSError(f"Domain {domain.name} could not be written: {error}") from error
    return Path(builder.data_path)


@contextlib.contextmanager
def _quiet_tfds(data_dir: Path) -> Iterator[None]:
    """Hides what TFDS says about downloads and about configurations that are not built in."""
    verbosity, temporary = logging.get_verbosity(), tempfile.tempdir
    logging.set_verbosity(logging.ERROR)
    # Each builder leaves an empty temporary folder behind; here it goes when `data_dir` goes.
    tempfile.tempdir = os.fspath(data_dir)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
        tempfile.tempdir = temporary


def describe(domain: Domain, recipe: Recipe) -> dict[str, Any]:
    """Returns how a domain was made, as it is kept in its `metadata.json`."""
    num_segments = {track.file.name: dict.fromkeys(SPLITS, 0) for track in domain.tracks}
    for split, stretches in domain.stretches.items():
        for stretch in stretches:
            num_segments[stretch.track.file.name][split] += stretch.num_segments
    return {
        "domain": domain.name,
        **dataclasses.asdict(recipe),
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
            {"name": file.file.name, "sha256": file.file.sha256, "reason": file.reason}
            for file in domain.left_out
        ],
    }


def _codes_feature(*shape: int) -> tfds.features.Tensor:
    # BYTES: the default, a list of integers, takes 1.5 times the space and 3 times the time.
    encoding = tfds.features.Encoding.BYTES
    return tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=encoding)


def _with_keys(shard: Shard) -> Iterator[tuple[str, Example]]:
    for example in shard():
        yield f"{example['track']}:{example['start_sample']}", example
