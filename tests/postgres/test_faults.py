"""Connections that are lost, backends that are ended, and what stands between them and us."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

import pytest

from aquipu import Always, OutcomeUnknownError, Reader, Store, StoreUnavailableError
from tests.postgres.runs import ended, name_in
from tests.postgres.server import Server
from tests.remote.daemon.served import soon, until

pytestmark = pytest.mark.asyncio


async def data_of(address: str) -> list[bytes]:
    async with Reader.open(address) as reader:
        return [record.data async for record in reader.scan()]


class Proxy:
    """Stands between a store and its server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.port = 0
        self.writers: list[StreamWriter] = []
        self.passes = asyncio.Event()
        self.passes.set()
        self.drops_answers = False

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        ahead, onward = await asyncio.open_connection("127.0.0.1", self._port)
        self.writers += [writer, onward]
        there = asyncio.ensure_future(self._carry(reader, onward, answers=False))
        back = asyncio.ensure_future(self._carry(ahead, writer, answers=True))
        await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, onward):
            end.transport.abort()
        await asyncio.wait([there, back])

    async def _carry(self, reader: StreamReader, writer: StreamWriter, *, answers: bool) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(1 << 16):
                await self.passes.wait()
                if answers and self.drops_answers:
                    return
                writer.write(piece)
                await writer.drain()

    def cut(self) -> None:
        """End all connections at once."""
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    def half_close(self) -> None:
        """Say to both ends that nothing more comes, and go on carrying."""
        for writer in self.writers:
            with suppress(OSError, RuntimeError):
                writer.write_eof()


