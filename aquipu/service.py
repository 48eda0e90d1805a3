"""What a daemon does for its clients: one function for each thing that a request may ask to `do`. See `wire`.

A client may send anything. What is no request raises WireError; what the store refuses, it refuses as it does in its own
process. Each function takes the store, the request and whose it is, and gives the head of the answer and its tail.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from aquipu.errors import StoreFullError
from aquipu.keyed import Found, find_keyed
from aquipu.options import MIB
from aquipu.policy import Stage
from aquipu.purge import Purged
from aquipu.record import Record, checked_relations, labels_size
from aquipu.store import Store
from aquipu.view import View
from aquipu.wire import VERSION, Head, Message, WireError, commit_in, page_of

COMMIT_BYTES_MAX = 32 * MIB
"""The most that a client may hold in its buffer, and so in a commit."""
TAIL_BYTES_MAX = 4 * COMMIT_BYTES_MAX
"""What a commit of that size is at most, with its columns."""
PAGE_BYTES = 256 * 1024
PAGE_RECORDS = 2048
_U64 = 1 << 64

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
        raise WireError(f"it speaks version {version!r} of the protocol, and this is version {VERSION}")
    try:
        writer = bytes.fromhex(name)
    except (TypeError, ValueError):
        writer = b""
    if len(writer) != 16:
        raise WireError("it does not say who it is")
    return writer


async def welcome(store: Store, writer: bytes, hello: Message) -> Head:
    """What a client must know, when nothing that it sent before is under way any more."""
    outcome: Found | str | None = None
    if hello.head.get("number") is not None:
        outcome = await _outcome(store, writer, _number(hello, "number"), _number(hello, "floor"))
    return {
        "welcome": VERSION,
        "store": store.path,
        "stage": store._stage,
        "max_record_bytes": store._max_record_bytes,
        "buffer_records": store._group.buffer_records,
        "buffer_bytes": min(store._group.buffer_bytes, COMMIT_BYTES_MAX),
        "outcome": outcome,
        "standing": standing(store),
    }


def standing(store: Store) -> list[int]:
    """Where the log stands."""
    return [store.first_sequence, store.next_sequence, store.synced_sequence]


async def answer(store: Store, writer: bytes, request: Message) -> Answer:
    """Do what a request asks for."""
    do = request.head.get("do")
    if do == "commit":
        return await _commit(store, writer, request)
    if do == "page":
        return await _page(store, request)
    if do == "get":
        return {}, page_of([await store.get(_number(request, "sequence"))])
    call = _CALLS.get(do) if isinstance(do, str) else None
    if call is None:
        raise ValueError(f"this daemon does not know how to do {do!r}; it may be older than its client")
    return {"value": await call(store, Arguments(request.head))}, []


async def _outcome(store: Store, writer: bytes, number: int, floor: int) -> Found | str:
    """What became of a commit that cannot be among the records below the floor. If it is there, it is on the disk."""
    with suppress(StoreFullError):  # it, or another that was under way, found no space, and is not there
        await store.sync()

    async def search(seen: View) -> Found | str:
        since = seen._replace(start=min(max(floor, seen.start), seen.stop))
        found = await store._handoff.run(find_keyed, since, writer, number)
        return found or ("absent" if floor >= seen.start else "unknown")

    return await store._in_what_is_kept(search)


async def _commit(store: Store, writer: bytes, request: Message) -> Answer:
    try:
        stage = Stage(request.head["stage"])
    except (LookupError, ValueError):
        raise WireError("a commit does not say how safe it is to be") from None
    if not request.tail:
        await (store.sync() if stage is Stage.SYNCED else store.flush())
        return {"stage": stage}, []
    payloads, labels = commit_in(request.tail)
    if not payloads:
        raise WireError("a commit has a tail and no record")
    for its in set(labels.values()):
        checked_relations(its)
    label_bytes = sum(map(labels_size, labels.values()))
    key = writer, _number(request, "number")
    first = (await store._append_batch(payloads, labels, label_bytes, stage, key))[0]
    return {"first": first.sequence, "time": first.timestamp, "stage": first.stage}, []


async def _page(store: Store, request: Message) -> Answer:
    """Some of the records of a scan, and the bounds of those that are left: a scan is what was there at its first page."""
    head = Arguments(request.head)
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
    async with store.follow(head["sequence"]) as records:
        async for _ in records:
            return True
    return False


def _purge(store: Store, head: Arguments) -> Awaitable[Purged]:
    return store.purge(before=head["before"], before_time=head["before_time"], dry_run=bool(head["dry_run"]))


_CALLS: dict[str, Callable[[Store, Arguments], Awaitable[Any]]] = {
    "wait": _wait,
    "relations": lambda store, head: store.relations(head["prefix"]),
    "purge": _purge,
    "hold": lambda store, head: store.hold(head["name"], head["sequence"]),
    "release": lambda store, head: store.release(head["name"]),
    "holds": lambda store, head: store.holds(),
    "load": lambda store, head: store.cursor(head["name"]).load(),
    "save": lambda store, head: store.cursor(head["name"]).save(head["sequence"]),
}


def _number(message: Message, name: str) -> int:
    number = message.head.get(name)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < _U64:
        raise WireError(f"the {name} of a message is no number")
    return number
