import dataclasses
import functools
import hashlib
import json
import re
import shutil
import struct
import tempfile
import types
from pathlib import Path

import commands
import jax
import numpy as np
import pytest
from conftest import random_parameters
from tensorboardX import record_writer
from tensorboardX.proto import event_pb2

from experiments import train
from experiments.training_run import metrics_log
from experiments.training_run.flags import Schedule
from umt_jax.checkpoints import checkpoint, reading
from umt_jax.data import dataset
from umt_jax.model import networks
from umt_jax.training import sharding, train_state, train_step


@pytest.fixture(autouse=True)
def standard_promotion():
    # Optax's Adam itself mixes integers and floats.
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def resumed_dir(tmp_path, trained_dir):
    """A copy of the trained run, to be gone on with."""
    workdir = tmp_path / "resumed"
    shutil.copytree(trained_dir, workdir)
    return workdir


def schedule(num_steps, eval_every=4):
    return Schedule(
        num_steps=num_steps,
        log_every=2,
        eval_every=eval_every,
        eval_batches=1,
        eval_audio_seconds=0.0,
    )


def run(config, schedule, prepared_dir, workdir, **options):
    prepared = dataset.Dataset(str(prepared_dir), config.trained_domains)
    return train.run(config, schedule, prepared, workdir=str(workdir), **options)


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def untimed(lines):
    return [
        {key: value for key, value in line.items() if not re.search("second", key)}
        for line in lines
    ]


def restored_state(workdir, step, config):
    parameters = random_parameters(networks.Networks(config))
    target = train_state.create(parameters, train_state.make_optimizers(config.training), config)
    target = jax.tree.map(jax.numpy.asarray, target)
    with checkpoint.Checkpoints(str(workdir)) as checkpoints:
        return checkpoints.restore(step, target)


def events(workdir):
    """Yields TensorBoard's events in its order; a record that is cut off ends its file."""
    for path in sorted((workdir / "tensorboard").iterdir()):
        data, position = path.read_bytes(), 0
        while position + 12 <= len(data):
            (length,) = struct.unpack_from("<Q", data, position)
            if position + 16 + length > len(data):
                break
            yield event_pb2.Event.FromString(data[position + 12 : position + 12 + length])
            position += 16 + length


def tensorboard(workdir):
    """Returns the kind of value and the steps of each tag."""
    tags = {}
    for event in events(workdir):
        for value in event.summary.value:
            kind, steps = tags.setdefault(value.tag, (value.WhichOneof("value"), set()))
            assert kind == value.WhichOneof("value")
            steps.add(event.step)
    return tags


def tensorboard_scalars(workdir):
    """Returns the steps and numbers of each tag that TensorBoard shows.

    At the start of a session it forgets what was told of its first step and of later ones.
    """
    shown = []
    for event in events(workdir):
        if event.HasField("session_log"):
            shown = [earlier for earlier in shown if earlier[1] < event.step]
        shown += [
            (value.tag, event.step, value.simple_value)
            for value in event.summary.value
            if value.HasField("simple_value")
        ]
    return {
        name: [(step, number) for tag, step, number in shown if tag == name]
        for name in {tag for tag, _, _ in shown}
    }


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_records_all_it_promises(trained_dir, run_config):
    assert json.loads((trained_dir / "config.json").read_text()) == run_config.to_json()
    assert reading.read_config(str(trained_dir)) == run_config

    tags = tensorboard(trained_dir)
    at_logs, at_evaluations = {2, 4, 6, 8}, {4, 8}
    losses = {"reconstruction", "reconstruction/Cello", "reconstruction/Piano"}
    of_train = {
        *losses,
        "classification",
        "classifier_accuracy",
        "confusion",
        "samples_per_second",
        "encoder_gradient_norm",
        "decoder_gradient_norm",
        "classifier_gradient_norm",
    }
    expected = {f"train/{name}": ("simple_value", at_logs) for name in of_train}
    expected["learning_rate"] = ("simple_value", at_logs)
    for name in {*losses, "classifier_accuracy"}:
        expected[f"eval/{name}"] = ("simple_value", at_evaluations)
    for source in run_config.domains:
        for name in ("source", "as_Cello", "as_Piano"):
            expected[f"{source}/{name}"] = ("audio", at_evaluations)
        for name in ("log_mel", "latents"):
            expected[f"{source}/{name}"] = ("image", at_evaluations)
    assert tags == expected

    lines = metrics(trained_dir)
    assert [line["step"] for line in lines] == [2, 4, 4, 6, 8, 8]
    for line in lines:
        kind = "train" if "learning_rate" in line else "eval"
        domains = [line[f"{kind}/reconstruction/{domain}"] for domain in run_config.domains]
        assert line[f"{kind}/reconstruction"] == pytest.approx(np.mean(domains))
        # Untrained, and on noise: about the log of 256 levels.
        assert line[f"{kind}/reconstruction"] == pytest.approx(np.log(256), abs=0.3)


