"""What the tests of several rooms share: a disk that fails on demand, commits made by hand, and files read back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from errno import EBADF
from pathlib import Path
from threading import Event, Lock
from typing import Any, BinaryIO, NamedTuple

from aquipu.commit import Commit, Landing
from aquipu.disk import Disk
from aquipu.frame import Header, Walk, records
from aquipu.journal import Journal
from aquipu.layout import MANIFEST, SEGMENT_HEADER_BYTES, UNNAMED, Manifest, SegmentHeader, first_sequence_of, segment_name
from aquipu.record import Record
from aquipu.recovery import RecoveryReport, recover
from aquipu.statistics import Statistics
from aquipu.tally import Counters, Latency

MIB = 1024 * 1024
NOW = 1_700_000_000_000_000_000
STORE_ID = bytes(range(16))
ANY = "any call"
_HOLD_SECONDS_MAX = 60.0

# a disk that fails


class Crash(BaseException):
    """The process ends here. No handler of the engine may hold it up, and no cleaning up reaches the disk."""


class Call(NamedTuple):
    """One call of a disk, as it was made."""

    method: str
    path: str
    """Of the file or directory; of an open file, the name that it has at the time of the call."""
    offset: int = 0
    size: int = 0
    failed: bool = False
    """Whether it was told to fail."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass
class Hold:
    """A call that waits: ``reached`` is set when it has begun, and it goes on when the test sets ``released``."""

    reached: Event = field(default_factory=Event)
    released: Event = field(default_factory=Event)

    def wait(self) -> None:
        """Called by the disk."""
        self.reached.set()
        assert self.released.wait(_HOLD_SECONDS_MAX), "the test never released a call that it holds"


@dataclass
class _Rule:
    """Which call is meant, and what becomes of it."""

    method: str
    of: str
    nth: int
    forever: bool
    error: int | BaseException | None = None
    written: int = 0
    hold: Hold | None = None
    seen: int = 0

    def strikes(self, method: str, path: str) -> bool:
        if self.method not in (ANY, method) or not path.endswith(self.of):
            return False
        self.seen += 1
        return self.seen == self.nth or (self.forever and self.seen > self.nth)

    def exception(self) -> BaseException:
        if isinstance(self.error, int):
            return OSError(self.error, os.strerror(self.error))
        assert self.error is not None
        return self.error


