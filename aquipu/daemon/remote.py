"""A store in another process: the same calls, through the socket of the daemon that writes it.

Appends form commits here as they do in `Store`; a commit goes to the daemon as one message, and one answer brings it back.
So what a process appends in the same moment travels together, and the daemon joins what all processes send.

A connection that is lost is made anew (see `connection`), and the commit under way then is not sent again before the daemon
has said that it does not have it.
"""

from __future__ import annotations

import weakref
from asyncio import AbstractEventLoop, Task, ensure_future, get_running_loop, wait
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import count
from logging import getLogger
from threading import Thread
from time import monotonic, monotonic_ns
from typing import Any, TypeVar

from aquipu.bookmark import checked_name
from aquipu.closing import Opening, Records
from aquipu.commit import Commit, GroupCommit, Landing
from aquipu.daemon.connection import PURGED, Client, Connection, deliver, path_in
from aquipu.daemon.wire import (
    VERSION,
    Head,
    Landed,
    Message,
    Welcome,
    WireError,
    landed_in,
    page_in,
    raise_if_error,
    records_of_commit,
    value_in,
)
from aquipu.disk import at_fork, random_bytes
from aquipu.errors import (
    AquipuError,
    BatchTooLargeError,
    ForkedStoreError,
    OutcomeUnknownError,
    StoreClosedError,
    StoreFailedError,
    StoreUnavailableError,
)
from aquipu.options import check_buffer, check_seconds
from aquipu.policy import OsManaged, Stage
from aquipu.purge import Purged
from aquipu.reading import Time, check_sequence, checked_range, checked_wanted, nanoseconds
from aquipu.record import Record
from aquipu.statistics import Health, Statistics, judge
from aquipu.tally import Latency
from aquipu.worker import EXIT_SECONDS, before_exit
from aquipu.writing import Waiter, Writable, refuse_in_child

T = TypeVar("T")

_log = getLogger(__name__)


