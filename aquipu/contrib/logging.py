"""The log calls of a program as records of a store: a `logging.Handler`, and so the sink of structlog as well::

    handler = StoreHandler(relations=lambda record: [f"user:{user.get()}"])
    logging.getLogger().addHandler(handler)
    async with Store.open("log") as store, handler.into(store):
        ...

**Where the work is done.** In the thread of the log call: filters, the formatter and ``relations``, so that they see its
context variables, and one place in a queue. In the loop of the store: a task takes what has gathered and appends it. It is
woken once for all that gathers while it works, so a burst of calls costs one wake, and one commit carries up to
`BATCH_RECORDS` of them. The calls of each thread are stored in their order.

**Nobody waits.** A log call waits for no lock but that of the queue, which is held for a few steps, and never for the disk.
So the queue is bounded, and what finds no room is dropped, counted in ``dropped``, and said: as soon as there is room, a
record of the logger `aquipu.contrib.logging` takes the place of what is missing ("17 log records were dropped: ..."), in
the store and in the other handlers of the program. So is what the store refuses (no space, a record too large).

**Nothing goes round in circles.** The loggers ``aquipu`` and ``aquipu.*`` are never stored: what the engine has to say
about its disk belongs elsewhere. What this handler cannot tell the store goes to the other handlers, or to standard error.

**The shape of a record** is that of the handler's formatter, in UTF-8; without one, that of `JsonFormatter`. Of structlog,
``structlog.stdlib.ProcessorFormatter`` is such a formatter, and ``render_to_log_kwargs`` gives `JsonFormatter` its fields.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import anyio

from aquipu import (
    BufferFullError,
    ForkedStoreError,
    Receipt,
    Stage,
    StoreClosedError,
    StoreFailedError,
    WrongLoopError,
)

_log = logging.getLogger(__name__)
_OURS = logging.Filter("aquipu")

BATCH_RECORDS = 256
"""The most that are appended before the loop may do something else: about a millisecond."""
FLUSH_SECONDS = 4.0
"""How long `StoreHandler.flush`, and so the exit of the interpreter, waits for the store."""

_FULL = "the queue was full"
_FINAL = (StoreClosedError, StoreFailedError, WrongLoopError, ForkedStoreError)  # nothing more is ever taken


class Appending(Protocol):
    """What the handler asks of a store: `aquipu.Store` has it, and whatever else takes records by the same calls."""

    async def append(self, data: bytes, *, relations: Iterable[str] = ..., durability: Stage | None = ...) -> Receipt:
        """As `Store.append`."""

    def append_nowait(
        self, data: bytes, *, relations: Iterable[str] = ..., durability: Stage | None = ...
    ) -> asyncio.Future[Receipt]:
        """As `Store.append_nowait`."""


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON.

    ``time`` (ISO 8601, UTC, microseconds), ``level`` (its name), ``logger``, ``message``; ``exception`` and ``stack`` as
    text, where there are any; and whatever was given as ``extra`` or added by a filter, under its own name, or with an
    underscore behind it where that is one of these. A value that JSON does not know is given as ``str()`` gives it.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line[f"{name}_" if name in line else name] = value
        return _json(line)


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _json(line: Mapping[str, object]) -> str:
    try:
        return json.dumps(line, ensure_ascii=False, allow_nan=False, default=str)
    except (ValueError, TypeError, RecursionError):  # no number, a key that is no text, a value that holds itself
        return json.dumps({name: str(value) for name, value in line.items()}, ensure_ascii=False)


class _Entry(NamedTuple):
    """A log call, as it will be stored."""

    data: bytes
    relations: tuple[str, ...] = ()


class _Gap(NamedTuple):
    """Stands where log calls are missing."""

    dropped: int
    reason: str


class _Mark(NamedTuple):
    """Stands behind what somebody waits for."""

    reached: Callable[[], object]
    last: bool
    """Nothing behind it is taken."""


class _Outlet(NamedTuple):
    """The loop that takes from the queue, and how to wake its task."""

    loop: asyncio.AbstractEventLoop
    wake: Callable[[], None]


class _Queue:
    """What was logged and is not yet taken; from any thread. Bounded in entries and bytes; gaps and marks need no room."""

    def __init__(self, records: int, bytes: int) -> None:
        self.dropped = 0
        self._records_max = records
        self._bytes_max = bytes
        self.restart()

    def restart(self) -> None:
        """Empty, with no one who takes: in a forked child, where another thread may have held the lock for ever."""
        self._lock = threading.RLock()  # a signal handler that logs, or a finalizer, may come in between
        self._items: deque[_Entry | _Gap | _Mark] = deque()
        self._records = self._bytes = 0
        self._unsaid = 0  # dropped, and no gap says so yet
        self._reason = _FULL
        self._refused = False  # by the store, and nothing came since: a gap would be refused too
        self._outlet: _Outlet | None = None
        self._awake = False

    def __len__(self) -> int:
        return self._records

    @property
    def outlet(self) -> _Outlet | None:
        return self._outlet

    def put(self, entry: _Entry) -> None:
        """Take an entry, behind a gap if any were dropped; without room for it, count it."""
        with self._lock:
            size = len(entry.data)
            if self._records >= self._records_max or self._bytes + size > self._bytes_max:
                self._miss(1, _FULL)
                return
            self._say_gap()
            self._refused = False
            self._items.append(entry)
            self._records += 1
            self._bytes += size
        self._wake()

    def put_mark(self, mark: _Mark) -> None:
        """Have somebody told when all that stands before it is taken; at once when nobody takes."""
        with self._lock:
            taken = self._outlet is not None
            if taken:
                self._say_gap()
                self._items.append(mark)
        if taken:
            self._wake()
        else:
            mark.reached()

    def drop(self, count: int, reason: str) -> None:
        """These were not stored: the gap that says so waits for what comes next."""
        with self._lock:
            self._miss(count, reason)
            self._refused = True

    def unsay(self, gap: _Gap) -> None:
        """A gap was not stored: the next one says it too."""
        with self._lock:
            self._unsaid += gap.dropped
            self._reason = gap.reason
            self._refused = True

    def open(self, outlet: _Outlet) -> bool:
        """Have what is here and what comes taken there; False when somebody takes it already."""
        with self._lock:
            if self._outlet is not None and not self._outlet.loop.is_closed():
                return False
            self._outlet = outlet
            self._awake = False
        self._wake()
        return True

    def shut(self) -> None:
        """Nobody takes any more; what is here stays, up to the bounds."""
        with self._lock:
            self._outlet = None
            marks = [item for item in self._items if isinstance(item, _Mark)]
            self._items = deque(item for item in self._items if not isinstance(item, _Mark))
        for mark in marks:
            mark.reached()

    def take(self) -> list[_Entry | _Gap | _Mark]:
        """The oldest, at most `BATCH_RECORDS`; none, and the next that comes wakes the outlet."""
        with self._lock:
            if not self._items and not self._refused:
                self._say_gap()
            taken = [self._items.popleft() for _ in range(min(len(self._items), BATCH_RECORDS))]
            entries = [item for item in taken if isinstance(item, _Entry)]
            self._records -= len(entries)
            self._bytes -= sum(len(entry.data) for entry in entries)
            self._awake = bool(taken)
        return taken

    def clear(self) -> int:
        """Forget everything; how many log calls that were, those among them that no gap has told of."""
        with self._lock:
            gaps = sum(item.dropped for item in self._items if isinstance(item, _Gap))
            count = self._records + gaps + self._unsaid
            self.dropped += self._records
            self._items.clear()
            self._records = self._bytes = self._unsaid = 0
        return count

    def _miss(self, count: int, reason: str) -> None:
        self.dropped += count
        self._unsaid += count
        self._reason = reason

    def _say_gap(self) -> None:
        if self._unsaid:
            self._items.append(_Gap(self._unsaid, self._reason))
            self._unsaid = 0

    def _wake(self) -> None:
        with self._lock:
            outlet = self._outlet
            if outlet is None or self._awake:
                return
            self._awake = True
        try:
            outlet.loop.call_soon_threadsafe(outlet.wake)
        except RuntimeError:  # the loop was closed, and nobody left `into`
            self.shut()


class StoreHandler(logging.Handler):
    """Log calls as records of a store. Made at any time, also by `logging.config.dictConfig`, before there is a loop or a
    store: what is logged until `into` is entered waits in the queue.

    Of the stores that it writes to, one at a time, it needs `append` and `append_nowait`.
    """

    def __init__(
        self,
        *,
        level: int | str = logging.NOTSET,
        relations: Callable[[logging.LogRecord], Iterable[str]] | None = None,
        durability: Stage | None = None,
        queue_records: int = 100_000,
        queue_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        """
        Args:
            level: as of any handler; what is below it is not taken.
            relations: gives the labels of a log record. Called in the thread of the log call, with its context variables.
            durability: as of `Store.append`. Nobody waits for it; it decides what a power cut can take.
            queue_records, queue_bytes: how much may wait, formatted, for the store. A process crash takes what waits. When
                it is full, log calls are dropped and counted.

        Raises ValueError for a level that logging does not know, or a queue without room.
        """
        super().__init__(level)
        if queue_records < 1 or queue_bytes < 1:
            raise ValueError(f"the queue holds at least one record, not {queue_records} of {queue_bytes} bytes")
        self.setFormatter(JsonFormatter())
        self._relations = relations
        self._durability = durability
        self._queue = _Queue(queue_records, queue_bytes)
        _handlers.add(self)

    @property
    def dropped(self) -> int:
        """Log calls that were not stored, or not as far as is known: no room in the queue, or refused by the store."""
        return self._queue.dropped

    @property
    def waiting(self) -> int:
        """Log calls in the queue."""
        return len(self._queue)

    @asynccontextmanager
    async def into(self, store: Appending) -> AsyncIterator[StoreHandler]:
        """Store what waits and what is logged from now on, until the end of the block; entered in the loop of the store.

        The end of the block waits until what was logged before it is as safe as was asked for, also when it is cancelled:
        as `Store.aclose` does. What is logged later waits for the next ``into``.

        Raises RuntimeError when the handler is at a store already.
        """
        loop = asyncio.get_running_loop()
        news = asyncio.Event()
        if not self._queue.open(_Outlet(loop, news.set)):
            raise RuntimeError("this handler writes into a store already; leave that one first, or make another handler")
        feed = loop.create_task(self._feed(store, news), name="aquipu log")
        try:
            yield self
        finally:
            self._queue.put_mark(_Mark(_nothing, last=True))
            await _end_of(feed)

    # in the thread of the log call

    def handle(self, record: logging.LogRecord) -> bool:
        """As of any handler, without its lock: log calls of several threads are formatted side by side."""
        passed = self.filter(record)
        if isinstance(passed, logging.LogRecord):
            record = passed
        if passed:
            self.emit(record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Format the record and give it to the queue; an error of the user's functions goes to `handleError`."""
        if _OURS.filter(record):
            return
        try:
            entry = self._entry(record)
        except Exception:
            self._queue.drop(1, "a formatter or `relations` failed")
            self.handleError(record)
        else:
            self._queue.put(entry)

    def _entry(self, record: logging.LogRecord) -> _Entry:
        relations = () if self._relations is None else self._relations(record)
        if isinstance(relations, str):
            raise TypeError("relations gives a collection of labels; one label is written as a tuple: ('user:7',)")
        return _Entry(_encoded(self.format(record)), tuple(relations))

    # in the loop

    async def _feed(self, store: Appending, news: asyncio.Event) -> None:
        """Store what comes, until a mark says that it is the last, or the store takes nothing more."""
        going = True
        try:
            while going:
                await news.wait()
                news.clear()
                while going and (items := self._queue.take()):
                    marks = [item for item in items if isinstance(item, _Mark)]
                    try:
                        await self._write(store, [item for item in items if not isinstance(item, _Mark)])
                    finally:
                        for mark in marks:
                            mark.reached()
                    going = not any(mark.last for mark in marks)
        except _FINAL as error:
            _say(logging.ERROR, "log records are no longer stored (%d were dropped so far): %s", self.dropped, error)
        finally:
            self._queue.shut()

    async def _write(self, store: Appending, items: list[_Entry | _Gap]) -> None:
        """Store these, in their order, and wait for them; what is refused is counted."""
        begun: list[asyncio.Future[Receipt] | Exception | None] = []
        try:
            for item in items:
                entry = item if isinstance(item, _Entry) else self._told(item)
                begun.append(await self._begin(store, entry))
        except asyncio.CancelledError:
            self._queue.drop(len(items) - len(begun), "the loop was stopped")
            raise
        errors = [await _outcome(future) for future in begun]
        for item, error in zip(items, errors, strict=True):
            if isinstance(item, _Gap):
                self._settle(item, error)
            elif error is not None:
                self._queue.drop(1, str(error) or type(error).__name__)
        for error in errors:
            if isinstance(error, _FINAL):
                raise error

    async def _begin(self, store: Appending, entry: _Entry) -> asyncio.Future[Receipt] | Exception | None:
        """Have it accepted, behind those before it: what will come of it, the error, or None when it is stored already."""
        try:
            return store.append_nowait(entry.data, relations=entry.relations, durability=self._durability)
        except BufferFullError:
            pass
        except Exception as error:
            return error
        try:
            await store.append(entry.data, relations=entry.relations, durability=self._durability)
        except Exception as error:
            return error
        return None

    def _told(self, gap: _Gap) -> _Entry:
        """What stands in the store for what is missing."""
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, _MISSING, (gap.dropped, gap.reason), None)
        try:
            return _Entry(_encoded(self.format(record)))
        except Exception:  # a formatter that knows only the program's own records
            return _Entry(_encoded(JsonFormatter().format(record)))

    def _settle(self, gap: _Gap, error: Exception | None) -> None:
        if error is None:
            _say(logging.WARNING, _MISSING, gap.dropped, gap.reason)
        else:
            self._queue.unsay(gap)

    # at the end

    def flush(self) -> None:
        """Wait until what was logged so far is stored, at most `FLUSH_SECONDS`; called by `logging.shutdown`.

        Returns at once in the thread of an event loop, which must not be blocked, and where there is no store or its loop
        does not run.
        """
        outlet = self._queue.outlet
        if outlet is None or not outlet.loop.is_running() or _in_a_loop():
            return
        reached = threading.Event()
        self._queue.put_mark(_Mark(reached.set, last=False))
        if not reached.wait(FLUSH_SECONDS):
            _say(logging.WARNING, "%d log records were not stored within %s s and still wait", self.waiting, FLUSH_SECONDS)

    def close(self) -> None:
        """Called by `logging.shutdown`. Says what was never stored, because there was no store or it took no more.

        Never waits. Inside of `into`, what waits is stored all the same.
        """
        super().close()
        if self._queue.outlet is None:
            left = self._queue.clear()
            if left:
                _say(
                    logging.ERROR,
                    "%d log records were never stored: no store took them before the end",
                    left,
                )


