"""server and answers: whatever one client does, the others go on; a socket with the right rights,
and an orderly end.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket as sockets
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from grp import getgrgid
from pathlib import Path
from struct import pack

import pytest

from aquipu import Purged, RemoteStore, Stage, Store, StoreUnavailableError
from aquipu.errors import BatchTooLargeError, RecordTooLargeError
from aquipu.policy import Always
from aquipu.remote.daemon.answers import COMMIT_BYTES_MAX, TAIL_BYTES_MAX
from aquipu.remote.daemon.server import Daemon
from aquipu.remote.daemon.session import REQUESTS_MAX, WAITS_MAX, Session
from aquipu.remote.protocol import VERSION, encoded, page_in, records_of_commit, value_in
from tests.disk import FailingDisk
from tests.remote.daemon.served import WRITER, Peer, Served, peer, served, soon, until

pytestmark = pytest.mark.asyncio

HELLO = encoded({"hello": VERSION, "writer": WRITER})


@asynccontextmanager
async def others(it: Served) -> AsyncIterator[RemoteStore]:
    """Another client, which appends all the time until the end of the block; nothing may disturb
    it.
    """
    async with it.connect() as store:
        running = True

        async def append() -> None:
            while running:
                await store.append(b"other")

        tasks = [asyncio.ensure_future(append()) for _ in range(4)]
        yield store
        before = it.store.next_sequence
        await until(lambda: it.store.next_sequence > before + 8)
        running = False
        await soon(asyncio.gather(*tasks))


def tail_of(*payloads: bytes, labels: dict[int, tuple[str, ...]] | None = None) -> bytes:
    return b"".join(records_of_commit(payloads, [0] * len(payloads), labels or {}))


# what is no client


GARBAGE: dict[str, bytes] = {
    "noise": random.Random(7).randbytes(100_000),
    "http": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    "zeros": bytes(1000),
    "a huge head": pack("<II", 0xFFFFFFFF, 0),
    "a huge tail": pack("<II", 2, TAIL_BYTES_MAX + 1) + b"{}",
    "no object": pack("<II", 2, 0) + b"[]",
    "nesting": pack("<II", 100_000, 0) + b"[" * 100_000,
    "no hello": encoded({"id": 1, "do": "holds"}),
    "an empty message": encoded({}),
    "another version": encoded({"hello": VERSION + 1, "writer": WRITER}),
    "no writer": encoded({"hello": VERSION}),
    "half a writer": encoded({"hello": VERSION, "writer": "00"}),
    "a writer that is no text": encoded({"hello": VERSION, "writer": [1]}),
    "a number and no floor": encoded({"hello": VERSION, "writer": WRITER, "number": 1}),
    "a number that is none": encoded(
        {"hello": VERSION, "writer": WRITER, "number": "1", "floor": 0}
    ),
    "hello twice": HELLO + HELLO,
    "a request before it is welcome": HELLO + encoded({"id": 1, "do": "holds"}),
}
AFTER_WELCOME: dict[str, bytes] = {
    "hello again": HELLO,
    "no id": encoded({"do": "holds"}),
    "an id that is none": encoded({"id": [], "do": "wait"}),
    "a commit without a stage": encoded({"id": 1, "do": "commit", "number": 1}, [tail_of(b"x")]),
    "a commit at no stage": encoded(
        {"id": 1, "do": "commit", "number": 1, "stage": [3]}, [tail_of(b"x")]
    ),
    "a commit without a number": encoded({"id": 1, "do": "commit", "stage": 3}, [tail_of(b"x")]),
    "a commit at a negative number": encoded(
        {"id": 1, "do": "commit", "stage": 3, "number": -1}, [tail_of(b"x")]
    ),
    "a commit of noise": encoded(
        {"id": 1, "do": "commit", "number": 1, "stage": 3}, [b"\xff" * 200]
    ),
    "a commit with more behind it": encoded(
        {"id": 1, "do": "commit", "number": 1, "stage": 3}, [tail_of(b"x"), b"y"]
    ),
    "a commit of nothing": encoded({"id": 1, "do": "commit", "number": 1, "stage": 3}, [tail_of()]),
    "half a message and noise": encoded({"id": 1, "do": "holds"})[:-3] + b"\xff" * 100,
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
async def test_what_is_no_client_is_cut_off(it: Served, data: bytes) -> None:
    """It is told why, as far as it listens, and the others go on."""
    async with others(it), peer(it) as stranger:
        await stranger.write(data)
        while (message := await stranger.hear()) is not None:
            assert "error" in message.head or "outcome" in message.head
    assert set(await it.data()) == {b"other"}


@pytest.mark.parametrize("data", AFTER_WELCOME.values(), ids=AFTER_WELCOME)
async def test_what_is_no_request_ends_the_connection(it: Served, data: bytes) -> None:
    """Nothing of it is stored, and the others go on."""
    async with others(it), peer(it) as stranger:
        assert "outcome" in await stranger.greet()
        await stranger.write(data)
        while (message := await stranger.hear()) is not None:
            assert "error" in message.head
    assert set(await it.data()) == {b"other"}


async def test_every_prefix_of_what_a_client_says(it: Served) -> None:
    """A client may end in the midst of anything; only a whole commit is stored."""
    commit = encoded({"id": 1, "do": "commit", "number": 1, "stage": 3}, [tail_of(b"x")])
    for cut in range(0, len(HELLO), 7):
        async with peer(it) as client:
            await client.write(HELLO[:cut])
    for cut in range(0, len(commit), 9):
        async with peer(it) as client:
            await client.greet()
            await client.write(commit[:cut])
    await until(lambda: not it.daemon.sessions)
    assert it.store.next_sequence == 0


async def test_one_who_says_nothing(it: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is hung up on after a while."""
    monkeypatch.setattr("aquipu.remote.daemon.session._HELLO_SECONDS", 0.01)
    async with others(it), peer(it) as stranger:
        answer = await stranger.hear()
        assert answer is not None
        assert "does not say hello" in str(answer.head["error"])
        assert await stranger.hear() is None