@asynccontextmanager
async def proxied(server: Server, address: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the server, and the address of the log through it."""
    proxy = Proxy(server.port)
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = listening.sockets[0].getsockname()[1]
    try:
        yield proxy, address.replace(f":{server.port}/", f":{proxy.port}/")
    finally:
        listening.close()
        proxy.passes.set()
        proxy.cut()
        await asyncio.sleep(0.01)


async def test_an_answer_that_is_lost(server: Server, address: str) -> None:
    """The commit is in the log; sent again, it gets the sequence that it has."""
    async with proxied(server, address) as (proxy, through):
        async with Store.open(through, sync_policy=Always()) as store:
            await store.append(b"0")
            proxy.drops_answers = True
            appended = asyncio.ensure_future(
                asyncio.gather(*(store.append(b"%d" % number) for number in range(1, 6)))
            )
            await until(lambda: not proxy.writers or proxy.writers[0].is_closing())
            proxy.drops_answers = False
            receipts = await soon(appended)
            assert [receipt.sequence for receipt in receipts] == list(range(1, 6))
            guarded = await store.append(b"6", key=("orders", 1))
            assert guarded.sequence == 6
    assert await data_of(address) == [b"%d" % number for number in range(7)]


async def test_a_server_that_is_away_for_too_long(server: Server, address: str) -> None:
    """What was sent is unknown, what waits was never sent; later appends work again."""
    async with proxied(server, address) as (proxy, through):
        async with Store.open(through, sync_policy=Always(), lock_timeout=0.2) as store:
            await store.append(b"0")
            proxy.drops_answers = True
            with pytest.raises(OutcomeUnknownError):
                await soon(store.append(b"1"))
            assert store.health().state == "failed"
            with pytest.raises((StoreUnavailableError, OutcomeUnknownError)):
                await soon(store.append(b"2"))
            with pytest.raises((StoreUnavailableError, OutcomeUnknownError)):
                await soon(store.append(b"3", key=("orders", 1)))
            proxy.drops_answers = False
            await soon(store.append(b"4"))
            assert store.health().state == "ok"
    assert (await data_of(address))[-1] == b"4"


@pytest.mark.parametrize("rounds", [8, pytest.param(60, marks=pytest.mark.proof)])
async def test_backends_that_are_ended(server: Server, address: str, rounds: int) -> None:
    """Cancelled or terminated at any moment: each record is there once, in the order of its
    caller, at the sequence of its receipt. 200 times: ``python -m tests.postgres``.
    """
    counts = await ended(server, name_in(address), rounds)
    assert counts["ended calls"] >= rounds


@pytest.mark.parametrize("rounds", [6, pytest.param(100, marks=pytest.mark.proof)])
async def test_a_bad_network(server: Server, address: str, rounds: int) -> None:
    """It stops, cuts, delays and half-closes: no false receipt, nothing twice."""
    random = Random(rounds)
    receipts: dict[bytes, int] = {}
    stop = asyncio.Event()

    async def caller(store: Store, who: int) -> None:
        number = 0
        while not stop.is_set():
            data = b"%d %d" % (who, number)
            receipts[data] = (await store.append(data)).sequence
            number += 1

    async with proxied(server, address) as (proxy, through):
        async with Store.open(through, sync_policy=Always()) as store:
            callers = [asyncio.ensure_future(caller(store, who)) for who in range(8)]
            for _ in range(rounds):
                await asyncio.sleep(random.random() * 0.03)
                await random.choice((_stopping, _cutting, _dropping, _half_closing))(proxy)
            stop.set()
            await soon(asyncio.gather(*callers))
    stored = await data_of(address)
    assert sorted(stored) == sorted(receipts)
    assert all(stored[sequence] == data for data, sequence in receipts.items())


async def _stopping(proxy: Proxy) -> None:
    proxy.passes.clear()
    await asyncio.sleep(0.02)
    proxy.passes.set()


async def _cutting(proxy: Proxy) -> None:
    proxy.cut()


async def _dropping(proxy: Proxy) -> None:
    proxy.drops_answers = True
    await asyncio.sleep(0.01)
    proxy.drops_answers = False


async def _half_closing(proxy: Proxy) -> None:
    proxy.half_close()


async def test_callers_that_try_again_while_a_server_stands_still(
    server: Server, address: str
) -> None:
    """What is in memory stays within the buffer; who has given up before there was room has
    written nothing.
    """
    async with proxied(server, address) as (proxy, through):
        bounds: dict[str, Any] = {"buffer_records": 16, "buffer_bytes": 4096}
        async with Store.open(
            through, sync_policy=Always(), max_record_bytes=4096, **bounds
        ) as store:
            proxy.passes.clear()
            given_up = 0
            for turn in range(20):
                plain = [asyncio.ensure_future(store.append(bytes(100))) for _ in range(20)]
                keyed = [
                    asyncio.ensure_future(store.append(bytes(100), key=(f"p{number}", turn)))
                    for number in range(20)
                ]
                for _ in range(5):
                    await asyncio.sleep(0)
                seen = store.statistics()
                assert (seen.buffered_records, seen.buffered_bytes) <= (16, 4096)
                room: Any = store._room
                assert (room.records, room.size) <= (16, 4096)
                assert len(store._handed_over) <= 16
                for task in (*plain, *keyed):
                    given_up += task.cancel()
                await asyncio.wait([*plain, *keyed])
            assert not store._group.waiting
            assert not room._line
            proxy.passes.set()
        assert given_up == 800
    assert 0 < len(await data_of(address)) <= 32


async def test_a_number_that_comes_too_late(address: str) -> None:
    """A call that an old connection still held is refused: its writer has gone on."""
    async with Store.open(address) as store:
        engine: Any = store._engine
        await store.append(b"0")
        late = engine._arguments(1, None, [])
        await store.append(b"1")
        with pytest.raises(StoreUnavailableError, match="was followed by"):
            await engine._carrier.call(late, 0, False)


async def test_a_store_that_was_never_closed(address: str) -> None:
    """What it had accepted is written all the same, and a warning says what to do."""
    store = await Store.open(address)
    await store.append(b"0")
    store.append_nowait(b"1")
    for _ in range(3):  # the loop lets go of it
        await asyncio.sleep(0)
    forgotten = [store]
    del store
    with pytest.warns(ResourceWarning, match="never closed"):
        forgotten.clear()
    async with asyncio.timeout(20):
        while await data_of(address) != [b"0", b"1"]:  # noqa: ASYNC110 - a thread writes it
            await asyncio.sleep(0.01)
