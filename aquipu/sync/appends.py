"""Appends of many threads, gathered so that they share commits.

A thread puts its record in a queue, wakes the loop unless that will look anyway, and waits for a
lock of its own. The loop takes what has gathered and appends it; the receipt opens the lock. So an
append costs one wake of its own thread, and those who come in the same moment share that of the
loop.

**Threads come one after another.** Tasks of a loop that wait for the same commit all go on in one
turn, and what they append next leaves together. Threads need the interpreter lock in turn, and the
first of them would have a commit for itself, while the others wait for its sync. So nothing is
taken while a commit is under way, and then, before the loop takes what is there, it waits for as
many as have just had their receipts: at most `_GATHER`, and less and less often if that was in
vain. A caller that is alone is never waited for.

**An interrupt** (Ctrl-C) may come between any two steps of a caller. Its record is in the queue or
it is not; if it is, the loop is woken.
"""

from __future__ import annotations

from asyncio import CancelledError, Future
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import pairwise
from threading import Lock
from typing import Any

from aquipu import Receipt, Store, StoreClosedError
from aquipu.sync.loop import LoopThread

_GATHER = 0.001
"""Seconds that callers who may come back are waited for."""
_SKIPPED_MAX = 64
"""Commits without such a wait, after it was in vain again and again."""

_LOOKED_UP = frozenset({"key", "expect"})
"""Options on which an append may have to look into the log."""


class _Entry:
    """A record on its way, and the thread that waits for its receipt."""

    __slots__ = ("_is_open", "_lock", "data", "error", "following", "options", "receipt")

    def __init__(self, data: Any, options: dict[str, Any]) -> None:
        self.data = data
        self.options = options
        self.receipt: Receipt | None = None
        self.error: BaseException | None = None
        self.following: _Entry | None = None
        """The one whose thread goes on after this one."""
        self._is_open = False
        self._lock = Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let the thread go on; it may do so already."""
        if not self._is_open:
            self._is_open = True
            with suppress(RuntimeError):  # another thread did so in this moment
                self._lock.release()

    def wait(self) -> Receipt:
        """Wait until there is a receipt or an error."""
        self._lock.acquire()
        if self.following is not None:
            self.following.open()
        if self.receipt is not None:
            return self.receipt
        assert self.error is not None
        try:
            raise self.error
        finally:
            self.error = None  # which holds this frame, and would keep it


class Appends:
    """The queue between the threads that append and the loop of a store."""

    def __init__(self, thread: LoopThread, log: Store) -> None:
        self._thread = thread
        self._log = log
        self._entries: deque[_Entry] = deque()
        self._awake = False  # the loop will look
        self._gathered = Lock()
        self._gathered.acquire()
        self._wanted = 0  # entries that the loop waits for; 0: it does not wait
        self._under_way: set[_Entry] = set()
        self._answered: list[_Entry] = []  # whose callers have not gone on
        self._released = 0  # callers that may come back
        self._skip = self._skipped = 0
        thread.at_end = self._end

    def append(self, data: Any, options: dict[str, Any]) -> Receipt:
        """Store one record, and return its receipt. From any thread."""
        self._thread.check()
        entry = _Entry(data, options)
        try:
            self._entries.append(entry)
            if not self._awake:
                self._awake = True
                self._thread.wake(self._take)
            elif self._wanted and len(self._entries) >= self._wanted:
                self._all_there()
        except StoreClosedError:
            self._awake = False
            raise
        except BaseException:
            self._awake = False
            self._thread.wake(self._take)
            raise
        return entry.wait()

    def _all_there(self) -> None:
        with suppress(RuntimeError):  # released already
            self._gathered.release()

    # on the thread of the loop

    def _take(self) -> None:
        """Let callers go on, and append what has gathered; it does not wake the loop meanwhile."""
        if self._thread.is_ending:  # `_end` answers all
            return
        answered, self._answered = self._answered, []
        if self._under_way:
            _open(answered)
            return
        self._gather(answered)
        while True:
            while self._entries:
                self._begin(self._entries.popleft())
            if self._under_way:
                return
            self._awake = False  # and then look once more: who came before that has not woken it
            if not self._entries:
                return
            self._awake = True

    def _gather(self, answered: list[_Entry]) -> None:
        """Let callers go on, and wait for them to come back, if they tend to."""
        wanted, self._released = self._released, 0
        if len(self._entries) >= wanted or self._skip:
            self._skip -= self._skip > 0
            _open(answered)
            return
        for entry, following in pairwise(answered):
            entry.following = following
        _open(answered[:1])
        self._wanted = wanted
        if len(self._entries) < wanted:
            self._gathered.acquire(timeout=_GATHER)
        self._wanted = 0
        _open(answered)  # what is left when one of them was interrupted
        came = len(self._entries) >= wanted
        self._skipped = 0 if came else min(2 * self._skipped + 1, _SKIPPED_MAX)
        self._skip = self._skipped

    def _begin(self, entry: _Entry) -> None:
        self._under_way.add(entry)
        if not _LOOKED_UP.isdisjoint(entry.options):
            self._thread.start(self._store(entry))
            return
        try:
            receipt = self._log.append_nowait(entry.data, in_line=True, **entry.options)
        except Exception as error:
            entry.error = error
            self._answer(entry)
        else:
            receipt.add_done_callback(partial(self._stored, entry))

    async def _store(self, entry: _Entry) -> None:
        try:
            entry.receipt = await self._log.append(entry.data, **entry.options)
        except CancelledError:  # the loop is at its end
            entry.error = StoreClosedError(self._thread.path)
        except BaseException as error:
            entry.error = error
        finally:
            self._answer(entry)

    def _stored(self, entry: _Entry, receipt: Future[Receipt]) -> None:
        entry.error = receipt.exception()
        if entry.error is None:
            entry.receipt = receipt.result()
        self._answer(entry)

    def _answer(self, entry: _Entry) -> None:
        self._under_way.discard(entry)
        self._released += 1
        self._answered.append(entry)
        if len(self._answered) == 1:
            self._thread.loop.call_soon(self._take)

    def _end(self) -> None:
        """Refuse what was never stored. Who comes later finds that the loop is over."""
        self._awake = False
        _open(self._answered)
        for entry in (*self._under_way, *self._entries):
            entry.error = StoreClosedError(self._thread.path)
            entry.open()
        self._entries.clear()


def _open(entries: list[_Entry]) -> None:
    for entry in entries:
        entry.open()
