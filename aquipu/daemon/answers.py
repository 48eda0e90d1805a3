"""What a daemon does for its clients: one function for each thing that a request may ask to `do`. See `wire`.

A client may send anything. What is no request raises WireError; what the store refuses, it refuses as it does in its own
process. Each function takes the store, the request and whose it is, and gives the head of the answer and its tail.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aquipu.daemon.keyed import find_keyed
from aquipu.daemon.wire import (
    VERSION,
    Head,
    Landed,
    Message,
    Welcome,
    WireError,
    commit_in,
    number_in,
    page_of,
    stage_in,
    value_of,
)
from aquipu.options import MIB
from aquipu.policy import Stage
from aquipu.purge import Purged
from aquipu.record import Record, checked_relations, labels_size
from aquipu.store import Store
from aquipu.view import View

COMMIT_BYTES_MAX = 32 * MIB
"""The most that a client may hold in its buffer, and so in a commit: data and labels."""
COMMIT_RECORDS_MAX = 1024 * 1024
TAIL_BYTES_MAX = 4 * COMMIT_BYTES_MAX
"""More than such a commit is with its columns: 13 bytes a record, and 2 for each label, which has one at least."""
PAGE_BYTES = 256 * 1024
PAGE_RECORDS = 2048

Answer = tuple[Head, list[bytes]]


class Arguments(dict[str, Any]):
    """What a request says; what it does not say is None."""

    def __missing__(self, name: str) -> None:
        return None


def writer_in(hello: Message) -> bytes:
    """Who says hello. Raises WireError."""
    head = Arguments(hello.head)
    version, name = head["hello"], head["writer"]
    if version != VERSION:
        raise WireError(f"version {version!r:.20} of the protocol is spoken there, and version {VERSION} here")
    try:
        writer = bytes.fromhex(name)
    except (TypeError, ValueError):
        writer = b""
    if len(writer) != 16:
        raise WireError("a hello does not say who it is")
    return writer


async def welcome(store: Store, writer: bytes, hello: Message) -> Welcome:
    """What a client must know, when nothing that it sent before is under way any more."""
    outcome: Landed | str | None = None
    if "number" in hello.head:
        outcome = await _outcome(store, writer, number_in(hello.head, "number"), number_in(hello.head, "floor"))
    return Welcome(
        store._stage,
        min(store._max_record_bytes, COMMIT_BYTES_MAX),
        min(store._group.buffer_records, COMMIT_RECORDS_MAX),
        min(store._group.buffer_bytes, COMMIT_BYTES_MAX),
        standing(store),
        outcome,
    )


def standing(store: Store) -> tuple[int, int, int]:
    """Where the log stands."""
    return store.first_sequence, store.next_sequence, store.synced_sequence


async def answer(store: Store, writer: bytes, request: Message) -> Answer:
    """Do what a request asks for."""
    head = Arguments(request.head)
    do = head["do"]
    if do == "commit":
        return await _commit(store, writer, request)
    if do == "page":
        return await _page(store, head)
    if do == "get":
        return {}, page_of([await store.get(head["sequence"])])
    call = _CALLS.get(do) if isinstance(do, str) else None
    if call is None:
        raise ValueError(f"this daemon does not know how to do {do!r:.100}; it may be older than its client")
    return {}, value_of(await call(store, head))


async def _outcome(store: Store, writer: bytes, number: int, floor: int) -> Landed | str:
    """What became of a commit that cannot be among the records below the floor. What was stored has come as far as it was
    to come: a daemon awaits that, and opening a store syncs what it finds."""

    async def search(seen: View) -> Landed | str:
        since = seen._replace(start=min(max(floor, seen.start), seen.stop))
        found = await store._handoff.run(find_keyed, since, writer, number)
        if found is None:
            return "absent" if floor >= seen.start else "unknown"
        stage = Stage.SYNCED if found.first_sequence < store.synced_sequence else Stage.FLUSHED
        return Landed(found.first_sequence, found.time, stage)

    return await store._in_what_is_kept(search)


async def _commit(store: Store, writer: bytes, request: Message) -> Answer:
    stage = stage_in(request.head)
    if not request.tail:
        await (store.sync() if stage is Stage.SYNCED else store.flush())
        return {"first": store.next_sequence, "time": 0, "stage": stage}, []
    payloads, labels = commit_in(request.tail)
    if not payloads:
        raise WireError("a commit has a tail and no record")
    for its in set(labels.values()):
        checked_relations(its)
    label_bytes = sum(map(labels_size, labels.values()))
    key = writer, number_in(request.head, "number")
    first = (await store._append_batch(payloads, labels, label_bytes, stage, key))[0]
    return Landed(first.sequence, first.timestamp, first.stage)._asdict(), []


async def _page(store: Store, head: Arguments) -> Answer:
    """Some of the records of a scan, and the bounds of those that are left: a scan is what was there at its first page."""
    start, stop, reverse = head["start"], head["stop"], bool(head["reverse"])
    wanted = {name: head[name] for name in ("since", "until", "relation", "any_of")}
    scan = store.scan(start, stop, reverse=reverse, **wanted)
    until = store.next_sequence
    left = {"start": start, "stop": until if stop is None else min(stop, until)}
    found, size = list[Record](), 0
    async with scan:
        async for record in scan:
            found.append(record)
            size += len(record.data) + labels_size(record.relations)
            if size >= PAGE_BYTES or len(found) >= PAGE_RECORDS:
                left |= {"stop": record.sequence} if reverse else {"start": record.sequence + 1}
                return left, page_of(found)
    return {"start": None, "stop": None}, page_of(found)


async def _wait(store: Store, head: Arguments) -> bool:
    """Until there is a record with this sequence, or will never be."""
    async with store.follow(head["sequence"]) as records:
        async for _ in records:
            return True
    return False


async def _stand(store: Store) -> int:
    return store.next_sequence


def _purge(store: Store, head: Arguments) -> Awaitable[Purged]:
    return store.purge(before=head["before"], before_time=head["before_time"], dry_run=bool(head["dry_run"]))


_CALLS: dict[str, Callable[[Store, Arguments], Awaitable[Any]]] = {
    "wait": _wait,
    "stand": lambda store, head: _stand(store),
    "relations": lambda store, head: store.relations(head["prefix"]),
    "purge": _purge,
    "hold": lambda store, head: store.hold(head["name"], head["sequence"]),
    "release": lambda store, head: store.release(head["name"]),
    "holds": lambda store, head: store.holds(),
    "load": lambda store, head: store.cursor(head["name"]).load(),
    "save": lambda store, head: store.cursor(head["name"]).save(head["sequence"]),
}
