"""Imports only go down: a module may import from lower floors alone."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FLOORS = {
    0: ["shapes", "config", "sound_file", "command_line", "storage", "path_flags"]
    + ["sound_parts", "mpeg_frames", "numba_cache"],
    1: ["mu_law", "audio", "pcm", "prepared", "records", "pictures", "latent_file", "aac"]
    + ["blending", "sampling", "sampling_flags", "devices", "demo_model"],
    2: ["layers", "stacks", "places", "arguments", "uploads", "rainbowgram"],
    3: ["encoder", "decoder", "classifier", "parallel_segments"],
    4: ["networks", "seams", "stored_arrays"],
    5: ["losses", "train_state", "dataset", "sharding", "checkpoint", "damage", "published_arrays"]
    + ["detuning"],
    6: ["train_step", "classifier_step", "generate"],
    7: ["partitioning", "scan_engine", "native_engine", "pallas_engine", "engines"],
    8: [
        "streams",
        "schedule",
        "morph",
        "translator",
        "outputs",
        "infer_flags",
        "infer",
        "published",
        "export",
    ],
    9: ["takes"],
    10: ["studio_parts"],
    11: ["studio_page"],
    12: ["studio"],
}
FLOOR = {module: floor for floor, modules in FLOORS.items() for module in modules}

# Neighbours that one module of a floor may use, in this order.
NEIGHBOURS = [
    ("sound_file", "sound_parts"),
    ("sound_parts", "mpeg_frames"),
    ("checkpoint", "train_state"),
    ("damage", "checkpoint"),
    ("sharding", "train_state"),
    ("sharding", "dataset"),
    ("detuning", "dataset"),
    ("train_step", "classifier_step"),
    ("engines", "scan_engine"),
    ("engines", "native_engine"),
    ("engines", "pallas_engine"),
    ("schedule", "streams"),
    ("morph", "streams"),
    ("translator", "morph"),
    ("translator", "streams"),
    ("translator", "schedule"),
    ("outputs", "schedule"),
    ("outputs", "translator"),
    ("infer", "translator"),
    ("infer", "outputs"),
    ("infer", "infer_flags"),
]


def _imported(path):
    """Returns the modules of this project that a file imports, as package.module."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _modules_of(package, names):
    there = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    return {name.split(".")[1] for name in names if name.startswith(f"{package}.")} & there


@pytest.mark.parametrize("path", sorted((ROOT / "umt_jax").glob("[!_]*.py")), ids=lambda p: p.stem)
def test_umt_jax_imports_only_from_lower_floors(path):
    names = _imported(path)
    assert not {name for name in names if name.split(".")[0] in ("experiments", "data_prep")}
    for module in _modules_of("umt_jax", names):
        assert FLOOR[module] < FLOOR[path.stem] or (path.stem, module) in NEIGHBOURS


@pytest.mark.parametrize("path", sorted((ROOT / "data_prep").glob("*.py")), ids=lambda p: p.stem)
def test_data_prep_stays_on_floors_0_and_1_and_never_touches_flax(path):
    names = _imported(path)
    assert all(FLOOR[module] <= 1 for module in _modules_of("umt_jax", names))
    assert not {name.split(".")[0] for name in names} & {"flax", "optax", "orbax", "experiments"}


def test_importing_the_package_starts_no_device_and_loads_no_network_code():
    import subprocess
    import sys

    code = "import sys, umt_jax; print('jax' in sys.modules, 'flax' in sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert printed == "False False\n"
