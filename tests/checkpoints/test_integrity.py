import gc
import os
import shutil

import pytest
from conftest import mostly_thorough
from test_checkpoint import assert_same, make_state, steps_in
from test_checkpoint import saved as saved  # A fixture: of three steps, 2 and 3 are there.

from umt_jax.checkpoints import checkpoint, integrity, reading

# Of a read that fails Orbax leaves other parts under way, which then find its event loop closed: an
# error that shows when they are collected as garbage, so that happens before the next test.
orbax_leaves_parts_under_way = pytest.mark.filterwarnings(
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def garbage():
    yield
    gc.collect()


@pytest.fixture
def workdir(tmp_path, saved):
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


def half(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def empty(path):
    path.write_bytes(b"")


def gone(path):
    path.unlink()


def replaced(old, new):
    """A flipped bit here and there: the file is still JSON."""

    def harm(path):
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new, 1))

    return harm


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def endless(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def nested(path):
    path.write_text("[" * 100_000)


def far_too_large(path):
    with path.open("wb") as file:
        file.truncate(2**40)


def restore_newest(workdir, config):
    with checkpoint.Checkpoints(str(workdir)) as checkpoints:
        return checkpoints.restore(checkpoints.newest_step(), make_state(config, 0))


def largest_file(folder):
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )


def test_whole_checkpoints_are_left_alone(workdir, caplog):
    integrity.set_aside(str(workdir))
    assert steps_in(workdir) == [2, 3] and not caplog.records


def test_a_run_that_does_not_exist_yet_is_none_of_its_business(tmp_path):
    integrity.set_aside(str(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_a_half_written_checkpoint_is_named_and_removed(workdir, caplog):
    half_written = workdir / "checkpoints" / "4.orbax-checkpoint-tmp"
    (half_written / "parameters.orbax-checkpoint-tmp").mkdir(parents=True)
    integrity.set_aside(str(workdir))
    assert steps_in(workdir) == [2, 3]
    assert caplog.messages == [f"Removing {half_written}, half-written by a run that was killed."]


DAMAGE = [
    ("config/metadata", half),
    ("parameters/_METADATA", gone),
    ("optimizers/ocdbt.process_0", empty),
    ("metrics/metrics", empty),
    ("parameters/manifest.ocdbt", half),
    ("optimizers/ocdbt.process_0", half),
    ("optimizers/ocdbt.process_0", gone),
    ("parameters/_METADATA", replaced(b'"key_type"', b'"key_typd"')),
    ("parameters/_METADATA", replaced(b'"key": "bias"', b'"key": "bkas"')),
    ("optimizers/array_metadatas/process_0", replaced(b'"write_shape"', b'"wrhte_shape"')),
    ("optimizers/array_metadatas/process_0", replaced(b"decoders", b"dekoders")),
    ("config/metadata", replaced(b'"pool_samples"', b'"pool_sampler"')),
    ("config/metadata", replaced(b'"float32"', b'"float3r"')),
    ("config/metadata", replaced(b'"sample_rate_hz": 8000', b'"sample_rate_hz": 8001')),
    ("metrics/metrics", replaced(b'"reconstruction": 2', b'"reconstruction": 0')),
    ("dataset/metadata", replaced(b"Cello", b"Cellm")),
    ("config/sha256", half),
    ("config/metadata", nested),
    ("config/metadata", a_pipe),
    ("config/metadata", endless),
    ("config/metadata", far_too_large),
    ("parameters/_METADATA", a_pipe),
]


@orbax_leaves_parts_under_way
@pytest.mark.usefixtures("garbage")
@pytest.mark.parametrize(("file", "harm"), mostly_thorough(DAMAGE, every_day=3))
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    workdir, run_config, caplog, file, harm
):
    path = workdir / "checkpoints" / "3" / file
    harm(largest_file(path) if path.is_dir() else path)
    integrity.set_aside(str(workdir))
    assert caplog.messages[0].startswith(f"Leaving out {workdir}/checkpoints/3, which is damaged: ")
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "3.damaged"]
    assert_same(restore_newest(workdir, run_config), make_state(run_config, 2))


@pytest.mark.slow
@orbax_leaves_parts_under_way
@pytest.mark.usefixtures("garbage")
@pytest.mark.parametrize("harm", [half, empty, gone])
def test_what_is_left_can_be_loaded_whichever_file_is_damaged(tmp_path, saved, run_config, harm):
    files = [path for path in (saved / "checkpoints" / "3").rglob("*") if path.is_file()]
    for number, file in enumerate(files):
        workdir = tmp_path / str(number)
        shutil.copytree(saved, workdir)
        harm(workdir / file.relative_to(saved))
        integrity.set_aside(str(workdir))
        step = max(checkpoint.ocp.utils.checkpoint_steps(reading.folder_of(str(workdir))))
        assert_same(restore_newest(workdir, run_config), make_state(run_config, step))
        shutil.rmtree(workdir)


def test_where_every_checkpoint_is_damaged_nothing_is_touched(workdir):
    for step in (2, 3):
        half(workdir / "checkpoints" / str(step) / "config" / "metadata")
    message = r"No checkpoint in .* \(2: .*metadata: .*; 3: .*\). .* anew in another workdir\."
    with pytest.raises(ValueError, match=message) as raised:
        integrity.set_aside(str(workdir))
    assert steps_in(workdir) == [2, 3] and "\n" not in str(raised.value)


def test_what_cannot_be_reached_is_not_taken_for_damaged(workdir, monkeypatch):
    def fail(folder):
        raise ValueError("UNAVAILABLE: CURL error Timeout was reached")

    monkeypatch.setattr(integrity, "_read_arrays", fail)
    with pytest.raises(OSError, match="checkpoints/2 cannot be reached: UNAVAILABLE"):
        integrity.set_aside(str(workdir))
    assert steps_in(workdir) == [2, 3]


def test_what_a_killed_run_did_not_delete_to_the_end_is_ignored_and_then_removed(
    workdir, run_config, caplog
):
    deleted = workdir / "checkpoints" / "deleted" / "1"
    shutil.copytree(workdir / "checkpoints" / "2" / "config", deleted / "config")
    integrity.set_aside(str(workdir))
    assert not caplog.records and reading.read_config(str(workdir)) == run_config
    with checkpoint.Checkpoints(str(workdir)) as checkpoints:
        assert checkpoints.newest_step() == 3
        checkpoints.save(make_state(run_config, 4), run_config, {}, 1.5)
    assert steps_in(workdir) == [2, 4]
