"""Folders whose names are patterns or URLs to others: written, read back, repaired."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath
from test_checkpoint import assert_same, make_state, save, steps_in
from test_checkpoint import saved as saved  # A fixture: of three steps, 2 and 3 are there.

import umt_jax
from umt_jax.checkpoints import checkpoint, integrity, orbax_handlers, reading, stored_arrays

NAME = "v2 [final] #2 50% ?*{x}"


@pytest.fixture
def unmerged(tmp_path, monkeypatch, run_config):
    """A run as Orbax alone saves it in a folder with brackets: nothing of it can be loaded."""
    with monkeypatch.context() as patch:
        patch.setattr(
            orbax_handlers.ArraysHandler, "finalize", ocp.StandardCheckpointHandler.finalize
        )
        save(tmp_path / NAME, run_config, [3.0, 1.0, 2.0])
    for step in (2, 3):
        for part in checkpoint.ARRAYS:
            folder = tmp_path / NAME / "checkpoints" / str(step) / part
            assert not (folder / "manifest.ocdbt").exists()
            assert (folder / "ocdbt.process_0" / "manifest.ocdbt").exists()
    return tmp_path / NAME


def restore(workdir, step, config):
    with checkpoint.Checkpoints(str(workdir)) as checkpoints:
        return checkpoints.restore(step, make_state(config, 0))


def test_a_run_may_lie_in_a_folder_whose_name_is_a_pattern(tmp_path, run_config, caplog):
    workdir = tmp_path / NAME
    save(workdir, run_config, [3.0, 1.0, 2.0])
    caplog.clear()  # Orbax warns of saves that take long.
    integrity.set_aside(str(workdir))
    assert steps_in(workdir) == [2, 3] and not caplog.records
    assert_same(restore(workdir, 3, run_config), make_state(run_config, 3))
    best = make_state(run_config, 2).parameters
    assert_same(checkpoint.restore_parameters(str(workdir)), best)
    exported = tmp_path / "[exported] 100%"
    assert checkpoint.export(str(workdir), str(exported)) == (2, 1.0)
    assert umt_jax.load(str(exported)).domains == run_config.domains


def test_its_files_are_those_that_orbax_writes_elsewhere(tmp_path, saved, run_config):
    save(tmp_path / NAME, run_config, [3.0, 1.0, 2.0])
    moved = tmp_path / "moved"
    shutil.move(tmp_path / NAME, moved)
    for step in (2, 3):
        folders = [run / "checkpoints" / str(step) for run in (moved, saved)]
        handlers = [
            json.loads((folder / "_CHECKPOINT_METADATA").read_text())["item_handlers"]
            for folder in folders
        ]
        assert handlers[0] == handlers[1]
        trees = [
            ocp.StandardCheckpointHandler().restore(epath.Path(folder) / "parameters")
            for folder in folders
        ]
        assert_same(*trees)


def test_a_good_checkpoint_outlives_one_that_cannot_be_read_back(
    tmp_path, saved, monkeypatch, run_config
):
    workdir = tmp_path / NAME
    shutil.copytree(saved, workdir)
    with monkeypatch.context() as patch:
        patch.setattr(stored_arrays, "merge", lambda folder: None)
        with pytest.raises(OSError, match="could not be written to .* keeps the ones before it"):
            with checkpoint.Checkpoints(str(workdir)) as checkpoints:
                checkpoints.save(make_state(run_config, 4), run_config, {}, 0.5)
    integrity.set_aside(str(workdir))
    assert steps_in(workdir) == [2, 3]
    for step in (2, 3):
        assert_same(restore(workdir, step, run_config), make_state(run_config, step))


def test_a_run_that_was_never_merged_is_repaired_when_it_goes_on(unmerged, run_config, caplog):
    integrity.set_aside(str(unmerged))
    assert [message.split()[0] for message in caplog.messages] == ["Repaired"] * 4
    for step in (2, 3):
        assert_same(restore(unmerged, step, run_config), make_state(run_config, step))


def test_a_run_that_was_never_merged_is_repaired_when_it_is_read(tmp_path, unmerged, run_config):
    best = make_state(run_config, 2).parameters
    assert_same(checkpoint.restore_parameters(str(unmerged)), best)
    # Moved to a folder of a plain name it is no other.
    plain = tmp_path / "plain"
    shutil.move(unmerged, plain)
    newest = make_state(run_config, 3).parameters
    assert_same(checkpoint.restore_parameters(str(plain), 3), newest)


def test_a_run_of_which_bytes_are_missing_is_not_repaired(unmerged):
    for path in (unmerged / "checkpoints" / "2" / "parameters" / "ocdbt.process_0").iterdir():
        if path.is_file():
            path.unlink()
    with pytest.raises(ValueError, match=r"2 is damaged, or .* its parameters cannot be read"):
        checkpoint.restore_parameters(str(unmerged))
    integrity.set_aside(str(unmerged))
    assert reading.steps(reading.folder_of(str(unmerged))) == [3]


def test_an_index_that_lacks_arrays_is_found_when_it_is_written(tmp_path, saved):
    folder = epath.Path(tmp_path / "parameters")
    shutil.copytree(saved / "checkpoints" / "2" / "parameters", folder)
    stored_arrays.check_complete(folder)
    other = saved / "checkpoints" / "2" / "optimizers" / "ocdbt.process_0"
    shutil.copytree(other, folder / "ocdbt.process_1")
    with pytest.raises(ValueError, match=r"lacks \d+ of its entries"):
        stored_arrays.check_complete(folder)
    stored_arrays.check(folder)  # What it knows is there.


@pytest.mark.parametrize(
    ("name", "reason"),
    [(b"r\xffn", "it is no UTF-8"), (b"a\\b", "below a name with a backslash")],
)
def test_a_folder_in_which_no_checkpoint_can_be_written_is_refused_at_once(
    tmp_path, saved, name, reason
):
    workdir = os.path.join(tmp_path, os.fsdecode(name))
    for use in (
        integrity.set_aside,
        checkpoint.Checkpoints,
        checkpoint.restore_parameters,
        lambda workdir: checkpoint.export(str(saved), workdir),
    ):
        with pytest.raises(ValueError, match=reason):
            use(workdir)
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_named_as_a_step_is_no_checkpoint(tmp_path, saved, run_config, caplog):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    (workdir / "checkpoints" / "9").mkdir()
    assert reading.steps(reading.folder_of(str(workdir))) == [2, 3]
    assert_same(checkpoint.restore_parameters(str(workdir)), make_state(run_config, 2).parameters)
    with pytest.raises(FileNotFoundError, match=r"has no step 9\. There are: 2, 3\."):
        reading.read_config(str(workdir), 9)
    caplog.clear()
    integrity.set_aside(str(workdir))
    assert caplog.messages == [f"Removing {workdir}/checkpoints/9: it is empty, so no checkpoint."]
    with checkpoint.Checkpoints(str(workdir)) as checkpoints:
        assert checkpoints.newest_step() == 3


def test_beside_an_empty_folder_named_as_a_step_a_run_may_begin(tmp_path, run_config):
    workdir = tmp_path / "run"
    (workdir / "checkpoints" / "9").mkdir(parents=True)
    assert not reading.has_checkpoint(str(workdir))
    integrity.set_aside(str(workdir))
    (workdir / "checkpoints" / "9").mkdir()
    save(workdir, run_config, [1.0])
    assert steps_in(workdir) == [1]


def cast(state, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), state)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.int32])
def test_arrays_of_another_type_are_refused_on_resuming(tmp_path, run_config, dtype):
    state = make_state(run_config, 1)
    state = state.replace(parameters=cast(state.parameters, dtype))
    with checkpoint.Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(state, run_config, {}, 1.0)
    name = jnp.dtype(dtype).name
    message = rf"1 does not hold the arrays of this model \(parameters\.\S+ is {name} \[.*, not "
    with pytest.raises(ValueError, match=message + r"float32 \[.*, and \d+ more\)"):
        restore(tmp_path, 1, run_config)
    if dtype != jnp.float16:  # In which exports are.
        with pytest.raises(ValueError, match=rf"does not hold the parameters.* is {name} \["):
            checkpoint.restore_parameters(str(tmp_path))


def test_a_step_that_is_no_integer_is_refused_on_resuming(tmp_path, run_config):
    state = make_state(run_config, 1).replace(step=jnp.float32(1))
    with checkpoint.Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(state, run_config, {}, 1.0)
    with pytest.raises(ValueError, match=r"\(optimizers\.step is float32 \[\], not int32 \[\]\)"):
        restore(tmp_path, 1, run_config)


def test_arrays_of_another_shape_are_refused_on_reading(tmp_path, run_config):
    state = make_state(run_config, 1)
    longer = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), state.parameters.classifier)
    state = state.replace(parameters=state.parameters.replace(classifier=longer))
    with checkpoint.Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(state, run_config, {}, 1.0)
    with pytest.raises(ValueError, match=r"\(?parameters.*: classifier\.\S+ is float32 \[.*, not"):
        checkpoint.restore_parameters(str(tmp_path))
