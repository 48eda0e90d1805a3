"""A disk, for reading alone, whose files are objects of an archive. Blocking.

Whatever reads the files of a log reads an archive by it. A file is known by its path: that of the
archive, and the name that the file has in a store. One that is open stays as it was.
"""

from __future__ import annotations

import io
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from errno import EBADF, ENOENT, EROFS
from itertools import accumulate, count
from threading import Event, Lock
from typing import BinaryIO, NamedTuple, NoReturn, TypeVar

from aquipu.archive.bucket import Bucket, insist
from aquipu.archive.errors import ArchiveDamagedError
from aquipu.archive.fetch import lost
from aquipu.archive.format.keys import ObjectKey
from aquipu.archive.read.cache import Cache
from aquipu.errors import StoreClosedError
from aquipu.local.backup.pace import Stopped
from aquipu.local.disk.disk import Disk

FIRST_NUMBER = 1 << 40
"""Descriptors begin here, beyond all those of the operating system."""
CACHE_BYTES = 64 * 1024 * 1024

T = TypeVar("T")


class InBucket(NamedTuple):
    """A file that is an object."""

    key: str
    size: int


class InParts(NamedTuple):
    """A file of which all bytes are here, in parts that follow each other."""

    parts: tuple[bytes, ...]
    begins: tuple[int, ...]
    """Offset of each part."""
    size: int

    @classmethod
    def of(cls, parts: Sequence[bytes]) -> InParts:
        """Return the file of these parts."""
        *begins, size = accumulate(map(len, parts), initial=0)
        return cls(tuple(parts), tuple(begins), size)

    def read(self, begin: int, end: int) -> bytes:
        """Return the bytes between two offsets, as far as there are any."""
        first = max(bisect_right(self.begins, begin) - 1, 0)
        last = bisect_left(self.begins, end, first)
        return b"".join(
            part[max(begin - at, 0) : end - at]
            for part, at in zip(self.parts[first:last], self.begins[first:last], strict=True)
        )


class ObjectDisk(Disk):
    """The files of an archive."""

    def __init__(self, bucket: Bucket, room: int = CACHE_BYTES) -> None:
        """Begin without any file; of what is fetched so many bytes are kept."""
        super().__init__()
        self._stop = Event()
        self.bucket = bucket.until(self._stop)
        self.files: dict[str, InBucket | InParts] = {}
        """What there is, by its path."""
        self._cache = Cache(room)
        self._open_files: dict[int, InBucket | InParts] = {}
        self._numbers = count(FIRST_NUMBER)
        self._lock = Lock()  # of the cache and the open files; never held during a request

    @property
    def kept_bytes(self) -> int:
        """Bytes of objects that are kept."""
        return self._cache.size

    def end(self) -> None:
        """End what is under way: nothing more is read."""
        self._stop.set()

    def ask(self, call: Callable[[], T]) -> T:
        """Ask the object store until there is an answer; see `insist`.

        Raises StoreClosedError when that was ended.
        """
        try:
            return insist(self.bucket, call, self._stop)
        except Stopped:
            raise StoreClosedError(self.bucket.url) from None

    # files

    def open(self, path: str, *, writable: bool = False) -> int:
        if writable:
            _refuse(path)
        file = self.files.get(path)
        if file is None:
            raise FileNotFoundError(ENOENT, "the archive has no such file", path)
        with self._lock:
            descriptor = next(self._numbers)
            self._open_files[descriptor] = file
        return descriptor

    def open_stream(self, path: str) -> BinaryIO:
        return io.BufferedReader(_Stream(self, self.open(path)), 1)

    def close(self, descriptor: int) -> None:
        with self._lock:
            self._open_files.pop(descriptor, None)

    def size(self, descriptor: int) -> int:
        return self._file(descriptor).size

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        file = self._file(descriptor)
        if isinstance(file, InParts):
            return file.read(offset, offset + size)
        end = min(offset + size, file.size)
        if end <= offset:
            return b""
        with self._lock:
            found = self._cache.find(file.key, offset, end)
            first, last = (0, 0) if found else self._cache.wanted(file.key, offset, end, file.size)
        if found is not None:
            return found
        data = self._fetched(file.key, first, last)
        with self._lock:
            self._cache.put(file.key, first, data)
        return data[offset - first : end - first]

    def read_cached(self, descriptor: int, size: int, offset: int) -> None:
        """Return nothing: what was fetched is looked up on a thread, as what was not."""

    def _fetched(self, key: str, first: int, last: int) -> bytes:
        try:
            return self.ask(lambda: self.bucket.ranges(key, [(first, last)]))[0]
        except FileNotFoundError:
            damaged = ArchiveDamagedError(self.bucket.url, f"{key} is missing")
        named = ObjectKey.parse(key)
        raise damaged if named is None else self.ask(lambda: lost(self.bucket, named, damaged))

    def _file(self, descriptor: int) -> InBucket | InParts:
        try:
            return self._open_files[descriptor]
        except KeyError:
            raise OSError(EBADF, "the file is closed") from None

    # names and locks

    def exists(self, path: str) -> bool:
        return path in self.files

    def list(self, path: str) -> list[str]:
        begin = path + "/"
        return [name.removeprefix(begin) for name in self.files if name.startswith(begin)]

    def try_hold(self, descriptor: int, *, exclusive: bool = False) -> bool:
        return not exclusive

    # what an archive does not do

    def create(self, path: str) -> NoReturn:
        _refuse(path)


def _refuse(path: str) -> NoReturn:
    raise OSError(EROFS, "an archive is only read", path)


class _Stream(io.RawIOBase):
    """A file of an archive as an object for reading in the background."""

    def __init__(self, disk: ObjectDisk, descriptor: int) -> None:
        self._disk = disk
        self._descriptor = descriptor
        self._at = 0

    def fileno(self) -> int:
        return self._descriptor

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        elif whence == io.SEEK_END:
            offset += self._disk.size(self._descriptor)
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self._disk.read(self._descriptor, len(buffer), self._at)
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._disk.close(self._descriptor)
        super().close()
