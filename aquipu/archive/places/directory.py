"""Objects as files of a directory, by the calls of obstore that a bucket makes. Blocking.

Not yet elegant: the file system must have hard links, which FAT and exFAT have not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from errno import ENOTDIR, ESTALE
from time import time_ns
from typing import Any

from aquipu.archive.format.keys import ENTRIES, SEGMENTS, ObjectKey, entry_number
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.durable import OutcomeUnknown
from aquipu.local.disk.rights import rights_of
from aquipu.local.disk.system import random_bytes
from aquipu.local.format.names import UNNAMED

_UNFINISHED = re.compile(rf"(.+)\.[0-9a-f]{{16}}{re.escape(UNNAMED)}")
_OF_OBSTORE = re.compile(r"(.+)#[0-9]+")  # written by earlier versions, which held nothing
_LEFT_NS = 24 * 3600 * 10**9  # such a one is so old: no put takes a day
_READABLE = 0o664  # rights of the directory that its files have as well
_OWN = 0o600


class Found:
    """The bytes of an object, as `get` gives them."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def bytes(self) -> bytes:
        """Return them."""
        return self._data


class DirectoryStore:
    """The objects in a directory that is there.

    Raises OSError: FileNotFoundError for an object that is not there, NotADirectoryError when the
    directory is not, FileExistsError when another object has the name.
    """

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._durable: set[str] = set()  # directories that are there after a power cut

    @classmethod
    def at(cls, path: str) -> DirectoryStore:
        """Return the objects of a directory; who may read that, may read those.

        Raises OSError.
        """
        disk = Disk()
        disk.permit(int(rights_of(path)[0], 8) & _READABLE | _OWN, None)
        return cls(disk, path)

    def put(self, key: str, body: bytes, *, mode: str, use_multipart: bool) -> None:
        """Put an object that is on the disk when this returns.

        Raises FileExistsError for another one; OutcomeUnknown for what else went wrong: it may have
        its name, and a power cut may take it.
        """
        path = f"{self._path}/{key}"
        try:
            self._put(path.rpartition("/")[0], path, body)
        except FileExistsError:
            raise
        except OSError as error:
            raise OutcomeUnknown("putting it", error) from error

    def _put(self, directory: str, path: str, body: bytes) -> None:
        made = f"{path}.{random_bytes(8).hex()}{UNNAMED}"
        try:
            self._provide(directory)
            self._write(made, path, body)
        except FileNotFoundError:
            self._durable.discard(directory)
            self._check()
            raise OSError(ESTALE, "what was being written was removed", made) from None
        self._disk.sync_directory(directory)

    def _provide(self, directory: str) -> None:
        """Make the directory of an object, durably.

        One that is there as well: its process may have died before it was.
        """
        if directory not in self._durable:
            self._check()  # else it would come to lie where the disk was that is not mounted
            self._disk.make_directories(directory)
            self._durable.add(directory)

    def _write(self, made: str, path: str, body: bytes) -> None:
        """Write a file that gets its name when its bytes are on the disk."""
        descriptor = self._disk.create(made)
        try:
            with suppress(OSError):  # a file system without locks: nobody removes it there
                self._disk.try_hold(descriptor)
            self._disk.write(descriptor, [body], 0)
            self._disk.sync(descriptor)
            self._name(made, path, body)
        except BaseException:
            with suppress(OSError):
                self._disk.remove(made)
            raise
        finally:
            with suppress(OSError):  # its bytes are on the disk, or it has failed already
                self._disk.close(descriptor)

    def _name(self, made: str, path: str, body: bytes) -> None:
        try:
            self._disk.link(made, path)
        except FileExistsError:
            if self._read(path) != body:
                raise
            self._disk.rename(made, path)  # that it was ever synced, nobody knows
        else:
            self._disk.remove(made)

    def get(self, key: str) -> Found:
        """Return an object."""
        return Found(self._found(key))

    def get_range(self, key: str, *, start: int, end: int) -> bytes:
        """Return the bytes of an object between two offsets."""
        return self._found(key, start, end)

    def _found(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        try:
            return self._read(f"{self._path}/{key}", start, end)
        except FileNotFoundError:
            self._check()
            raise

    def _read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        with opened(self._disk, path) as descriptor:
            end = self._disk.size(descriptor) if end is None else end
            return self._disk.read(descriptor, end - start, start)

    def list(self, prefix: str, *, chunk_size: int) -> Iterator[list[dict[str, Any]]]:
        """Yield all objects of a directory within this one, and nothing that is being written."""
        found = []
        for name in self._names(prefix):
            if _unfinished(name) is None:
                key = f"{prefix}/{name}"
                with suppress(FileNotFoundError):
                    *_, changed, size = self._disk.seen(f"{self._path}/{key}")
                    when = datetime.fromtimestamp(changed / 1e9, UTC)
                    found.append({"path": key, "size": size, "last_modified": when})
        yield found

    def delete(self, keys: str | Sequence[str]) -> None:
        """Remove objects; those that are not there are none."""
        for key in [keys] if isinstance(keys, str) else keys:
            with suppress(FileNotFoundError):
                self._disk.remove(f"{self._path}/{key}")

    def remove_unfinished(self) -> None:
        """Remove what was being written by processes that are not there any more.

        What cannot be removed stays: it takes room, and does no harm.
        """
        for prefix in (ENTRIES, SEGMENTS):
            names: Sequence[str] = ()
            with suppress(OSError):
                names = self._names(prefix)
            for name in names:
                with suppress(OSError):
                    self._remove_unfinished(prefix, name)

    def _remove_unfinished(self, prefix: str, name: str) -> None:
        begun, path = _unfinished(name), f"{self._path}/{prefix}/{name}"
        if begun is None or not _is_ours(f"{prefix}/{begun}"):
            return
        if name.endswith(UNNAMED):
            self._disk.try_remove(path)
        elif time_ns() - self._disk.seen(path)[2] > _LEFT_NS:
            self._disk.remove(path)

    def _names(self, prefix: str) -> Sequence[str]:
        try:
            return self._disk.list(f"{self._path}/{prefix}")
        except FileNotFoundError:
            self._check()
            return ()

    def _check(self) -> None:
        """Raise NotADirectoryError unless the directory is there."""
        if not self._disk.exists(self._path):
            raise NotADirectoryError(ENOTDIR, "there is no such directory", self._path)


def _unfinished(name: str) -> str | None:
    """Return the name of the object that a file was to become; None for any other file."""
    match = _UNFINISHED.fullmatch(name) or _OF_OBSTORE.fullmatch(name)
    return None if match is None else match[1]


def _is_ours(key: str) -> bool:
    return entry_number(key) is not None or ObjectKey.parse(key) is not None