class RemoteStore(Writable):
    """A store that a daemon writes. Made by `Store.connect`; belongs to the loop that connected it, and to this process.

    Its calls are those of `Store`, with the same receipts and errors. Beside them, each may raise StoreUnavailableError:
    the daemon could not be reached in time, and nothing was sent; and what appends OutcomeUnknownError: it was sent, and
    what became of it cannot be found out. In both cases the next call tries again. StoreFailedError comes from the daemon,
    as long as it has not been started anew. A daemon that is there and does not answer, because its disk hangs, is waited
    for, as a disk is.
    """

    def __init__(self, address: str, loop: AbstractEventLoop, seconds: float, group: GroupCommit[Waiter]) -> None:
        """Not called by users: `Store.connect` does."""
        super().__init__(address, loop, group, Stage.SYNCED, 0)
        self._writer = random_bytes(16)
        self._bounds = group.buffer_records, group.buffer_bytes  # as they were asked for; the daemon may have narrower ones
        self._number = 0  # of the last commit with records that was under way, or is
        self._was_sent = False  # the commit under way, perhaps through a connection that was lost
        self._floor = 0  # the commit under way, if it was sent, has no sequence below
        self._standing = (0, 0, 0)
        self._trouble: AquipuError | None = None  # since closing began
        self._away: AquipuError | None = None  # why the daemon could not be reached the last time
        self._latency = Latency()
        self._over = False
        self._told = _tell_nobody
        client = Client(self._hello, self._welcome, self._stand, self._give_up)
        self._connection = Connection(address, loop, seconds, client)
        _open_stores.add(self)

    # where the log stands

    @property
    def first_sequence(self) -> int:
        """Of the first record kept, as the daemon said last."""
        return self._standing[0]

    @property
    def next_sequence(self) -> int:
        """One past the last acknowledged record, of whatever process, as the daemon said last."""
        return self._standing[1]

    @property
    def synced_sequence(self) -> int:
        """Everything below is on the disk, as the daemon said last."""
        return self._standing[2]

    def statistics(self) -> Statistics:
        """A snapshot of what this process has appended, and where the log stands, as the daemon said last. As of a Store,
        but it is the daemon that syncs, and has the files: ``syncs`` and ``segments`` are 0. An append takes from
        its acceptance by the daemon to the answer; what is under way is a commit that was not yet answered."""
        return self._counted(self._latency)

    def health(self, *, max_answer_seconds: float = 1.0) -> Health:
        """As `Store.health`, of the way to the daemon: ``degraded`` when it has not answered for so long, ``failed`` when
        it could not be reached the last time. For the health of its disk, ask where it runs."""
        away = None if self._away is None else str(self._away)
        seen = self.statistics()
        return judge(seen, away, min_free_bytes=0, max_sync_seconds=max_answer_seconds, behind="daemon")

    # reading

    async def get(self, sequence: int) -> Record:
        """See `Store.get`."""
        check_sequence(sequence, "sequence")
        return (await self._ask(_records_in, "get", sequence=sequence))[0]

    def scan(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        since: Time | None = None,
        until: Time | None = None,
        relation: str | Iterable[str] | None = None,
        any_of: Iterable[str] | None = None,
        reverse: bool = False,
    ) -> Records:
        """See `Store.scan`. It comes in pages, and holds nothing between them against purges: RecordPurgedError where the
        next page was purged before it was asked for."""
        asked, wanted = checked_range(start, stop, since, until), checked_wanted(relation, any_of)
        self._check_readable()
        every, of_any = (None, None) if wanted is None else (wanted.every or None, wanted.any_of or None)
        return _Pages(self, {**asked._asdict(), "relation": every, "any_of": of_any, "reverse": bool(reverse)})

    def follow(self, start: int | None = None) -> Records:
        """See `Store.follow`. It goes on when the daemon was away, unless that takes too long, and ends when this store is
        closed, wherever it is then."""
        if start is not None:
            check_sequence(start, "start")
        self._check_readable()
        return _Follow(self, start)

    async def relations(self, prefix: str = "") -> dict[str, int]:
        """See `Store.relations`."""
        if not isinstance(prefix, str):
            raise TypeError(f"a prefix of labels is a str, not {type(prefix).__name__}")
        labels: dict[str, int] = await self._call("relations", prefix=prefix)
        return labels

    def cursor(self, name: str) -> RemoteCursor:
        """See `Store.cursor`."""
        return RemoteCursor(self, checked_name(name))

    # keeping and letting go

    async def purge(self, *, before: int | None = None, before_time: Time | None = None, dry_run: bool = False) -> Purged:
        """See `Store.purge`."""
        time = None if before_time is None else nanoseconds(before_time)
        return Purged(*await self._call("purge", before=before, before_time=time, dry_run=bool(dry_run)))

    async def hold(self, name: str, sequence: int) -> None:
        """See `Store.hold`."""
        check_sequence(sequence, "sequence")
        await self._call("hold", name=checked_name(name), sequence=sequence)

    async def release(self, name: str) -> bool:
        """See `Store.release`."""
        return bool(await self._call("release", name=checked_name(name)))

    async def holds(self) -> dict[str, int]:
        """See `Store.holds`."""
        holds: dict[str, int] = await self._call("holds")
        return holds

    async def _call(self, do: str, **arguments: Any) -> Any:
        return await self._ask(_value_in, do, **arguments)

    async def _ask(self, understood: Callable[[Message], T], do: str, **arguments: Any) -> T:
        self._check_readable()
        message = await self._connection.ask({"do": do, **arguments})
        try:
            return understood(message)
        except WireError as error:
            raise StoreUnavailableError(self._path, "understand the daemon at", str(error)) from error

    def _check_readable(self) -> None:
        self._check_owner()
        if self._closed is not None:
            raise StoreClosedError(self._path)

    # the way of a commit

    def _launch(self, commit: Commit[Waiter], *, at_once: bool) -> None:
        if commit.payloads:
            self._number += 1
        self._was_sent = False
        self._latency.since = monotonic_ns()
        self._send()

    def _send(self) -> None:
        """Send the commit under way, or have the way for it made."""
        commit = self._group.under_way
        assert commit is not None
        if self._connection.is_up:
            if not self._was_sent:
                self._floor = self._standing[1]
            self._was_sent = True
            self._connection.send(*self._message_of(commit, self._number), self._answered)
        else:
            self._connection.reach()

    def _message_of(self, commit: Commit[Waiter], number: int) -> tuple[Head, list[bytes]]:
        head = {"do": "commit", "number": number, "stage": Stage.SYNCED if commit.sync else Stage.FLUSHED}
        if not commit.payloads:
            return head, []
        return head, records_of_commit(commit.payloads, commit.timestamps, commit.labels)

    def _answered(self, message: Message | None) -> None:
        """What became of the commit under way; None when the connection was lost before that was said."""
        if message is None:
            self._connection.reach()
            return
        try:
            raise_if_error(message.head, self._path)
            landed = landed_in(message.head)
        except AquipuError as error:
            self._arrived(error)
        except WireError as error:
            self._arrived(OutcomeUnknownError(self._path, f"the daemon's answer cannot be understood, {error}"))
        except Exception as error:  # what the daemon refuses
            self._arrived(StoreUnavailableError(self._path, "append to", str(error)))
        else:
            self._land(landed)

    def _land(self, landed: Landed) -> None:
        """The commit under way is in the log."""
        commit, group = self._group.under_way, self._group
        assert commit is not None
        following = landed.first + len(commit) if commit.payloads else group.next_sequence
        commit.timestamps = [landed.time] * len(commit)
        commit.sync = landed.stage is Stage.SYNCED
        synced = following if commit.sync else min(self._standing[2], following)
        self._arrived(Landing(following, synced, 0))

    def _arrived(self, outcome: Landing | AquipuError) -> None:
        self._latency.since = 0
        if self._closed is not None and isinstance(outcome, AquipuError):
            commit = self._group.under_way
            if isinstance(outcome, StoreFailedError) or (commit is not None and not commit.payloads):
                self._trouble = outcome  # nobody else is told that what was only flushed is not synced
        super()._arrived(outcome)

    def _settled(self) -> None:
        pass

    def _fail(self, outcome: StoreFailedError) -> None:
        """The daemon's store has failed. It may be opened again, so whoever comes later asks again."""
        commit, behind = self._group.refuse()
        self._fail_all([*commit.everyone(), *behind], outcome)

    # what the connection tells

    def _hello(self) -> Head:
        head: Head = {"hello": VERSION, "writer": self._writer.hex()}
        commit = self._group.under_way
        if commit is not None and commit.payloads and self._was_sent:
            head |= {"number": self._number, "floor": self._floor}
        return head

    def _welcome(self, welcome: Welcome) -> None:
        self._away = None
        self._stand(welcome.standing)
        self._stage = welcome.stage
        self._max_record_bytes = welcome.max_record_bytes
        self._fit(min(self._bounds[0], welcome.buffer_records), min(self._bounds[1], welcome.buffer_bytes))
        if self._group.under_way is None:
            return
        if isinstance(welcome.outcome, Landed):
            self._land(welcome.outcome)
        elif welcome.outcome == "unknown":
            self._arrived(OutcomeUnknownError(self._path, PURGED))
        else:
            self._was_sent = False  # and if it was, it did not arrive
            self._send()

    def _fit(self, records: int, bytes: int) -> None:
        """Keep within these bounds. A batch that waits for room and will never have it is refused."""
        for pending in self._group.resize(records, bytes):
            self._fail_all([pending.waiter], BatchTooLargeError(self._path, len(pending.payloads), pending.size))

    def _stand(self, standing: tuple[int, int, int]) -> None:
        self._standing = standing

    def _give_up(self, error: AquipuError) -> None:
        """The daemon cannot be reached: everyone who waits is told."""
        commit = self._group.under_way
        if commit is not None and commit.payloads and self._was_sent:
            self._fail_all(commit.everyone(), OutcomeUnknownError(self._path, str(error)))
        self._fail_all(self._group.abandon(), error)
        self._away = self._trouble = error
        self._latency.since = 0
        if not self._scheduled:
            self._depart()

    # closing

    def _begin_closing(self) -> None:
        self._trouble = None
        self._connection.hasten()
        super()._begin_closing()

    def _end(self) -> None:
        assert self._closed is not None
        if self._trouble is None and self._group.barrier(Stage.SYNCED, None):  # what was only flushed
            self._depart()
            return
        self._ending = self._over = True
        _open_stores.discard(self)
        self._connection.close()
        if self._trouble is None:
            self._closed.set_result(None)
        else:
            self._closed.set_exception(self._trouble)
            self._closed.exception()  # aclose raises it; not the garbage collector

    def _leave(self) -> Callable[[float], None] | None:
        """The program has let go of the store. If it is still open: what brings to the daemon what was accepted."""
        if self._over or isinstance(self._refusal, ForkedStoreError):
            return None
        self._over = True
        under_way = self._group.under_way
        is_numbered = under_way is not None and bool(under_way.payloads)
        commits = [*([] if under_way is None else [under_way]), *self._group.remaining()]
        numbers = count(self._number + (not is_numbered))
        messages = [self._message_of(commit, next(numbers)) for commit in commits if commit.payloads]
        return partial(_deliver, self._path, self._hello(), messages)

    def __del__(self) -> None:
        if hasattr(self, "_connection") and (deliver := self._leave()) is not None:
            with suppress(RuntimeError):  # the loop was closed under the store
                self._loop.call_soon_threadsafe(self._connection.close)
            _leave_in_background(deliver)
            self._warn()

    def __repr__(self) -> str:
        return f"<RemoteStore {self._path!r} {'closed' if self._closed is not None else 'open'}>"


