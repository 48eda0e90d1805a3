"""connection: whatever is lost on the way, nothing is stored twice, nobody waits for ever, and what
is not known is said.

The daemon is the real one, with something between it and the client that has connections lost at
chosen messages; or one that says what a test wants.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from asyncio import Future, Task, ensure_future
from collections.abc import AsyncIterator, Awaitable, Callable
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aquipu import (
    AquipuError,
    ForkedStoreError,
    OsManaged,
    OutcomeUnknownError,
    Receipt,
    RemoteStore,
    Stage,
    Store,
    StoreClosedError,
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
)
from aquipu.engine import Progress
from aquipu.remote.protocol import Head, Message, error_head
from tests.disk import FailingDisk
from tests.remote.daemon.served import (
    PATIENCE,
    SHORT,
    WELCOME,
    Between,
    Fate,
    Peer,
    Served,
    between,
    connected,
    nth,
    scripted,
    served,
    served_at_last,
    soon,
    until,
)
from tests.support import remote_engine_of

pytestmark = pytest.mark.asyncio

STANDING: Head = {"standing": [0, 1, 1]}


@pytest_asyncio.fixture
async def middle(it: Served) -> AsyncIterator[tuple[Between, RemoteStore]]:
    """What stands between, and a store that is connected through it and has stored one record."""
    async with between(it) as (middle, address), Store.connect(address, timeout=PATIENCE) as store:
        await store.append(b"first")
        middle.requests.clear()
        yield middle, store


def asked(message: Message, do: str) -> bool:
    return message.head.get("do") == do


def answers(number: int, fate: Fate) -> Callable[[Message], Fate]:
    """This fate for the nth answer that tells where a commit is."""
    seen = 0

    def decide(message: Message) -> Fate:
        nonlocal seen
        seen += "first" in message.head
        return fate if seen == number and "first" in message.head else Fate.PASS

    return decide


async def stored_once(it: Served, store: RemoteStore, count: int = 20) -> None:
    """Append from several tasks; each record is there once, where its receipt says, behind the
    first one.
    """
    data = [b"%d" % number for number in range(count)]
    receipts: list[Receipt] = await soon(asyncio.gather(*(store.append(one) for one in data)))
    records = [record async for record in it.store.scan(1)]
    assert [record.data for record in records] == data
    assert receipts == [
        Receipt(record.sequence, record.timestamp, Stage.SYNCED) for record in records
    ]
    assert (await soon(store.append(b"next"))).sequence == count + 1


# a commit whose connection is lost


@pytest.mark.parametrize("fate", [Fate.DROP, Fate.HALF, Fate.LAST])
async def test_lost_while_a_commit_is_sent(
    middle: tuple[Between, RemoteStore], it: Served, fate: Fate
) -> None:
    """Before any of it came, in its midst, or behind it: it is stored once, and its callers get
    their receipts.
    """
    between, store = middle
    between.request = nth(1, fate)
    await stored_once(it, store)
    (hello,) = [message.head for message in between.requests if "hello" in message.head]
    assert (hello["number"], hello["floor"]) == (2, 1)


@pytest.mark.parametrize("fate", [Fate.DROP, Fate.HALF, Fate.LAST])
async def test_lost_while_it_is_answered(
    middle: tuple[Between, RemoteStore], it: Served, fate: Fate
) -> None:
    """The commit is in the log: it is found there, and not sent again."""
    between, store = middle
    between.answer = answers(1, fate)
    await stored_once(it, store)
    assert len([message for message in between.requests if asked(message, "commit")]) == 2


async def test_lost_at_every_other_message(middle: tuple[Between, RemoteStore], it: Served) -> None:
    """However often: each commit needs as many connections as it needs."""
    between, store = middle
    fates = iter([Fate.DROP, Fate.LAST, Fate.HALF, Fate.DROP] * 5)
    between.request = lambda message: (
        next(fates, Fate.PASS) if asked(message, "commit") else Fate.PASS
    )
    await stored_once(it, store)


async def test_lost_while_it_is_made_anew(middle: tuple[Between, RemoteStore], it: Served) -> None:
    """Also the hello and the welcome may be lost, at any place of them."""
    between, store = middle
    between.request = nth(1, Fate.LAST)
    fates = {"hello": [Fate.DROP, Fate.HALF, Fate.LAST], "stage": [Fate.DROP, Fate.HALF, Fate.LAST]}

    def fate(message: Message) -> Fate:
        left = next(
            (fates[name] for name in fates if name in message.head and "id" not in message.head), []
        )
        return left.pop() if left else Fate.PASS

    first, between.request = (
        between.request,
        lambda message: fate(message) if "hello" in message.head else first(message),
    )
    between.answer = fate
    await stored_once(it, store)
    assert fates == {"hello": [], "stage": []}


async def test_a_batch_and_a_single_record_and_labels(
    middle: tuple[Between, RemoteStore], it: Served
) -> None:
    """All that a commit may hold is there once."""
    between, store = middle
    between.answer = answers(1, Fate.DROP)
    many = ensure_future(store.append_many([b"a", b"b"], relations=("l",)))
    one = store.append_nowait(b"c", relations=("m",))
    assert (await soon(one)).sequence == 1
    assert [receipt.sequence for receipt in await soon(many)] == [2, 3]
    records = [record async for record in it.store.scan(1)]
    assert [(record.data, record.relations) for record in records] == [
        (b"c", ("m",)),
        (b"a", ("l",)),
        (b"b", ("l",)),
    ]


async def test_found_by_a_daemon_that_was_started_anew(
    middle: tuple[Between, RemoteStore], it: Served
) -> None:
    """The log itself remembers: the new daemon finds what the old one stored and did not answer."""
    between, store = middle
    between.answer = answers(1, Fate.DROP)
    between.request = lambda message: Fate.DROP if "hello" in message.head else Fate.PASS
    future = store.append_nowait(b"second")
    await until(lambda: it.store.next_sequence == 2)
    await it.end()
    await it.begin()
    between.request = lambda message: Fate.PASS
    receipt = await soon(future)
    assert receipt == Receipt(1, (await it.store.get(1)).timestamp, Stage.SYNCED)
    assert await it.data() == [b"first", b"second"]


async def test_absent_at_a_daemon_that_was_started_anew(
    middle: tuple[Between, RemoteStore], it: Served
) -> None:
    """It never came: it is sent again, and stored behind what others have stored since."""
    between, store = middle
    between.request = lambda message: Fate.DROP
    future = store.append_nowait(b"second")
    await until(lambda: between.requests)
    await it.end()
    await it.begin()
    await it.store.append_many([b"other"] * 3)
    between.request = lambda message: Fate.PASS
    assert (await soon(future)).sequence == 4


async def test_absent_and_then_lost_again(middle: tuple[Between, RemoteStore], it: Served) -> None:
    """What is sent for the second time is sought from where the log stood then, not from where it
    stood before: the log of the next daemon may be shorter than that of the one before, when a disk
    has failed.
    """
    between, store = middle
    between.request = nth(1, Fate.DROP)
    remote_engine_of(store)._progress = Progress(
        0, 1000, 1000
    )  # told by a daemon whose log was longer
    between.answer = answers(1, Fate.DROP)
    future = store.append_nowait(b"second")
    assert (await soon(future)).sequence == 1
    hellos = [message.head["floor"] for message in between.requests if "hello" in message.head]
    assert hellos == [1000, 1]
    assert await it.data() == [b"first", b"second"]


async def test_purged_before_it_could_be_asked_for(tmp_path: Path) -> None:
    """Nobody can tell any more:

    OutcomeUnknownError, it is not sent again, and the next append works.
    """
    async with served(tmp_path, max_segment_bytes=4096) as it, between(it) as (middle, address):
        async with Store.connect(address, timeout=PATIENCE) as store:
            await store.append(b"first")
            middle.answer = answers(1, Fate.DROP)
            middle.request = lambda message: Fate.DROP if "hello" in message.head else Fate.PASS
            future = store.append_nowait(b"second")
            await until(lambda: it.store.next_sequence == 2)
            for _ in range(5):
                await it.store.append(bytes(4000))
            await it.store.purge(before=5)
            middle.request = lambda message: Fate.PASS
            with pytest.raises(OutcomeUnknownError, match="purged"):
                await soon(future)
            assert (await store.append(b"next")).sequence == 7


async def test_found_when_only_flushed(tmp_path: Path) -> None:
    """The receipt says no more than is so."""
    async with served(tmp_path, sync_policy=OsManaged()) as it, between(it) as (middle, address):
        async with Store.connect(address, timeout=PATIENCE) as store:
            middle.answer = answers(1, Fate.DROP)
            assert (await soon(store.append(b"x"))).stage is Stage.FLUSHED
            middle.answer = answers(1, Fate.DROP)
            assert (await soon(store.append(b"y", durability=Stage.SYNCED))).stage is Stage.SYNCED
        assert await it.data() == [b"x", b"y"]


async def test_still_under_way_when_it_is_asked_for(tmp_path: Path) -> None:
    """The daemon waits for what it had accepted from the lost connection before it says what became
    of it.
    """
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, between(it) as (middle, address):
        async with Store.connect(address, timeout=PATIENCE) as store:
            await store.append(b"first")
            hold = disk.hold("write_synced")
            middle.request = nth(1, Fate.LAST)
            future = store.append_nowait(b"second")
            await until(hold.reached.is_set)
            await until(lambda: len([one for one in middle.requests if "hello" in one.head]) == 2)
            await until(lambda: any(session._greeting for session in it.daemon.sessions))
            assert not future.done()
            hold.released.set()
            assert (await soon(future)).sequence == 1
            assert await it.data() == [b"first", b"second"]


async def test_under_way_behind_somebody_who_finds_no_space(tmp_path: Path) -> None:
    """A commit of others that is refused says nothing about the one that is asked for: that is
    stored behind it, once.
    """
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, between(it) as (middle, address):
        async with Store.connect(address, timeout=PATIENCE) as store:
            await store.append(b"first")
            hold = disk.hold("write_synced")
            disk.fail("write_synced", ENOSPC)
            other = it.store.append_nowait(b"other")
            await until(hold.reached.is_set)
            middle.request = nth(1, Fate.LAST)
            future = store.append_nowait(b"second")
            await until(lambda: it.store.statistics().buffered_records == 2)
            await until(lambda: len([one for one in middle.requests if "hello" in one.head]) == 2)
            await until(
                lambda: sum(session.writer is not None for session in it.daemon.sessions) == 2
            )
            hold.released.set()
            with pytest.raises(StoreFullError):
                await soon(other)
            assert (await soon(future)).sequence == 1
            assert await it.data() == [b"first", b"second"]


@pytest.mark.parametrize("do", ["get", "page", "relations", "stand", "wait", "save"])
@pytest.mark.parametrize("lost", ["question", "answer"])
async def test_a_question_that_is_lost_is_asked_again(
    middle: tuple[Between, RemoteStore], it: Served, do: str, lost: str
) -> None:
    """Also when it was its answer."""
    between, store = middle
    if lost == "question":
        between.request = nth(1, Fate.HALF, do)
    else:
        numbers: set[object] = set()

        def note(message: Message) -> Fate:
            if asked(message, do) and not numbers:
                numbers.add(message.head["id"])
            return Fate.PASS

        between.request = note
        between.answer = lambda message: (
            Fate.DROP if message.head.get("id") in numbers else Fate.PASS
        )
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "get": lambda: store.get(0),
        "page": lambda: anext(store.scan()),
        "relations": store.relations,
        "stand": lambda: anext(store.follow()),
        "wait": lambda: anext(store.follow(0)),
        "save": lambda: store.cursor("c").save(1),
    }
    asking = ensure_future(calls[do]())
    if do == "stand":
        await until(lambda: len([one for one in between.requests if asked(one, "wait")]))
        await it.store.append(b"second")
    found = await soon(asking)
    assert len([one for one in between.requests if asked(one, do)]) == 2
    assert {"relations": {}, "save": None}.get(do, found) == found


# a daemon that is away


async def test_away_and_back_in_time(it: Served) -> None:
    """Whoever waits meanwhile is served when it is there again; nobody else hears of it."""
    async with it.connect() as store:
        await store.append(b"a")
        await it.end()
        waiting = [
            ensure_future(store.append(b"b")),
            ensure_future(store.get(0)),
            ensure_future(store.sync()),
        ]
        await asyncio.sleep(SHORT)
        assert not any(one.done() for one in waiting)
        await it.begin()
        receipt, record, _ = await soon(asyncio.gather(*waiting))
        assert (receipt.sequence, record.data) == (1, b"a")


async def test_away_for_too_long(it: Served) -> None:
    """StoreUnavailableError for everything that was never sent, each with an error of its own; the
    next call works when the daemon is back.
    """
    store = await served_at_last(lambda: connected(it.address, timeout=SHORT, buffer_records=2))
    await store.append(b"a")
    await it.end()
    records = store.follow(0)
    await it_is_away(store)
    calls = [
        store.append(b"b"),
        store.append(b"b"),
        store.append(b"no room"),
        store.append_many([b"b"] * 2),
    ]
    reads = [store.get(0), anext(store.scan()), anext(records), store.relations(), store.holds()]
    errors = await soon(asyncio.gather(*calls, *reads, return_exceptions=True))
    assert {type(error) for error in errors} == {StoreUnavailableError}
    assert len(set(map(id, errors))) == len(errors)
    assert "cannot reach the daemon" in str(errors[0])
    await it.begin()
    assert (await served_at_last(lambda: store.append(b"c"))).sequence == 1
    assert [(await soon(anext(records))).data for _ in range(2)] == [b"a", b"c"]
    await store.aclose()
    assert await it.data() == [b"a", b"c"]


async def it_is_away(store: RemoteStore) -> None:
    """Let the client notice that its daemon has gone."""
    await until(lambda: not remote_engine_of(store).connection.is_up)


async def test_away_behind_a_commit_that_was_sent(tmp_path: Path) -> None:
    """OutcomeUnknownError for those of that commit, StoreUnavailableError for those who had not
    left yet.
    """

    async def takes_and_leaves(peer: Peer) -> None:
        await peer.hear()
        await peer.say(WELCOME)
        await peer.hear()
        (tmp_path / "socket").unlink()

    async with scripted(tmp_path / "socket", takes_and_leaves) as address:
        store = await connected(address, timeout=SHORT)
        sent = [store.append_nowait(b"a"), store.append_nowait(b"b")]
        await asyncio.sleep(0)
        kept = store.append_nowait(b"c")
        for future, kind in (
            (sent[0], OutcomeUnknownError),
            (sent[1], OutcomeUnknownError),
            (kept, StoreUnavailableError),
        ):
            with pytest.raises(kind):
                await soon(future)
        await store.aclose()


async def test_connecting_where_nobody_is(tmp_path: Path) -> None:
    """It waits for a daemon that is about to come; a client may be started before it."""
    connecting = ensure_future(connected(f"unix:{tmp_path}/socket"))
    await asyncio.sleep(SHORT)
    async with served(tmp_path):
        store = await soon(connecting)
        assert (await store.append(b"x")).sequence == 0
        await store.aclose()


async def test_connecting_that_is_cancelled(tmp_path: Path) -> None:
    """At any moment; nothing is left that tries."""
    before = asyncio.all_tasks()
    for turns in range(8):
        connecting = ensure_future(connected(f"unix:{tmp_path}/socket"))
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await asyncio.sleep(0)
        await until(lambda: asyncio.all_tasks() == before)


async def test_a_daemon_of_another_version(it: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides say so at once; nobody tries again in vain."""
    monkeypatch.setattr("aquipu.remote.engine.VERSION", 99)
    with pytest.raises(
        StoreUnavailableError,
        match="version 99 of the protocol is spoken there, and version 1 here",
    ):
        await soon(connected(it.address, timeout=3600))


