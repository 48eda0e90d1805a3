"""A volatile disk: in place of `aquipu.local.disk.disk.Disk` that keeps what was synced
apart from what was not.

Everything happens in memory and is written down in a log. `Replay` walks through that log, and can
at any moment produce the states that a power cut may leave at that moment:

* what a finished sync covers is there: all that was written to the file *before the sync began* (a
  write that syncs by itself covers just its own bytes), all the names that were in a directory when
  its fsync began;
* of everything else, each 512-byte sector is there or not, each change of a size and of a name is
  there or not.

A failed fdatasync has the three behaviours that real file systems have (`Failure`): the pages stay
in memory and count as clean, so that no later sync writes them; they are thrown back to what the
disk has; they stay dirty.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from errno import EIO, ENOENT, ENOSPC
from itertools import count
from random import Random
from typing import BinaryIO

from aquipu.local.disk.disk import Disk
from aquipu.local.disk.pins import Pin

SECTOR = 512

Files = dict[str, bytes]
"""A state of a disk: the bytes of each file by its path."""


class Failure(Enum):
    """What a failed fdatasync does to the pages that it was to write."""

    CLEAN = "they stay in memory, and no later sync writes them"
    REVERTED = "they are thrown back to what the disk has"
    DIRTY = "they stay dirty"


@dataclass(eq=False, slots=True)
class Inode:
    """A file, whatever its names; ``data`` is what a process reads: the page cache."""

    data: bytearray


@dataclass(eq=False, slots=True)
class Change:
    """A change of a file's bytes or size.

    A write of ``data`` at ``offset``; without data, a new size.
    """

    inode: Inode
    offset: int
    data: bytes | None


@dataclass(eq=False, slots=True)
class Rename:
    """A change of the names in a directory:

    ``new`` names the inode (None: no new name), ``old`` is no name any more.
    """

    old: str | None
    new: str | None
    inode: Inode | None


@dataclass(eq=False, slots=True)
class Covered:
    """These changes are on the disk."""

    changes: list[Change]


@dataclass(eq=False, slots=True)
class NamesCovered:
    """All changes of names so far in this directory are on the disk."""

    directory: str


@dataclass(eq=False, slots=True)
class Forgotten:
    """A sync failed, and these changes will never be written."""

    changes: list[Change]


Changes = list[Change]
Event = Change | Rename | Covered | NamesCovered | Forgotten

Trap = Callable[[str, int], "Fault | None"]
"""Asked before each call, with its name and the count of all calls so far; what it gives back
happens instead.
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """An error in place of a call.

    A write may do a part first; a sync may treat its pages in one of three ways.
    """

    error: int
    part: float = 0.0
    failure: Failure = Failure.DIRTY


@dataclass(slots=True)
class _Open:
    inode: Inode
    life: int


class _Stream(io.BytesIO):
    """A file as it was when it was opened, with a descriptor that can be held."""

    def __init__(self, disk: VolatileDisk, descriptor: int, data: bytes) -> None:
        super().__init__(data)
        self._disk = disk
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        self._disk.close(self._descriptor)
        super().close()


_machines = count(1)