class RemoteCursor:
    """As `Cursor`, kept by the daemon."""

    def __init__(self, store: RemoteStore, name: str) -> None:
        """Not called by users: `RemoteStore.cursor` does."""
        self._store = store
        self._name = name

    @property
    def name(self) -> str:
        """What it is called."""
        return self._name

    async def load(self) -> int | None:
        """See `Cursor.load`."""
        sequence: int | None = await self._store._call("load", name=self._name)
        return sequence

    async def save(self, sequence: int) -> None:
        """See `Cursor.save`."""
        await self._store._call("save", name=self._name, sequence=sequence)


class _Pages(Records):
    """The records of a scan, a page at a time."""

    def __init__(self, store: RemoteStore, asked: Head) -> None:
        self._store = store
        self._asked: Head | None = asked
        self._ready = iter(())

    async def aclose(self) -> None:
        self._asked = None
        self._ready = iter(())

    async def _refill(self) -> Record:
        while (asked := self._asked) is not None:
            records, left = await self._store._ask(_page_in, "page", **asked)
            if self._asked is None:  # closed meanwhile
                break
            self._asked = None if left["stop"] is None else asked | left
            self._ready = iter(records)
            for record in self._ready:
                return record
        raise StopAsyncIteration


class _Follow(Records):
    """The records from a place on, for ever."""

    def __init__(self, store: RemoteStore, start: int | None) -> None:
        """Without a start: from where the log stands when the daemon hears of it."""
        self._store = store
        self._next = start
        self._ready = iter(())
        self._is_over = False
        self._asked: Task[Any] | None = None  # that a step waits for
        if start is None:
            self._asked = self._ask("stand")

    async def aclose(self) -> None:
        self._is_over = True
        self._ready = iter(())
        if self._asked is not None:
            self._asked.cancel()

    async def _refill(self) -> Record:
        while not self._is_over:
            try:
                found = await self._more()
            except StoreClosedError:
                if self._store._closed is None:
                    raise
                break
            if found and not self._is_over:
                self._next = found[-1].sequence + 1
                self._ready = iter(found)
                return next(self._ready)
        raise StopAsyncIteration

    async def _more(self) -> list[Record]:
        """The next records, when there are any; none when it is closed meanwhile."""
        if self._next is None:
            self._next = await self._answer("stand")
        await self._answer("wait")
        return [] if self._is_over else await self._store._ask(_records_in, "page", start=self._next)

    async def _answer(self, do: str) -> Any:
        """What the daemon says; None when this is closed meanwhile. Cancelled, it is asked again the next time."""
        asked = self._asked = self._asked or self._ask(do)
        try:
            await wait([asked])
        finally:
            self._asked = None
            asked.cancel()
        return None if asked.cancelled() else asked.result()

    def _ask(self, do: str) -> Task[Any]:
        asked = ensure_future(self._store._ask(_value_in, do, sequence=self._next))
        asked.add_done_callback(lambda task: task.cancelled() or task.exception())  # heard of, also if nobody waits
        return asked


