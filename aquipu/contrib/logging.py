"""Log calls as records of a store: a `logging.Handler`, which structlog can write to as well::

    handler = StoreHandler(relations=lambda record: [f"user:{user.get()}"])
    logging.getLogger().addHandler(handler)
    async with Store.open("log") as store, handler.into(store):
        ...

**Where the work is done.** In the thread of the log call: filters, the formatter and ``relations``,
so that they see its context variables, and one place in a queue. In the loop of the store: a task
takes what has gathered and appends it. It is woken once for all that gathers while it works, so a
burst of calls costs one wake, and one commit carries up to `BATCH_RECORDS` of them. The calls of
each thread are stored in their order.

**Nobody waits.** A log call waits for no lock but that of the queue, which is held for a few steps,
and never for the disk. So the queue is bounded, and what finds no room is dropped, counted in
``dropped``, and said: as soon as there is room, a record of the logger `aquipu.contrib.logging`
takes the place of what is missing ("17 log records were dropped: ..."), in the store and in the
other handlers of the program. So is what the store refuses (no space).

**No log call is lost for what it holds.** What is no label is made one, a text larger than a record
is cut, and where the formatter or ``relations`` raises, the call is stored with what is known of
it. What is not as it was given is named by an attribute of the log record, and so a field of
`JsonFormatter`: ``altered``, ``audit_error`` (see `altered`). The error goes to
`logging.Handler.handleError`.

**Nothing goes round in circles.** The loggers ``aquipu`` and ``aquipu.*`` are never stored: what
the engine has to say about its disk belongs elsewhere. What this handler cannot tell the store goes
to the other handlers, or to standard error.

**The shape of a record** is that of the handler's formatter, in UTF-8; without one, that of
`JsonFormatter`. Of structlog, ``structlog.stdlib.ProcessorFormatter`` is such a formatter, and
``render_to_log_kwargs`` gives `JsonFormatter` its fields.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from copy import copy

from aquipu import (
    BufferFullError,
    ForkedStoreError,
    Receipt,
    RecordTooLargeError,
    Stage,
    StoreClosedError,
    StoreFailedError,
    WrongLoopError,
)
from aquipu.contrib.shared.altered import Labels, labels_of
from aquipu.contrib.shared.appending import Appending
from aquipu.contrib.shared.json_lines import JsonFormatter, cut_to, encoded, said_of, unformatted
from aquipu.contrib.shared.log_queue import BATCH_RECORDS, Entry, Gap, Mark, Outlet, Queue
from aquipu.contrib.shared.waiting import end_of, is_in_a_loop, outcome_of

__all__ = ["BATCH_RECORDS", "FLUSH_SECONDS", "Appending", "JsonFormatter", "StoreHandler"]

_log = logging.getLogger(__name__)
_OURS = logging.Filter("aquipu")

FLUSH_SECONDS = 4.0
"""How long `StoreHandler.flush`, and so the exit of the interpreter, waits for the store."""

# nothing more is ever taken
_FINAL = (StoreClosedError, StoreFailedError, WrongLoopError, ForkedStoreError)


class StoreHandler(logging.Handler):
    """Handler that stores log calls as records.

    It can be made at any time, also by ``logging.config.dictConfig``, before there is a loop or a
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
        """Make a handler whose queue waits for a store.

        Args:
            level: as of any handler; what is below it is not taken.
            relations: gives the labels of a log record. Called in the thread of the log call, with
                its context variables.
            durability: as of `Store.append`. No call waits for it; it decides what a power cut can
                take.
            queue_records, queue_bytes: how much may wait, formatted, for the store. A process crash
                takes what waits. When it is full, log calls are dropped and counted.

        Raises ValueError for a level that logging does not know, or a queue without room.
        """
        super().__init__(level)
        if queue_records < 1 or queue_bytes < 1:
            raise ValueError(
                f"the queue holds at least one record, not {queue_records} of {queue_bytes} bytes"
            )
        self.setFormatter(JsonFormatter())
        self._relations = relations
        self._durability = durability
        self._queue = Queue(queue_records, queue_bytes)
        _handlers.add(self)

    @property
    def dropped(self) -> int:
        """Number of log calls not stored, as far as is known: no space in the queue, or refused."""
        return self._queue.dropped

    @property
    def waiting(self) -> int:
        """Log calls in the queue."""
        return len(self._queue)

    @asynccontextmanager
    async def into(self, store: Appending) -> AsyncIterator[StoreHandler]:
        """Store what waits and what is logged until the end of the block.

        Enter it in the loop of the store.

        The end of the block waits until what was logged before it is as safe as was asked for, also
        when it is cancelled: as `Store.aclose` does. What is logged later waits for the next
        ``into``.

        Raises RuntimeError when the handler is at a store already.
        """
        loop = asyncio.get_running_loop()
        news = asyncio.Event()
        if not self._queue.open(Outlet(loop, news.set)):
            raise RuntimeError(
                "this handler writes into a store already; "
                "leave that one first, or make another handler"
            )
        feed = loop.create_task(self._feed(store, news), name="aquipu log")
        try:
            yield self
        finally:
            self._queue.put_mark(Mark(_nothing, last=True))
            await end_of(feed)

    # in the thread of the log call

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and emit without the handler's lock, so that threads format side by side."""
        passed = self.filter(record)
        if isinstance(passed, logging.LogRecord):
            record = passed
        if passed:
            self.emit(record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Format the record and queue it; errors of the user's functions go to `handleError`."""
        if _OURS.filter(record):
            return
        given = Labels() if self._relations is None else labels_of(self._relations, record)
        if given.error is not None:
            self._handle(given.error, record)
        try:
            data = encoded(self.format(_saying(record, given)))
        except Exception as error:
            self.handleError(record)
            data = unformatted(record, given, error)
        self._queue.put(Entry(data, given.labels))

    def _handle(self, error: Exception, record: logging.LogRecord) -> None:
        """Call `handleError`, which reports the exception that is being handled."""
        try:
            raise error
        except Exception:
            self.handleError(record)

    # in the loop

    async def _feed(self, store: Appending, news: asyncio.Event) -> None:
        """Store what comes until a mark says that it is the last, or the store takes no more."""
        going = True
        try:
            while going:
                await news.wait()
                news.clear()
                while going and (items := self._queue.take()):
                    marks = [item for item in items if isinstance(item, Mark)]
                    try:
                        await self._write(
                            store, [item for item in items if not isinstance(item, Mark)]
                        )
                    finally:
                        for mark in marks:
                            mark.reached()
                    going = not any(mark.last for mark in marks)
        except _FINAL as error:
            _say(logging.ERROR, _STOPPED, self.dropped, error)
        finally:
            self._queue.shut()

    async def _write(self, store: Appending, items: list[Entry | Gap]) -> None:
        """Store these, in their order, and wait for them; what is refused is counted."""
        begun: list[asyncio.Future[Receipt] | Exception | None] = []
        try:
            for item in items:
                entry = item if isinstance(item, Entry) else self._gap_entry(item)
                begun.append(await self._begin(store, entry))
        except asyncio.CancelledError:
            self._queue.drop(len(items) - len(begun), "the loop was stopped")
            raise
        errors = [await outcome_of(future) for future in begun]
        for item, error in zip(items, errors, strict=True):
            if isinstance(item, Gap):
                self._settle(item, error)
            elif error is not None:
                self._queue.drop(1, str(error) or type(error).__name__)
        for error in errors:
            if isinstance(error, _FINAL):
                raise error

    async def _begin(
        self, store: Appending, entry: Entry
    ) -> asyncio.Future[Receipt] | Exception | None:
        """Have an entry accepted behind those before it.

        Return the future of its receipt, the error, or None when it is stored already.
        """
        try:
            return store.append_nowait(
                entry.data, relations=entry.relations, durability=self._durability
            )
        except BufferFullError:
            pass
        except RecordTooLargeError as error:
            cut = entry._replace(data=cut_to(entry.data, error.limit))
            return error if len(cut.data) > error.limit else await self._begin(store, cut)
        except Exception as error:
            return error
        try:
            await store.append(entry.data, relations=entry.relations, durability=self._durability)
        except Exception as error:
            return error
        return None

    def _gap_entry(self, gap: Gap) -> Entry:
        """Return the entry that is stored in place of what is missing."""
        record = logging.LogRecord(
            __name__, logging.WARNING, __file__, 0, _MISSING, (gap.dropped, gap.reason), None
        )
        try:
            return Entry(encoded(self.format(record)))
        except Exception:  # a formatter that knows only the program's own records
            return Entry(encoded(JsonFormatter().format(record)))

    def _settle(self, gap: Gap, error: Exception | None) -> None:
        if error is None:
            _say(logging.WARNING, _MISSING, gap.dropped, gap.reason)
        else:
            self._queue.unsay(gap)

    # at the end

    def flush(self) -> None:
        """Wait until what was logged so far is stored, at most `FLUSH_SECONDS`.

        `logging.shutdown` calls it.

        Returns at once in the thread of an event loop, which must not be blocked, and where there
        is no store or its loop does not run.
        """
        outlet = self._queue.outlet
        if outlet is None or not outlet.loop.is_running() or is_in_a_loop():
            return
        reached = threading.Event()
        self._queue.put_mark(Mark(reached.set, last=False))
        if not reached.wait(FLUSH_SECONDS):
            _say(
                logging.WARNING,
                "%d log records were not stored within %s s and still wait",
                self.waiting,
                FLUSH_SECONDS,
            )

    def close(self) -> None:
        """Close the handler and report what was never stored; `logging.shutdown` calls it.

        There was no store, or it took no more.

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
_STOPPED = "log records are no longer stored (%d were dropped so far): %s"


def _nothing() -> None:
    """Do nothing: for a mark that has no waiter."""


def _saying(record: logging.LogRecord, given: Labels) -> logging.LogRecord:
    """Return a copy of the record for this handler, which names what is not as given."""
    if not given.is_altered:
        return record
    record = copy(record)
    vars(record).update(said_of(given))
    return record


def _say(level: int, message: str, *arguments: object) -> None:
    """Log to the other handlers; where there are none, to standard error."""
    _log.log(level, message, *arguments)
    logger: logging.Logger | None = _log
    while logger is not None:
        if any(not isinstance(handler, StoreHandler) for handler in logger.handlers):
            return
        logger = logger.parent if logger.propagate else None
    if logging.lastResort is not None:
        logging.lastResort.handle(
            logging.LogRecord(_log.name, level, __file__, 0, message, arguments, None)
        )


_handlers: weakref.WeakSet[StoreHandler] = weakref.WeakSet()


@atexit.register  # before aquipu lets go of the stores that are still open: it was imported first
def _flush_all() -> None:
    for handler in list(_handlers):
        handler.flush()


def _leave_to_parent() -> None:
    """Drop what waits in a forked child: it is the parent's, and so is the loop."""
    for handler in list(_handlers):
        handler._queue.restart()


os.register_at_fork(after_in_child=_leave_to_parent)
