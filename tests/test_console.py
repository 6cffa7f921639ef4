import configparser
import glob
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from umt_jax import console, own_packages

ROOT = Path(__file__).parents[1]


def start(name, *arguments, cwd, **environment):
    """Runs a console command as the script that pip installs for it does."""
    script = f"import sys; sys.argv[0] = '/bin/{name}'; sys.path[0] = {str(ROOT)!r}; "
    script += "from umt_jax.console import main; main()"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_every_console_command_is_installed_and_has_a_module():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.entry_points"]["console_scripts"].split("\n")
    installed = dict(line.split(" = ") for line in lines if line)
    assert installed == dict.fromkeys(console.MODULES, "umt_jax.console:main")
    for module in console.MODULES.values():
        assert importlib.util.find_spec(module) is not None


def test_every_file_that_is_no_python_is_in_the_wheel_too():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packed = {
        path
        for package, patterns in setup["options.package_data"].items()
        for pattern in patterns.split()
        for path in glob.glob(str(ROOT.joinpath(*package.split("."), pattern)), recursive=True)
    }
    for package in own_packages.NAMES:
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                assert str(path) in packed


def test_every_module_that_can_be_run_has_a_console_command():
    runnable = set()
    for package in own_packages.NAMES:
        for path in (ROOT / package).rglob("*.py"):
            if 'if __name__ == "__main__":' in path.read_text():
                parts = path.relative_to(ROOT).with_suffix("").parts
                runnable.add(".".join(parts[:-1] if parts[-1] == "__main__" else parts))
    # The former name of umt_jax.blend goes with the next release.
    assert runnable - {"experiments.blend"} == set(console.MODULES.values())


def test_help_lists_the_flags_of_the_command_with_defaults_and_no_others(tmp_path):
    finished = start("umt-build", "--help", cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("Makes a sharded dataset out of folders of sound files")
    listed = [line.split()[0] for line in finished.stdout.splitlines() if line.startswith("  --")]
    names = {name.removeprefix("--").removeprefix("[no]").rstrip(":") for name in listed}
    assert {"audio_dir", "data_dir", "sample_rate_hz", "overwrite", "seed"} <= names
    assert not names & {"verbosity", "logtostderr", "help", "checkpoint", "workdir"}
    assert "--data_dir: Folder of the datasets.\n    (required)" in finished.stdout
    assert "(default: '16000'" in finished.stdout


def test_a_folder_of_the_same_name_elsewhere_is_said_in_a_line(tmp_path):
    (tmp_path / "data_prep").mkdir()
    (tmp_path / "data_prep" / "__init__.py").touch()
    line = f"umt_jax needs its own package 'data_prep', {ROOT / 'data_prep'}, but Python finds "
    line += f"{tmp_path / 'data_prep'}. Rename that folder or module, or work in another folder."
    environment = {"PYTHONPATH": str(tmp_path)}
    script = f"import sys; sys.path[0] = {str(tmp_path)!r}; sys.path.insert(1, {str(ROOT)!r}); "
    for code, expected in [
        ("import experiments", f"ImportError: {line}"),
        ("sys.argv[0] = 'umt-build'; from umt_jax.console import main; main()", f"error: {line}"),
    ]:
        finished = subprocess.run(
            [sys.executable, "-c", script + code],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert finished.returncode == 1
        assert finished.stderr.splitlines()[-1] == expected


def test_a_command_of_another_name_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/umt-play"])
    with pytest.raises(SystemExit, match="umt-play is no command of umt_jax. There are: umt-bench"):
        console.main()


def test_a_command_in_a_folder_with_a_package_of_the_same_name_says_so_in_a_line(tmp_path):
    (tmp_path / "data_prep").mkdir()
    (tmp_path / "data_prep" / "__init__.py").touch()
    finished = subprocess.run(
        [sys.executable, "-m", "experiments.report"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 1 and finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: umt_jax needs its own package 'data_prep', ")
