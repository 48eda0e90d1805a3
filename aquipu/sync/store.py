"""The calls of `Store` and `Reader` without ``await``.

Each is carried out by the call of that name, with whatever it is given, so its arguments are those
of that call: at run time, for `help`, and, by `ParamSpec`, for type checkers and editors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from functools import partial, update_wrapper
from inspect import getdoc
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, cast

from aquipu import Cursor, Reader, Receipt, Store, StoreClosedError
from aquipu.record import checked_json
from aquipu.sync.appends import Appends
from aquipu.sync.loop import LoopThread, check_no_loop
from aquipu.sync.records import SyncFollow, SyncScan

if TYPE_CHECKING:
    from aquipu import RecoveryReport
    from aquipu.engine import Limits

P = ParamSpec("P")
T = TypeVar("T")
L = TypeVar("L", bound="Store | Reader")
S = TypeVar("S")


def _waiting(
    call: Callable[Concatenate[Store, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    """Return a method that carries out a call of the log, and waits for it."""

    def method(self: _SyncLog, /, *arguments: P.args, **options: P.kwargs) -> T:
        given = [_taken(argument) for argument in arguments]
        begin = partial(getattr(self._log, call.__name__), *given, **options)
        return cast("T", self._thread.call(begin))

    return _like(call, method)


def _reading(
    call: Callable[Concatenate[Store, P], Any], make: Callable[[_SyncLog, Any], T]
) -> Callable[Concatenate[Any, P], T]:
    """Return a method that makes something in the loop, from what the log gives."""

    def method(self: _SyncLog, /, *arguments: P.args, **options: P.kwargs) -> T:
        begin = partial(getattr(self._log, call.__name__), *arguments, **options)
        return self._thread.do(lambda: make(self, begin()))

    return _like(call, method)


def _at_once(
    call: Callable[Concatenate[Store, P], T],
) -> Callable[Concatenate[Any, P], T]:
    """Return a method that any thread may call by itself, without the loop."""

    def method(self: _SyncLog, /, *arguments: P.args, **options: P.kwargs) -> T:
        return cast("T", getattr(self._log, call.__name__)(*arguments, **options))

    return _like(call, method)


def _as(
    call: Callable[Concatenate[Store, P], Any],
) -> Callable[[Callable[..., T]], Callable[Concatenate[Any, P], T]]:
    """Return a decorator of a method that takes what a call takes."""
    return partial(_like, call)


def _like(call: Callable[..., Any], method: Callable[..., T]) -> Callable[..., T]:
    """Return the method with the name, the signature and the docstring of a call."""
    update_wrapper(method, call)
    method.__doc__ = getdoc(call)
    return method


def _taken(argument: Any) -> Any:
    """Return an argument, of an iterator what it gives: it is asked on its caller's thread."""
    return list(argument) if isinstance(argument, Iterator) else argument


def _scan(log: _SyncLog, records: Any) -> SyncScan:
    log._thread.reads(records)
    return SyncScan(log, log._thread, records)


def _follow(log: _SyncLog, records: Any) -> SyncFollow:
    log._thread.reads(records)
    return SyncFollow(log, log._thread, records)


def _cursor(log: _SyncLog, cursor: Cursor) -> SyncCursor:
    return SyncCursor(log, cursor)


class _SyncLog:
    """What stores and readers share."""

    _log: Store | Reader

    def __init__(self, thread: LoopThread, log: Store | Reader) -> None:
        """Prepare the face of an open log; not called by users: `open` and `read` do."""
        self._thread = thread
        self._log = log
        thread.path = log.path

    get = _waiting(Store.get)
    """Return the record with this sequence: see `Store.get`."""
    scan = _reading(Store.scan, _scan)
    """Return the records of a range, as an iterator: see `Store.scan`."""
    page = _waiting(Store.page)
    """Return the newest records, and where the next page goes on: see `Store.page`."""
    follow = _reading(Store.follow, _follow)
    """Return every record from a place on, as an iterator that waits: see `Store.follow`."""
    relations = _waiting(Store.relations)
    """Return the labels and how many records carry each: see `Store.relations`."""
    check_position = _waiting(Store.check_position)
    """Raise unless what was read before a position survived: see `Store.check_position`."""
    backup = _waiting(Store.backup)
    """Copy the log to another directory: see `Store.backup`."""
    cursor = _reading(Store.cursor, _cursor)
    """Return the place of a consumer: see `Store.cursor`."""
    cursors = _waiting(Store.cursors)
    """Return how far each consumer is behind, by the name of its cursor: see `Store.cursors`."""
    holds = _waiting(Store.holds)
    """Return the holds by name: see `Store.holds`."""

    @property
    def path(self) -> str:
        """The directory, absolute."""
        return self._log.path

    @property
    def first_sequence(self) -> int:
        """Sequence of the first record kept."""
        return self._log.first_sequence

    @property
    def next_sequence(self) -> int:
        """One past the last acknowledged record."""
        return self._log.next_sequence

    @property
    def generation(self) -> str:
        """Name of the period in which no acknowledged record was lost: see `Position`."""
        return self._log.generation

    def close(self) -> None:
        """Close the log, when everything accepted is synced: see `Store.aclose`.

        It is done also when its caller is interrupted. Called again, it does nothing, and raises
        once more what closing has raised.
        """
        self._thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_log"):
            self._thread.abandon()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._log!r}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled: it belongs to one process; pass "
            "its path on and open it there (where a store is to be written from several processes: "
            "`aquipu serve`, and aquipu.sync.connect in each)"
        )


