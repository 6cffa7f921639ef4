import dataclasses
import errno
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from conftest import random_parameters

import umt_jax
from umt_jax import storage
from umt_jax.checkpoints import checkpoint, integrity, reading
from umt_jax.model import networks
from umt_jax.training import sharding, train_state


def make_state(config, step):
    """A state whose every number is another at every step."""
    parameters = random_parameters(networks.Networks(config), seed=step)
    state = train_state.create(parameters, train_state.make_optimizers(config.training), config)
    rng = np.random.default_rng(step)
    state = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape).astype(leaf.dtype)), state
    )
    return state.replace(parameters=parameters, step=jnp.int32(step))


def save(workdir, config, losses):
    """Saves a state for each validation loss, at steps 1, 2, 3, ..."""
    with checkpoint.Checkpoints(str(workdir)) as checkpoints:
        for step, loss in enumerate(losses, 1):
            checkpoints.save(make_state(config, step), config, {"Cello": {}}, loss)


def steps_in(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def assert_same(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, run_config):
    """A run whose second of three checkpoints is the best."""
    workdir = tmp_path_factory.mktemp("saved")
    save(workdir, run_config, [3.0, 1.0, 2.0])
    return workdir


def test_the_newest_and_the_best_are_kept(saved):
    assert steps_in(saved) == [2, 3]
    assert reading.has_checkpoint(str(saved))


def test_a_restored_state_is_the_saved_one_bit_for_bit(saved, run_config):
    with checkpoint.Checkpoints(str(saved)) as checkpoints:
        assert checkpoints.newest_step() == 3
        restored = checkpoints.restore(3, make_state(run_config, 0))
    assert_same(restored, make_state(run_config, 3))


def test_with_an_average_inference_reads_that_and_training_goes_on_from_the_newest(
    tmp_path, run_config
):
    training = dataclasses.replace(run_config.training, ema_decay=0.9, classifier_updates=2)
    config = dataclasses.replace(run_config, training=training)
    save(tmp_path, config, [1.0])
    state = make_state(config, 1)
    assert_same(checkpoint.restore_parameters(str(tmp_path)), state.average)
    with checkpoint.Checkpoints(str(tmp_path)) as checkpoints:
        assert_same(checkpoints.restore(1, make_state(config, 0)), state)


def test_a_state_is_restored_to_the_devices_where_it_will_live(saved, run_config):
    mesh = sharding.make_mesh(2, 4, jax.devices())
    target = make_state(run_config, 0)
    target = jax.device_put(target, sharding.state_shardings(target, mesh))
    with checkpoint.Checkpoints(str(saved)) as checkpoints:
        restored = checkpoints.restore(3, target)
    assert_same(restored, make_state(run_config, 3))
    for leaf, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(target), strict=True):
        assert leaf.sharding == wanted.sharding


def test_a_state_of_other_arrays_is_refused_in_one_line(saved, run_config):
    target = make_state(run_config, 0)
    layers = target.parameters.encoder["layers"]
    unstacked = {"layers_0": layers, "layers_1": layers}
    encoder = {**target.parameters.encoder, "layers": unstacked}
    target = target.replace(parameters=target.parameters.replace(encoder=encoder))
    message = "3 does not hold the arrays of this model.*Start anew in another workdir"
    with (
        checkpoint.Checkpoints(str(saved)) as checkpoints,
        pytest.raises(ValueError, match=message),
    ):
        checkpoints.restore(3, target)


def test_what_is_read_is_the_best_unless_a_step_is_named(saved, run_config):
    best, newest = (make_state(run_config, step).parameters for step in (2, 3))
    assert_same(checkpoint.restore_parameters(str(saved)), best)
    assert_same(checkpoint.restore_parameters(str(saved), 3), newest)
    assert reading.read_config(str(saved)) == reading.read_config(str(saved), 3) == run_config
    translator = umt_jax.load(str(saved), domains=["Piano"])
    assert (translator.domains, translator.config) == (("Piano",), run_config)
    latents = np.ones((2, run_config.model.latent_channels), np.float32)
    expected = umt_jax.Translator(run_config, best).classify(latents)
    np.testing.assert_array_equal(translator.classify(latents), expected)


def test_the_best_is_known_to_a_run_that_goes_on(tmp_path, saved, run_config):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    with checkpoint.Checkpoints(str(workdir)) as checkpoints:
        checkpoints.save(make_state(run_config, 4), run_config, {}, 1.5)
    assert steps_in(workdir) == [2, 4]
    with checkpoint.Checkpoints(str(workdir)) as checkpoints:
        checkpoints.save(make_state(run_config, 5), run_config, {}, 0.5)
    assert steps_in(workdir) == [5]


def test_parameters_are_read_without_the_optimizers(tmp_path, saved, run_config):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    shutil.rmtree(workdir / "checkpoints" / "2" / "optimizers")
    expected = make_state(run_config, 2).parameters
    assert_same(checkpoint.restore_parameters(str(workdir)), expected)


def test_an_export_is_the_best_checkpoint_in_float16(tmp_path, saved, run_config):
    output = str(tmp_path / "small")
    assert checkpoint.export(str(saved), output) == (2, 1.0)
    assert checkpoint.export(output, str(tmp_path / "again")) == (2, 1.0)
    parameters = checkpoint.restore_parameters(str(saved))
    exported = checkpoint.restore_parameters(output)
    for there, here in zip(jax.tree.leaves(parameters), jax.tree.leaves(exported), strict=True):
        assert here.dtype == np.float32
        np.testing.assert_array_equal(here, np.asarray(there, np.float16).astype(np.float32))
    assert reading.read_config(output) == run_config
    with pytest.raises(ValueError, match="weights alone.*init_from"):
        integrity.set_aside(output)
    with pytest.raises(FileExistsError, match="holds a run already"):
        checkpoint.export(str(saved), output)


