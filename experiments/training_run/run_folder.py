"""The files of a run's log, which grow, where the run's folder may be an object store."""

import shutil
from pathlib import Path

from umt_jax import storage
from umt_jax.processes import leftovers


class RunFolder:
    """A folder to write to and append to.

    Objects of an object store do not grow. There the files are written to a temporary folder, and
    `publish` copies those that changed.

    Attributes:
        local: Where to write.
    """

    def __init__(self, workdir: str, *continued: str) -> None:
        """Opens `workdir`; `continued` names the files that are gone on with where they exist."""
        self._remote = storage.path(workdir)
        self._published: dict[Path, int] = {}
        self._temporary = None
        if storage.is_local(workdir):
            self.local = Path(workdir)
            return
        self._temporary = leftovers.temporary_folder()
        self.local = Path(self._temporary.name)
        for name in continued:
            if (self._remote / name).exists():
                with storage.local_copy(self._remote / name) as copy:
                    shutil.copy(copy, self.local / name)

    def publish(self) -> None:
        """Makes what was written visible in `workdir`; on local disks it is at once.

        Raises:
            OSError: A file could not be copied.
        """
        if self._temporary is None:
            return
        for path in filter(Path.is_file, self.local.rglob("*")):
            size, name = path.stat().st_size, path.relative_to(self.local)
            if self._published.get(name) != size:
                with storage.whole_file(self._remote / name) as copy:
                    shutil.copy(path, copy)
                self._published[name] = size

    def close(self) -> None:
        """Publishes, and removes the temporary folder."""
        self.publish()
        if self._temporary:
            self._temporary.cleanup()