@pytest.mark.thorough
def test_a_run_that_died_goes_on_as_if_it_never_had(
    tmp_path, monkeypatch, trained_dir, prepared_dir, run_config
):
    class PowerCutError(Exception):
        pass

    def train_until_6(log, step, history, *, learning_rate):
        original(log, step, history, learning_rate=learning_rate)
        if step == 6:
            raise PowerCutError

    original = metrics_log.MetricsLog.train
    with monkeypatch.context() as patch:
        patch.setattr(metrics_log.MetricsLog, "train", train_until_6)
        with pytest.raises(PowerCutError):
            run(run_config, schedule(8), prepared_dir, tmp_path)
    before = metrics(tmp_path)
    assert [line["step"] for line in before] == [2, 4, 4, 6]
    # Killed while it wrote the next line.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "sec')

    run(run_config, schedule(8), prepared_dir, tmp_path)
    state, expected = (restored_state(folder, 8, run_config) for folder in (tmp_path, trained_dir))
    assert state.step == 8
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    after = metrics(tmp_path)
    assert untimed(after) == untimed(metrics(trained_dir))
    assert after[:3] == before[:3]
    seconds = [line["seconds"] for line in after]
    assert seconds == sorted(seconds) and seconds[3] > seconds[2]
    assert tensorboard(tmp_path)["train/reconstruction"][1] == {2, 4, 6, 8}


def test_the_losses_of_an_evaluation_are_those_of_the_validation_split(
    trained_dir, prepared_dir, run_config
):
    prepared = dataset.Dataset(str(prepared_dir), run_config.domains)
    evaluate = jax.jit(
        functools.partial(train_step.eval_step, networks=networks.Networks(run_config))
    )
    parameters = checkpoint.restore_parameters(str(trained_dir), 8)
    losses = {}
    for split in ("train", "validation"):
        (batch,) = prepared.eval_batches(run_config.training, split=split, num_batches=1)
        losses[split] = evaluate(parameters, batch)["reconstruction"]
    (line,) = [
        line for line in metrics(trained_dir) if line["step"] == 8 and "learning_rate" not in line
    ]
    found = [line[f"eval/reconstruction/{domain}"] for domain in run_config.domains]
    np.testing.assert_allclose(found, losses["validation"], rtol=1e-6)
    assert np.all(np.abs(losses["train"] - losses["validation"]) > 1e-4)


@pytest.fixture
def stopped_dir(tmp_path, prepared_dir, run_config):
    """The run of `trained_dir`, stopped after step 5, between two means of its log."""
    workdir = tmp_path / "stopped"
    done = run(run_config, schedule(8), prepared_dir, workdir, asked_to_stop=lambda s: s == 5)
    assert not done
    return workdir


def test_a_run_that_was_stopped_goes_on_as_if_it_never_had(
    stopped_dir, trained_dir, prepared_dir, run_config
):
    assert [line["step"] for line in metrics(stopped_dir)] == [2, 4, 4]
    assert run(run_config, schedule(8), prepared_dir, stopped_dir)
    state, expected = (restored_state(path, 8, run_config) for path in (stopped_dir, trained_dir))
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert untimed(metrics(stopped_dir)) == untimed(metrics(trained_dir))
    numbers, expected = map(tensorboard_scalars, (stopped_dir, trained_dir))
    assert untimed([numbers]) == untimed([expected])


