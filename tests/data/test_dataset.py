import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest
from conftest import NUM_SEGMENTS, PREPARED, track_codes

from umt_jax.config import TrainingConfig
from umt_jax.data import dataset

CONFIG = TrainingConfig(segment_samples=700, domain_batch=2, seed=4)
DOMAINS = ("Cello", "Piano")
T = PREPARED.segment_samples
NUM_TRAIN = sum(NUM_SEGMENTS["train"])


@pytest.fixture(scope="module")
def prepared(prepared_dir):
    return dataset.Dataset(str(prepared_dir), DOMAINS)


def batches_of(prepared, count, config=CONFIG, *, first_step=0, **options):
    batches = prepared.train_batches(config, first_step=first_step, **options)
    return list(itertools.islice(batches, count))


def flat(batches):
    """Segments and their augmented versions of one domain after the other, [K, count, T]."""
    return (
        np.concatenate([batch.codes for batch in batches], axis=1),
        np.concatenate([batch.augmented for batch in batches], axis=1),
    )


def places(domain, split, codes):
    """Returns (track, sample) of where each segment was cut out."""
    found = []
    for segment in codes:
        for track in range(len(NUM_SEGMENTS[split])):
            whole = track_codes(domain, split, track).tobytes()
            if (start := whole.find(segment.tobytes())) >= 0:
                found.append((track, start))
                break
        else:
            raise AssertionError("a segment is in no track of its domain and split")
    return found


def test_domains_are_found_and_described(prepared_dir, prepared):
    assert dataset.find_domains(str(prepared_dir)) == DOMAINS
    assert list(prepared.description) == list(DOMAINS)
    for domain in DOMAINS:
        assert prepared.description[domain]["domain"] == domain
        assert prepared.description[domain]["segment_samples"] == T


def test_data_that_a_module_of_an_earlier_layout_prepared_read_the_same(
    prepared_dir, prepared, tmp_path
):
    earlier = shutil.copytree(prepared_dir, tmp_path / "earlier")
    for path in earlier.rglob("dataset_info.json"):
        information = json.loads(path.read_text())
        assert information["moduleName"] == "data_prep.tfds_files"
        path.write_text(json.dumps(information | {"moduleName": "data_prep.builder"}))
    read = dataset.Dataset(str(earlier), DOMAINS)
    assert read.description == prepared.description
    for batch, expected in zip(batches_of(read, 3), batches_of(prepared, 3), strict=True):
        np.testing.assert_array_equal(batch.codes, expected.codes)
        np.testing.assert_array_equal(batch.augmented, expected.augmented)


def test_domains_come_in_the_wanted_order(prepared_dir, prepared):
    reversed_ = dataset.Dataset(str(prepared_dir), DOMAINS[::-1])
    (batch,) = reversed_.eval_batches(CONFIG, split="validation", num_batches=1)
    for domain, codes in zip(DOMAINS[::-1], batch.codes, strict=True):
        assert places(domain, "validation", codes)


def test_the_batch_of_a_step_does_not_depend_on_where_iteration_began(prepared):
    from_start = batches_of(prepared, 12)
    for first_step in (1, 7):
        for expected, batch in zip(
            from_start[first_step:], batches_of(prepared, 5, first_step=first_step), strict=False
        ):
            np.testing.assert_array_equal(batch.codes, expected.codes)
            np.testing.assert_array_equal(batch.augmented, expected.augmented)


def test_the_seed_decides_the_order_and_the_crops(prepared):
    other = dataclasses.replace(CONFIG, seed=5)
    for (first, _), (second, _) in itertools.combinations(
        [flat(batches_of(prepared, 7, config)) for config in (CONFIG, other)], 2
    ):
        assert not np.array_equal(first, second)
        for k, domain in enumerate(DOMAINS):
            assert places(domain, "train", first[k]) != places(domain, "train", second[k])


def test_crops_lie_within_a_segment_and_codes_are_cropped_like_their_variant(prepared):
    codes, augmented = flat(batches_of(prepared, 30))
    assert codes.shape == (2, 60, 700) and codes.dtype == np.uint8
    for k, domain in enumerate(DOMAINS):
        # write_domain made the v-th variant by adding v + 1.
        variants = augmented[k] - codes[k]
        assert (variants == variants[:, :1]).all()
        assert set(variants[:, 0]) == {1, 2}
        offsets = {start % T for _, start in places(domain, "train", codes[k])}
        assert min(offsets) < 60 and max(offsets) > T - 700 - 60
        assert max(offsets) <= T - 700
        assert len(offsets) > 30


