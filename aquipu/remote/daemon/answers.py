"""What a daemon does for its clients: one function for each thing a request may ask to `do`.

See `protocol`.

A client may send anything. What is no request raises WireError; what the store refuses, it refuses
as it does in its own process. Each function takes the store, the request and whose it is, and gives
the head of the answer and its tail.
"""

from __future__ import annotations

from asyncio import Lock
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from aquipu.errors import OutcomeUnknownError, RecordPurgedError, RecordTooLargeError
from aquipu.options import MIB
from aquipu.policy import Stage
from aquipu.record import (
    PRODUCERS,
    Guarded,
    Position,
    Receipt,
    Record,
    checked_relations,
    labels_size,
)
from aquipu.remote.connection import PURGED
from aquipu.remote.protocol import (
    VERSION,
    Head,
    Message,
    Stored,
    Welcome,
    WireError,
    commit_in,
    number_in,
    page_of,
    refused_head,
    stage_in,
    value_of,
)
from aquipu.statistics import Health
from aquipu.store import Store

COMMIT_BYTES_MAX = 32 * MIB
"""The most that a client may hold in its buffer, and so in a commit: data and labels."""
COMMIT_RECORDS_MAX = 1024 * 1024
TAIL_BYTES_MAX = 4 * COMMIT_BYTES_MAX
"""More than such a commit is with its columns: 13 bytes a record, and 2 for each label, which has
one at least.
"""
PAGE_BYTES = 256 * 1024
PAGE_RECORDS = 2048

Answer = tuple[Head, list[bytes]]

_turns: WeakKeyDictionary[Store, Lock] = WeakKeyDictionary()


class Arguments(dict[str, Any]):
    """What a request says; what it does not say is None."""

    def __missing__(self, name: str) -> None:
        return None


def writer_in(hello: Message) -> bytes:
    """Return the writer that a hello names. Raises WireError."""
    head = Arguments(hello.head)
    version, name = head["hello"], head["writer"]
    if version != VERSION:
        raise WireError(
            f"version {version!r:.20} of the protocol is spoken there, and version {VERSION} here"
        )
    return _writer(name)


def _writer(name: object) -> bytes:
    """Return the 16 bytes that a message names in hex. Raises WireError."""
    try:
        writer = bytes.fromhex(name)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        writer = b""
    if len(writer) != 16:
        raise WireError("a message does not say whose it is")
    return writer


async def welcome(store: Store, writer: bytes, hello: Message) -> Welcome:
    """Return what a client must know, when nothing that it sent before is under way any more."""
    outcome: Stored | str | None = None
    if "number" in hello.head:
        outcome = await _outcome(
            store, writer, number_in(hello.head, "number"), number_in(hello.head, "floor")
        )
    limits = store.limits
    return Welcome(
        limits.stage,
        min(limits.record_bytes, COMMIT_BYTES_MAX),
        min(limits.buffer_records, COMMIT_RECORDS_MAX),
        min(limits.buffer_bytes, COMMIT_BYTES_MAX),
        progress_of(store),
        outcome,
        store.generation,
    )


def progress_of(store: Store) -> tuple[int, int, int]:
    """Return the first, the next and the synced sequence of the log."""
    return store.first_sequence, store.next_sequence, store.synced_sequence


async def answer(store: Store, writer: bytes, request: Message) -> Answer:
    """Do what a request asks for."""
    head = Arguments(request.head)
    do = head["do"]
    if do == "commit":
        return await _commit(store, writer, request)
    if do == "append":
        return await _append(store, request)
    if do == "page":
        return await _page(store, head)
    if do == "get":
        return {}, page_of([await store.get(head["sequence"])])
    call = _CALLS.get(do) if isinstance(do, str) else None
    if call is None:
        raise ValueError(
            f"this daemon does not know how to do {do!r:.100}; it may be older than its client"
        )
    return {}, value_of(await call(store, head))


async def _outcome(store: Store, writer: bytes, number: int, floor: int) -> Stored | str:
    """Return what became of a commit that cannot be among the records below the floor.

    What was stored has come as far as it was to come: a daemon awaits that, and opening a store
    syncs what it finds.
    """

    try:
        found = await store.find_commit(writer, number, floor)
    except RecordPurgedError:
        return "unknown"
    return "absent" if found is None else Stored(found.sequence, found.timestamp, found.stage)


async def _commit(store: Store, writer: bytes, request: Message) -> Answer:
    stage = _stage_asked(request)
    if not request.tail:
        await (store.sync() if stage is Stage.SYNCED else store.flush())
        return {"first": store.next_sequence, "time": 0, "stage": stage}, []
    payloads, labels = commit_in(request.tail)
    if not payloads:
        raise WireError("a commit has a tail and no record")
    refused = _refused(store, payloads, labels)
    if refused:
        return refused_head(refused), []
    key = writer, number_in(request.head, "number")
    first = await store.append_commit(payloads, labels, stage, key)
    return Stored(first.sequence, first.timestamp, first.stage)._asdict(), []


def _stage_asked(request: Message) -> Stage:
    """Return what an append is to wait for: a disk has no stage beyond SYNCED. Raises WireError."""
    stage = stage_in(request.head)
    if stage > Stage.SYNCED:
        raise WireError(f"an append waits for {stage.name}, which a log on a disk has not")
    return stage