class FailingDisk(Disk):
    """A disk with real files that records its calls, and fails or holds those that it is told to.

    Syncs are recorded and not made, which is all that is needed where nobody cuts the power, and much faster.
    ``calls`` holds every call in its order, ``open_files`` the path of each descriptor that is not closed yet. A call that
    fails does nothing, with two exceptions: a write may leave its first bytes, and a close lets go of the descriptor, as
    it does on Linux. With ``writes_synced=False`` it is a system without RWF_DSYNC: every sync is a call of ``sync``.
    """

    def __init__(self, *, writes_synced: bool = True) -> None:
        super().__init__()
        self._writes_synced = writes_synced
        self.calls: list[Call] = []
        self.open_files: dict[int, str] = {}
        self._rules: list[_Rule] = []
        self._lock = Lock()  # the worker and the readers call from different threads

    # what a test tells it

    def fail(
        self,
        method: str,
        error: int | BaseException,
        *,
        nth: int = 1,
        forever: bool = False,
        of: str = "",
        written: int = 0,
    ) -> None:
        """Make the ``nth`` call of ``method`` from now on fail with an errno or an exception; ``forever``: those after too.

        ``method`` may be ANY. ``of`` counts only calls whose path ends so. A failing write leaves ``written`` bytes.
        """
        self._rules.append(_Rule(method, of, nth, forever, error=error, written=written))

    def hold(self, method: str, *, nth: int = 1, of: str = "") -> Hold:
        """Make the ``nth`` call of ``method`` from now on wait before it does anything."""
        hold = Hold()
        self._rules.append(_Rule(method, of, nth, False, hold=hold))
        return hold

    def crash(self, nth: int) -> None:
        """End the process just before its ``nth`` call from now on: that one and all later ones raise Crash."""
        self.fail(ANY, Crash(), nth=nth, forever=True)

    def mend(self) -> None:
        """Forget every rule: from now on the disk is sound."""
        self._rules.clear()

    def end_process(self) -> None:
        """Close what is still open, as the end of a process does."""
        for descriptor in list(self.open_files):
            os.close(descriptor)
        self.open_files.clear()

    # what a test asks it

    @property
    def failures(self) -> int:
        """How many calls were made to fail."""
        return sum(call.failed for call in self.calls)

    @property
    def syncs(self) -> int:
        """How many calls were to make the bytes of a file durable."""
        return self.count("sync", "write_synced")

    def count(self, *methods: str) -> int:
        """How many calls there were of these methods."""
        return sum(call.method in methods for call in self.calls)

    def steps(self, *methods: str) -> list[tuple[str, str]]:
        """Method and file name of the calls of these methods, in their order."""
        return [(call.method, call.name) for call in self.calls if call.method in methods]

    # the calls

    def _strike(self, method: str, path: str, offset: int = 0, size: int = 0) -> _Rule | None:
        """Record a call; wait if it is held; give the rule by which it fails."""
        with self._lock:
            struck = [rule for rule in self._rules if rule.strikes(method, path)]
            failing = next((rule for rule in struck if rule.error is not None), None)
            self.calls.append(Call(method, path, offset, size, failing is not None))
        for rule in struck:
            if rule.hold is not None:
                rule.hold.wait()
        return failing

    def _enter(self, method: str, path: str, offset: int = 0, size: int = 0) -> None:
        failing = self._strike(method, path, offset, size)
        if failing is not None:
            raise failing.exception()

    def _enter_write(self, method: str, descriptor: int, buffers: Sequence[bytes], offset: int) -> None:
        whole = b"".join(buffers)
        failing = self._strike(method, self._path(descriptor), offset, len(whole))
        if failing is not None:
            super().write(descriptor, [whole[: failing.written]], offset)
            raise failing.exception()

    def _path(self, descriptor: int) -> str:
        return self.open_files.get(descriptor, "?")

    def _opened(self, descriptor: int, path: str) -> int:
        self.open_files[descriptor] = path
        return descriptor

    def list(self, path: str) -> list[str]:
        self._enter("list", path)
        return super().list(path)

    def exists(self, path: str) -> bool:
        self._enter("exists", path)
        return super().exists(path)

    def make_directories(self, path: str) -> None:
        self._enter("make_directories", os.path.abspath(path))
        super().make_directories(path)

    def sync_directory(self, path: str) -> None:
        self._enter("sync_directory", path)

    def rename(self, old: str, new: str) -> None:
        self._enter("rename", new)
        super().rename(old, new)
        for descriptor, path in self.open_files.items():
            if path == old:
                self.open_files[descriptor] = new

    def remove(self, path: str) -> None:
        self._enter("remove", path)
        super().remove(path)

    def create(self, path: str) -> int:
        self._enter("create", path)
        return self._opened(super().create(path), path)

    def open(self, path: str, *, writable: bool = False) -> int:
        self._enter("open", path)
        return self._opened(super().open(path, writable=writable), path)

    def open_stream(self, path: str) -> BinaryIO:
        self._enter("open_stream", path)
        return super().open_stream(path)

    def close(self, descriptor: int) -> None:
        failing = self._strike("close", self._path(descriptor))
        if self.open_files.pop(descriptor, None) is not None:
            super().close(descriptor)
        elif failing is None:  # the number may be someone else's by now
            raise OSError(EBADF, "closed twice")
        if failing is not None:
            raise failing.exception()

    def size(self, descriptor: int) -> int:
        self._enter("size", self._path(descriptor))
        return super().size(descriptor)

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        self._enter("read", self._path(descriptor), offset, size)
        return super().read(descriptor, size, offset)

    def write(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> None:
        self._enter_write("write", descriptor, buffers, offset)
        super().write(descriptor, buffers, offset)

    def write_synced(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> bool:
        if self._writes_synced:
            self._enter_write("write_synced", descriptor, buffers, offset)
            super().write(descriptor, buffers, offset)
        return self._writes_synced

    def sync(self, descriptor: int) -> None:
        self._enter("sync", self._path(descriptor))

    def truncate(self, descriptor: int, size: int) -> None:
        self._enter("truncate", self._path(descriptor), size)
        super().truncate(descriptor, size)

    def try_lock(self, path: str, *, shared: bool = False) -> int | None:
        self._enter("try_lock", path)
        descriptor = super().try_lock(path, shared=shared)
        return None if descriptor is None else self._opened(descriptor, path)


def undurable_names(calls: Iterable[Call]) -> set[str]:
    """The files and directories that a power cut could still take with their names after these calls.

    A file that replaces one whose name is durable is not among them: the one or the other will be there.
    """
    fresh: set[str] = set()
    durable: set[str] = set()
    for call in calls:
        if call.failed:
            continue
        if call.method in ("rename", "make_directories") and call.path not in durable:
            fresh.add(call.path)
        elif call.method == "remove":
            fresh.discard(call.path)
            durable.discard(call.path)
        elif call.method == "sync_directory":
            synced = {name for name in fresh if name.rpartition("/")[0] == call.path}
            fresh -= synced
            durable |= synced
    return fresh


# commits made by hand


def commit(
    *payloads: bytes, sync: bool = True, time: int = NOW, labels: dict[int, tuple[str, ...]] | None = None
) -> Commit[Any]:
    """A commit that is ready to be written."""
    made: Commit[Any] = Commit()
    made.payloads += payloads
    made.timestamps += [time] * len(payloads)
    made.labels.update(labels or {})
    made.sync = sync
    return made


def write(journal: Journal, *payloads: bytes, sync: bool = True, time: int = NOW) -> Landing:
    """Write one commit of these records, as the worker does, but without the `tidy` after it."""
    return journal.write(journal.prepare(commit(*payloads, sync=sync, time=time)))


def open_log(
    path: Path, disk: Disk | None = None, *, max_segment_bytes: int = 64 * MIB, store_id: bytes = STORE_ID
) -> tuple[Journal, RecoveryReport]:
    """Open the log in this directory, or make a new one, as opening a store does once it has the lock."""
    return recover(disk or FailingDisk(), str(path), max_segment_bytes=max_segment_bytes, new_store_id=store_id, now=NOW)


# statistics


def untimed(statistics: Statistics) -> Statistics:
    """Without what changes by itself: times, and the space on the disk."""
    empty = Counters()
    return statistics._replace(
        append_seconds=empty.append_times.snapshot(),
        commit_records=empty.commit_records.snapshot(),
        sync_seconds=Latency().syncs.snapshot(),
        oldest_unsynced_seconds=0.0,
        under_way_seconds=0.0,
        slowest_sync_seconds=0.0,
        disk_bytes=0,
        free_bytes=None,
    )


# files read back


def segments_in(path: Path) -> list[Path]:
    """The segment files of a store, in their order."""
    return sorted(file for file in path.iterdir() if first_sequence_of(file.name) is not None)


def segment_in(path: Path, first_sequence: int = 0) -> Path:
    """The file of the segment that begins with this sequence."""
    return path / segment_name(first_sequence)


def header_in(path: Path, first_sequence: int = 0) -> SegmentHeader:
    """The header of the segment that begins with this sequence."""
    manifest = Manifest.decode((path / MANIFEST).read_bytes())
    data = segment_in(path, first_sequence).read_bytes()
    return SegmentHeader.decode(data, manifest.store_id, first_sequence)


def frames_in(path: Path, first_sequence: int = 0) -> list[tuple[int, Header, bytes]]:
    """The frames of one segment as (offset, header, body), up to the first that does not check."""
    header = header_in(path, first_sequence)
    walk = Walk(seed=header.seed, offset=SEGMENT_HEADER_BYTES, sequence=first_sequence, link=header.link)
    walk.feed(segment_in(path, first_sequence).read_bytes()[SEGMENT_HEADER_BYTES:])
    return list(walk)


def records_in(path: Path) -> list[Record]:
    """Every record of a store, read from its files by themselves."""
    firsts = [first_sequence_of(file.name) for file in segments_in(path)]
    frames = [frame for first in firsts if first is not None for frame in frames_in(path, first)]
    return [record for _, header, body in frames for record in records(header, body)]


def data_in(path: Path) -> list[bytes]:
    """The data of every record of a store."""
    return [record.data for record in records_in(path)]


def snapshot(path: Path) -> dict[str, tuple[bytes, int]]:
    """Everything about a directory that a write would change: names, bytes and times of modification."""
    found = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.iterdir()}
    return found | {".": (b"", path.stat().st_mtime_ns)}


def flip(file: Path, offset: int, bit: int = 0) -> None:
    """Turn one bit of a file over."""
    data = bytearray(file.read_bytes())
    data[offset] ^= 1 << bit
    file.write_bytes(data)


def copy_of(path: Path, name: str) -> Path:
    """A copy of a store's directory beside it, under this name.

    A living store may be building a table meanwhile, and give it its name at any moment: what is unnamed is left out.
    """
    unnamed = shutil.ignore_patterns(f"*.relations{UNNAMED}")
    return Path(shutil.copytree(path, path.parent / name, ignore=unnamed))
