"""Runs that start from another run's weights: --init_from, --train_domains, --freeze_encoder."""

import dataclasses
import re

import jax
import numpy as np
import optax
import pytest
from conftest import PREPARED, random_parameters, write_domain
from test_train import command

import umt_jax
from experiments import train
from experiments.training_run import initial_state
from experiments.training_run.flags import Schedule
from umt_jax.checkpoints import checkpoint, reading
from umt_jax.config import SamplingConfig
from umt_jax.data import dataset
from umt_jax.data.dataset import Batch
from umt_jax.model import networks
from umt_jax.model.decoder import cross_entropy
from umt_jax.training import partitioning, sharding, train_state


@pytest.fixture(autouse=True)
def standard_promotion():
    # Optax's Adam itself mixes integers and floats.
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def flute_dir(tmp_path_factory):
    """A --data_dir with one new domain alone: nothing of the old ones is needed."""
    folder = tmp_path_factory.mktemp("flute")
    write_domain("Flute", folder)
    return folder


def adding_flute(run_config, trained_dir):
    # Of one new domain every one of the tests' eight devices needs a segment.
    training = dataclasses.replace(
        run_config.training, init_from=str(trained_dir), freeze_encoder=True, domain_batch=8
    )
    return dataclasses.replace(
        run_config,
        domains=(*run_config.domains, "Flute"),
        train_domains=("Flute",),
        training=training,
    )


def run(config, data_dir, workdir, num_steps):
    schedule = Schedule(
        num_steps=num_steps, log_every=1, eval_every=2, eval_batches=1, eval_audio_seconds=0.1
    )
    prepared = dataset.Dataset(str(data_dir), config.trained_domains)
    train.run(config, schedule, prepared, workdir=str(workdir))


@pytest.fixture(scope="module")
def extended_dir(tmp_path_factory, run_config, trained_dir, flute_dir):
    """The trained run with a flute added."""
    workdir = tmp_path_factory.mktemp("extended")
    with jax.numpy_dtype_promotion("standard"):
        run(adding_flute(run_config, trained_dir), flute_dir, workdir, num_steps=4)
    return workdir


def assert_same_bytes(tree, expected):
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


def test_adding_a_domain_changes_no_byte_of_what_was_there(trained_dir, extended_dir, run_config):
    before = checkpoint.restore_parameters(str(trained_dir))
    after = checkpoint.restore_parameters(str(extended_dir), 4)
    assert_same_bytes(after.encoder, before.encoder)
    assert_same_bytes(networks.select(after.decoders, [0, 1]), before.decoders)
    for name in ("layer_00", "layer_01", "layer_02"):
        assert_same_bytes(after.classifier[name], before.classifier[name])
    assert_same_bytes(
        jax.tree.map(lambda leaf: leaf[..., :2], after.classifier["logits"]),
        before.classifier["logits"],
    )


def test_adding_a_domain_changes_no_sample_of_the_others(rng, trained_dir, extended_dir):
    old, new = umt_jax.load(str(trained_dir)), umt_jax.load(str(extended_dir), step=4)
    assert new.domains == (*old.domains, "Flute")
    waveform = rng.uniform(-0.5, 0.5, size=3000).astype(np.float32)
    rate_hz = PREPARED.sample_rate_hz
    np.testing.assert_array_equal(new.encode(waveform, rate_hz), old.encode(waveform, rate_hz))
    for domain in old.domains:
        translations = [model.translate(waveform, rate_hz, domain=domain) for model in (old, new)]
        np.testing.assert_array_equal(*translations)
    assert new.translate(waveform, rate_hz, domain="Flute").shape == waveform.shape


