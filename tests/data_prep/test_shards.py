import dataclasses

import numpy as np
import pytest
from etils import epath

from data_prep import shards, tracks
from data_prep.settings import Recipe
from data_prep.tracks import SPLITS, Domain, Stretch
from umt_jax.audio.level import Loudness

RECIPE = Recipe(sample_rate_hz=8000, segment_samples=1024, num_variants=1)
SEGMENT_BYTES = 2048


def domain_of(counts):
    """A domain whose splits have stretches of so many segments."""
    file = tracks.SoundFile(path=epath.Path("a"), name="a", sha256="a")
    track = tracks.Track(file=file, loudness=Loudness())
    stretches = {
        split: [
            Stretch(track=track, start_sample=i, num_segments=count)
            for i, count in enumerate(counts)
        ]
        for split in SPLITS
    }
    return Domain(name="X", tracks=(), left_out=(), stretches=stretches)


@pytest.mark.parametrize("num_tracks", [1, 2, 30, 400])
@pytest.mark.parametrize("longest", [3, 90])
def test_shards_hold_all_stretches_in_order_and_are_rarely_small(
    monkeypatch, rng, num_tracks, longest
):
    monkeypatch.setattr(shards, "_MIN_BYTES", 10 * SEGMENT_BYTES)
    monkeypatch.setattr(shards, "_MAX_BYTES", 100 * SEGMENT_BYTES)
    counts = rng.integers(1, longest, size=num_tracks, endpoint=True).tolist()
    domain = domain_of(counts)
    planned = shards.plan(domain, RECIPE)
    for split in SPLITS:
        of_split = [shard for shard in planned if shard.split == split]
        assert [part for shard in of_split for part in shard.stretches] == domain.stretches[split]
        assert [shard.index for shard in of_split] == list(range(len(of_split)))
        assert {shard.num_shards for shard in of_split} == {len(of_split)}
        full = max(10, min(100, sum(counts) / 64))
        for shard, following in zip(of_split, of_split[1:], strict=False):
            assert shard.num_examples <= full or len(shard.stretches) == 1
            assert shard.num_examples + following.stretches[0].num_segments > full
        assert len(of_split) <= max(128, 2 * sum(counts) / 100 + 1)


def test_a_shard_is_written_alike_wherever_and_whatever_else_is_built(tmp_path):
    import soundfile

    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", rng.uniform(-0.5, 0.5, size=20_000), 8000)
    path = epath.Path(tmp_path / "a.wav")
    file = tracks.identify(path, folder=epath.Path(tmp_path))
    track = tracks.scan(file, RECIPE)
    stretch = Stretch(track=track, start_sample=100, num_segments=4)
    shard = shards.Shard(domain="X", split="train", index=0, num_shards=2, stretches=(stretch,))
    other = dataclasses.replace(shard, index=1, num_shards=9, stretches=(stretch, stretch))
    folders = [epath.Path(tmp_path / name) for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    first = shards.write(shard, recipe=RECIPE, folder=folders[0])
    shards.write(other, recipe=RECIPE, folder=folders[1])
    second = shards.write(shard, recipe=RECIPE, folder=folders[1])
    name = "segments-train.array_record-00000-of-00002"
    assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert first == second == len((folders[0] / name).read_bytes())