_MISSING = "%d log records were dropped: %s"


def _nothing() -> None:
    """For a mark that nobody waits at."""


def _encoded(text: str) -> bytes:
    """UTF-8; half a surrogate pair is escaped, as JSON has it."""
    return text.encode("utf-8", "backslashreplace")


async def _outcome(future: asyncio.Future[Any] | Exception | None) -> Exception | None:
    if not isinstance(future, asyncio.Future):
        return future
    try:
        await future
    except Exception as error:
        return error
    return None


async def _end_of(task: asyncio.Task[None]) -> None:
    """Wait for the task, also when cancelled; then raise what it raised, or the cancellation."""
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
    if not task.cancelled():
        task.result()


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _say(level: int, message: str, *arguments: object) -> None:
    """To the other handlers; where there are none, to standard error."""
    _log.log(level, message, *arguments)
    logger: logging.Logger | None = _log
    while logger is not None:
        if any(not isinstance(handler, StoreHandler) for handler in logger.handlers):
            return
        logger = logger.parent if logger.propagate else None
    if logging.lastResort is not None:
        logging.lastResort.handle(logging.LogRecord(_log.name, level, __file__, 0, message, arguments, None))


_handlers: weakref.WeakSet[StoreHandler] = weakref.WeakSet()


@atexit.register  # before aquipu lets go of the stores that are still open: it was imported first
def _flush_all() -> None:
    for handler in list(_handlers):
        handler.flush()


def _leave_to_parent() -> None:
    """In a forked child: what waits in the queue is the parent's, and so is the loop."""
    for handler in list(_handlers):
        handler._queue.restart()


os.register_at_fork(after_in_child=_leave_to_parent)
