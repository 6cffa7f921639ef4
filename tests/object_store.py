"""An object store for tests, as gs:// and s3:// are: no folders, no renames, whole objects.

Its objects lie in the folder that OBJECT_STORE names, one file each, so that several processes see
the same ones. `install` makes fsspec take it for gs:// in processes with the right PYTHONPATH.
"""

import io
import os
import uuid
from pathlib import Path
from urllib import parse

import fsspec
from fsspec.implementations.local import LocalFileOpener


class ObjectStore(fsspec.AbstractFileSystem):
    """Objects by name; a folder is there as long as an object's name begins with it."""

    protocol = ("gs", "gcs")
    cachable = False

    def __init__(self, **options):
        super().__init__(**options)
        self._root = Path(os.environ["OBJECT_STORE"])

    def _file(self, path):
        return self._root / parse.quote(self._strip_protocol(path), safe="")

    def _names(self):
        return [parse.unquote(file.name) for file in self._root.iterdir() if file.name[0] != "."]

    def ls(self, path, detail=True, **options):
        path = self._strip_protocol(path).rstrip("/")
        found = {}
        for name in self._names():
            if name == path:
                size = self._file(name).stat().st_size
                found[name] = {"name": name, "size": size, "type": "file"}
            elif name.startswith(path + "/"):
                child = path + "/" + name[len(path) + 1 :].partition("/")[0]
                is_file = child == name
                size = self._file(name).stat().st_size if is_file else 0
                kind = "file" if is_file else "directory"
                found[child] = {"name": child, "size": size, "type": kind}
        if not found:
            raise FileNotFoundError(path)
        return list(found.values()) if detail else list(found)

    def _open(self, path, mode="rb", **options):
        if mode == "rb":
            return LocalFileOpener(str(self._file(path)), mode, fs=fsspec.filesystem("file"))
        return _Upload(self._file(path))

    def rm_file(self, path):
        self._file(path).unlink(missing_ok=True)

    def mkdir(self, path, create_parents=True, **options):
        """Does nothing, as there are no folders."""

    def makedirs(self, path, exist_ok=False):
        """Does nothing, as there are no folders."""

    def cp_file(self, path1, path2, **options):
        raise NotImplementedError("nothing may depend on moving objects")

    def mv(self, path1, path2, **options):
        raise NotImplementedError("nothing may depend on moving objects")


class _Upload(io.BufferedWriter):
    """An object that is there when it is closed, and not before."""

    def __init__(self, target):
        self._target = target
        self._incomplete = target.with_name(f".{uuid.uuid4().hex}")
        super().__init__(io.FileIO(self._incomplete, "w"))

    def close(self):
        if not self.closed:
            super().close()
            os.replace(self._incomplete, self._target)


def install(folder):
    """Returns the environment of a process in which gs:// is this store, empty at first."""
    objects, plugin = folder / "objects", folder / "plugin"
    objects.mkdir()
    information = plugin / "object_store-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: object_store\nVersion: 1\n")
    (information / "entry_points.txt").write_text(
        "[fsspec.specs]\ngs = object_store:ObjectStore\ngcs = object_store:ObjectStore\n"
    )
    here = Path(__file__).parent
    python_path = os.pathsep.join([str(plugin), str(here), str(here.parent)])
    return {**os.environ, "OBJECT_STORE": str(objects), "PYTHONPATH": python_path}
