"""Which records each shard of a domain gets, and writing one shard.

A shard is made of whole stretches, so that each track is decoded once for it, by a function that
needs nothing but the plan. Processes of this machine and workers of Apache Beam call the same one.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from etils import epath

from data_prep import segments, tfds_files
from data_prep.segments import Example
from data_prep.settings import Recipe
from data_prep.tracks import SPLITS, Domain, Stretch

_MIN_BYTES, _MAX_BYTES = 2**24, 2**30
_NUM_SHARDS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of a domain's split.

    Attributes:
        domain: Name of the domain.
        split: Name of the split.
        index: Which of the split's shards it is.
        num_shards: How many the split has.
        stretches: What is in it, in this order.
    """

    domain: str
    split: str
    index: int
    num_shards: int
    stretches: tuple[Stretch, ...]

    @property
    def num_examples(self) -> int:
        """How many records it has."""
        return sum(stretch.num_segments for stretch in self.stretches)

    @property
    def filename(self) -> str:
        """File name, in the form that TFDS expects."""
        return tfds_files.shard_filename(self.split, self.index, self.num_shards)


def plan(domain: Domain, recipe: Recipe) -> list[Shard]:
    """Divides each split of a domain among shards, split after split, in the order of records.

    A split has about 64 shards of 16 MiB to 1 GiB, fewer where it is small, and one track in one
    shard however long it is.
    """
    planned = []
    for split in SPLITS:
        groups = _grouped(domain.stretches[split], recipe)
        planned += [
            Shard(domain=domain.name, split=split, index=i, num_shards=len(groups), stretches=group)
            for i, group in enumerate(groups)
        ]
    return planned


def _grouped(stretches: Sequence[Stretch], recipe: Recipe) -> list[tuple[Stretch, ...]]:
    segment_bytes = recipe.segment_samples * (1 + recipe.num_augmented)
    num_bytes = segment_bytes * sum(stretch.num_segments for stretch in stretches)
    full_bytes = min(max(math.ceil(num_bytes / _NUM_SHARDS), _MIN_BYTES), _MAX_BYTES)
    groups: list[list[Stretch]] = []
    room = 0
    for stretch in stretches:
        stretch_bytes = segment_bytes * stretch.num_segments
        if not groups or stretch_bytes > room:
            groups.append([])
            room = full_bytes
        groups[-1].append(stretch)
        room -= stretch_bytes
    return [tuple(group) for group in groups]


def write(shard: Shard, *, recipe: Recipe, folder: epath.Path) -> int:
    """Writes a shard to a dataset's folder, where it appears as a whole; returns its bytes.

    Pure but for the file: the same arguments give the same bytes in any process.

    Raises:
        OSError: It could not be written.
        ValueError: A sound file is no longer what it was when it was scanned.
    """
    path = folder / shard.filename
    return tfds_files.write_records(path, _examples(shard, recipe), recipe)


def _examples(shard: Shard, recipe: Recipe) -> Iterator[Example]:
    for stretch in shard.stretches:
        yield from segments.examples_of_stretch(stretch, domain=shard.domain, recipe=recipe)
