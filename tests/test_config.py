import dataclasses
import functools
import json
import math
import time

import pytest

from umt_jax.config import Config, ModelConfig, SamplingConfig, TrainingConfig, model_from_json

TWO = ("Cello", "Piano")


def test_a_configuration_survives_json():
    config = Config(
        domains=TWO,
        train_domains=("Piano",),
        preset="nsynth",
        model=ModelConfig(encoder_preactivation=True, pool_samples=512, mu_law="truncated"),
        training=TrainingConfig(
            segment_samples=1024,
            init_from="runs/a",
            freeze_encoder=True,
            compute_dtype="bfloat16",
            seed=3,
        ),
        sampling=SamplingConfig(temperature=0.4, top_p=0.95),
    )
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_a_configuration_older_than_its_sampling_has_that_of_before():
    config = Config(domains=TWO)
    fields = config.to_json()
    usual = {"temperature": 1.0, "top_p": 1.0, "guide_strength": 0.0}
    assert fields.pop("sampling") == usual
    assert Config.from_json(fields) == config


def test_what_is_given_overrides_a_models_own_sampling():
    own = SamplingConfig(temperature=0.4, top_p=0.9)
    assert own.override(temperature=None, top_p=None) == own
    assert own.override(temperature=0.0, top_p=None) == SamplingConfig(temperature=0.0, top_p=0.9)
    assert own.override(temperature=None, top_p=1.0) == SamplingConfig(temperature=0.4)


def test_defaults_are_those_of_the_paper():
    config = Config(domains=TWO)
    assert (config.model.pool_samples, config.model.latent_channels) == (800, 64)
    assert config.training.segment_samples % config.model.pool_samples == 0


