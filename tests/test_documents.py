"""README and docs/: what they tell people to type exists, and the first steps run as they stand."""

import ast
import configparser
import importlib
import os
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
from absl import flags

from umt_jax.audio import mu_law

ROOT = Path(__file__).parent.parent
PACKAGES = ("umt_jax", "experiments", "data_prep")
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "benchmarks"),
]
FIRST_TRANSLATION = ROOT / "docs" / "tutorials" / "first_translation.md"

# Those that absl keeps elsewhere, or defines in `app.run` alone, which no test calls.
_FLAGS_OF_ABSL = {"flagfile", "help", "helpfull"}

_documents = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def blocks(document, language):
    """Returns the fenced blocks of one language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", document.read_text(), re.M | re.S)


def commands(document):
    """Returns the module and the flags of each `python -m ...`, in blocks and in sentences."""
    text = document.read_text()
    code = [*blocks(document, "bash"), *re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    found = []
    for lines in code:
        for line in re.sub(r"\\?\n(?=\s+-)|\\\n", " ", lines).splitlines():
            for call in re.finditer(r"python[\d.]* -m ((?:\w+\.)+\w+)(.*)", line):
                words = re.sub(r'"[^"]*"', "", call[2].split(" #")[0].split(" | ")[0])
                flag_names = re.findall(r"(?<![\w-])--(\w+)", words)
                found.append((call[1], flag_names))
    return [(module, names) for module, names in found if module.split(".")[0] in PACKAGES]


@pytest.fixture(scope="module")
def flags_of():
    """Returns a function from a command's module to the names of all flags that it accepts.

    What stands under `__name__ == "__main__"` is executed without the run itself. Flags that
    commands declare for themselves are removed again, so that one does not see another's.
    """
    known = {}

    def find(module):
        if module in known:
            return known[module]
        path = ROOT / (module.replace(".", "/") + ".py")
        if not path.is_file():
            path, module = path.with_suffix("") / "__main__.py", f"{module}.__main__"
        namespace = dict(vars(importlib.import_module(module)))
        importlib.import_module("experiments.train")  # Declares its flags when it is imported.
        others = {}
        for name in list(flags.FLAGS) if module != "experiments.train" else []:
            source = flags.FLAGS.find_module_defining_flag(name)
            if not source.startswith("absl."):
                others[name] = (source, flags.FLAGS[name])
                delattr(flags.FLAGS, name)
        before = set(flags.FLAGS)
        try:
            namespace["command_line"] = types.SimpleNamespace(run=lambda *_, **__: None)
            tree = ast.parse(path.read_text())
            (main,) = (node for node in tree.body if _is_main(node))
            exec(compile(ast.Module(main.body, []), str(path), "exec"), namespace)
            accepted = set(flags.FLAGS) | _FLAGS_OF_ABSL
            accepted |= {f"no{name}" for name in flags.FLAGS if flags.FLAGS[name].boolean}
        finally:
            for name in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, name)
            for name, (source, flag) in others.items():
                flags.FLAGS[name] = flag
                flags.FLAGS.register_flag_by_module(source, flag)
        return known.setdefault(module, accepted)

    return find


def _is_main(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


@_documents
def test_commands_and_their_flags_exist(document, flags_of):
    for module, names in commands(document):
        unknown = set(names) - flags_of(module)
        assert not unknown, f"{module} has no --{', --'.join(sorted(unknown))}"


def test_a_flag_that_a_command_lacks_is_found(tmp_path, flags_of):
    document = tmp_path / "page.md"
    document.write_text(
        "```bash\npython -m umt_jax.infer --input=a.wav \\\n    --nonsense=3 | python -m "
        "data_prep.build --audio_dir=x\n```\nor `python -m umt_jax.export --checkpoint=x`"
    )
    assert commands(document) == [
        ("umt_jax.infer", ["input", "nonsense"]),
        ("umt_jax.export", ["checkpoint"]),
    ]
    assert "nonsense" not in flags_of("umt_jax.infer") >= {"input", "domain", "nooverwrite"}


@_documents
def test_shell_snippets_can_be_parsed(document):
    snippets = "\n".join(blocks(document, "bash"))
    finished = subprocess.run(["bash", "-n"], input=snippets, capture_output=True, text=True)
    assert (finished.returncode, finished.stderr) == (0, "")


@_documents
def test_targets_extras_and_flagfiles_exist(document):
    text = document.read_text()
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^|`)make ([\w-]+)", text, re.M)) <= targets
    extras = re.findall(r"pip install -e \"?\.\[([\w,]+)\]", text)
    assert {name for names in extras for name in names.split(",")} <= set(
        setup["options.extras_require"]
    )
    for flagfile in re.findall(r"experiments/configs/\w+\.flags", text):
        assert (ROOT / flagfile).is_file(), flagfile


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_of_what_lies_outside_of_docs_lead_somewhere(name):
    links = re.findall(r"\]\(([^)\s#]+)", (ROOT / name).read_text())
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_map_of_files_has_every_module_and_no_other():
    listed, folders = set(), []
    for line in (ROOT / "docs" / "reference" / "files.md").read_text().splitlines():
        entry = re.match(r"( *)([\w*.]+(?:/[\w*.]+)*/?)  ? *\S", line + " x")
        if entry:
            folders = folders[: len(entry[1]) // 2]
            if entry[2].endswith("/"):
                folders.append(entry[2])
            listed.add("".join(folders) + entry[2] * (not entry[2].endswith("/")))
    modules = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    engines = {name for name in listed if name.endswith(".py")}
    assert sorted(engines) == sorted(modules)


def test_docstrings_of_the_reference_have_no_angle_brackets_that_a_page_would_swallow():
    for document in DOCUMENTS:
        for module in re.findall(r"^::: (\S+)", document.read_text(), re.M):
            tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    text = re.sub(r"`[^`]*`", "", ast.get_docstring(node) or "")
                    if isinstance(node, ast.Module):  # Indented lines are code there.
                        text = re.sub(r"^    .*", "", text, flags=re.M)
                    assert not re.search(r"<[A-Za-z]", text), f"{module}: {text}"


@pytest.fixture
def whistling(tmp_path, monkeypatch):
    """A folder with half a second of whistling, in which snippets run."""
    tone = 0.3 * np.sin(2 * np.pi * 880 * np.arange(11_025) / 22_050)
    soundfile.write(tmp_path / "whistling.wav", tone, 22_050)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("document", [ROOT / "README.md", FIRST_TRANSLATION])
def test_the_first_lines_of_python_run_as_they_stand(document, whistling):
    (snippet,) = blocks(document, "python")
    exec(snippet, {})
    cello, sample_rate_hz = soundfile.read(whistling / "cello.wav")
    assert (len(cello), sample_rate_hz) == (4_000, 8_000)
    assert 0.001 < np.abs(cello).max() <= 1


def test_the_reference_of_python_runs_as_it_stands(whistling):
    (snippet,) = blocks(ROOT / "docs" / "reference" / "python.md", "python")
    waveform, sample_rate_hz = soundfile.read("whistling.wav", dtype="float32")
    codes = mu_law.encode(np.zeros(4_000, np.float32), "rounded")
    names = {"waveform": waveform, "sample_rate_hz": sample_rate_hz, "codes": codes}
    exec(snippet, names)
    assert names["logits"].shape == (4_000, 256)
    assert len(names["domain_logits"]) == len(names["translator"].domains)
    np.testing.assert_array_equal(
        names["latents"], names["translator"].encode(waveform, sample_rate_hz)
    )


def test_the_first_translation_runs_as_it_stands(whistling):
    line = "python -m umt_jax.infer --input=whistling.wav --domain=Cello,Flute --output=out"
    for document in (ROOT / "README.md", ROOT / "docs" / "index.md", FIRST_TRANSLATION):
        assert any(line in block for block in blocks(document, "bash")), document
    _, *arguments = shlex.split(line)
    subprocess.run(
        [sys.executable, *arguments],
        check=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    for domain in ("Cello", "Flute"):
        assert soundfile.info(whistling / "out" / f"whistling.{domain}.wav").duration == 0.5