def test_each_epoch_has_every_segment_once_in_an_order_of_its_own(prepared):
    config = dataclasses.replace(CONFIG, segment_samples=T, domain_batch=1)
    codes, _ = flat(batches_of(prepared, 3 * NUM_TRAIN, config))
    for k, domain in enumerate(DOMAINS):
        found = places(domain, "train", codes[k])
        epochs = [found[start : start + NUM_TRAIN] for start in (0, NUM_TRAIN, 2 * NUM_TRAIN)]
        everything = {
            (track, start * T)
            for track, count in enumerate(NUM_SEGMENTS["train"])
            for start in range(count)
        }
        assert all(set(epoch) == everything for epoch in epochs)
        assert len(set(map(tuple, epochs))) == 3


@pytest.mark.parametrize(
    ("domains", "segments"),
    [(range(2), range(1, 3)), (range(1, 2), range(4)), (range(1), range(3, 4))],
)
def test_a_part_of_a_batch_is_that_part_of_the_whole(prepared, domains, segments):
    config = dataclasses.replace(CONFIG, domain_batch=4)
    part = dataset.Part(domains, segments)
    whole = batches_of(prepared, 3, config, first_step=3)
    whole += prepared.eval_batches(config, split="validation", num_batches=2)
    parts = batches_of(prepared, 3, config, first_step=3, part=part)
    parts += prepared.eval_batches(config, split="validation", num_batches=2, part=part)
    box = np.s_[domains.start : domains.stop, segments.start : segments.stop]
    for batch, expected in zip(parts, whole, strict=True):
        np.testing.assert_array_equal(batch.codes, expected.codes[box])
        np.testing.assert_array_equal(batch.augmented, expected.augmented[box])


def test_evaluation_sees_the_same_untouched_segments_every_time(prepared, prepared_dir):
    other_seed = dataclasses.replace(CONFIG, seed=99)
    first = prepared.eval_batches(CONFIG, split="validation", num_batches=2)
    again = dataset.Dataset(str(prepared_dir), DOMAINS).eval_batches(
        other_seed, split="validation", num_batches=2
    )
    np.testing.assert_array_equal(flat(first), flat(again))
    codes, augmented = flat(first)
    np.testing.assert_array_equal(codes, augmented)
    for k, domain in enumerate(DOMAINS):
        found = places(domain, "validation", codes[k])
        assert len(set(found)) == 4
        assert {start % T for _, start in found} == {0}


def test_a_small_split_is_repeated(prepared):
    batches = prepared.eval_batches(CONFIG, split="test", num_batches=3)
    codes, _ = flat(batches)
    assert len(set(places("Cello", "test", codes[0]))) == NUM_SEGMENTS["test"][0] == 2


@pytest.mark.parametrize("num_samples", [1, T, T + 1, 2500, 10 * T])
def test_excerpts_are_the_beginning_of_a_track(prepared, num_samples):
    for domain, excerpt in zip(DOMAINS, prepared.excerpts("train", num_samples), strict=True):
        # The first track has four segments.
        expected = track_codes(domain, "train", 0)[:num_samples]
        assert len(expected) == min(num_samples, 4 * T)
        np.testing.assert_array_equal(excerpt, expected)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_domains_says_how_to_prepare_them(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no prepared domain.*data_prep\.build"):
        dataset.find_domains(str(tmp_path / name))


def test_an_unknown_domain_lists_those_there_are(prepared_dir):
    with pytest.raises(FileNotFoundError, match=r"has no domain Oboe\. There are: Cello, Piano\."):
        dataset.Dataset(str(prepared_dir), ["Cello", "Oboe"])


@pytest.mark.parametrize(
    ("section", "changed", "message"),
    [
        (
            "training",
            {"segment_samples": 2000},
            "Cello .* 1024 samples, fewer than segment_samples=2000",
        ),
        (
            "model",
            {"sample_rate_hz": 16_000},
            "Cello was prepared with sample_rate_hz=8000, but the model needs 16000",
        ),
        (
            "model",
            {"mu_law": "truncated"},
            "Cello was prepared with mu_law=rounded, but the model needs truncated. Prepare it "
            "with data_prep.build --mu_law=truncated",
        ),
        (
            "model",
            {"rms_dbfs": -20.0},
            "Cello was prepared with no rms_dbfs, but the model needs -20.0. Prepare it with "
            "data_prep.build --rms_dbfs=-20.0",
        ),
    ],
)
def test_segments_that_do_not_fit_the_model_are_refused(
    prepared, run_config, section, changed, message
):
    prepared.check(run_config)
    values = dataclasses.replace(getattr(run_config, section), **changed)
    with pytest.raises(ValueError, match=message):
        prepared.check(dataclasses.replace(run_config, **{section: values}))