# a daemon that is strange


async def silent(peer: Peer) -> None:
    while await peer.hear() is not None:
        pass


async def hangs_up(peer: Peer) -> None:
    await peer.hear()


async def talks_nonsense(peer: Peer) -> None:
    await peer.hear()
    await peer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await silent(peer)


def welcomes(change: Head) -> Callable[[Peer], Awaitable[None]]:
    async def script(peer: Peer) -> None:
        await peer.hear()
        await peer.say(WELCOME | change)
        await silent(peer)

    return script


@pytest.mark.parametrize(
    "script",
    [silent, hangs_up, talks_nonsense, welcomes({"stage": 77}), welcomes({"standing": None})],
)
async def test_what_is_no_daemon(tmp_path: Path, script: Callable[[Peer], Awaitable[None]]) -> None:
    """It counts as one that cannot be reached, for as long as somebody is willing to wait."""
    async with scripted(tmp_path / "socket", script) as address:
        with pytest.raises(StoreUnavailableError, match="cannot reach the daemon"):
            await soon(connected(address, timeout=SHORT))


async def test_a_daemon_that_has_an_error_for_a_greeting(tmp_path: Path) -> None:
    """Whoever connects gets that error, at once."""

    async def refuses(peer: Peer) -> None:
        await peer.hear()
        await peer.say({"error": error_head(StoreFailedError("/store", "fdatasync"))})
        await silent(peer)

    async with scripted(tmp_path / "socket", refuses) as address:
        with pytest.raises(StoreFailedError):
            await soon(connected(address, timeout=3600))