async def _append(store: Store, request: Message) -> Answer:
    """Store records if their key is new, at the sequence that is expected."""
    stage, number = _stage_asked(request), number_in(request.head, "number")
    head = Arguments(request.head)
    expected = None if head["expect"] is None else number_in(request.head, "expect")
    payloads, of_each = commit_in(request.tail)
    labels = of_each.get(0, ())
    if not payloads or any(of_each.get(index, ()) != labels for index in range(len(payloads))):
        raise WireError("an append has no records, or such with different labels")
    for error in _refused(store, payloads, of_each).values():
        raise error
    if bool(number & PRODUCERS) != (head["producer"] is not None):
        raise WireError("the number of an append is none of a producer, or none of a client")
    if head["producer"] is not None:
        key = _writer(head["producer"]), number
        receipts = await store.append_guarded(Guarded(payloads, labels, stage, key, expected))
        first, records = receipts[0], len(receipts)
    else:
        key, found = (_writer(head["client"]), number), None
        async with _turns.setdefault(store, Lock()):  # what comes later does not go ahead
            if head["again"]:
                found = await _found(store, *key, number_in(request.head, "floor"))
        first = found or await store.append_commit(payloads, of_each, stage, key, expected)
        records = len(payloads)
    return {**Stored(*first)._asdict(), "records": records}, []


async def _found(store: Store, writer: bytes, number: int, floor: int) -> Receipt | None:
    """Return the receipt of an append that was asked for before, if it was stored."""
    try:
        return await store.find_commit(writer, number, floor)
    except RecordPurgedError as error:
        raise OutcomeUnknownError(store.path, PURGED) from error


def _refused(
    store: Store, payloads: list[bytes], labels: dict[int, tuple[str, ...]]
) -> dict[int, Exception]:
    """Return the error of each record that is refused, by index.

    A client has checked them too, but by what it knew of labels, and of this store.
    """
    found: dict[int, Exception] = {}
    limit = store.limits.record_bytes
    if max(map(len, payloads)) > limit:
        found = {
            i: RecordTooLargeError(store.path, len(data), limit)
            for i, data in enumerate(payloads)
            if len(data) > limit
        }
    wrong = {its: error for its in set(labels.values()) if (error := _wrong_with(its)) is not None}
    return (
        found | {index: wrong[its] for index, its in labels.items() if its in wrong}
        if wrong
        else found
    )


def _wrong_with(labels: tuple[str, ...]) -> Exception | None:
    try:
        checked_relations(labels)
    except ValueError as error:
        return error
    return None


async def _page(store: Store, head: Arguments) -> Answer:
    """Return some of the records of a scan, and the bounds of those that are left.

    A scan is what was there at its first page.
    """
    start, stop, reverse = head["start"], head["stop"], bool(head["reverse"])
    if head["generation"] is not None:
        await _check_survived(store, head["generation"], start)
    wanted = {name: head[name] for name in ("since", "until", "relation", "any_of")}
    scan = store.scan(start, stop, reverse=reverse, **wanted)
    until = store.next_sequence
    left = {
        "start": start,
        "stop": until if stop is None else min(stop, until),
        "generation": store.generation,
    }
    limit = PAGE_RECORDS if head["limit"] is None else number_in(head, "limit")
    found, size = list[Record](), 0
    async with scan:
        async for record in scan:
            found.append(record)
            size += len(record.data) + labels_size(record.relations)
            if size >= PAGE_BYTES or len(found) >= min(limit, PAGE_RECORDS):
                left |= {"stop": record.sequence} if reverse else {"start": record.sequence + 1}
                return left, page_of(found)
    return left | {"start": None, "stop": None}, page_of(found)


async def _wait(store: Store, head: Arguments) -> bool:
    """Wait until there is a record with this sequence, or will never be."""
    if head["generation"] is not None:
        await _check_survived(store, head["generation"], head["sequence"])
    async with store.follow(head["sequence"]) as records:
        async for _ in records:
            return True
    return False


async def _check_survived(store: Store, generation: object, sequence: object) -> None:
    """Raise PositionLostError unless what a client has read in a generation is still there."""
    try:
        position = Position.parse(f"{generation}-{sequence}")
    except ValueError as error:
        raise WireError(str(error)) from None
    await store.check_position(position)


async def _next_sequence(store: Store) -> int:
    return store.next_sequence


async def _health(store: Store) -> Health:
    return store.health()


async def _place(store: Store) -> str:
    return store.path


async def _statistics(store: Store) -> dict[str, Any]:
    return store.statistics()._asdict()


async def _purge(store: Store, head: Arguments) -> Sequence[object]:
    purged = await store.purge(
        before=head["before"], before_time=head["before_time"], dry_run=bool(head["dry_run"])
    )
    return purged if head["held"] else purged[:5]  # all that an earlier client can take


_CALLS: dict[str, Callable[[Store, Arguments], Awaitable[Any]]] = {
    "wait": _wait,
    "reached": lambda store, head: store.reached(Stage(head["stage"]), head["sequence"]),
    "survived": lambda store, head: _check_survived(store, head["generation"], head["sequence"]),
    "stand": lambda store, head: _next_sequence(store),
    "health": lambda store, head: _health(store),
    "statistics": lambda store, head: _statistics(store),
    "place": lambda store, head: _place(store),
    "relations": lambda store, head: store.relations(head["prefix"]),
    "backup": lambda store, head: store.backup(
        head["path"], link=head["link"], bookmarks=head["bookmarks"]
    ),
    "roll": lambda store, head: store.roll(),
    "purge": _purge,
    "hold": lambda store, head: store.hold(head["name"], head["sequence"]),
    "release": lambda store, head: store.release(head["name"]),
    "holds": lambda store, head: store.holds(),
    "load": lambda store, head: store.cursor(head["name"]).load(),
    "save": lambda store, head: store.cursor(head["name"]).save(head["sequence"]),
    "load and hold": lambda store, head: store.cursor(head["name"], hold=True).load(),
    "save and hold": lambda store, head: store.cursor(head["name"], hold=True).save(
        head["sequence"]
    ),
    "cursors": lambda store, head: store.cursors(),
}
