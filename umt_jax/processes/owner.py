"""Records the process that made a file, and finds out whether it is still running."""

import dataclasses
import functools
import hashlib
import os
import re
import socket
import subprocess
import time
import uuid
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")

# Fields of /proc/PID/stat after the name of the program, from its state on (proc(5)).
_STATE, _START_TIME = 0, 19
_ENDED = ("Z", "X")


@dataclasses.dataclass(frozen=True)
class Owner:
    """A process, distinguishable from a later one with the same process id.

    Attributes:
        host: Name of its machine, for messages.
        system: Identifies what gave out the process id: one start of one machine or container.
        process: Its process id.
        started: When it started; any number that stays the same while it runs.
    """

    host: str
    system: str
    process: int
    started: int

    def is_running(self) -> bool | None:
        """Returns whether the process still runs; None if it is not one of this system."""
        if self.system != _system():
            return None
        return _start_time(self.process) == self.started

    def __str__(self) -> str:
        """Returns what a message calls it."""
        return f"process {self.process} on {self.host}"


def this_process() -> Owner:
    """Returns the calling process."""
    process = os.getpid()
    started = _start_time(process)
    assert started is not None
    return Owner(socket.gethostname(), _system(), process, started)


@functools.cache
def _system() -> str:
    """Returns 8 characters that differ where one process id may stand for two processes."""
    try:
        parts = [_BOOT_ID.read_text().strip(), os.readlink(_PID_NAMESPACE)]
    except OSError:  # Not Linux: there is one set of process ids, and start times are absolute.
        parts = [socket.gethostname(), str(uuid.getnode())]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def _start_time(process: int) -> int | None:
    """Returns when a process of this system started; None if there is none, or it has ended.

    psutil derives it from the clock, which may be set; the kernel's own number stays.
    """
    if not _PID_NAMESPACE.exists():
        return _start_time_by_ps(process)
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # One that has ended stays in the table until its parent asks for its status.
    return None if fields[_STATE] in _ENDED else int(fields[_START_TIME])


def _start_time_by_ps(process: int) -> int | None:
    """Returns the same in seconds since 1970, of any Unix."""
    printed = subprocess.run(
        ["ps", "-o", "state=,lstart=", "-p", str(process)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    ).stdout.strip()
    match = re.fullmatch(r"(\S+)\s+(.+)", printed)
    if match is None or match[1][0] in _ENDED:
        return None
    return int(time.mktime(time.strptime(match[2], "%a %b %d %H:%M:%S %Y")))
