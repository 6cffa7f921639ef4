"""Keys that are pressed in the terminal, one by one."""

import contextlib
import os
import select
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def unbuffered(descriptor: int) -> Iterator[None]:
    """Has a terminal give each key at once and show none; sets it back. Pipes stay as they are."""
    if sys.platform == "win32" or not os.isatty(descriptor):
        yield
        return
    import termios  # Not on Windows.
    import tty

    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def pressed(descriptor: int, seconds: float) -> str | None:
    """Waits for keys; returns those that came, "" for none, None at the end of a pipe."""
    ready, _, _ = select.select([descriptor], [], [], seconds)
    if not ready:
        return ""
    return os.read(descriptor, 100).decode(errors="replace") or None
