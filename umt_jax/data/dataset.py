"""Prepared shards -> batches of segments, per process, in an order that a resumed run repeats."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from flax import struct

from umt_jax import storage
from umt_jax.config import Config, ModelConfig, TrainingConfig, domain_name
from umt_jax.data import catalog, records
from umt_jax.shapes import Leaf, UInt8


class Batch(struct.PyTreeNode):
    """Segments of every domain.

    Attributes:
        codes: Segments as recorded, uint8 [K, B, T].
        augmented: The same segments, pitch-modulated, uint8 [K, B, T].
    """

    codes: Leaf
    augmented: Leaf


@dataclasses.dataclass(frozen=True)
class Part:
    """The part of each batch, [K, B, T], that one process reads.

    Attributes:
        domains: Places of its domains among the K.
        segments: Places of its segments among the B.
    """

    domains: range
    segments: range


def find_domains(data_dir: str) -> tuple[str, ...]:
    """Returns the names of the domains that were built there, in alphabetical order.

    Raises:
        FileNotFoundError: There are none.
    """
    domains = tuple(catalog.find(storage.path(data_dir)))
    if not domains:
        raise FileNotFoundError(
            f"data_dir={data_dir} holds no prepared domain. Prepare it first: "
            f"python -m data_prep.build --audio_dir=MUSIC --data_dir={data_dir}"
        )
    return domains


class Dataset:
    """The prepared segments of some domains.

    Attributes:
        description: What the builder recorded of each domain: tracks, splits, versions.
    """

    def __init__(self, data_dir: str, domains: Sequence[str]) -> None:
        """Finds the domains; shards are opened, or copied from remote storage, when needed.

        Raises:
            FileNotFoundError: There is nothing prepared, or not all of these domains.
            ValueError: A domain's metadata are damaged.
        """
        find_domains(data_dir)
        there = catalog.find(storage.path(data_dir))
        domains = [domain_name(domain) for domain in domains]
        missing = [domain for domain in domains if domain not in there]
        if missing:
            raise FileNotFoundError(
                f"data_dir={data_dir} has no domain {', '.join(missing)}. "
                f"There are: {', '.join(there)}."
            )
        self._folders = [there[domain] for domain in domains]
        self.description: dict[str, Any] = {
            domain: catalog.read_metadata(there[domain]) for domain in domains
        }

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the first domain's segments; `check` sees to it that all have the same."""
        return next(iter(self.description.values()))["sample_rate_hz"]

    @property
    def mu_law(self) -> str:
        """Convention of the first domain's codes; `check` sees to it that all have the same."""
        return _mu_law(next(iter(self.description.values())))

    @property
    def rms_dbfs(self) -> float | None:
        """Level of the first domain's tracks; `check` sees to it that all have the same."""
        return catalog.rms_dbfs(next(iter(self.description.values())))

    def check(self, config: Config) -> None:
        """Raises `ValueError` where segments are too short, or not made as the model needs them."""
        model, segment_samples = config.model, config.training.segment_samples
        # Models from before it was recorded do not tell; then domains need only agree.
        rms_dbfs = self.rms_dbfs if model.rms_dbfs is None else model.rms_dbfs
        for domain, recipe in self.description.items():
            for flag, there, needed in (
                ("sample_rate_hz", recipe["sample_rate_hz"], model.sample_rate_hz),
                ("mu_law", _mu_law(recipe), model.mu_law),
                ("rms_dbfs", catalog.rms_dbfs(recipe), rms_dbfs),
            ):
                if there != needed:
                    way = f"{flag}={there}" if there is not None else f"no {flag}"
                    raise ValueError(
                        f"{domain} was prepared with {way}, but the model needs {needed}. Prepare "
                        f"it with data_prep.build --{flag}={needed}, in another folder or with "
                        "--overwrite."
                    )
            if recipe["segment_samples"] < segment_samples:
                raise ValueError(
                    f"{domain} was prepared in segments of {recipe['segment_samples']} samples, "
                    f"fewer than segment_samples={segment_samples}. Use at most "
                    f"{recipe['segment_samples']}, or prepare longer ones with data_prep.build "
                    f"--segment_samples={segment_samples} --overwrite."
                )

    def train_batches(
        self,
        config: TrainingConfig,
        *,
        first_step: int,
        part: Part | None = None,
        num_threads: int = 2,
    ) -> Iterator[Batch]:
        """Yields the batch of `first_step`, the one after it, and so on without end.

        The batch of a step depends on the seed and the step alone. Each epoch has its own order;
        each segment is read with one of its augmented variants and, where `segment_samples` is
        less than what was prepared, a crop, both at random.

        Args:
            config: Segment length, batch and seed.
            first_step: Step of the first batch.
            part: What to read of each batch; None for the whole.
            num_threads: How many threads read ahead.
        """

        def crop(record, rng):
            last_start = len(record["codes"]) - config.segment_samples
            start = rng.integers(last_start + 1)
            variant = rng.integers(len(record["augmented"]))
            segment = slice(start, start + config.segment_samples)
            return record["codes"][segment], record["augmented"][variant, segment]

        def segments(index):
            source = self._records(index, "train")
            in_order = grain.MapDataset.source(source).seed(_domain_seed(config.seed, index))
            return in_order.shuffle().repeat().random_map(crop)

        batch_of_step = self._batches(segments, config.domain_batch, part)
        steps = grain.MapDataset.range(first_step, sys.maxsize).map(batch_of_step)
        return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=num_threads)))

    def eval_batches(
        self, config: TrainingConfig, *, split: str, num_batches: int, part: Part | None = None
    ) -> list[Batch]:
        """Returns the same segments every time, whole and not augmented.

        A split with fewer than `num_batches * domain_batch` segments repeats them. `part` as in
        `train_batches`.
        """

        def crop(record):
            codes = record["codes"][: config.segment_samples]
            return codes, codes

        def segments(index):
            source = self._records(index, split)
            in_order = grain.MapDataset.source(source).seed(_domain_seed(0, index))
            return in_order.shuffle().repeat().map(crop)

        return [*map(self._batches(segments, config.domain_batch, part), range(num_batches))]

    def excerpts(self, split: str, num_samples: int) -> list[UInt8[np.ndarray, "T"]]:
        """Returns the beginning of a track of each domain, at most `num_samples` codes of it."""
        sources = (self._records(index, split) for index in range(len(self._folders)))
        return [_excerpt(source, num_samples) for source in sources]

    def tracks(
        self, domain: str, split: str, num_samples: int | None
    ) -> dict[str, UInt8[np.ndarray, "T"]]:
        """Returns the codes of a domain's tracks by name, at most `num_samples` of all together.

        A track that was cut in time, or of which a piece was left out, ends where the gap begins.
        """
        tracks: dict[str, list[np.ndarray]] = {}
        ends: dict[str, int] = {}
        left = sys.maxsize if num_samples is None else num_samples
        records_of_split = self._records(list(self.description).index(domain), split)
        for index in range(len(records_of_split)):
            record = records_of_split[index]
            track, codes = record["track"], record["codes"][:left]
            if left <= 0:
                break
            if ends.setdefault(track, record["start_sample"]) == record["start_sample"]:
                tracks.setdefault(track, []).append(codes)
                ends[track] += len(codes)
                left -= len(codes)
        return {track: np.concatenate(parts) for track, parts in tracks.items()}

    def num_segments(self, split: str) -> int:
        """Returns how many segments of a split the domain with the fewest has."""
        return min(len(self._records(index, split)) for index in range(len(self._folders)))

    def _records(self, index: int, split: str) -> records.Records:
        return records.Records(catalog.local_copy(self._folders[index]), split)

    def _batches(
        self, segments: Callable[..., Any], domain_batch: int, part: Part | None
    ) -> Callable[[int], Batch]:
        """Returns a part of the batch of any index, out of each domain's endless `segments`."""
        if part is None:
            part = Part(range(len(self._folders)), range(domain_batch))
        per_domain = [segments(index) for index in part.domains]

        def batch(index: int) -> Batch:
            first = index * domain_batch
            pairs = [
                [in_order[first + place] for place in part.segments] for in_order in per_domain
            ]
            codes, augmented = (
                np.stack([np.stack([pair[i] for pair in domain]) for domain in pairs])
                for i in range(2)
            )
            return Batch(codes=codes, augmented=augmented)

        return batch


def _excerpt(source, num_samples):
    """Joins the segments that follow one another from the first record on, until they suffice."""
    track, end, segments = source[0]["track"], source[0]["start_sample"], []
    for record in source:
        if (record["track"], record["start_sample"]) != (track, end) or num_samples <= 0:
            break
        segments.append(record["codes"][:num_samples])
        num_samples -= len(segments[-1])
        end += len(record["codes"])
    return np.concatenate(segments)


def _mu_law(recipe):
    # Datasets from before there was a choice do not tell.
    return recipe.get("mu_law", ModelConfig.mu_law)


def _domain_seed(seed, index):
    # Grain's own hash of the seed keeps neighbouring seeds apart.
    return seed * 1000 + index