class VolatileDisk(Disk):
    """The disk of one machine. ``files`` is what it holds, durably, when the machine starts."""

    def __init__(
        self, files: Files | None = None, *, trap: Trap | None = None, one_call_syncs: bool = True
    ) -> None:
        super().__init__()
        self.log: list[Event] = []
        self.started_with: dict[str, Inode] = {
            path: Inode(bytearray(data)) for path, data in (files or {}).items()
        }
        self.trap = trap
        self.room: int | None = None
        """Bytes by which files may still grow; None: as many as they like. Removing gives back."""
        self.calls = 0
        self._names = dict(self.started_with)
        self._original = {inode: bytes(inode.data) for inode in self._names.values()}
        self._descriptors: dict[int, _Open] = {}
        self._locked: dict[Inode, int] = {}
        self._held: dict[Inode, dict[int, bool]] = {}  # by which descriptors, and whether alone
        self._directories: dict[str, Inode] = {}  # to be locked
        self._unsynced: dict[Inode, Changes] = {}
        self._next_descriptor = 1000
        self._life = 0
        self._machine = next(_machines).to_bytes(16, "little")
        self._one_call_syncs = one_call_syncs

    def kill_process(self) -> None:
        """The process that used the disk is gone, its page cache stays: old descriptors are void
        and its locks free.
        """
        self._life += 1
        self._locked.clear()
        self._held.clear()

    def original(self) -> dict[Inode, bytes]:
        """The bytes that the inodes had when the machine started."""
        return self._original

    def bytes_of(self, name: str) -> bytes:
        """The bytes of the file of this name in the store's directory."""
        (found,) = (inode for path, inode in self._names.items() if path.endswith(f"/{name}"))
        return bytes(found.data)

    def spoil(self, ending: str, pick: int, bit: int | None) -> None:
        """Of one of the files whose name ends so a bit is changed behind everybody's back; or the
        file is gone.
        """
        paths = sorted(path for path in self._names if path.endswith(ending))
        if not paths:
            return
        path = paths[pick % len(paths)]
        inode = self._names[path]
        if bit is None:
            self.log.append(Rename(path, None, None))
            del self._names[path]
        elif inode.data:
            at = bit % (8 * len(inode.data))
            changed = bytes([inode.data[at >> 3] ^ 1 << (at & 7)])
            self.log.append(Covered([self._change(inode, at >> 3, changed)]))
            self._unsynced[inode].pop()

    # the calls of Disk

    def pin(self, path: str) -> Pin:
        """The directory is always there."""
        return Pin(None)

    def seen(self, file: str | int) -> tuple[int, int, int, int]:
        """The directory is always the same one; a file's size is what was written to it."""
        return 0, 0, 0, 0 if isinstance(file, str) else len(self._inode(file).data)

    def identity(self, file: str | int) -> tuple[int, int]:
        """Of the directory; of a file when it is needed to tell its name from its descriptor."""
        if isinstance(file, str) and file.count("/") == 1:
            return 0, 0
        return 0, id(self._named(file) if isinstance(file, str) else self._inode(file))

    def permit_as(self, path: str) -> None:
        """Files have no rights here."""

    def list(self, path: str) -> list[str]:
        self._call("list")
        return [name.rpartition("/")[2] for name in self._names if name.rpartition("/")[0] == path]

    def exists(self, path: str) -> bool:
        """The store's directory is always there."""
        self._call("exists")
        return path in self._names or path.count("/") == 1

    def make_directories(self, path: str) -> None:
        raise NotImplementedError("the directory is always there")

    def sync_directory(self, path: str) -> None:
        self._call("sync_directory")
        self.log.append(NamesCovered(path))

    def rename(self, old: str, new: str) -> None:
        self._call("rename")
        inode = self._named(old)
        del self._names[old]
        self._give_room(self._names.get(new))
        self._names[new] = inode
        self.log.append(Rename(old, new, inode))

    def link(self, old: str, new: str) -> None:
        self._call("link")
        inode = self._names[new] = self._named(old)
        self.log.append(Rename(None, new, inode))

    def clone(self, source: int, descriptor: int) -> bool:
        """No blocks are shared."""
        return False

    def remove(self, path: str) -> None:
        self._call("remove")
        self._give_room(self._named(path))
        del self._names[path]
        self.log.append(Rename(path, None, None))

    def create(self, path: str) -> int:
        self._call("create")
        inode = self._names.get(path)
        if inode is None:
            inode = self._names[path] = Inode(bytearray())
            self.log.append(Rename(None, path, inode))
        elif inode.data:
            self._change(inode, 0, None)
        return self._descriptor(inode)

    def open(self, path: str, *, writable: bool = False) -> int:
        self._call("open")
        return self._descriptor(self._named(path))

    def open_stream(self, path: str) -> BinaryIO:
        self._call("open_stream")
        inode = self._named(path)
        return _Stream(self, self._descriptor(inode), bytes(inode.data))

    def share(self, path: str, data: bytes) -> int:
        """The file, of which nothing is certain; what is published in it later is not seen."""
        descriptor = self.create(path)
        self.write(descriptor, [data], 0)
        return descriptor

    def publish(self, descriptor: int, data: bytes | bytearray) -> None:
        """What a power cut leaves of it nobody asks: it is of another life of the machine then."""
        opened = self._descriptors.get(descriptor)
        if opened is not None and opened.life == self._life:
            opened.inode.data[: len(data)] = data

    def look_into(self, descriptor: int, size: int) -> bytes:
        return self.read(descriptor, size, 0)

    def life(self) -> bytes:
        return self._machine

    def is_shared(self, path: str) -> bool:
        return True

    def close(self, descriptor: int) -> None:
        if descriptor in self._descriptors:
            inode = self._descriptors.pop(descriptor).inode
            if self._locked.get(inode) == descriptor:
                del self._locked[inode]
            self._held.get(inode, {}).pop(descriptor, None)

    def size(self, descriptor: int) -> int:
        self._call("size")
        return len(self._inode(descriptor).data)

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        self._call("read")
        return bytes(self._inode(descriptor).data[offset : offset + size])

    def read_cached(self, descriptor: int, size: int, offset: int) -> None:
        """Nothing: everything is read."""

    def write(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> None:
        self._write("write", descriptor, buffers, offset)

    def write_synced(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> bool:
        if not self._one_call_syncs:
            return False
        change = self._write("write_synced", descriptor, buffers, offset)
        self._unsynced[change.inode].remove(change)
        self.log.append(Covered([change]))
        return True

    def sync(self, descriptor: int) -> None:
        inode = self._inode(descriptor)
        changes = list(self._unsynced.get(inode, ()))  # those before it began
        fault = self._trapped("sync")
        if fault is not None:
            self._fail_sync(inode, changes, fault.failure)
            raise OSError(fault.error, "fdatasync failed, as told")
        self._unsynced[inode] = [
            change for change in self._unsynced.get(inode, ()) if change not in changes
        ]
        self.log.append(Covered(changes))

    def truncate(self, descriptor: int, size: int) -> None:
        inode = self._inode(descriptor)
        self._call("truncate" + self._of_lock(inode))
        self._change(inode, size, None)

    def try_lock(self, path: str, *, shared: bool = False) -> int | None:
        self._call("try_lock")
        inode = self._names.get(path)
        if inode is None:
            inode = self._names[path] = Inode(bytearray())
            self.log.append(Rename(None, path, inode))
        if inode in self._locked:
            return None
        descriptor = self._descriptor(inode)
        self._locked[inode] = descriptor
        return descriptor

    def try_lock_directory(self, path: str, *, shared: bool = False) -> int | None:
        self._call("try_lock_directory")
        inode = self._directories.setdefault(path, Inode(bytearray()))
        if inode in self._locked:
            return None
        descriptor = self._locked[inode] = self._descriptor(inode)
        return descriptor

    def try_hold(self, descriptor: int, *, exclusive: bool = False) -> bool:
        self._call("try_hold")
        holders = self._held.setdefault(self._inode(descriptor), {})
        others = [is_exclusive for other, is_exclusive in holders.items() if other != descriptor]
        if any(others) or (exclusive and others):
            return False
        holders[descriptor] = exclusive
        return True

    # how they work

    def _of_lock(self, inode: Inode) -> str:
        """A call to the lock file, which holds nothing of the log, is told apart."""
        return " (lock)" if inode in self._locked else ""

    def _trapped(self, call: str) -> Fault | None:
        self.calls += 1
        return None if self.trap is None else self.trap(call, self.calls)

    def _call(self, call: str) -> None:
        fault = self._trapped(call)
        if fault is not None:
            raise OSError(fault.error, f"{call} failed, as told")

    def _write(self, call: str, descriptor: int, buffers: Sequence[bytes], offset: int) -> Change:
        inode, data = self._inode(descriptor), b"".join(buffers)
        fault = self._trapped(call + self._of_lock(inode))
        if fault is not None:
            written = data[: int(len(data) * fault.part)]
            if written:
                self._change(inode, offset, written)
            raise OSError(fault.error, f"{call} failed, as told")
        return self._change(inode, offset, data)

    def _change(self, inode: Inode, offset: int, data: bytes | None) -> Change:
        self._take_room(inode, offset, data)
        change = Change(inode, offset, data)
        apply(inode.data, change)
        self._unsynced.setdefault(inode, []).append(change)
        self.log.append(change)
        return change

    def _take_room(self, inode: Inode, offset: int, data: bytes | None) -> None:
        """Raise ENOSPC for a write that makes a file longer than there is room for."""
        if self.room is None:
            return
        if data is None:
            self.room += max(0, len(inode.data) - offset)
            return
        grows = max(0, offset + len(data) - max(offset, len(inode.data)))
        if grows > self.room:
            raise OSError(ENOSPC, "the disk is full, as told")
        self.room -= grows

    def _give_room(self, inode: Inode | None) -> None:
        if self.room is not None and inode is not None:
            self.room += len(inode.data)

    def _fail_sync(self, inode: Inode, changes: Changes, failure: Failure) -> None:
        if failure is Failure.DIRTY:
            return
        writes = [change for change in changes if change.data is not None]
        self._unsynced[inode] = [
            change for change in self._unsynced.get(inode, ()) if change not in writes
        ]
        self.log.append(Forgotten(writes))
        if failure is Failure.REVERTED:
            replay = Replay(self)
            for event in self.log:
                replay.take(event)
            size = len(inode.data)
            inode.data[:] = replay.certain(inode)[:size].ljust(size, b"\0")

    def _named(self, path: str) -> Inode:
        if path not in self._names:
            raise FileNotFoundError(ENOENT, "no such file", path)
        return self._names[path]

    def _descriptor(self, inode: Inode) -> int:
        self._next_descriptor += 1
        self._descriptors[self._next_descriptor] = _Open(inode, self._life)
        return self._next_descriptor

    def _inode(self, descriptor: int) -> Inode:
        opened = self._descriptors.get(descriptor)
        if opened is None or opened.life != self._life:
            raise OSError(EIO, "the process of this descriptor is gone")
        return opened.inode


@dataclass(slots=True)
class _Pending:
    """A change that has happened, as the disk sees it."""

    change: Change
    covered: bool = False
    """A sync that began after it has finished."""
    lost: bool = False
    """A failed sync has forgotten its bytes; the size that it gave the file may still reach the
    disk.
    """


@dataclass(slots=True)
class _File:
    """What the disk holds of an inode for certain, and the changes since the first uncertain one,
    in their order.
    """

    certain: bytearray
    since: list[_Pending] = field(default_factory=list)

    def settle(self) -> None:
        """Changes move to the certain part as long as nothing uncertain stands before them."""
        while self.since and (self.since[0].covered or self.since[0].lost):
            pending = self.since.pop(0)
            _apply_part(self.certain, pending, whole=True)


class Replay:
    """The disk at each moment of a log:

    `take` one event after another, and ask for the states that may be left.
    """

    def __init__(self, disk: VolatileDisk) -> None:
        self._names = dict(disk.started_with)
        self._renames: list[Rename] = []  # since the last fsync of their directory
        self._files = {inode: _File(bytearray(data)) for inode, data in disk.original().items()}
        self._pending: dict[int, _Pending] = {}

    def take(self, event: Event) -> None:
        """The next event of the log has happened."""
        match event:
            case Change():
                pending = self._pending[id(event)] = _Pending(event)
                self._files.setdefault(event.inode, _File(bytearray())).since.append(pending)
            case Covered(changes):
                for change in changes:
                    self._pending[id(change)].covered = True
                self._settle(changes)
            case Forgotten(changes):
                for change in changes:
                    self._pending[id(change)].lost = True
                self._settle(changes)
            case Rename():
                self._renames.append(event)
            case NamesCovered(directory):
                for rename in [
                    rename for rename in self._renames if _directory(rename) == directory
                ]:
                    _rename(self._names, rename)
                    self._renames.remove(rename)

    def certain(self, inode: Inode) -> bytes:
        """The bytes of an inode when nothing is there but what a sync has covered."""
        return self._left(inode, _nothing)

    def states(self, random: Random, several: int) -> Iterator[Files]:
        """What a power cut at this moment may leave: nothing unsynced; all of it; sizes without
        data; and ``several`` each of a prefix with a torn last write, and of random subsets of
        sectors, sizes and names.
        """
        yield self._state(_nothing, set())
        everything = set(map(id, self._renames))
        yield self._state(_everything, everything)
        if not any(file.since for file in self._files.values()) and not self._renames:
            return
        yield self._state(_sizes_only, everything)
        for _ in range(several):
            names = {id(rename) for rename in self._renames if random.random() < 0.5}
            yield self._state(_Prefix(random, self._uncertain()), everything)
            yield self._state(_Subset(random), names)

    def _state(self, choose: Choose, names: set[int]) -> Files:
        named = dict(self._names)
        for rename in self._renames:
            if id(rename) in names:
                _rename(named, rename)
        return {path: self._left(inode, choose) for path, inode in named.items()}

    def _left(self, inode: Inode, choose: Choose) -> bytes:
        file = self._files.get(inode)
        if file is None:
            return b""
        data = bytearray(file.certain)
        for pending in file.since:
            _apply_part(data, pending, whole=pending.covered, choose=choose)
        return bytes(data)

    def _uncertain(self) -> int:
        """How many writes and new sizes are not certain."""
        return sum(not pending.covered for file in self._files.values() for pending in file.since)

    def _settle(self, changes: list[Change]) -> None:
        for inode in {change.inode for change in changes}:
            self._files[inode].settle()
        for change in changes:
            del self._pending[id(change)]


class Choose:
    """The part of an uncertain change that is there: all, single sectors of a write, its size."""

    def whole(self) -> bool:
        """Asked once for each uncertain change, in order: all of it?"""
        return False

    def sector(self) -> bool:
        """Asked for each sector of a write that is not there whole."""
        return False

    def size(self) -> bool:
        """Asked for each change that is not there whole: the size at least?"""
        return False


class _Everything(Choose):
    def whole(self) -> bool:
        return True


class _SizesOnly(Choose):
    def size(self) -> bool:
        return True


class _Prefix(Choose):
    """The first changes are there, the last of them torn in the middle, the others not."""

    def __init__(self, random: Random, uncertain: int) -> None:
        self._left = random.randrange(uncertain + 1) if uncertain else 0
        self._sectors = random.randrange(1, 8)

    def whole(self) -> bool:
        self._left -= 1
        return self._left >= 0

    def sector(self) -> bool:
        self._sectors -= 1
        return self._left == -1 and self._sectors >= 0


class _Subset(Choose):
    def __init__(self, random: Random) -> None:
        self._random = random
        self._most = random.random()

    def sector(self) -> bool:
        return self._random.random() < self._most

    def size(self) -> bool:
        return self._random.random() < 0.5


_nothing, _everything, _sizes_only = Choose(), _Everything(), _SizesOnly()


def _apply_part(
    data: bytearray, pending: _Pending, *, whole: bool, choose: Choose = _nothing
) -> None:
    """As much of a change as is there."""
    change = pending.change
    if pending.lost:
        _lengthen(data, change)
    elif whole or choose.whole():
        apply(data, change)
    elif change.data is None:
        if choose.size():
            apply(data, change)
    else:
        if choose.size():
            _lengthen(data, change)
        for start, end in _sectors(change.offset, len(change.data)):
            if choose.sector():
                apply(
                    data,
                    Change(
                        change.inode,
                        start,
                        change.data[start - change.offset : end - change.offset],
                    ),
                )


def _lengthen(data: bytearray, change: Change) -> None:
    """The size that a write gave the file, without its bytes."""
    if change.data is not None:
        data.extend(bytes(max(change.offset + len(change.data) - len(data), 0)))


def _sectors(offset: int, size: int) -> Iterator[tuple[int, int]]:
    """The pieces of a range that lie within one sector each."""
    end = offset + size
    while offset < end:
        border = min(offset - offset % SECTOR + SECTOR, end)
        yield offset, border
        offset = border


def _rename(names: dict[str, Inode], rename: Rename) -> None:
    if rename.old is not None:
        names.pop(rename.old, None)
    if rename.new is not None and rename.inode is not None:
        names[rename.new] = rename.inode


def _directory(rename: Rename) -> str:
    return (rename.new or rename.old or "").rpartition("/")[0]


def apply(data: bytearray, change: Change) -> None:
    """A change of a file, done to its bytes."""
    end = change.offset + len(change.data or b"")
    data.extend(bytes(max(end - len(data), 0)))
    if change.data is None:
        del data[change.offset :]
    else:
        data[change.offset : end] = change.data
