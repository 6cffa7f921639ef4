"""Compiles the plug-ins for tests."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HEADERS = ["lv2/core/lv2.h", "clap/plugin.h", "speex/speex_resampler.h"]
_SCRIPT = Path(__file__).parents[1] / ".ci" / "plugins"


def compile_into(folder, file, *, flags="-O1"):
    """Puts both plug-ins, and a model's file in each, into a folder; skips where it cannot."""
    skip_without(*HEADERS)
    command = [_SCRIPT, folder, file]
    environment = {**os.environ, "UMT_JAX_FLAGS": flags}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    written = [folder / "lv2" / "umt.lv2", folder / "clap" / "umt_jax"]
    assert finished.stdout == "".join(f"Written: {path}\n" for path in written)


def skip_without(*headers):
    """Skips a test where there is no compiler, or one of the plug-ins' headers is missing."""
    if shutil.which("g++") is None or not all(map(_is_there, headers)):
        pytest.skip(
            f"needs g++ and {', '.join(headers)} "
            "(Debian: apt install g++ lv2-dev dpf-source libspeexdsp-dev)"
        )


def _is_there(header):
    """Whether .ci/plugins will find a header."""
    command = ["g++", "-idirafter", "/usr/share/dpf/distrho/src", "-E", "-x", "c++", "-"]
    text = f"#include <{header}>\n"
    finished = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    return finished.returncode == 0
