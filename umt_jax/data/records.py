"""The records of one domain's split by index; one that cannot be read is named."""

import bisect
import itertools
import resource
from pathlib import Path
from typing import Any

import numpy as np

# Each shard of a large dataset stays open; many systems allow 1,024 files unless asked.
_OPEN_FILES = 8192

Record = dict[str, Any]
"""`codes` uint8 [T], `augmented` uint8 [A, T], `track` str, `start_sample` int."""


class Records:
    """A sequence of prepared records, read from their shards when asked for."""

    def __init__(self, dataset: Path, split: str) -> None:
        """Opens every shard and looks whether it is as long as it should be.

        Args:
            dataset: The dataset's folder.
            split: Name of the split.

        Raises:
            OSError: A shard is missing, cut off or damaged.
        """
        # Takes seconds to import, so only where a dataset is opened.
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2

        self._parse = tf_example_pb2.Example.FromString
        builder = tfds.builder_from_directory(dataset)
        info = builder.info.splits[split]
        self._paths = [Path(path) for path in info.filepaths]
        self._starts = [0, *itertools.accumulate(info.shard_lengths)]
        for path, length in zip(self._paths, info.shard_lengths, strict=True):
            _check_shard(path, length)
        metadata = builder.info.metadata
        # Datasets from before timbres were changed do not tell.
        num_augmented = metadata["num_variants"] + metadata.get("timbre_variants", 0)
        self._shape = num_augmented, metadata["segment_samples"]
        _allow_open_files()
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        self._source = builder.as_data_source(split, deserialize_method=raw)

    def __len__(self) -> int:
        """Number of records."""
        return self._starts[-1]

    def __getitem__(self, index: int) -> Record:
        """Returns a record.

        Raises:
            IndexError: There are not as many.
            OSError: It is damaged; names its file and its number there.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        from google.protobuf import message

        A, T = self._shape
        try:
            features = self._parse(self._source[index] or b"").features.feature
            codes, augmented = (
                np.frombuffer(b"".join(features[name].bytes_list.value), np.uint8)
                for name in ("codes", "augmented")
            )
            (track,) = features["track"].bytes_list.value
            (start_sample,) = features["start_sample"].int64_list.value
            return {
                "codes": codes.reshape(T),
                "augmented": augmented.reshape(A, T),
                "track": track.decode(),
                "start_sample": start_sample,
            }
        # What the reader of ArrayRecord, protobuf and a wrong number of values raise.
        except (RuntimeError, message.DecodeError, ValueError) as error:
            shard = bisect.bisect_right(self._starts, index) - 1
            raise OSError(
                f"{self._paths[shard]}: record {index - self._starts[shard]} is damaged ({error}). "
                + _remedy(self._paths[shard])
            ) from error


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _check_shard(path: Path, length: int) -> None:
    from array_record.python import array_record_module

    if not path.exists():
        raise FileNotFoundError(f"{path} is missing. {_remedy(path)}")
    try:
        reader = array_record_module.ArrayRecordReader(str(path))
        num_records = reader.num_records()
        reader.close()
    except RuntimeError as error:
        raise OSError(f"{path} is damaged ({error}). {_remedy(path)}") from error
    if num_records != length:
        raise OSError(
            f"{path} is damaged: it has {num_records} records instead of {length}. {_remedy(path)}"
        )


def _remedy(path: Path) -> str:
    return f"Put a whole copy in its place, or remove {path.parent} and prepare the domain again."