def _records_in(message: Message) -> list[Record]:
    return page_in(message.tail)


def _value_in(message: Message) -> Any:
    return value_in(message.tail)


def _page_in(message: Message) -> tuple[list[Record], Head]:
    """The records of a page, and what is left."""
    return page_in(message.tail), {"start": message.head.get("start"), "stop": message.head.get("stop")}


def opening(address: str, timeout: float, buffer_records: int, buffer_bytes: int) -> Opening[RemoteStore]:
    """What `Store.connect` gives."""
    path_in(address)
    check_seconds("timeout", timeout)
    check_buffer(buffer_records, buffer_bytes)
    return Opening(partial(_connect, address, timeout, buffer_records, buffer_bytes))


async def _connect(address: str, seconds: float, buffer_records: int, buffer_bytes: int) -> RemoteStore:
    group: GroupCommit[Waiter] = GroupCommit(
        OsManaged(), next_sequence=0, synced_sequence=0, buffer_records=buffer_records, buffer_bytes=buffer_bytes
    )
    store = RemoteStore(address, get_running_loop(), seconds, group)
    try:
        await store._connection.reached()
    except BaseException:
        store._over = True
        store._connection.close()
        raise
    return store


def _tell_nobody(first: int, commit: Commit[Waiter]) -> None:
    """Nobody here follows the commits of this process."""