async def test_one_who_is_welcome_may_be_silent(
    it: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as it likes."""
    monkeypatch.setattr("aquipu.remote.daemon.session._HELLO_SECONDS", 0.01)
    async with peer(it) as client:
        await client.greet()
        await asyncio.sleep(0.05)
        assert (await client.ask({"id": 1, "do": "holds"})).head["id"] == 1


async def test_what_a_hold_keeps_is_said_to_who_asks_for_it(it: Served) -> None:
    """A purge says which hold keeps more from going, but to no client of an earlier version, which
    takes five numbers.
    """
    await it.store.append(b"x")
    await it.store.roll()
    await it.store.hold("nightly", 0)
    async with peer(it) as client:
        await client.greet()
        purge = {"do": "purge", "before": 1, "dry_run": False}
        earlier = await client.ask({"id": 1, **purge})
        assert value_in(earlier.tail) == [0, 0, 0, 0, 0]
    async with it.connect() as store:
        assert await store.purge(before=1) == Purged(0, 0, 0, 0, 0, "nightly", 0)


REFUSED: dict[str, tuple[dict[str, object], bytes, str]] = {
    "a bad label": (
        {"do": "commit", "number": 1, "stage": 3},
        tail_of(b"x", labels={0: ("tab\t",)}),
        "ValueError",
    ),
    "too large a record": (
        {"do": "commit", "number": 1, "stage": 3},
        tail_of(bytes(2001)),
        RecordTooLargeError.__name__,
    ),
    "something unknown": ({"do": "dance"}, b"", "ValueError"),
    "nothing": ({}, b"", "ValueError"),
    "what is no name": ({"do": {"a": 1}}, b"", "ValueError"),
    "a private name": ({"do": "__class__"}, b"", "ValueError"),
    "get without a sequence": ({"do": "get"}, b"", "TypeError"),
    "a page from no sequence": ({"do": "page", "start": "x"}, b"", "TypeError"),
    "a page with no labels": ({"do": "page", "relation": 7}, b"", "TypeError"),
    "a hold without a name": ({"do": "hold", "sequence": 0}, b"", "TypeError"),
    "a hold in another place": (
        {"do": "hold", "name": "../../x", "sequence": 0},
        b"",
        "ValueError",
    ),
    "a cursor in another place": (
        {"do": "save", "name": "../../x", "sequence": 0},
        b"",
        "ValueError",
    ),
    "wait for no sequence": ({"do": "wait", "sequence": []}, b"", "TypeError"),
}


@pytest.mark.parametrize(("head", "tail", "kind"), REFUSED.values(), ids=REFUSED)
async def test_a_request_that_the_store_refuses(
    tmp_path: Path, head: dict[str, object], tail: bytes, kind: str
) -> None:
    """The answer says why, and the connection goes on."""
    async with served(tmp_path, max_record_bytes=2000) as it, peer(it) as client:
        await client.greet()
        answer = await client.ask({"id": 5, **head}, tail)
        assert (answer.head["id"], answer.head["error"]["kind"]) == (5, kind)
        assert (await client.ask({"id": 6, "do": "stand"})).tail == b"0"
        assert not (tmp_path.parent / "x").exists()


async def test_more_requests_than_are_taken_at_a_time(tmp_path: Path) -> None:
    """No more is read from that client for now, so what is kept for it is bounded; all are answered
    in the end.
    """
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it:
        await it.store.append(b"first")
        async with others(it) as other, peer(it) as client:
            await client.greet()
            hold = disk.hold("write_synced")
            await until(hold.reached.is_set)
            tail = tail_of(bytes(100_000))
            count = 40 * REQUESTS_MAX

            async def write() -> None:
                for number in range(count):
                    await client.say(
                        {"id": number, "do": "commit", "number": number, "stage": 3}, tail
                    )

            writing = asyncio.ensure_future(write())
            (session,) = [
                session for session in it.daemon.sessions if session.writer == bytes.fromhex(WRITER)
            ]
            await until(lambda: len(session._requests) >= REQUESTS_MAX)
            for _ in range(100):
                await asyncio.sleep(0)
            assert not writing.done()
            assert len(session._requests) == REQUESTS_MAX
            assert (await soon(other.get(0))).data == b"first"
            hold.released.set()
            for _ in range(count):
                answer = await client.hear()
                assert answer is not None
                assert "error" not in answer.head
            await writing


async def test_more_bytes_than_are_taken_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for few requests that are large."""
    monkeypatch.setattr("aquipu.remote.daemon.session.COMMIT_BYTES_MAX", 1_000_000)
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, peer(it) as client:
        await it.store.append(b"first")
        await client.greet()
        hold = disk.hold("write_synced")
        tail = tail_of(bytes(600_000))
        writing = asyncio.ensure_future(
            asyncio.gather(
                *(
                    client.say({"id": n, "do": "commit", "number": n, "stage": 3}, tail)
                    for n in range(8)
                )
            )
        )
        await until(hold.reached.is_set)
        for _ in range(100):
            await asyncio.sleep(0)
        (session,) = it.daemon.sessions
        assert len(session._requests) == 2
        hold.released.set()
        for _ in range(8):
            assert await client.hear() is not None
        await writing


async def test_one_who_reads_nothing(it: Served) -> None:
    """What is written for it is bounded by its socket, and the others go on."""
    await it.store.append_many([bytes(100_000)] * 20)
    async with others(it), peer(it) as client:
        await client.greet()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for number in range(400):
            client.writer.write(encoded({"id": number, "do": "page"}))
        (session,) = [
            session for session in it.daemon.sessions if session.writer == bytes.fromhex(WRITER)
        ]
        await until(lambda: session._is_paused and not session._writable.is_set())
        for _ in range(200):
            await asyncio.sleep(0)
        assert session._transport.get_write_buffer_size() <= (REQUESTS_MAX + 1) * 400_000
    await until(lambda: not it.daemon.sessions)


async def test_followers_beyond_measure(it: Served) -> None:
    """Each one too many is told; the connection goes on; nothing is left of them when it ends."""
    async with peer(it) as client:
        await client.greet()
        for number in range(WAITS_MAX + 5):
            await client.say({"id": number, "do": "wait", "sequence": 0})
        for number in range(5):
            answer = await client.hear()
            assert answer is not None
            assert answer.head["id"] == WAITS_MAX + number
            assert "followers" in str(answer.head["error"])
        for _ in range(10):  # the same one again and again is one
            await client.say({"id": 3, "do": "wait", "sequence": 0})
        await client.say({"id": 3, "do": "forget"})
        await client.say({"id": 4_000_000, "do": "forget"})
        assert value_in((await client.ask({"id": 1, "do": "stand"})).tail) == 0
        (session,) = it.daemon.sessions
        assert len(session._waits) == WAITS_MAX - 1
    await until(lambda: not it.daemon.sessions and not session._waits)


async def test_two_connections_with_the_same_writer(it: Served) -> None:
    """The later one is that writer; the earlier one is hung up on, and what had come from it is
    there.
    """
    async with peer(it) as one, peer(it) as two:
        await one.greet()
        await one.say({"id": 1, "do": "commit", "number": 1, "stage": 3}, tail_of(b"one"))
        await until(lambda: it.store.statistics().buffered_records or it.store.next_sequence)
        welcome = await two.greet(number=1, floor=0)
        assert welcome["outcome"][0] == 0
        while await one.hear() is not None:
            pass
        assert (await two.ask({"id": 1, "do": "stand"})).tail == b"1"


async def test_many_connections_with_the_same_writer_at_once(it: Served) -> None:
    """One of them is welcome, whoever came last; none of them waits for another for ever."""
    clients = [Peer(*await asyncio.open_unix_connection(it.socket)) for _ in range(8)]
    for client in clients:
        await client.say({"hello": VERSION, "writer": WRITER})
    answers = [await client.hear() for client in clients]
    assert sum(answer is not None and "outcome" in answer.head for answer in answers) >= 1
    await until(
        lambda: (
            sum(
                session._is_welcome and not session._transport.is_closing()
                for session in it.daemon.sessions
            )
            == 1
        )
    )
    for client in clients:
        client.close()


async def test_a_commit_of_records_that_are_larger_than_a_buffer(tmp_path: Path) -> None:
    """A client that keeps no bounds harms nobody: it goes alone."""
    async with served(tmp_path, buffer_records=4) as it, others(it), peer(it) as client:
        await client.greet()
        answer = await client.ask(
            {"id": 1, "do": "commit", "number": 1, "stage": 3}, tail_of(*[b"x"] * 50)
        )
        assert "error" not in answer.head
        with pytest.raises(BatchTooLargeError):
            await it.store.append_many([b"x"] * 50)


async def test_what_a_client_is_told_of_the_store(tmp_path: Path) -> None:
    """Its bounds, none of them larger than a message can be."""
    async with served(
        tmp_path, max_record_bytes=256 << 20, buffer_bytes=256 << 20, buffer_records=1 << 24
    ) as it:
        async with peer(it) as client:
            welcome = await client.greet()
            assert (welcome["max_record_bytes"], welcome["buffer_bytes"]) == (
                COMMIT_BYTES_MAX,
                COMMIT_BYTES_MAX,
            )
            records, labels = welcome["buffer_records"], welcome["buffer_bytes"]
            assert 1000 + 13 * records + 3 * labels + 4 <= TAIL_BYTES_MAX
            assert welcome["stage"] is not None
            await it.store.append(b"x")
            assert (
                page_in((await client.ask({"id": 1, "do": "get", "sequence": 0})).tail)[0].data
                == b"x"
            )


# the socket


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_only_the_user_may_connect(it: Served) -> None:
    assert rights(it.socket) == 0o600
    assert stat.S_ISSOCK(it.socket.stat().st_mode)
    assert sorted(path.name for path in it.path.iterdir()) == ["socket", "store"]


async def test_a_group_may_connect_as_well(it: Served) -> None:
    """With the group as its owner; an unknown one is an error, and nothing is left."""
    group = getgrgid(os.getgid()).gr_name
    path = it.path / "shared"
    async with Daemon.open(it.store, path, group=group):
        assert rights(path) == 0o660
        assert path.stat().st_gid == os.getgid()
        async with Store.connect(f"unix:{path}") as store:
            assert (await store.append(b"x")).stage is Stage.SYNCED
    with pytest.raises(StoreUnavailableError, match="no group nobody-at-all"):
        await Daemon.open(it.store, path, group="nobody-at-all")
    assert sorted(path.name for path in it.path.iterdir()) == ["socket", "store"]


async def test_the_socket_of_a_dead_daemon_is_replaced(it: Served) -> None:
    """And so is what a process of the same number left half made."""
    path = it.path / "stale"
    for name in (path, Path(f"{path}.{os.getpid()}")):
        with sockets.socket(sockets.AF_UNIX) as dead:
            dead.bind(str(name))
    async with Daemon.open(it.store, path), Store.connect(f"unix:{path}") as store:
        await store.append(b"x")
    assert not path.exists()


async def test_the_socket_of_a_living_daemon_is_not(it: Served) -> None:
    """Also when so many want to be heard there that one more would have to wait."""
    with pytest.raises(StoreUnavailableError, match="somebody listens there"):
        await Daemon.open(it.store, it.socket)
    with sockets.socket(sockets.AF_UNIX) as busy:
        busy.bind(str(it.path / "busy"))
        busy.listen(0)
        callers = [sockets.socket(sockets.AF_UNIX) for _ in range(3)]
        try:
            for caller in callers:
                caller.setblocking(False)
                caller.connect_ex(str(it.path / "busy"))
            with pytest.raises(StoreUnavailableError, match="somebody listens there"):
                await Daemon.open(it.store, it.path / "busy")
        finally:
            for caller in callers:
                caller.close()


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda path: path.write_bytes(b"a file"), "it is there, and no socket"),
        (lambda path: path.mkdir(), "it is there, and no socket"),
        (lambda path: path.symlink_to("elsewhere/nobody"), None),
    ],
)
async def test_what_is_no_socket_stays(
    it: Served, prepare: Callable[[Path], object], reason: str | None
) -> None:
    """A file or a directory is never removed. A link to nothing is no file, and is replaced."""
    path = it.path / "thing"
    prepare(path)
    if reason is None:
        async with Daemon.open(it.store, path):
            pass
        return
    with pytest.raises(StoreUnavailableError, match=reason):
        await Daemon.open(it.store, path)
    assert path.is_dir() or path.read_bytes() == b"a file"


