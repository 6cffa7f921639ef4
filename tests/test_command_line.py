import ast
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from umt_jax import command_line, own_packages


def run(body, *arguments, **environment):
    """Runs a command whose main is `body`."""
    script = (
        "from absl import flags\n"
        "from umt_jax import command_line\n"
        "flags.DEFINE_integer('count', 1, 'Help of count.')\n"
        f"def main():\n    {body}\n"
        "command_line.run(main)\n"
    )
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def test_a_command_that_ends_well_has_exit_status_0():
    finished = run("print(flags.FLAGS.count)", "--count=3")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "3\n", "")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_that_was_freed_is_not_asked_of_the_system_again():
    touch = (
        "import concurrent.futures, resource\n"
        "    fill = lambda: len(b'x' * 40_000_000)\n"
        "    faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    with concurrent.futures.ThreadPoolExecutor(1) as thread:\n"
        "        thread.submit(fill).result(); before = faults()\n"
        "        thread.submit(fill).result(); print(faults() - before)"
    )
    finished = run(touch)
    assert int(finished.stdout) < 1000  # Of 9,766 pages.


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("raise ValueError('--count=1 is\\n    too few.')", "error: --count=1 is too few."),
        ("raise ValueError('count=1 is below lower=2')", "error: --count=1 is below lower=2"),
        ("open('/nowhere/count=1')", "error: /nowhere/count=1: No such file or directory."),
        ("open('/nowhere/at/all')", "error: /nowhere/at/all: No such file or directory."),
        ("raise KeyboardInterrupt", "Interrupted."),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "Interrupted."),
        (
            "raise MemoryError",
            "error: There is not enough memory. Close other programs, or ask for less at once.",
        ),
        (
            "raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\\nMore.')",
            "error: There is not enough memory (RESOURCE_EXHAUSTED: Out of memory allocating 9 "
            "bytes). Close other programs, or ask for less at once.",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_status_1(body, line):
    finished = run(body)
    assert (finished.returncode, finished.stderr) == (1, f"{line}\n")


def test_other_faults_of_the_program_keep_their_traceback():
    finished = run("raise RuntimeError('INTERNAL: a fault')")
    assert finished.returncode == 1
    assert finished.stderr.startswith("Traceback")


def test_an_argument_that_is_no_flag_is_refused():
    finished = run("print('never')", "--count=3", "song.wav")
    assert finished.returncode == 1 and finished.stdout == ""
    assert finished.stderr == (
        "error: Unexpected argument: song.wav. Flags are written --name=value; --help lists them.\n"
    )


def test_verbosity_shows_the_traceback_too():
    finished = run("raise ValueError('no')", "--verbosity=1")
    assert finished.returncode == 1
    assert "Traceback" in finished.stderr
    assert finished.stderr.splitlines()[-1] == "error: no"


def test_our_own_bugs_keep_their_traceback():
    finished = run("raise TypeError('a bug')")
    assert finished.returncode == 1 and "Traceback" in finished.stderr


def test_other_libraries_are_heard_from_warnings_on():
    body = (
        "import logging as pylogging; from absl import logging; logging.set_verbosity('info'); "
        "pylogging.getLogger('jax').warning('of jax'); pylogging.getLogger('jax').info('never'); "
        "logging.info('never')"
    )
    finished = run(body)
    assert [line.partition("] ")[2] for line in finished.stderr.splitlines()] == ["of jax"]


@pytest.mark.parametrize(
    "path, kept",
    [
        ("experiments/train.py", True),
        ("experiments/evaluation/run.py", True),
        ("umt_jax/generation/engines/native.py", True),
        (".venv/lib/python3.12/site-packages/orbax/save.py", False),
        (".venv/src/umt_jax/save.py", False),
    ],
)
def test_lines_of_every_package_of_this_project_are_shown_and_of_no_other(path, kept):
    path = Path(command_line.__file__).parents[1] / path
    body = (
        "from absl import logging; make = logging.get_absl_logger().makeRecord; "
        f"record = make('absl', 20, {str(path)!r}, 1, 'step 3', (), None); "
        "logging.get_absl_handler().handle(record)"
    )
    finished = run(body)
    assert [line.partition("] ")[2] for line in finished.stderr.splitlines()] == ["step 3"] * kept


def test_an_error_that_orbax_raises_is_not_told_a_second_time():
    body = (
        "from absl import logging; make = logging.get_absl_logger().makeRecord; "
        "record = make('absl', 40, '/packages/orbax/save.py', 1, 'told', (), True); "
        "logging.get_absl_handler().handle(record); "
        "record.exc_info = None; logging.get_absl_handler().handle(record)"
    )
    finished = run(body)
    assert [line.partition("] ")[2] for line in finished.stderr.splitlines()] == ["told"]


COMPILE = (
    "command_line.use_compilation_cache(); import jax; "
    "print(jax.jit(lambda x: x + 1)(1), jax.config.jax_compilation_cache_dir)"
)


def test_compiled_programs_are_kept_where_the_environment_says(tmp_path):
    caches = {"XDG_CACHE_HOME": str(tmp_path / "xdg"), "JAX_COMPILATION_CACHE_DIR": ""}
    finished = run(COMPILE, **caches)
    assert finished.stdout == f"2 {tmp_path}/xdg/umt_jax/xla\n"
    assert list((tmp_path / "xdg" / "umt_jax" / "xla").iterdir())
    finished = run(COMPILE, **{**caches, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "own")})
    assert finished.stdout == f"2 {tmp_path}/own\n"
    assert list((tmp_path / "own").iterdir())


def test_where_compiled_programs_cannot_be_kept_the_run_goes_on_without(tmp_path):
    (tmp_path / "file").touch()
    caches = {"XDG_CACHE_HOME": str(tmp_path / "file"), "JAX_COMPILATION_CACHE_DIR": ""}
    finished = run(COMPILE, **caches)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "2 None\n", "")


NAME = "bell\a, caf\udce9 and\nline.wav"
SHOWN = r"bell\x07, caf\xe9 and\nline.wav"


def test_names_are_escaped_in_what_is_printed_logged_and_told_as_an_error():
    own, foreign = command_line.__file__, "/packages/orbax/save.py"
    body = (
        f"command_line.say({NAME!r}, 'b'); command_line.say({NAME!r}, error=True); "
        "from absl import logging; make = logging.get_absl_logger().makeRecord; "
        "show = lambda path: logging.get_absl_handler().handle("
        f"make('absl', 30, path, 1, 'two\\nlines: %s', ({NAME!r},), None)); "
        f"show({own!r}); show({foreign!r}); raise ValueError({NAME!r})"
    )
    finished = run(body)
    assert finished.stdout == f"{SHOWN}\nb\n"
    said, of_own, *of_foreign, error = finished.stderr.splitlines()
    assert said == SHOWN
    assert of_own.endswith(rf"] two\nlines: {SHOWN}")
    assert [line.rpartition("] ")[2] for line in of_foreign] == [
        "two",
        *("lines: " + SHOWN).split(r"\n"),
    ]
    assert error == "error: " + SHOWN.replace(r"\n", " ")


def test_nothing_is_printed_but_by_the_function_that_escapes_names():
    root = Path(command_line.__file__).parents[1]
    prints = [
        (path.relative_to(root).as_posix(), node.lineno)
        for package in own_packages.NAMES
        for path in (root / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name) and node.id == "print"
    ]
    assert [path for path, _ in prints] == ["umt_jax/command_line.py"], prints