@pytest.mark.parametrize("section", [ModelConfig, TrainingConfig])
def test_no_field_takes_a_negative_number(section):
    for field in dataclasses.fields(section):
        if type(field.default) in (int, float):
            with pytest.raises(ValueError, match=rf"{field.name}=-1(\.0)? must"):
                section(**{field.name: type(field.default)(-1)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelConfig(pool_samples=0), "pool_samples=0 must be at least 1"),
        (lambda: TrainingConfig(learning_rate=float("nan")), "learning_rate=nan must be above 0"),
        (lambda: TrainingConfig(learning_rate_decay=1.1), r"must lie in \(0, 1\]"),
        (lambda: TrainingConfig(gradient_clip=float("nan")), "gradient_clip=nan must be 0 or"),
        (lambda: TrainingConfig(seed=2**32), r"seed=4294967296 must lie in 0\.\.4294967295"),
        (
            lambda: TrainingConfig(compute_dtype="float64"),
            "compute_dtype=float64 is not known. Use float32 or bfloat16",
        ),
        (lambda: ModelConfig(mu_law="a"), "mu_law=a is not known. Use rounded or truncated"),
        (
            lambda: TrainingConfig(freeze_encoder=True),
            "freeze_encoder=True .* random one. Name a trained one with init_from",
        ),
        (
            lambda: Config(domains=TWO, train_domains=("Flute",)),
            "train_domains=Flute is not among the model's domains: Cello, Piano",
        ),
        (
            lambda: Config(domains=TWO, train_domains=("Piano",)),
            "train_domains=Piano leaves out Cello, .* freeze_encoder=True, .* domains=Piano",
        ),
        (
            lambda: Config(domains=TWO, train_domains=("Piano", "Piano")),
            "A domain is named twice in Piano, Piano",
        ),
        (lambda: Config(domains=()), "No domains given"),
        (lambda: Config(domains=("Cello", "Cello")), "A domain is named twice in Cello, Cello"),
        (
            lambda: Config(domains=("Cello",)),
            r"One domain \(Cello\) .*weight=0\.01.* confusion_weight=0 \(preset=nsynth",
        ),
        (
            lambda: Config(domains=TWO, training=TrainingConfig(segment_samples=15_999)),
            "segment_samples=15999 must be a multiple of pool_samples=800.* Nearest: "
            "segment_samples=15200 or 16000",
        ),
        (
            lambda: Config(domains=TWO, training=TrainingConfig(segment_samples=7)),
            "Nearest: segment_samples=800\\.",
        ),
        (lambda: TrainingConfig(remat="all"), "remat=all is not known. Use none, layer or block"),
        (
            lambda: TrainingConfig(domain_batch=6, microbatches=4),
            "microbatches=4 must divide domain_batch=6 evenly. Use one of 1, 2, 3, 6",
        ),
        (lambda: Config.from_json({"domains": TWO}), "lacks 'model'"),
        (
            lambda: Config.from_json({"domains": TWO, "model": {"flux": 1}, "training": {}}),
            r"does not know model\.flux, which a newer one wrote\. Update umt_jax",
        ),
        (
            lambda: Config.from_json(Config(domains=TWO).to_json() | {"sampling": {"top_k": 3}}),
            r"does not know sampling\.top_k",
        ),
        (
            lambda: Config.from_json(Config(domains=TWO).to_json() | {"flux": {}}),
            "does not know flux",
        ),
        (lambda: SamplingConfig(temperature=-0.1), "temperature=-0.1 must be a finite number, 0 o"),
        (lambda: SamplingConfig(temperature=float("inf")), "temperature=inf must be a finite numb"),
        (lambda: SamplingConfig(temperature=float("nan")), "temperature=nan must be a finite numb"),
        (
            lambda: SamplingConfig(top_p=0.0),
            r"top_p=0.0 must lie in \(0, 1\]: codes are drawn",
        ),
        (lambda: SamplingConfig(top_p=1.01), r"top_p=1.01 must lie in \(0, 1\]"),
        (lambda: SamplingConfig(top_p=float("nan")), r"top_p=nan must lie in \(0, 1\]"),
    ],
)
def test_values_that_are_not_allowed_are_named_with_what_is(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_one_domain_has_no_confusion_to_train_with_a_frozen_encoder():
    training = TrainingConfig(init_from="runs/a", freeze_encoder=True)
    assert Config(domains=("Cello",), training=training).trained_indices == (0,)


def test_domains_are_trained_in_the_order_of_the_flag():
    training = TrainingConfig(init_from="runs/a", freeze_encoder=True)
    config = Config(domains=("A", "B", "C"), train_domains=("C", "A"), training=training)
    assert (config.trained_domains, config.trained_indices) == (("C", "A"), (2, 0))
    assert Config(domains=TWO).trained_domains == TWO


def test_one_domain_without_confusion_is_allowed():
    training = TrainingConfig(confusion_weight=0.0)
    assert Config(domains=("Cello",), training=training).domains == ("Cello",)


def with_field(path, value):
    """Returns the JSON of a configuration with another value somewhere in it."""
    fields = Config(domains=TWO).to_json()
    section = fields
    for name in path[:-1]:
        section = section[name]
    section[path[-1]] = value
    return fields


SECTIONS = ("model", "training", "sampling")
FIELDS = [(name,) for name in Config(domains=TWO).to_json()] + [
    (section, name) for section in SECTIONS for name in Config(domains=TWO).to_json()[section]
]


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_what_is_in_a_foreign_configuration_is_refused_at_once_or_of_the_right_type(path):
    default = Config(domains=TWO)
    for name in path:
        default = getattr(default, name)
    started = time.process_time()
    for value in (
        *(None, "12", [], {}, [None], True, 0.5, -1, math.nan, math.inf, 10**12, 10**4000),
        *("x" * 10**6, ["x" * 10**6], [str(number) for number in range(100_000)], 1e300),
    ):
        try:
            config = Config.from_json(with_field(path, value))
        except ValueError as error:
            assert len(str(error)) < 400
            continue
        kept = functools.reduce(getattr, path, config)
        kind = float | None if default is None else type(default)
        assert isinstance(kept, kind)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("fields", [None, [], "x", 3, {}, {"domains": None}])
def test_what_is_no_configuration_is_said_to_be_none(fields):
    with pytest.raises(ValueError, match="This is no configuration of umt_jax: "):
        Config.from_json(fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_layers": 10**6}, "encoder_layers=1000000 must be at most 30"),
        ({"decoder_blocks": 10**6}, "decoder_blocks=1000000 must be at most 1000"),
        ({"pool_samples": "800"}, "pool_samples='800' must be a whole number"),
        ({"pool_samples": None}, "pool_samples=None must be a whole number"),
        ({"skip_channels": True}, "skip_channels=True must be a whole number"),
        ({"colour" * 1000: 3}, r"does not know model\.colourcolou"),
    ],
)
def test_sizes_that_no_machine_holds_and_other_types_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        model_from_json(changes)


def test_more_domains_than_a_model_can_have_are_refused():
    with pytest.raises(ValueError, match="100000 domains are more than a model can have, 10000"):
        Config(domains=tuple(map(str, range(100_000))))