@pytest.mark.parametrize(
    ("name", "reason"), [("x" * 200, "too long"), ("missing/socket", "No such file")]
)
async def test_a_path_that_no_socket_can_have(it: Served, name: str, reason: str) -> None:
    with pytest.raises(StoreUnavailableError, match=reason):
        await Daemon.open(it.store, it.path / name)


async def test_the_socket_is_removed_at_the_end(it: Served) -> None:
    """But not the one of somebody who has replaced it, and not twice."""
    path = it.path / "own"
    daemon = await Daemon.open(it.store, path)
    await daemon.aclose()
    assert not path.exists()
    daemon = await Daemon.open(it.store, path)
    path.unlink()
    async with Daemon.open(it.store, path):
        await daemon.aclose()
        await daemon.aclose()
        assert path.exists()
        async with Store.connect(f"unix:{path}") as store:
            await store.append(b"x")


# the end


async def test_hanging_up_answers_what_is_under_way(tmp_path: Path) -> None:
    """A commit that had come is answered before the connection ends; who waits for a record is not
    waited for.
    """
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, peer(it) as client:
        await it.store.append(b"first")
        await client.greet()
        hold = disk.hold("write_synced")
        await client.say({"id": 1, "do": "wait", "sequence": 1})
        await client.say({"id": 2, "do": "commit", "number": 1, "stage": 3}, tail_of(b"x"))
        await until(hold.reached.is_set)
        (session,) = it.daemon.sessions
        closing = asyncio.ensure_future(it.daemon.aclose())
        await until(lambda: session._is_leaving)
        assert not closing.done()
        await client.say({"id": 3, "do": "commit", "number": 2, "stage": 3}, tail_of(b"too late"))
        hold.released.set()
        answer = await client.hear()
        assert answer is not None
        assert (answer.head["id"], answer.head["first"]) == (2, 1)
        assert await client.hear() is None
        await soon(closing)
        assert not it.daemon.sessions
        assert await it.data() == [b"first", b"x"]


