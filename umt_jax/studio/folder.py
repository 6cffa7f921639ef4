"""The folder of what users of the studio send and get, and how much of that there may be."""

import contextlib
import dataclasses
import ipaddress
import os
import shutil
import threading
import time
from pathlib import Path

_SIZE_LASTS_SECONDS = 1.0
_FREE_BYTES = 2**26  # What is left free on the disk for the sounds that are made.


class NoRoomError(ValueError):
    """A limit is reached.

    Attributes:
        status: That of HTTP that says so.
    """

    def __init__(self, status: int, sentence: str) -> None:
        """Takes both."""
        super().__init__(sentence)
        self.status = status


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on what users may send.

    Attributes:
        file_bytes: Size of the largest file.
        client_bytes: Of all that one address sends within `keep_seconds`, whatever became of it.
        total_bytes: Of all files of all users that are there at one time, made ones included.
        keep_seconds: How long a file stays.
    """

    file_bytes: int
    client_bytes: int
    total_bytes: int
    keep_seconds: float = 3600.0


class StudioFolder:
    """Files that users send and receive; thread-safe.

    Attributes:
        limits: How much there may be.
        served: Folder of the files that Gradio takes and serves.
        temporary: Folder of files that are under way.
    """

    def __init__(self, folder: str | os.PathLike[str], limits: Limits) -> None:
        """Takes a folder, in which nothing else may lie."""
        self.limits = limits
        self._folder = Path(folder)
        self.served, self.temporary = str(self._folder / "served"), str(self._folder / "temporary")
        for part in (self.served, self.temporary):
            os.makedirs(part)
        self._lock = threading.Lock()
        self._sent: dict[str, list[tuple[float, int]]] = {}
        self._size = (-float("inf"), 0)

    def check_room(self, num_bytes: int = 0) -> None:
        """Checks that so many bytes more can be stored.

        Raises:
            NoRoomError: They cannot.
        """
        if self._stored_bytes() + num_bytes > self.limits.total_bytes:
            raise NoRoomError(
                507,
                "The studio holds as many sounds as it may. They go after "
                f"{_duration(self.limits.keep_seconds)}: try again later.",
            )
        if shutil.disk_usage(self._folder).free < num_bytes + _FREE_BYTES:
            raise NoRoomError(507, "The studio's disk is full. Try again later.")

    def take(self, client: str, num_bytes: int) -> None:
        """Counts bytes that a client has sent.

        Args:
            client: Its address; of version 6, the addresses of one network count as one client.
            num_bytes: How many more there are; 0 asks whether there may be any.

        Raises:
            NoRoomError: They are too many.
        """
        now = time.monotonic()
        with self._lock:
            sent = self._sent.setdefault(_network(client), [])
            sent[:] = self._recent(sent, now)
            if num_bytes:
                sent.append((now, num_bytes))
            too_much = sum(count for _, count in sent) > self.limits.client_bytes
        if too_much:
            raise NoRoomError(
                429,
                f"More than {self.limits.client_bytes / 2**20:g} MB came from this address within "
                f"{_duration(self.limits.keep_seconds)}, the most that is taken. Try again later.",
            )
        self.check_room(num_bytes)

    def clean(self) -> None:
        """Removes files that are too old, whoever made them, and empty folders that are."""
        before = time.time() - self.limits.keep_seconds
        kept = (self.served, self.temporary)
        for parent, folders, files in os.walk(self._folder, topdown=False):
            for name in files + folders:
                path = Path(parent, name)
                # A folder that is not empty stays; and Gradio may have been faster.
                with contextlib.suppress(OSError):
                    if path.lstat().st_mtime < before and os.fspath(path) not in kept:
                        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        now = time.monotonic()
        with self._lock:
            recent = {client: self._recent(sent, now) for client, sent in self._sent.items()}
            self._sent = {client: sent for client, sent in recent.items() if sent}

    def keep_clean(self, every_seconds: float) -> None:
        """Cleans again and again, in a thread, as long as this process runs."""

        def clean_for_ever() -> None:
            while True:
                time.sleep(every_seconds)
                # Shows processes of other machines that this one still lives (`leftovers`).
                os.utime(self._folder)
                self.clean()

        threading.Thread(target=clean_for_ever, name="studio_folder", daemon=True).start()

    def _recent(self, sent: list[tuple[float, int]], now: float) -> list[tuple[float, int]]:
        return [(when, count) for when, count in sent if now - when < self.limits.keep_seconds]

    def _stored_bytes(self) -> int:
        """Returns the size of all files, as it was a moment ago."""
        when, size = self._size
        if time.monotonic() - when > _SIZE_LASTS_SECONDS:
            size = 0
            for parent, _, files in os.walk(self._folder):
                for name in files:
                    with contextlib.suppress(FileNotFoundError):
                        size += os.lstat(os.path.join(parent, name)).st_size
            self._size = (time.monotonic(), size)
        return size


def _network(client: str) -> str:
    """Returns what stands for a client: an address, or the 64 bits that a site has of version 6."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return client


def _duration(seconds: float) -> str:
    return "an hour" if seconds == 3600 else f"{seconds:g} s"