class SyncStore(_SyncLog):
    """A durable log, from any thread: the calls of `Store`, which return when they are done.

    Made by `open` or `connect`. Close it, or enter it. It belongs to this process, and no thread
    that runs an event loop may call it.
    """

    _log: Store

    def __init__(self, thread: LoopThread, log: Store) -> None:
        """Prepare the face of an open store; not called by users: `open` does."""
        super().__init__(thread, log)
        self._appends = Appends(thread, log)
        thread.warning = (
            f"<SyncStore {log.path!r}> was never closed; use close() or `with aquipu.sync.open`"
        )

    @_as(Store.append)
    def append(self, data: Any, **options: Any) -> Receipt:
        """Store one record, and return its receipt."""
        if type(data) is bytearray or type(data) is memoryview:
            data = bytes(data)  # an interrupted caller may use its buffer for something else
        if options:
            options = {name: _taken(value) for name, value in options.items()}
        return self._appends.append(data, options)

    @_as(Store.append_json)
    def append_json(self, value: Any, **options: Any) -> Receipt:
        """Store a value as JSON, and return its receipt."""
        return self.append(checked_json(value), **options)

    @_as(Store.append_nowait)
    def append_nowait(self, data: Any, **options: Any) -> Future[Receipt]:
        """Store one record; its receipt comes to a future of ``concurrent.futures``."""
        options = {name: _taken(value) for name, value in options.items()}
        receipt: Future[Receipt] = Future()
        receipt.set_running_or_notify_cancel()  # what was accepted is stored

        def accept() -> None:
            waiter = self._log.append_nowait(data, **options)
            waiter.add_done_callback(partial(_settle, receipt))

        self._thread.do(accept)
        return receipt

    append_many = _waiting(Store.append_many)
    """Store several records as one commit: see `Store.append_many`."""
    flush = _waiting(Store.flush)
    """Wait until everything accepted is FLUSHED: see `Store.flush`."""
    sync = _waiting(Store.sync)
    """Wait until everything accepted is SYNCED: see `Store.sync`."""
    reached = _waiting(Store.reached)
    """Wait until a record has reached a stage: see `Store.reached`."""
    roll = _waiting(Store.roll)
    """Seal the segment that is being written: see `Store.roll`."""
    purge = _waiting(Store.purge)
    """Let go of the oldest records: see `Store.purge`."""
    hold = _waiting(Store.hold)
    """Keep everything from a sequence on: see `Store.hold`."""
    release = _waiting(Store.release)
    """Remove a hold: see `Store.release`."""
    statistics = _at_once(Store.statistics)
    """Return a snapshot without waiting: see `Store.statistics`."""
    health = _at_once(Store.health)
    """Return whether all is well without waiting: see `Store.health`."""

    @property
    def synced_sequence(self) -> int:
        """Sequence below which everything is on the disk."""
        return self._log.synced_sequence

    @property
    def limits(self) -> Limits:
        """What it takes at a time, and what an append waits for."""
        return self._log.limits

    @property
    def recovery(self) -> RecoveryReport:
        """What opening found and did."""
        return self._log.recovery


class SyncReader(_SyncLog):
    """A log for reading, from any thread: the calls of `Reader`, without ``await``.

    Made by `read`. Close it, or enter it.
    """

    _log: Reader


class SyncCursor:
    """The sequence that a consumer reads next, kept under a name: see `Cursor`."""

    def __init__(self, owner: _SyncLog, cursor: Cursor) -> None:
        """Prepare a cursor; not called by users: ``store.cursor(name)`` does."""
        self._owner = owner
        self._cursor = cursor

    @property
    def name(self) -> str:
        """The name that it is kept under."""
        return self._cursor.name

    def load(self) -> int | None:
        """Return the sequence that was saved last, or None: see `Cursor.load`."""
        return self._owner._thread.call(self._cursor.load)

    def save(self, sequence: int) -> None:
        """Keep this sequence, on the disk when this returns: see `Cursor.save`."""
        return self._owner._thread.call(partial(self._cursor.save, sequence))

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a SyncCursor cannot be copied or pickled")


def _settle(receipt: Future[Receipt], waiter: asyncio.Future[Receipt]) -> None:
    error = StoreClosedError("") if waiter.cancelled() else waiter.exception()
    if error is None:
        receipt.set_result(waiter.result())
    else:
        receipt.set_exception(error)


def _opening(open: Callable[P, Awaitable[L]], make: Callable[[LoopThread, L], S]) -> Callable[P, S]:
    """Return a function that opens a log as ``open`` does."""

    def opened(*arguments: P.args, **options: P.kwargs) -> S:
        check_no_loop()
        opening = open(*arguments, **options)  # which checks them

        async def log() -> L:
            return await opening

        thread = LoopThread(str(arguments[0] if arguments else ""))
        return make(thread, thread.open(log))

    return _like(open, opened)


open = _opening(Store.open, SyncStore)  # noqa: A001
"""Open the store in a directory, or the daemon at ``unix:PATH``: see `Store.open`."""
connect = _opening(Store.connect, SyncStore)
"""Connect to the store that a daemon writes: see `Store.connect`."""
read = _opening(Reader.open, SyncReader)
"""Open the store in a directory for reading: see `Reader.open`."""