@pytest.mark.thorough
def test_a_run_goes_on_within_rounding_on_another_number_of_devices(
    monkeypatch, stopped_dir, trained_dir, prepared_dir, run_config
):
    one_device = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", one_device)
    run(run_config, schedule(8), prepared_dir, stopped_dir)
    state, expected = (restored_state(path, 8, run_config) for path in (stopped_dir, trained_dir))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, state, expected)
    for line, same in zip(
        untimed(metrics(stopped_dir)), untimed(metrics(trained_dir)), strict=True
    ):
        assert line == pytest.approx(same, rel=1e-4)


def test_a_run_that_is_stopped_at_its_last_step_is_done(resumed_dir, prepared_dir, run_config):
    assert run(
        run_config, schedule(9), prepared_dir, resumed_dir, asked_to_stop=lambda step: step == 9
    )
    assert [line["step"] for line in metrics(resumed_dir)][-2:] == [9, 9]


def test_the_learning_rate_on_record_is_that_of_the_recorded_step(
    monkeypatch, resumed_dir, prepared_dir, run_config
):
    # What is recorded alone: the optimizers, and with them the compiled step, have their own.
    recorded = {**vars(train_state), "learning_rate": lambda config: lambda updates: 0.5**updates}
    monkeypatch.setattr(train, "train_state", types.SimpleNamespace(**recorded))
    run(run_config, schedule(10), prepared_dir, resumed_dir)
    # The tenth step is taken after nine updates.
    (line,) = [
        line for line in metrics(resumed_dir) if line["step"] == 10 and "learning_rate" in line
    ]
    assert line["learning_rate"] == 0.5**9


def test_checkpoints_between_evaluations_are_no_candidates_for_the_best(
    resumed_dir, prepared_dir, run_config
):
    often = dataclasses.replace(schedule(11, eval_every=100), checkpoint_every=2)
    stop = functools.partial(run, run_config, often, prepared_dir, resumed_dir)
    assert not stop(asked_to_stop=lambda step: step == 10)
    best = checkpoint.restore_parameters(str(resumed_dir))
    expected = checkpoint.restore_parameters(str(resumed_dir), 8)
    jax.tree.map(np.testing.assert_array_equal, best, expected)
    with checkpoint.Checkpoints(str(resumed_dir)) as checkpoints:
        assert checkpoints.newest_step() == 10


def test_a_run_that_is_done_is_left_as_it_is(resumed_dir, trained_dir, prepared_dir, run_config):
    run(run_config, schedule(8), prepared_dir, resumed_dir)
    assert metrics(resumed_dir) == metrics(trained_dir)
    assert reading.read_config(str(resumed_dir), 8) == run_config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"learning_rate": 0.5}}, "--learning_rate=0.5 contradicts .*=0\\.001\\."),
        ({"training": {"segment_samples": 90}}, "--segment_samples=90 contradicts .*=60\\."),
        ({"model": {"skip_channels": 4}}, "--skip_channels=4 contradicts .*=8\\."),
        ({"domains": ("Piano", "Cello")}, "--domains=Piano,Cello contradicts .*=Cello,Piano\\."),
    ],
)
def test_flags_that_contradict_the_run_are_named_with_both_values(
    resumed_dir, prepared_dir, run_config, changes, message
):
    before = files(resumed_dir)
    config = run_config
    for section, values in changes.items():
        if section != "domains":
            values = dataclasses.replace(getattr(config, section), **values)
        config = dataclasses.replace(config, **{section: values})
    with pytest.raises(ValueError, match=message):
        run(config, schedule(12), prepared_dir, resumed_dir)
    assert files(resumed_dir) == before


