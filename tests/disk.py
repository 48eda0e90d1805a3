"""A disk with real files that does what a test tells it: one for all tests, told call by call."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from errno import EBADF
from threading import Event, Lock
from typing import Any, BinaryIO, NamedTuple, TypeVar

from aquipu.local.disk.disk import Disk

T = TypeVar("T")

ANY = "any call"
WRITES = ("write", "write_synced")
"""The calls that write a commit."""
_ASIDE = ("free", "life", "share")
"""Calls that are not recorded, and meant only when they are named: they come at any time."""
_HOLD_SECONDS_MAX = 60.0


class Crash(BaseException):
    """The process ends here.

    No handler of the engine may hold it up, and no cleaning up reaches the disk.
    """


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
    """A call that waits:

    ``reached`` is set when it has begun, and it goes on when the test sets ``released``.
    """

    reached: Event = field(default_factory=Event)
    released: Event = field(default_factory=Event)

    def wait(self) -> None:
        """Called by the disk."""
        self.reached.set()
        assert self.released.wait(_HOLD_SECONDS_MAX), "the test never released a call that it holds"


@dataclass
class Rule:
    """Which call is meant, and what becomes of it."""

    methods: Sequence[str]
    of: str
    nth: int
    forever: bool
    error: int | BaseException | None = None
    written: int = 0
    answer: Callable[[], Any] | None = None
    action: Callable[[], object] | None = None
    seen: int = 0
    """Calls that were meant, whether it was their turn or not."""

    def strikes(self, method: str, path: str) -> bool:
        """Whether it is the turn of this call."""
        is_meant = method in self.methods or (ANY in self.methods and method not in _ASIDE)
        if not is_meant or not path.endswith(self.of):
            return False
        self.seen += 1
        return self.seen == self.nth or (self.forever and self.seen > self.nth)

    def outcome(self) -> Any:
        """Give the answer, or raise the error."""
        if self.answer is not None:
            return self.answer()
        if isinstance(self.error, int):
            raise OSError(self.error, os.strerror(self.error))
        assert self.error is not None
        raise self.error


class FailingDisk(Disk):
    """A disk with real files that records its calls, and fails or holds those that it is told to.

    Syncs are recorded and not made, which is all that is needed where nobody cuts the power, and
    much faster. ``calls`` holds every call in its order, ``open_files`` the path of each descriptor
    that is not closed yet. A call that fails does nothing, with two exceptions: a write may leave
    its first bytes, and a close lets go of the descriptor, as it does on Linux. With
    ``writes_synced=False`` it is a system without RWF_DSYNC: every sync is a call of ``sync``.

    Every rule is for the ``nth`` call from now on of a method, one of several methods, or ANY;
    ``forever``: for those after it too. ``of`` counts only calls whose path ends so. Beside the
    methods of a disk, "read_stream" and "seek_stream" are those of a file that `open_stream` gave.
    ``caches`` says of a place in a file whether the system has in memory what stands there; as long
    as no test says otherwise, it has nothing.
    """

    def __init__(self, *, writes_synced: bool = True) -> None:
        super().__init__()
        self._writes_synced = writes_synced
        self.caches: Callable[[int], bool] = lambda offset: False
        self.calls: list[Call] = []
        self.open_files: dict[int, str] = {}
        self.misused: list[str] = []
        """Streams that were closed while they were read, or that were not closed by their owner."""
        self._rules: list[Rule] = []
        self._holds: list[Hold] = []
        self._lock = Lock()  # the worker and the readers call from different threads

    # what a test tells it

    def fail(
        self,
        method: str | Sequence[str],
        error: int | BaseException,
        *,
        nth: int = 1,
        forever: bool = False,
        of: str = "",
        written: int = 0,
    ) -> Rule:
        """Make a call fail with an errno or an exception; a write leaves ``written`` bytes."""
        return self._rule(method, nth, forever, of, error=error, written=written)

    def hold(
        self, method: str | Sequence[str], *, nth: int = 1, forever: bool = False, of: str = ""
    ) -> Hold:
        """Make a call wait before it does anything."""
        hold = Hold()
        self._holds.append(hold)
        self.before(method, hold.wait, nth=nth, forever=forever, of=of)
        return hold

    def before(
        self,
        method: str | Sequence[str],
        action: Callable[[], object],
        *,
        nth: int = 1,
        forever: bool = False,
        of: str = "",
    ) -> Rule:
        """Call ``action`` before a call, on its thread."""
        return self._rule(method, nth, forever, of, action=action)

    def answer(
        self, method: str | Sequence[str], answer: Any, *, nth: int = 1, of: str = ""
    ) -> Rule:
        """Answer a call and those after it with this value, and do nothing else; for ``exists``,
        ``list`` and what is asked of the machine.
        """
        return self._rule(method, nth, True, of, answer=lambda: answer)

    def crash(self, nth: int) -> None:
        """End the process just before its ``nth`` call from now on: that one and all later ones
        raise Crash.
        """
        self.fail(ANY, Crash(), nth=nth, forever=True)

    def mend(self) -> None:
        """Forget every rule, and let go on what is held: from now on the disk is sound."""
        self._rules.clear()
        for hold in self._holds:
            hold.released.set()

    def end_process(self) -> None:
        """Close what is still open, as the end of a process does."""
        for descriptor in list(self.open_files):
            Disk.close(self, descriptor)
        self.open_files.clear()

    def _rule(
        self, method: str | Sequence[str], nth: int, forever: bool, of: str, **what: Any
    ) -> Rule:
        methods = (method,) if isinstance(method, str) else method
        self._rules.append(Rule(methods, of, nth, forever, **what))
        return self._rules[-1]

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

    def _strike(self, method: str, path: str, offset: int = 0, size: int = 0) -> Rule | None:
        """Record a call; do what comes before it; return the rule that fails or answers it."""
        with self._lock:
            struck = [rule for rule in self._rules if rule.strikes(method, path)]
            deciding = next((rule for rule in struck if rule.action is None), None)
            failed = deciding is not None and deciding.error is not None
            if method not in _ASIDE:
                self.calls.append(Call(method, path, offset, size, failed))
        for rule in struck:
            if rule.action is not None:
                rule.action()
        return deciding

    def _enter(self, method: str, path: str, offset: int = 0, size: int = 0) -> None:
        deciding = self._strike(method, path, offset, size)
        if deciding is not None:
            deciding.outcome()

    def _answered(self, method: str, path: str, ask: Callable[[], T]) -> T:
        deciding = self._strike(method, path)
        answer: T = ask() if deciding is None else deciding.outcome()
        return answer

    def _enter_write(
        self, method: str, descriptor: int, buffers: Sequence[bytes], offset: int
    ) -> None:
        whole = b"".join(buffers)
        failing = self._strike(method, self._path(descriptor), offset, len(whole))
        if failing is not None:
            super().write(descriptor, [whole[: failing.written]], offset)
            failing.outcome()

    def _path(self, descriptor: int) -> str:
        return self.open_files.get(descriptor, "?")

    def _opened(self, descriptor: int, path: str) -> int:
        self.open_files[descriptor] = path
        return descriptor

    def list(self, path: str) -> list[str]:
        return self._answered("list", path, lambda: Disk.list(self, path))

    def exists(self, path: str) -> bool:
        return self._answered("exists", path, lambda: Disk.exists(self, path))

    def free(self, path: str) -> int:
        return self._answered("free", path, lambda: Disk.free(self, path))

    def life(self) -> bytes:
        return self._answered("life", "", lambda: Disk.life(self))

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

    def link(self, old: str, new: str) -> None:
        self._enter("link", new)
        super().link(old, new)

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
        with super().open_stream(path) as real:
            return _Stream(self, path, os.dup(real.fileno()))

    def share(self, path: str, data: bytes) -> int:
        self._enter("share", path)
        return self._opened(super().share(path, data), path)

    def close(self, descriptor: int) -> None:
        failing = self._strike("close", self._path(descriptor))
        if self.open_files.pop(descriptor, None) is not None:
            super().close(descriptor)
        elif failing is None:  # the number may be someone else's by now
            raise OSError(EBADF, "closed twice")
        if failing is not None:
            failing.outcome()

    def size(self, descriptor: int) -> int:
        self._enter("size", self._path(descriptor))
        return super().size(descriptor)

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        self._enter("read", self._path(descriptor), offset, size)
        return super().read(descriptor, size, offset)

    def read_cached(self, descriptor: int, size: int, offset: int) -> bytes | None:
        if not self.caches(offset):
            return None
        self._enter("read_cached", self._path(descriptor), offset, size)
        piece = Disk.read(self, descriptor, size, offset)
        return piece if len(piece) == size else None

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

    def try_lock_directory(self, path: str, *, shared: bool = False) -> int | None:
        self._enter("try_lock_directory", path)
        descriptor = super().try_lock_directory(path, shared=shared)
        return None if descriptor is None else self._opened(descriptor, path)

    def try_lock(self, path: str, *, shared: bool = False) -> int | None:
        self._enter("try_lock", path)
        descriptor = super().try_lock(path, shared=shared)
        return None if descriptor is None else self._opened(descriptor, path)


class _Stream(io.FileIO):
    """A file that a scan reads, whose reads are calls of the disk.

    It tells the disk when it is closed under a read, or left to the garbage collector.
    """

    def __init__(self, disk: FailingDisk, path: str, descriptor: int) -> None:
        super().__init__(descriptor, "rb")
        self._disk = disk
        self._path = path
        self._reading = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._disk._enter("seek_stream", self._path, offset)
        return super().seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        self._reading += 1
        try:
            self._disk._enter("read_stream", self._path, self.tell(), size or 0)
            return super().read(-1 if size is None else size) or b""
        finally:
            self._reading -= 1

    def close(self) -> None:
        if self._reading:
            self._disk.misused.append(f"closed under a read: {self._path}")
        super().close()

    def __del__(self) -> None:
        if not self.closed:
            self._disk.misused.append(f"left open: {self._path}")
            super().close()


def undurable_names(calls: Iterable[Call]) -> set[str]:
    """The files and directories that a power cut could still take with their names after these
    calls.

    A file that replaces one whose name is durable is not among them: the one or the other will be
    there.
    """
    fresh: set[str] = set()
    durable: set[str] = set()
    for call in calls:
        if call.failed:
            continue
        if call.method in ("rename", "link", "make_directories") and call.path not in durable:
            fresh.add(call.path)
        elif call.method == "remove":
            fresh.discard(call.path)
            durable.discard(call.path)
        elif call.method == "sync_directory":
            synced = {name for name in fresh if name.rpartition("/")[0] == call.path}
            fresh -= synced
            durable |= synced
    return fresh
