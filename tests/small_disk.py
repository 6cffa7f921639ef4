"""A file system of a few megabytes, for tests of full disks."""

import contextlib
import subprocess

import pytest


@contextlib.contextmanager
def mounted(folder, *, megabytes):
    """Gives a new folder that is a file system of that size in memory; skips where none may be."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    finished = subprocess.run(mount, capture_output=True, text=True)
    if finished.returncode:
        pytest.skip(f"no right to mount a file system here: {finished.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