# at the end of the program


_open_stores: weakref.WeakSet[RemoteStore] = weakref.WeakSet()
_leaving: weakref.WeakSet[Thread] = weakref.WeakSet()


def _leave_in_background(deliver: Callable[[float], None]) -> None:
    thread = Thread(target=deliver, args=(monotonic() + EXIT_SECONDS,), name="aquipu-leave", daemon=True)
    thread.start()
    _leaving.add(thread)


def _leave_all() -> None:
    """No thread is started: at the exit of the interpreter, later versions of Python do not allow it."""
    left = [(store, deliver) for store in list(_open_stores) if (deliver := store._leave()) is not None]
    deadline = monotonic() + EXIT_SECONDS
    for _, deliver in left:
        deliver(deadline)
    for thread in list(_leaving):
        thread.join(max(deadline - monotonic(), 0))
    for store, _ in left:  # when nothing can go wrong any more: the warning may be made an error
        store._warn()


def _deliver(address: str, hello: Head, commits: list[tuple[Head, list[bytes]]], deadline: float) -> None:
    """Nobody waits for the answer any more."""
    try:
        if commits:
            deliver(address, hello, commits, deadline)
    except Exception as error:
        _log.error(
            "%s was not closed, and its daemon did not take what was accepted before the exit: records that were accepted "
            "and not yet acknowledged may be missing; use aclose() or `async with`: %s",
            address,
            error,
        )


before_exit(_leave_all)
at_fork(partial(refuse_in_child, _open_stores))
at_fork(_leaving.clear)