def test_a_state_may_be_donated_while_it_is_saved(tmp_path, run_config):
    state = make_state(run_config, 1)
    expected = jax.tree.map(np.array, state)
    overwrite = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    with checkpoint.Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(state, run_config, {}, 1.0)
        overwrite(state)
    with checkpoint.Checkpoints(str(tmp_path)) as checkpoints:
        assert_same(checkpoints.restore(1, make_state(run_config, 0)), expected)


def test_a_half_written_checkpoint_is_not_taken(tmp_path, saved, run_config):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    # What a process killed while it wrote step 4 leaves behind.
    half = workdir / "checkpoints" / "4.orbax-checkpoint-tmp"
    shutil.copytree(workdir / "checkpoints" / "3", half)
    (half / "commit_success.txt").unlink()
    shutil.rmtree(half / "optimizers")
    assert reading.read_config(str(workdir)) == run_config
    with pytest.raises(FileNotFoundError, match=r"has no step 4\. There are: 2, 3\."):
        checkpoint.restore_parameters(str(workdir), 4)
    with checkpoint.Checkpoints(str(workdir)) as checkpoints:
        assert checkpoints.newest_step() == 3
        checkpoints.save(make_state(run_config, 4), run_config, {}, 1.5)
    assert steps_in(workdir) == [2, 4]


@pytest.mark.parametrize("method", ["save", "close"])
def test_a_checkpoint_that_cannot_be_written_is_an_error_on_one_line(
    tmp_path, monkeypatch, run_config, method
):
    def fail(*args, **kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: 4.tmp/d/1: No space left on device\n\nSource:")

    message = "written to .*checkpoints, which keeps the ones before it: No space left on device$"
    with pytest.raises(OSError, match=message) as raised:
        with checkpoint.Checkpoints(str(tmp_path)) as checkpoints:
            with monkeypatch.context() as patch:
                patch.setattr(ocp.CheckpointManager, method, fail)
                if method == "save":
                    checkpoints.save(make_state(run_config, 1), run_config, {}, 1.0)
                else:
                    checkpoints.__exit__()
    assert "\n" not in str(raised.value)


def missing(folder):
    return FileNotFoundError, ".* is not the folder of a training run"


def file_instead_of_folder(folder):
    folder.touch()
    return FileNotFoundError, ".* is not the folder of a training run"


def empty(folder):
    (folder / "checkpoints").mkdir(parents=True)
    return FileNotFoundError, ".* holds no finished checkpoint yet"


def interrupted_in_its_first_checkpoint(folder):
    (folder / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir(parents=True)
    return FileNotFoundError, ".* holds no finished checkpoint yet"


def empty_folder_named_as_a_step(folder):
    (folder / "checkpoints" / "5").mkdir(parents=True)
    return FileNotFoundError, ".* holds no finished checkpoint yet"


def random_folder(folder):
    (folder / "checkpoints" / "5" / "photos").mkdir(parents=True)
    return ValueError, r"checkpoints/\d is damaged, or holds a checkpoint of another program"


def one_array_of_another_program(folder):
    with ocp.CheckpointManager(folder / "checkpoints") as manager:
        manager.save(7, args=ocp.args.StandardSave({"weights": np.ones(3)}))
    return ValueError, r"checkpoints/\d is damaged, or holds a checkpoint of another program"


def configuration_of_another_program(folder):
    with ocp.CheckpointManager(folder / "checkpoints") as manager:
        manager.save(7, args=ocp.args.Composite(config=ocp.args.JsonSave({"batch": 3})))
    return ValueError, "does not fit: This is no configuration of umt_jax: it lacks 'domains'"


@pytest.mark.parametrize(
    "prepare",
    [
        missing,
        file_instead_of_folder,
        empty,
        interrupted_in_its_first_checkpoint,
        empty_folder_named_as_a_step,
        random_folder,
        one_array_of_another_program,
        configuration_of_another_program,
    ],
)
def test_a_missing_or_foreign_checkpoint_is_named_on_one_line(tmp_path, prepare):
    error, message = prepare(tmp_path / "run")
    with pytest.raises(error, match=message) as raised:
        umt_jax.load(str(tmp_path / "run"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("part", ["config", "parameters"])
def test_a_damaged_checkpoint_is_named(tmp_path, saved, part):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    for parent, _, names in os.walk(workdir / "checkpoints" / "2" / part):
        for name in names:
            with open(os.path.join(parent, name), "r+b") as file:
                file.truncate(7)
    message = f"checkpoints/2 is damaged, or .* its {part} cannot be read"
    if part == "config":
        message = "checkpoints/2/config/metadata is damaged: its checksum is another"
    with pytest.raises(ValueError, match=message):
        umt_jax.load(str(workdir))


def test_an_unknown_domain_lists_those_of_the_checkpoint(saved):
    with pytest.raises(ValueError, match="no domain 'Oboe' in this model. There are: Cello, Piano"):
        umt_jax.load(str(saved), domains=["Piano", "Oboe"])


def test_a_checkpoint_of_a_later_version_says_what_it_does_not_know(tmp_path, run_config):
    fields = run_config.to_json()
    fields["model"]["flux"] = 88
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        manager.save(7, args=ocp.args.Composite(config=ocp.args.JsonSave(fields)))
    with pytest.raises(ValueError, match=r"does not know model\.flux, which a newer one wrote"):
        reading.read_config(str(tmp_path))


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(saved, monkeypatch):
    def refuse(folder):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(folder))

    monkeypatch.setattr(storage, "check_can_be_entered", refuse)
    with pytest.raises(PermissionError) as refused:
        umt_jax.load(str(saved))
    assert refused.value.filename == str(saved / "checkpoints" / "2")
