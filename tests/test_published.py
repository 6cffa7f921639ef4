"""Imports of published checkpoints; `make test-torch` installs what they are read with."""

import argparse
import os
import pathlib
import sys
import types
import zipfile

import commands
import jax
import numpy as np
import published_code
import pytest
import soundfile

from umt_jax import published
from umt_jax.checkpoints import checkpoint, reading

torch = pytest.importorskip("torch", reason="PyTorch is an extra: make test-torch")

NETWORKS = {
    "encoder_state": "encoder",
    "decoder_state": "decoder_{}",
    "discriminator_state": "classifier",
}


def args_content(**changed):
    """What args.pth holds: the options, with its folders as paths, and the last epoch."""
    options, epoch = published_code.options()
    options |= {"data": [pathlib.PosixPath(path) for path in options["data"]]} | changed
    return [argparse.Namespace(**options), epoch]


def states(domain):
    """What lastmodel_<domain>.pth holds."""
    content = {
        state: {
            name: torch.from_numpy(array)
            for name, array in published_code.arrays_of(network.format(domain)).items()
        }
        for state, network in NETWORKS.items()
    }
    return content | {"model_optimizer_state": {"state": {}, "param_groups": []}, "dataset": domain}


def write(folder, which="lastmodel", *, new_format=True):
    """Writes a folder as the published code does, in today's file format or that of 2019."""
    folder.mkdir(exist_ok=True)
    options = {"_use_new_zipfile_serialization": new_format}
    torch.save(args_content(), folder / "args.pth", **options)
    for domain in range(published_code.NUM_DOMAINS):
        torch.save(states(domain), folder / f"{which}_{domain}.pth", **options)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "published")


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("which", ["lastmodel", "bestmodel"])
def test_a_folder_is_read_whole(tmp_path, which, new_format):
    folder = write(tmp_path / "published", which, new_format=new_format)
    config, parameters, epoch = published.read(folder, which=which)
    assert config == published_code.config() and epoch == published_code.options()[1]
    jax.tree.map(np.testing.assert_array_equal, parameters, published_code.parameters())


def test_domains_can_be_named(folder):
    config, _, _ = published.read(folder, domain_names=["Cello", "Oboe", "Piano"])
    assert config.domains == ("Cello", "Oboe", "Piano")


def test_six_domains_are_those_of_the_published_weights(tmp_path):
    folder = tmp_path / "six"
    folder.mkdir()
    torch.save(args_content(n_datasets=6), folder / "args.pth")
    outputs = {name: torch.zeros(6, *size) for name, size in (("weight", (10, 1)), ("bias", ()))}
    for domain in range(6):
        content = states(domain % 3)
        for name, array in outputs.items():
            content["discriminator_state"][f"convs.6.{name}"] = array
        torch.save(content, folder / f"lastmodel_{domain}.pth")
    assert published.read(folder)[0].domains == published.MUSICNET_DOMAINS


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
@pytest.mark.parametrize("new_format", [True, False])
def test_folders_of_a_run_on_windows_give_its_names(folder, monkeypatch, module, new_format):
    # As Python writes there, before and since 3.13: on other systems there is no such path.
    kind = type("WindowsPath", (), {"__module__": module})
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(WindowsPath=kind))

    class Written:
        def __init__(self, *parts):
            self.parts = parts

        def __reduce__(self):
            return kind, self.parts

    data = [Written("D:\\", "music", name) for name in ("Cello", "Oboe d'amore", "Klavier")]
    content = args_content(data=data)
    with (folder / "args.pth").open("wb") as file:
        torch.save(content, file, _use_new_zipfile_serialization=new_format)
    monkeypatch.undo()
    assert f"{module}\nWindowsPath".encode() in pickled(folder / "args.pth")
    assert published.read(folder)[0].domains == ("Cello", "Oboe d'amore", "Klavier")


def pickled(path):
    """Returns the pickle in a file of PyTorch's, of either format."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return archive.read(name)


class Command:
    """Unpickled by a reader that does what the file says, runs a command."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("name", ["args.pth", "lastmodel_1.pth"])
def test_a_pickle_that_would_run_a_command_is_refused_without_running_it(
    tmp_path, folder, name, new_format
):
    marker = tmp_path / "was_run"
    content = args_content() if name == "args.pth" else states(1)
    content = [content, Command(marker)]
    torch.save(content, folder / name, _use_new_zipfile_serialization=new_format)
    with pytest.raises(ValueError, match=rf"{name} wants to run (posix|os)\.system, .* was run"):
        published.read(folder)
    assert not marker.exists()
    # The file does what it is meant to.
    torch.load(folder / name, weights_only=False)
    assert marker.exists()