def test_the_added_decoder_has_learned(extended_dir, run_config, trained_dir):
    config = adding_flute(run_config, trained_dir)
    assert reading.read_config(str(extended_dir)) == config
    after = checkpoint.restore_parameters(str(extended_dir), 4)
    fresh = initial_state.initial_parameters(networks.Networks(config))
    flutes = [networks.select(parameters.decoders, 2) for parameters in (fresh, after)]
    last_layer = config.model.decoder_blocks * config.model.decoder_layers - 1
    for path, change in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda a, b: np.abs(a - b), *flutes)
    ):
        names = [key.key for key in path]
        if names[:2] == ["layers", "residual"]:
            assert not change[last_layer].any()  # It feeds nothing.
            change = change[:last_layer]
        assert change.max() > 0, names


def test_a_resumed_addition_is_the_one_never_stopped_and_needs_the_first_run_no_more(
    tmp_path, monkeypatch, extended_dir, run_config, trained_dir, flute_dir
):
    config = adding_flute(run_config, trained_dir)
    run(config, flute_dir, tmp_path, num_steps=2)

    def read(init_from):
        raise AssertionError("The first run is read again.")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "restore_parameters", read)
        run(config, flute_dir, tmp_path, num_steps=4)
    first, second = (
        checkpoint.restore_parameters(str(workdir), 4) for workdir in (tmp_path, extended_dir)
    )
    assert_same_bytes(first, second)


def test_a_step_with_a_frozen_encoder_descends_each_trained_decoders_own_gradient(rng, tiny_config):
    training = dataclasses.replace(tiny_config.training, init_from="x", freeze_encoder=True)
    config = dataclasses.replace(tiny_config, train_domains=("Piano", "Cello"), training=training)
    nets = networks.Networks(config)
    parameters = random_parameters(nets)
    optimizers = train_state.Optimizers(optax.sgd(1.0), optax.sgd(1.0))
    shape = (2, 4, training.segment_samples)
    batch = Batch(*(rng.integers(256, size=shape).astype(np.uint8) for _ in range(2)))

    def after_a_step(devices):
        # The model's three domains and the two in training leave no axis to split.
        mesh = sharding.make_mesh(1, 4, devices)
        state = train_state.create(parameters, optimizers, config)
        on_devices = partitioning.make("jit", mesh, nets, optimizers, state)
        return on_devices.train_step(on_devices.put_state(state), on_devices.put_batch(batch))

    def loss(decoder, k):
        latents = nets.encode(parameters.encoder, batch.augmented[k])
        code_logits = nets.decode_one(decoder, batch.codes[k], latents)
        return cross_entropy(code_logits, batch.codes[k]).mean()

    state, metrics = after_a_step(jax.devices()[:1])
    assert set(metrics) == {"reconstruction", "decoder_gradient_norm"} and state.step == 1
    for k, domain in enumerate(config.trained_indices):
        decoder = networks.select(parameters.decoders, domain)
        value, grads = jax.jit(jax.value_and_grad(loss), static_argnums=1)(decoder, k)
        np.testing.assert_allclose(metrics["reconstruction"][k], value, rtol=1e-5)
        jax.tree.map(
            lambda new, old, grad: np.testing.assert_allclose(new, old - grad, atol=1e-5),
            networks.select(state.parameters.decoders, domain),
            decoder,
            grads,
        )
    assert_same_bytes(
        networks.select(state.parameters.decoders, 1), networks.select(parameters.decoders, 1)
    )
    assert_same_bytes(state.parameters.encoder, parameters.encoder)
    assert_same_bytes(state.parameters.classifier, parameters.classifier)
    many, _ = after_a_step(jax.devices()[:4])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), many, state)


def test_a_model_takes_over_what_another_has_for_the_same_domains(tiny_config):
    source_nets = networks.Networks(tiny_config)  # Cello, Flute, Piano.
    nets = networks.Networks(dataclasses.replace(tiny_config, domains=("Piano", "Oboe", "Cello")))
    source, fresh = random_parameters(source_nets, seed=1), random_parameters(nets, seed=2)
    taken = networks.transfer(
        fresh, nets.config.domains, source=source, source_domains=tiny_config.domains
    )
    assert_same_bytes(taken.encoder, source.encoder)
    for here, expected, there in ((0, source, 2), (1, fresh, 1), (2, source, 0)):
        assert_same_bytes(
            networks.select(taken.decoders, here), networks.select(expected.decoders, there)
        )
        for name in ("kernel", "bias"):
            np.testing.assert_array_equal(
                taken.classifier["logits"][name][..., here],
                expected.classifier["logits"][name][..., there],
            )
    for name in ("layer_00", "layer_01", "layer_02"):
        assert_same_bytes(taken.classifier[name], source.classifier[name])