def replies(head: Head, tail: bytes = b"") -> Callable[[Peer], Awaitable[None]]:
    """A daemon that welcomes, and answers everything with this."""

    async def script(peer: Peer) -> None:
        await peer.hear()
        await peer.say(WELCOME)
        while (message := await peer.hear()) is not None:
            await peer.say({"id": message.head["id"], **STANDING, **head}, tail)

    return script


@pytest.mark.parametrize(
    "head",
    [{}, {"first": -1, "time": 0, "stage": 3}, {"first": 0, "time": 0, "stage": 9}, {"first": 0}],
)
async def test_an_answer_to_a_commit_that_makes_no_sense(tmp_path: Path, head: Head) -> None:
    """OutcomeUnknownError: it was sent, and nothing else is known. The store goes on."""
    async with scripted(tmp_path / "socket", replies(head)) as address:
        store = await connected(address)
        for _ in range(2):
            with pytest.raises(OutcomeUnknownError, match="cannot be understood"):
                await soon(store.append(b"x"))
        await store.aclose()


@pytest.mark.parametrize("tail", [b"", b"\xff", b"{", b"frame" * 20])
async def test_an_answer_to_a_question_that_makes_no_sense(tmp_path: Path, tail: bytes) -> None:
    """StoreUnavailableError, whatever was asked."""
    async with scripted(tmp_path / "socket", replies({}, tail)) as address:
        async with Store.connect(address) as store:
            for call in (
                store.get(0),
                anext(store.scan()),
                store.relations(),
                anext(store.follow(0)),
            ):
                with pytest.raises(StoreUnavailableError, match="cannot understand the daemon"):
                    await soon(call)