@pytest.mark.parametrize(
    ("eval_every", "step"),
    [
        # Found in validation, since the loss of step 9 is that of the parameters before it.
        (1, 9),
        (4, 10),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    tmp_path, trained_dir, prepared_dir, run_config, eval_every, step
):
    # The next update is as large as with a huge learning rate, which would be compiled anew.
    state = restored_state(trained_dir, 8, run_config)
    moments = jax.tree.map(
        lambda leaf: leaf * 1e30 if leaf.ndim else leaf, state.autoencoder_optimizer
    )
    with checkpoint.Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(state.replace(autoencoder_optimizer=moments), run_config, {}, 5.5)
    before = files(tmp_path / "checkpoints")
    message = f"The reconstruction loss of Cello is nan at step {step}.* smaller --learning_rate"
    with pytest.raises(ValueError, match=message):
        run(run_config, schedule(12, eval_every), prepared_dir, tmp_path)
    assert files(tmp_path / "checkpoints") == before
    assert reading.read_config(str(tmp_path)) == run_config


def test_segments_longer_than_prepared_are_refused_before_anything_is_written(
    tmp_path, prepared_dir, run_config
):
    training = dataclasses.replace(run_config.training, segment_samples=2000)
    config = dataclasses.replace(run_config, training=training)
    with pytest.raises(ValueError, match="1024 samples, fewer than segment_samples=2000"):
        run(config, schedule(8), prepared_dir, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_cannot_be_written_is_an_error(tmp_path, prepared_dir, run_config):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        run(run_config, schedule(8), prepared_dir, tmp_path / "file" / "run")


def test_a_full_disk_is_noticed_when_metrics_are_written(tmp_path, monkeypatch, run_config):
    def write(writer, data):
        raise OSError("No space left on device")

    history = [{"reconstruction": np.ones(2), "classification": 1.0, "classifier_accuracy": 0.5}]
    with metrics_log.MetricsLog(str(tmp_path), run_config, 0, 10) as log:
        log.train(1, history, learning_rate=1e-3)
        monkeypatch.setattr(record_writer.RecordWriter, "write", write)
        with pytest.raises(OSError, match="No space left"):
            log.train(2, history, learning_rate=1e-3)


def command(*flags):
    return commands.run("experiments.train", *flags)


FLAGFILES = tempfile.TemporaryDirectory()


def as_flags(config):
    """Returns the arguments of a configuration: a flagfile, in which --preset is a name alone."""
    fields = config.to_json()
    lines = [f"--preset={config.preset}"] + [
        f"--{name}={value}"
        for section in ("model", "training")
        for name, value in fields[section].items()
        # Those of the data, and what is trained afterwards.
        if name not in ("sample_rate_hz", "mu_law", "rms_dbfs", "guide_channels")
    ]
    text = "".join(f"{line}\n" for line in lines)
    path = Path(FLAGFILES.name, f"{hashlib.sha256(text.encode()).hexdigest()}.flags")
    path.write_text(text)
    return [f"--flagfile={path}"]


@pytest.mark.slow  # Its sizes are compiled for it alone.
def test_the_command_trains_one_domain_without_confusion(tmp_path, prepared_dir, run_config):
    finished = command(
        *as_flags(run_config),
        f"--data_dir={prepared_dir}",
        f"--workdir={tmp_path}",
        "--domains=Piano",
        "--encoder_layers=1",
        "--decoder_layers=1",
        "--confusion_weight=0",
        "--cpu_devices=4",
        "--num_steps=2",
        "--log_every=1",
        "--eval_audio_seconds=0",
    )
    assert finished.returncode == 0, finished.stderr
    lines = [line.partition("] ")[2] for line in finished.stderr.splitlines()]
    assert lines[0].startswith("Parameters: encoder ")
    for step, line in enumerate(lines[1:3], 1):
        assert re.match(rf"step {step}/2  reconstruction 5\.\d{{3}} nats \(Piano 5.*left$", line)
    assert lines[3].startswith("step 2  validation: reconstruction 5.") and len(lines) == 4
    config = reading.read_config(str(tmp_path))
    assert config.domains == ("Piano",) and config.training.confusion_weight == 0
    assert config.model.skip_channels == run_config.model.skip_channels


def test_bad_flags_are_one_line_and_exit_status_1(tmp_path, prepared_dir):
    finished = command(
        f"--data_dir={prepared_dir}", f"--workdir={tmp_path / 'run'}", "--segment_samples=1000"
    )
    assert finished.returncode == 1
    assert finished.stderr.splitlines() == [
        "error: --segment_samples=1000 must be a multiple of --pool_samples=800, so that latent "
        "frames cover whole segments. Nearest: --segment_samples=800 or 1600."
    ]
    assert not (tmp_path / "run").exists()