def fine_tune(trained_dir, data_dir, workdir, *flags):
    return command(
        f"--init_from={trained_dir}",
        f"--data_dir={data_dir}",
        f"--workdir={workdir}",
        "--segment_samples=60",
        "--domain_batch=4",
        "--num_steps=1",
        "--eval_batches=1",
        "--eval_audio_seconds=0",
        *flags,
    )


@pytest.mark.slow
def test_the_command_goes_on_with_a_subset_and_needs_no_sizes(
    tmp_path, trained_dir, prepared_dir, run_config
):
    flags = ["--domains=Piano", "--confusion_weight=0", "--learning_rate=1e-5"]
    finished = fine_tune(trained_dir, prepared_dir, tmp_path, *flags)
    assert finished.returncode == 0, finished.stderr
    assert f"Starting from {trained_dir}. Fresh decoders: none." in finished.stderr
    config = reading.read_config(str(tmp_path))
    assert (config.model, config.domains) == (run_config.model, ("Piano",))
    before, after = (checkpoint.restore_parameters(str(path)) for path in (trained_dir, tmp_path))
    # One step of Adam moves each number by the learning rate, at most.
    jax.tree.map(
        lambda old, new: np.testing.assert_allclose(old, new, rtol=0, atol=1.1e-5),
        (before.encoder, networks.select(before.decoders, [1])),
        (after.encoder, after.decoders),
    )
    assert not np.array_equal(before.encoder["latent"]["kernel"], after.encoder["latent"]["kernel"])


@pytest.mark.thorough
def test_the_command_adds_a_domain(tmp_path, trained_dir, flute_dir, run_config):
    base, workdir = tmp_path / "exported", tmp_path / "run"
    sampling = SamplingConfig(temperature=0.5)
    checkpoint.export(str(trained_dir), str(base), sampling=sampling)
    finished = fine_tune(base, flute_dir, workdir, "--train_domains=Flute", "--freeze_encoder")
    assert finished.returncode == 0, finished.stderr
    assert "Fresh decoders: Flute." in finished.stderr
    assert re.search(
        r"step 1/1  reconstruction 5\.\d+ nats \(Flute 5\.\d+\)  [\d,]+ samples/s", finished.stderr
    )
    config = reading.read_config(str(workdir))
    assert config.domains == (*run_config.domains, "Flute")
    assert (config.preset, config.sampling) == (run_config.preset, sampling)
    # Nor does the same command find anything to contradict, or to do.
    again = fine_tune(base, flute_dir, workdir, "--train_domains=Flute", "--freeze_encoder")
    assert again.returncode == 0 and "That is all" in again.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--skip_channels=4", "--train_domains=Flute", "--freeze_encoder"],
            "--skip_channels=4 contradicts the model that --init_from names, which has 8",
        ),
        (["--train_domains=Flute"], "--train_domains=Flute leaves out Cello, Piano, whose"),
        (
            ["--train_domains=Oboe", "--freeze_encoder"],
            "has no domain Oboe. There are: Flute",
        ),
        (["--freeze_encoder"], "has no domain Cello, Piano. There are: Flute"),
    ],
)
def test_flags_that_do_not_fit_the_first_run_are_one_line(
    tmp_path, trained_dir, flute_dir, flags, message
):
    workdir = tmp_path / "run"
    finished = fine_tune(trained_dir, flute_dir, workdir, *flags)
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: ") and message in line
    assert not workdir.exists()
