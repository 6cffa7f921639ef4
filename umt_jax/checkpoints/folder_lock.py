"""One process at a time in the folder of a run: a file there says which, and that it still runs.

A process of the same machine is known by its process id and start time, so the lock of one that was
killed is taken over at once. One of another machine is known by a heartbeat: it changes the file
every `BEAT_SECONDS`, and whoever finds the file watches it for `SILENCE_SECONDS` before taking it
over. Clocks of different machines are never compared.

Local disks create the file for one process only. Object stores know no such thing through
`etils.epath`: of two that write it at once the last one counts, both look again after
`SETTLE_SECONDS`, and one that is later still is noticed by the heartbeat of the other.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from absl import logging
from etils import epath

from umt_jax import storage
from umt_jax.processes import owner

NAME = "lock.json"

BEAT_SECONDS = 15.0
SILENCE_SECONDS = 60.0
SETTLE_SECONDS = 2.0

_LOOK_SECONDS = 1.0


class FolderInUseError(OSError):
    """Another process works in the folder."""


class Lock:
    """A lock that this process has; see `held`."""

    def __init__(self, path: epath.Path, purpose: str) -> None:
        """Takes nothing yet."""
        self._path = path
        self._content = {
            **dataclasses.asdict(owner.this_process()),
            "purpose": purpose,
            "since": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
            "token": uuid.uuid4().hex,
        }
        self._beats = 0
        self._taken_by: str | None = None
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat_until_the_end, daemon=True)

    def check(self) -> None:
        """Raises `FolderInUseError` if another process has taken the lock over meanwhile."""
        if self._taken_by is not None:
            raise FolderInUseError(
                f"{self._path.parent} was taken over by {self._taken_by}, since this process gave "
                f"no sign of life for {SILENCE_SECONDS:g} s. It ends here and saves nothing more."
            )

    def take(self) -> None:
        """Waits until it is known whether somebody has the lock, and takes it if nobody does.

        Raises:
            FolderInUseError: Somebody has it.
            OSError: The folder cannot be written.
        """
        while not self._create():
            found = _read(self._path)
            if found is None:
                continue  # Its owner has just given it back.
            _check_is_abandoned(self._path, found)
            logging.warning("Taking over %s of %s, which has ended.", self._path, _named(found))
            self._remove(found)
        self._heart.start()

    def give_back(self) -> None:
        """Removes the lock, if it is still this process's."""
        self._ended.set()
        if self._heart.is_alive():
            self._heart.join()
        found = _read(self._path)
        if found is not None and self._is_own(found):
            self._path.unlink(missing_ok=True)

    def _create(self) -> bool:
        """Writes the lock if there is none; returns whether this process now holds it."""
        if storage.is_local(self._path):
            try:
                # Mode x: only one of two processes gets to make the file.
                with open(self._path, "x", encoding="utf-8") as file:
                    json.dump(self._content, file)
            except FileExistsError:
                return False
            return True
        if _read(self._path) is not None:
            return False
        self._path.write_text(json.dumps(self._content))
        time.sleep(SETTLE_SECONDS)
        found = _read(self._path)
        return found is not None and self._is_own(found)

    def _remove(self, abandoned: "_Found") -> None:
        if not storage.is_local(self._path):
            found = _read(self._path)
            if found is not None and found.content == abandoned.content:
                self._path.unlink(missing_ok=True)
            return
        # Two may have seen that it is abandoned, and the other one be faster: what is at the path
        # by now may be the other one's. No third may come between the look and the removal.
        with _one_at_a_time(self._path.parent):
            if _read(self._path) == abandoned:
                self._path.unlink(missing_ok=True)

    def _is_own(self, found: "_Found") -> bool:
        return found.content.get("token") == self._content["token"]

    def _beat_until_the_end(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            # What cannot be reached now can perhaps at the next beat.
            with contextlib.suppress(OSError):
                self._beat()

    def _beat(self) -> None:
        found = _read(self._path)
        if found is None:
            self._create()  # Somebody has removed it, and nobody taken it.
        elif not self._is_own(found):
            self._taken_by = _named(found)
        elif storage.is_local(self._path):
            os.utime(self._path)  # Which needs no room on a full disk.
        else:
            self._beats += 1
            self._path.write_text(json.dumps({**self._content, "beats": self._beats}))


@contextlib.contextmanager
def held(folder: str, *, purpose: str) -> Iterator[Lock]:
    """Gives a lock on a folder, which is made if need be and is empty but for that.

    Args:
        folder: Local, or on an object store.
        purpose: What is done there, for the message to others: "training".

    Raises:
        FolderInUseError: Another process has it.
        OSError: The folder cannot be written.
    """
    path = storage.path(folder)
    is_new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    lock = Lock(path / NAME, purpose)
    lock.take()
    try:
        yield lock
    finally:
        lock.give_back()
        if is_new and storage.is_local(path):
            with contextlib.suppress(OSError):  # It holds something by now, as it should.
                os.rmdir(path)


@contextlib.contextmanager
def _one_at_a_time(folder: epath.Path) -> Iterator[None]:
    """Keeps other processes and threads of this machine out of the same body."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@dataclasses.dataclass(frozen=True)
class _Found:
    """A lock as it was found.

    Attributes:
        content: What its owner wrote; empty if it is not whole.
        stamp: Changes with each heartbeat.
    """

    content: dict[str, object]
    stamp: object


def _read(path: epath.Path | Path) -> _Found | None:
    """Returns the lock at a path; None if there is none."""
    try:
        text = path.read_text()
        stamp = os.stat(path).st_mtime_ns if storage.is_local(path) else text
    except FileNotFoundError:
        return None
    try:
        content = json.loads(text)
    except ValueError:  # Its owner is about to write it, or its disk was full.
        content = {}
    return _Found(content if isinstance(content, dict) else {}, stamp)


def _owner(found: _Found) -> owner.Owner | None:
    names = [field.name for field in dataclasses.fields(owner.Owner)]
    if not all(name in found.content for name in names):
        return None
    return owner.Owner(**{name: found.content[name] for name in names})  # type: ignore[arg-type]


def _named(found: _Found) -> str:
    return str(_owner(found) or "an unknown process")


def _check_is_abandoned(path: epath.Path, found: _Found) -> None:
    """Returns once it is sure that the owner of a lock is gone.

    Raises:
        FolderInUseError: It is not.
    """
    found_owner = _owner(found)
    is_running = None if found_owner is None else found_owner.is_running()
    if is_running is False:
        return
    if is_running is None:
        logging.warning(
            "%s is that of %s. Waiting up to %g s for a sign of life.",
            path,
            _named(found),
            SILENCE_SECONDS,
        )
        if not _changes(path, found):
            return
    stop = f", stop it (kill {found_owner.process})" if found_owner else ""
    raise FolderInUseError(
        f"{path.parent} is in use for {found.content.get('purpose', 'another run')} by "
        f"{_named(found)}, since {found.content.get('since', 'a time that is not known')}. Nothing "
        f"was changed. Wait for its end{stop}, or take another folder."
    )


def _changes(path: epath.Path, found: _Found) -> bool:
    """Watches a lock; returns whether it changes and stays."""
    deadline = time.monotonic() + SILENCE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        now = _read(path)
        if now is None:
            return False
        if now.stamp != found.stamp:
            return True
    return False