def rewrite(folder, name, change):
    content = torch.load(folder / name, weights_only=False)
    change(content)
    torch.save(content, folder / name)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda folder: (folder / "args.pth").unlink(),
            FileNotFoundError,
            r"--input=.*published has no args\.pth, as .* checkpoints/NAME",
        ),
        (
            lambda folder: (folder / "lastmodel_1.pth").unlink(),
            FileNotFoundError,
            r"lacks lastmodel_1\.pth; .* 3 domains, .* There are: lastmodel_0\.pth, lastmodel_2",
        ),
        (
            lambda folder: [(folder / f"lastmodel_{k}.pth").unlink() for k in (1, 2)],
            FileNotFoundError,
            r"lacks lastmodel_1\.pth, lastmodel_2\.pth; .* one decoder for all domains, which can",
        ),
        (
            lambda folder: torch.save(states(0), folder / "lastmodel_3.pth"),
            ValueError,
            r"has lastmodel_3\.pth, but args\.pth says 3 domains",
        ),
        (
            lambda folder: cut_short(folder / "lastmodel_2.pth"),
            ValueError,
            r"lastmodel_2\.pth cannot be read: it is damaged",
        ),
        (
            lambda folder: cut_short(folder / "args.pth"),
            ValueError,
            r"args\.pth cannot be read: it is damaged",
        ),
        (
            lambda folder: (folder / "lastmodel_2.pth").write_bytes(b""),
            ValueError,
            r"lastmodel_2\.pth cannot be read: it is damaged",
        ),
        (
            lambda folder: (folder / "lastmodel_2.pth").write_text("<html>Not found</html>"),
            ValueError,
            r"lastmodel_2\.pth cannot be read: it is damaged",
        ),
        (
            lambda folder: torch.save({"lr": 1.0}, folder / "args.pth"),
            ValueError,
            r"args\.pth is not the args\.pth of the published code",
        ),
        (
            lambda folder: torch.save({"model": {}}, folder / "lastmodel_0.pth"),
            ValueError,
            r"lastmodel_0\.pth is no checkpoint of the published code: it lacks encoder_state",
        ),
        (
            lambda folder: torch.save(torch.zeros(2), folder / "lastmodel_0.pth"),
            ValueError,
            r"lastmodel_0\.pth is no checkpoint of the published code: it holds no dict",
        ),
        (
            lambda folder: rewrite(
                folder,
                "lastmodel_1.pth",
                lambda content: content["encoder_state"]["start.bias"].add_(1e-6),
            ),
            ValueError,
            r"The encoders of lastmodel_0\.pth and lastmodel_1\.pth differ in 1 of 36 arrays, "
            r"start\.bias first",
        ),
        (
            lambda folder: rewrite(
                folder,
                "lastmodel_2.pth",
                lambda content: content["discriminator_state"].pop("convs.0.bias"),
            ),
            ValueError,
            r"The classifiers of .* and lastmodel_2\.pth differ .* convs\.0\.bias is in one alone",
        ),
    ],
)
def test_a_folder_that_is_no_whole_checkpoint_is_refused(folder, spoil, error, message):
    spoil(folder)
    with pytest.raises(error, match=message):
        published.read(folder)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"n_datasets": None}, ValueError, "n_datasets is None, not a number"),
        (
            {"n_datasets": 10**9},
            ValueError,
            "n_datasets is 1000000000, not a number of domains, 1 to 10000",
        ),
        (
            {"n_datasets": 9_999},
            FileNotFoundError,
            r"lacks lastmodel_3\.pth, .*lastmodel_12\.pth and 9986 more; args\.pth says 9999 ",
        ),
        ({"seq_len": float("inf")}, ValueError, "seq_len is inf instead of a whole number"),
        ({"encoder_layers": 10**6}, ValueError, "encoder_layers=1000000 must be at most 30"),
        (
            {"layers": 5},
            ValueError,
            r"published does not fit its args\.pth: the decoder 0 lacks layers\.[89]\.",
        ),
        ({"seq_len": 250}, ValueError, r"args\.pth: segment_samples=250 must be a multiple"),
        (
            {"data": ["a/x", "b/x", "c"]},
            ValueError,
            "give no 3 names. Name its domains with --domain_names=name0,name1,name2",
        ),
    ],
)
def test_options_that_do_not_fit_the_folder_are_named(folder, changed, error, message):
    torch.save(args_content(**changed), folder / "args.pth")
    with pytest.raises(error, match=message):
        published.read(folder)


def test_a_wrong_number_of_names_is_refused(folder):
    message = r"--domain_names has 2 names \(A, B\) for 3 domains\. Give 3, in the order"
    with pytest.raises(ValueError, match=message):
        published.read(folder, domain_names=["A", "B"])


def test_an_import_translates_and_is_never_overwritten(tmp_path, rng, folder):
    # A folder's name may be a pattern to glob, or no URL; see also checkpoints/test_stored_arrays.
    workdir = tmp_path / "run [final] #2 50% ?*{x}"
    flags = [f"--input={folder}", f"--output={workdir}"]
    finished = commands.run("umt_jax.published", *flags)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == f"Imported epoch 7 with domain_0, domain_1, domain_2 to {workdir}.\n"
    assert finished.stderr == ""
    assert reading.read_config(str(workdir)) == published_code.config()
    jax.tree.map(
        np.testing.assert_array_equal,
        checkpoint.restore_parameters(str(workdir)),
        published_code.parameters(),
    )

    soundfile.write(tmp_path / "tone.wav", rng.uniform(-0.5, 0.5, size=1000), 16_000)
    translated = commands.run(
        "umt_jax.infer",
        f"--checkpoint={workdir}",
        f"--input={tmp_path / 'tone.wav'}",
        "--domain=domain_2",
        f"--output={tmp_path / 'out'}",
    )
    assert translated.returncode == 0, translated.stderr
    waveform, rate_hz = soundfile.read(tmp_path / "out" / "tone.domain_2.wav")
    assert (len(waveform), rate_hz) == (1000, 16_000) and np.abs(waveform).max() > 0

    again = commands.run("umt_jax.published", *flags)
    assert again.returncode == 1
    assert again.stderr == (
        f"error: --output={workdir} holds a run already. Name another folder.\n"
    )


def test_a_bad_folder_is_one_line_and_writes_nothing(tmp_path):
    workdir = tmp_path / "run"
    finished = commands.run("umt_jax.published", f"--input={tmp_path}", f"--output={workdir}")
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"error: --input={tmp_path} has no args.pth")
    assert not workdir.exists()