async def test_an_answer_that_does_not_say_how_far_the_log_has_come(tmp_path: Path) -> None:
    """What does not speak the language is hung up on, and after a while given up."""
    async with scripted(tmp_path / "socket", replies({"standing": "here"})) as address:
        store = await connected(address, timeout=SHORT)
        with pytest.raises(OutcomeUnknownError):
            await soon(store.append(b"x"))
        with pytest.raises(StoreUnavailableError):
            await soon(store.get(0))
        await store.aclose()


async def test_a_daemon_that_dies_of_what_it_is_asked(tmp_path: Path) -> None:
    """It is not asked for ever, and not as fast as it can die: each attempt comes later than the
    one before.
    """
    connections = 0

    async def dies(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        await peer.hear()
        await peer.say(WELCOME | {"outcome": "absent"})
        await peer.hear()

    async with scripted(tmp_path / "socket", dies) as address:
        store = await connected(address, timeout=0.5)
        with pytest.raises(OutcomeUnknownError, match=r"hangs up before it answers|it hung up"):
            await soon(store.append(b"x"))
        assert 2 < connections < 20
        with pytest.raises(StoreUnavailableError):
            await soon(store.get(0))
        await store.aclose()


async def test_answers_that_nobody_asked_for(tmp_path: Path) -> None:
    """They are passed over."""

    async def babbles(peer: Peer) -> None:
        await peer.hear()
        await peer.say(WELCOME)
        for number in (0, 77, -1, "text", None):
            await peer.say({"id": number, **STANDING})
        message = await peer.hear()
        assert message is not None
        for _ in range(2):
            await peer.say(
                {"id": message.head["id"], **STANDING, "first": 0, "time": 1, "stage": 3}
            )
        await silent(peer)

    async with scripted(tmp_path / "socket", babbles) as address, Store.connect(address) as store:
        assert await soon(store.append(b"x")) == Receipt(0, 1, Stage.SYNCED)


@pytest.mark.parametrize("kind", [ValueError("bad"), TypeError("bad"), KeyError("bad")])
async def test_an_append_that_the_daemon_refuses_for_no_known_reason(
    tmp_path: Path, kind: Exception
) -> None:
    """An append raises errors of the tree only."""
    async with scripted(tmp_path / "socket", replies({"error": error_head(kind)})) as address:
        async with Store.connect(address) as store:
            with pytest.raises(AquipuError, match="bad"):
                await soon(store.append(b"x"))


# cancelled


async def test_cancelled_before_it_was_sent(it: Served) -> None:
    """The record was accepted: it keeps its place and is written; its neighbours notice nothing."""
    async with it.connect() as store:
        one, two = ensure_future(store.append(b"one")), ensure_future(store.append(b"two"))
        await asyncio.sleep(0)
        one.cancel()
        assert (await soon(two)).sequence == 1
        assert await it.data() == [b"one", b"two"]


@pytest.mark.parametrize("fate", [Fate.DROP, Fate.HALF, Fate.LAST])
async def test_cancelled_while_its_outcome_is_sought(
    middle: tuple[Between, RemoteStore], it: Served, fate: Fate
) -> None:
    """The same: it is stored once, whoever still waits for it."""
    between, store = middle
    between.request = nth(1, fate)
    one, two = ensure_future(store.append(b"one")), ensure_future(store.append(b"two"))
    await until(lambda: any(asked(message, "commit") for message in between.requests))
    one.cancel()
    assert (await soon(two)).sequence == 2
    assert await it.data() == [b"first", b"one", b"two"]
    with pytest.raises(asyncio.CancelledError):
        await one


async def test_questions_cancelled_at_any_moment(it: Served) -> None:
    """Nothing is left of them, and the connection goes on."""
    async with it.connect() as store:
        await store.append(b"x")
        for turns in range(10):
            tasks: list[Task[Any]] = [
                asyncio.create_task(call)
                for call in (store.get(0), store.relations(), store.holds())
            ]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        assert (await store.get(0)).data == b"x"
        assert not remote_engine_of(store).connection._heard


async def test_waiting_for_the_daemon_is_cancelled(it: Served) -> None:
    """Others who wait for it are not."""
    async with it.connect() as store:
        await store.append(b"x")
        await it.end()
        await it_is_away(store)
        one, two = ensure_future(store.get(0)), ensure_future(store.get(0))
        await asyncio.sleep(0)
        one.cancel()
        await asyncio.sleep(0)
        await it.begin()
        assert (await soon(two)).data == b"x"
        assert one.cancelled()


# closed


async def test_closing_while_the_daemon_is_away(it: Served) -> None:
    """It ends, and says what it could not do; whoever waits is told, and it stays closed."""
    store = await served_at_last(lambda: connected(it.address, timeout=SHORT))
    await it.end()
    future = store.append_nowait(b"x")
    with pytest.raises(StoreUnavailableError):
        await soon(store.aclose())
    assert isinstance(future.exception(), StoreUnavailableError)
    with pytest.raises(StoreClosedError):
        await store.append(b"x")
    await it.begin()


async def test_closing_while_a_patient_client_waits_for_the_daemon(
    it: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that ends waits no longer for a daemon that is away than the exit does, however
    patient its calls are.
    """
    monkeypatch.setattr("aquipu.remote.connection.EXIT_SECONDS", SHORT)
    store = await connected(it.address, timeout=3600)
    await it.end()
    future = store.append_nowait(b"x")
    await it_is_away(store)
    with pytest.raises(StoreUnavailableError):
        await soon(store.aclose())
    assert isinstance(future.exception(), StoreUnavailableError)
    await it.begin()
    assert await it.data() == []


async def test_closing_with_nothing_to_do_while_the_daemon_is_away(it: Served) -> None:
    """There is nothing to wait for."""
    store = await connected(it.address)
    await store.append(b"x")
    await it.end()
    await store.aclose()
    await it.begin()


async def test_closing_until_the_daemon_is_back(it: Served) -> None:
    """What was accepted is delivered."""
    store = await connected(it.address)
    await it.end()
    future = store.append_nowait(b"x")
    closing = ensure_future(store.aclose())
    await asyncio.sleep(SHORT)
    await it.begin()
    await soon(closing)
    assert future.result().sequence == 0


@pytest.mark.parametrize("fate", [Fate.DROP, Fate.HALF, Fate.LAST])
async def test_closing_while_a_commit_is_lost(it: Served, fate: Fate) -> None:
    """At each moment: it is stored once, and then the store is closed."""
    async with between(it) as (middle, address):
        store = await connected(address)
        middle.request = nth(1, fate)
        futures = [store.append_nowait(b"%d" % number) for number in range(3)]
        await soon(store.aclose())
        assert [future.result().sequence for future in futures] == [0, 1, 2]
        assert len(await it.data()) == 3


async def test_closing_while_somebody_waits_for_the_daemon(it: Served) -> None:
    """StoreClosedError for a question that could not be asked."""
    store = await connected(it.address)
    await it.end()
    await it_is_away(store)
    asking = ensure_future(store.get(0))
    await asyncio.sleep(0)
    await store.aclose()
    with pytest.raises(StoreClosedError):
        await soon(asking)
    await it.begin()


async def test_a_full_disk_while_it_is_closed(tmp_path: Path) -> None:
    """The caller is told, and closing goes on."""
    async with scripted(
        tmp_path / "s", replies({"error": error_head(StoreFullError("/store", 0, "full"))})
    ) as address:
        store = await connected(address)
        future = store.append_nowait(b"x")
        await soon(store.aclose())
        assert isinstance(future.exception(), StoreFullError)


# never closed


def drop(holder: list[RemoteStore]) -> None:
    """Let go of the only one who holds it."""
    holder.clear()
    gc.collect()


async def test_dropped_with_something_accepted(it: Served) -> None:
    """A ResourceWarning, and what was accepted is delivered, once."""
    store = await connected(it.address)
    await store.append(b"a")
    await it.end()
    await it_is_away(store)
    future: Future[Receipt] | None = store.append_nowait(b"b")
    assert future is not None
    future.add_done_callback(lambda future: future.cancelled() or future.exception())
    reaching = remote_engine_of(store).connection._reaching
    if reaching is not None:
        reaching.cancel()
    await asyncio.sleep(0)
    await it.begin()
    future = None
    holder = [store]
    del store
    with pytest.warns(ResourceWarning, match="RemoteStore .* was never closed"):
        drop(holder)
    await until(lambda: it.store.next_sequence == 2)
    assert await it.data() == [b"a", b"b"]


async def test_dropped_when_idle(it: Served) -> None:
    """A ResourceWarning, and the daemon is rid of it."""
    holder = [await connected(it.address)]
    await holder[0].append(b"a")
    await asyncio.sleep(0)  # what has told us of it has returned
    with pytest.warns(ResourceWarning, match="was never closed"):
        drop(holder)
    await until(lambda: not it.daemon.sessions)


PROGRAM = """
import asyncio, os, sys
from aquipu import *

async def main():
    store = await Store.connect(sys.argv[1])
    print((await store.append(b"first")).sequence, flush=True)
    {body}

{end}
"""


async def program(it: Served, body: str, end: str = "asyncio.run(main())") -> tuple[int, str]:
    """Run it to its end. The exit code, and what stood on standard error."""
    script = PROGRAM.format(body=body, end=end)
    command = [sys.executable, "-W", "always", "-c", script, it.address]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


ACCEPTED = (
    "globals().update(store=store, later=[store.append_nowait(b'%d' % number) for number in "
    "range(3)])"
)


@pytest.mark.parametrize(
    "then", ["", "; await asyncio.sleep(0)", "; sys.exit(0)"], ids=["not sent", "sent", "exit"]
)
async def test_a_program_that_ends_without_closing(it: Served, then: str) -> None:
    """What was accepted is delivered at its exit, once, and there is a ResourceWarning."""
    code, errors = await program(it, ACCEPTED + then)
    assert code == 0, errors
    assert "ResourceWarning: <RemoteStore" in errors
    assert "Traceback" not in errors
    assert await it.data() == [b"first", b"0", b"1", b"2"]


async def test_a_program_that_ends_when_its_daemon_has_gone(tmp_path: Path) -> None:
    """It ends, and says that something may be missing."""
    body = (
        "globals().update(store=store, later=store.append_nowait(b'x')); store._engine._socket = "
        "'/nowhere'"
    )
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it:
        hold = disk.hold("write_synced")  # else the answer may come before the loop has ended
        code, errors = await program(it, body)
        hold.released.set()
    assert code == 0
    assert "records that were accepted and not yet acknowledged may be missing" in errors


async def test_after_a_fork(it: Served) -> None:
    """The store stays with the parent: every call of the child is a clear error, and its exit does
    nothing.
    """
    async with it.connect() as store:
        await store.append(b"x")
        future = store.append_nowait(b"y")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                store._check()
            except ForkedStoreError:
                code = 7 if not store._leave() else 2
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        assert (await soon(future)).sequence == 1
        assert await it.data() == [b"x", b"y"]