async def test_hanging_up_on_one_who_does_not_listen(
    it: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end does not wait for it."""
    monkeypatch.setattr("aquipu.remote.daemon.session._CLOSE_SECONDS", 0.05)
    await it.store.append_many([bytes(100_000)] * 20)
    async with peer(it) as client:
        await client.greet()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for number in range(REQUESTS_MAX):
            client.writer.write(encoded({"id": number, "do": "page"}))
        (session,) = it.daemon.sessions
        await until(lambda: not session._writable.is_set())
        await soon(it.daemon.aclose())


async def test_hanging_up_at_any_moment_of_a_greeting(it: Served) -> None:
    """Nobody is left over."""
    for turns in range(6):
        daemon = await Daemon.open(it.store, it.path / "short")
        client = Peer(*await asyncio.open_unix_connection(it.path / "short"))
        client.writer.write(HELLO)
        for _ in range(turns):
            await asyncio.sleep(0)
        await soon(daemon.aclose())
        while await client.hear() is not None:
            pass
        client.close()


async def test_a_connection_that_comes_while_the_daemon_hangs_up(it: Served) -> None:
    """It is ended as soon as it is there, and not left to wait: nobody would serve it."""
    await it.daemon.aclose()
    ours, theirs = sockets.socketpair()
    await asyncio.get_running_loop().create_connection(partial(Session, it.daemon), sock=ours)
    client = Peer(*await asyncio.open_connection(sock=theirs))
    assert await soon(client.hear()) is None
    client.close()
    await until(lambda: not it.daemon.sessions)


async def test_a_client_that_dies_with_commits_under_way(tmp_path: Path) -> None:
    """They are stored, and the daemon forgets it when they are."""
    disk = FailingDisk()
    async with served(tmp_path, disk=disk, sync_policy=Always()) as it:
        await it.store.append(b"first")
        hold = disk.hold("write_synced")
        async with peer(it) as client:
            await client.greet()
            await client.say({"id": 1, "do": "commit", "number": 1, "stage": 3}, tail_of(b"x"))
            await until(hold.reached.is_set)
        await asyncio.sleep(0.01)
        assert len(it.daemon.sessions) == 1
        hold.released.set()
        await until(lambda: not it.daemon.sessions)
        assert await it.data() == [b"first", b"x"]
