"""Which files an input names, and how one is opened."""

from __future__ import annotations

import glob
import os
from typing import IO, Any

from pipelines.errors import UserError

BUFFER = 1 << 18


def list_files(paths: str | tuple[str, ...]) -> list[dict[str, Any]]:
    """The files that `paths` (files, folders, globs; `**` crosses folders) name: `path`, `bytes`, `mtime_ns`, by path.

    A folder stands for the files below it; hidden files and names that begin with "_" (markers of Hadoop and Spark) are left
    out of folders and globs. Addresses with a scheme (s3://, hdfs://) go through fsspec. Raises UserError for a path that
    matches nothing.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in (paths,) if isinstance(paths, str) else paths:
        matches = _remote(path) if "://" in path else _local(path)
        if not matches:
            raise UserError(f"input {path!r} matches no file (looked in {os.getcwd()}); mend the path, or set <source>.paths")
        found.update((m["path"], m) for m in matches)
    return [found[path] for path in sorted(found)]


def open_file(path: str) -> IO[bytes]:
    """The file for reading, seekable."""
    if "://" not in path:
        return open(path, "rb", buffering=BUFFER)
    import fsspec

    opened: IO[bytes] = fsspec.open(path, "rb").open()
    return opened


def _hidden(path: str, root: str) -> bool:
    return any(part.startswith((".", "_")) for part in os.path.relpath(path, root).split(os.sep) if part != "..")


def _local(path: str) -> list[dict[str, Any]]:
    if os.path.isfile(path):
        names = [path]
    elif os.path.isdir(path):
        names = [n for n in glob.glob(os.path.join(glob.escape(path), "**"), recursive=True) if not _hidden(n, path)]
    else:
        names = [n for n in glob.glob(path, recursive=True) if not os.path.basename(n).startswith((".", "_"))]
    result = []
    for name in names:
        if os.path.isfile(name):
            stat = os.stat(name)
            result.append({"path": name, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns})
    return result


def _remote(path: str) -> list[dict[str, Any]]:
    import fsspec

    system, inside = fsspec.core.url_to_fs(path)
    names = system.find(inside) if system.isdir(inside) else system.glob(inside)
    result = []
    for name in names:
        info = system.info(name)
        if info["type"] == "file" and not name.rsplit("/", 1)[-1].startswith((".", "_")):
            changed = info.get("mtime") or info.get("LastModified") or 0
            seconds = changed.timestamp() if hasattr(changed, "timestamp") else float(changed)
            result.append({"path": system.unstrip_protocol(name), "bytes": info["size"], "mtime_ns": int(seconds * 1e9)})
    return result
