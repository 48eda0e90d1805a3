"""Runs that take longer than a test may: copies that are killed, take-overs, cuts, outboxes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import asyncpg

from aquipu import Always, EveryN, OsManaged, Reader, Store
from tests.postgres.pair import Pair
from tests.postgres.server import Server

Counts = dict[str, float]

_CALLERS = 64
_ENQUEUE = "SELECT aquipu_enqueue($1, $2, $3)"


def name_in(address: str) -> str:
    """The name of a log, from its address."""
    return address.rpartition("=")[2]


# a copy there and back


async def written(path: Path, count: int) -> None:
    """A log of so many records of a hundred bytes or so, with labels, batches and keys."""
    random = Random(count)
    async with Store.open(path, sync_policy=EveryN(4096), max_segment_bytes=1 << 24) as store:
        number = 0
        while store.next_sequence < count:
            batch = [random.randbytes(random.randrange(200)) for _ in range(100)]
            left = count - store.next_sequence
            labels = (f"user:{number % 977}", "all")
            await store.append_many(batch[:left], relations=labels, key=("writer", number))
            left = count - store.next_sequence
            futures = [store.append_nowait(data) for data in batch[:left]]
            await asyncio.gather(*futures)
            number += 1


async def same(one: str | Path, other: str | Path) -> int:
    """Compare two logs record by record; return how many they have."""
    count = 0
    async with Reader.open(one) as left, Reader.open(other) as right:
        assert left.next_sequence == right.next_sequence
        async with right.scan() as records:
            async for record in left.scan():
                assert record == await anext(records)
                count += 1
    return count


def copied(source: str | Path, to: str | Path, kills: int, seconds: float, random: Random) -> int:
    """Copy a log, killed so often within about so many seconds; return how often it was at work."""
    killed = 0
    for _ in range(kills):
        process = _command("copy", source, to)
        try:
            process.wait(random.random() * seconds)
        except subprocess.TimeoutExpired:
            killed += 1
        process.kill()
        process.wait()
    assert _command("copy", source, to).wait() == 0
    return killed


def _command(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "aquipu", *map(str, arguments)], stdout=subprocess.DEVNULL
    )


def copies(place: Path, server: Server, records: int, kills: int, seconds: float) -> Counts:
    """Copy a log from a directory into a database, and back, each killed half of the times."""
    random, address = Random(records + kills), server.log(f"copies{records}")
    asyncio.run(written(place / "there", records))
    begun = monotonic()
    killed = copied(place / "there", address, kills - kills // 2, seconds, random)
    there = monotonic()
    killed += copied(address, place / "back", kills // 2, seconds, random)
    back = monotonic()
    assert asyncio.run(same(place / "there", address)) == records
    assert asyncio.run(same(place / "there", place / "back")) == records
    for log in (address, place / "back"):
        assert _command("verify", log).wait() == 0
    return {
        "records": records,
        "killed at work": killed,
        "seconds there": round(there - begun, 1),
        "seconds back": round(back - there, 1),
        "differences": 0,
    }


# servers that are lost


class Load:
    """Callers that append to a store until they are stopped, and what they were told."""

    def __init__(self, store: Store, name: str, callers: int = _CALLERS) -> None:
        self.receipts: dict[bytes, int] = {}
        self.longest = 0.0
        """Seconds in which nobody was told anything."""
        self._stop = asyncio.Event()
        self._last = monotonic()
        self._tasks = [
            asyncio.ensure_future(self._append(store, f"{name}-{caller}"))
            for caller in range(callers)
        ]

    async def _append(self, store: Store, name: str) -> None:
        count = 0
        while not self._stop.is_set():
            data = f"{name} {count}".encode()
            self.receipts[data] = (await store.append(data)).sequence
            now = monotonic()
            self.longest, self._last = max(self.longest, now - self._last), now
            count += 1

    async def more(self, count: int, seconds: float = 90.0) -> None:
        """Wait until so many more were told."""
        seen = len(self.receipts)
        async with asyncio.timeout(seconds):
            while len(self.receipts) < seen + count:
                assert not any(task.done() for task in self._tasks), self._tasks
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        self._stop.set()
        async with asyncio.timeout(90):
            await asyncio.gather(*self._tasks)


async def check(address: str, receipts: dict[bytes, int]) -> None:
    """See that everything acknowledged is there, at its sequence, once, and all is dense."""
    async with Reader.open(address) as reader:
        stored = {record.data: record.sequence async for record in reader.scan()}
    assert len(stored) == len(receipts)
    assert stored == receipts
    assert sorted(stored.values()) == list(range(len(stored)))


async def takeovers(pair: Pair, turns: int, seed: int = 5) -> Counts:
    """Kill the primary under load and promote the standby, again and again."""
    random = Random(seed)
    receipts: dict[bytes, int] = {}
    longest = 0.0
    for turn in range(turns):
        address = pair.log("taken-over")
        async with Store.open(address, sync_policy=Always(), lock_timeout=60) as store:
            load = Load(store, str(turn))
            await load.more(_CALLERS)
            await asyncio.sleep(random.random())
            load.longest = 0.0
            await asyncio.to_thread(pair.take_over)
            await load.more(2 * _CALLERS)
            await load.end()
        receipts |= load.receipts
        longest = max(longest, load.longest)
        await check(address, receipts)
        await asyncio.to_thread(pair.renew)
    return {
        "take-overs": turns,
        "acknowledged": len(receipts),
        "lost or doubled": 0,
        "longest gap in seconds": round(longest, 2),
    }


async def cuts(pair: Pair, turns: int, seed: int = 5) -> Counts:
    """Cut the power of a primary and its standby at once, under load, again and again."""
    random = Random(seed)
    files, longest, loose = 0, 0.0, 0
    address, beside = pair.log("cut"), pair.log("loose")
    async with (
        Store.open(address, sync_policy=Always(), lock_timeout=60) as store,
        Store.open(beside, sync_policy=OsManaged(), lock_timeout=60) as other,
    ):
        load = Load(store, "cut")
        for turn in range(turns):
            await load.more(_CALLERS)
            await asyncio.sleep(random.random())
            load.longest = 0.0
            for number in range(50):
                told = await other.append(f"{turn} {number}".encode())
            files += _cut(pair, random)
            await asyncio.to_thread(_start, pair)
            await load.more(2 * _CALLERS)
            longest = max(longest, load.longest)
            async with Reader.open(beside) as reader:
                loose += max(told.sequence + 1 - reader.next_sequence, 0)
        await load.end()
    await check(address, load.receipts)
    return {
        "cuts": turns,
        "files rolled back": files,
        "acknowledged, Always": len(load.receipts),
        "lost or doubled": 0,
        "acknowledged, OsManaged, and taken": loose,
        "longest gap in seconds": round(longest, 2),
    }


def _cut(pair: Pair, random: Random) -> int:
    """Cut the power of both; nothing of them moves between the one and the other."""
    for server in pair.both:
        server.halt()
    return sum(server.cut(random) for server in pair.both)


def _start(pair: Pair) -> None:
    for server in pair.both:
        server.start()


async def standbys(pair: Pair, turns: int, seed: int = 5) -> Counts:
    """Stop the only standby under load and start it, again and again."""
    random, address = Random(seed), pair.log("without")
    held, longest = 0, 0.0
    async with Store.open(address, sync_policy=Always(), lock_timeout=60) as store:
        load = Load(store, "load")
        for _ in range(turns):
            await load.more(_CALLERS)
            await asyncio.sleep(random.random() * 0.2)
            await asyncio.to_thread(pair.standby.stop)
            await _left_waiting(pair.primary)
            seen = len(load.receipts)
            await asyncio.sleep(random.random() * 0.5)
            assert len(load.receipts) == seen, "acknowledged, and no standby has it"
            held += store.statistics().buffered_records
            load.longest = 0.0
            await asyncio.to_thread(pair.standby.start)
            await load.more(2 * _CALLERS)
            longest = max(longest, load.longest)
        await load.end()
    await check(address, load.receipts)
    return {
        "standby stopped": turns,
        "acknowledged": len(load.receipts),
        "acknowledged without it": 0,
        "records that waited, each time": held // turns,
        "longest gap in seconds": round(longest, 2),
    }


async def _left_waiting(primary: Server) -> None:
    """Wait until a commit waits for a standby, and none is there: it was begun after all answers
    that have come.
    """
    admin = await asyncpg.connect(primary.url)
    query = (
        "SELECT (SELECT count(*) FROM pg_stat_replication) = 0 AND EXISTS (SELECT FROM"
        " pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%aquipu.append(%')"
    )
    async with asyncio.timeout(60):
        while not await admin.fetchval(query):  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.01)
    await admin.close()


# connections that are lost


async def ended(server: Server, log: str, rounds: int, seed: int = 5) -> Counts:
    """Cancel or terminate the writer's backend at random, under load."""
    random, hits = Random(seed), 0
    admin = await asyncpg.connect(server.url)
    receipts: dict[bytes, int] = {}
    stop = asyncio.Event()

    async def caller(store: Store, who: int) -> None:
        number = 0
        while not stop.is_set():
            data = b"%d %d" % (who, number)
            key = (f"caller-{who}", number) if who % 4 == 0 else None
            receipts[data] = (await store.append(data, key=key)).sequence
            number += 1

    async with Store.open(server.log(log), sync_policy=Always()) as store:
        callers = [asyncio.ensure_future(caller(store, who)) for who in range(8)]
        while hits < rounds:
            await asyncio.sleep(random.random() * 0.03)
            how = random.choice(("pg_cancel_backend", "pg_terminate_backend"))
            hits += len(
                await admin.fetch(
                    f"SELECT {how}(pid) FROM pg_stat_activity WHERE application_name = 'aquipu'"
                    " AND query LIKE '%aquipu.append(%' AND state <> 'idle'"
                )
            )
        stop.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*callers)
    await admin.close()
    await check(server.log(log), receipts)
    for who in range(8):
        own = [data for data, _ in sorted(receipts.items(), key=_sequence) if data[0] == 48 + who]
        assert [int(data.split()[1]) for data in own] == list(range(len(own)))
    return {"ended calls": hits, "acknowledged": len(receipts), "lost or doubled": 0}


def _sequence(item: tuple[bytes, int]) -> int:
    return item[1]


# the outbox


async def outbox(server: Server, log: str, clients: int, each: int, kills: int) -> Counts:
    """Have clients put records into the outbox, roll back every third time, and kill the mover."""
    random, address, killed = Random(kills), server.log(log), 0
    committed: dict[int, list[int]] = {who: [] for who in range(clients)}
    ended: list[int] = []

    async def client(who: int) -> None:
        connection = await asyncpg.connect(server.url)
        for number in range(each):
            transaction: Any = connection.transaction()
            await transaction.start()
            await connection.execute(_ENQUEUE, log, b"%d %d" % (who, number), [f"client:{who}"])
            if number % 3 == 2:
                await transaction.rollback()
            else:
                await transaction.commit()
                committed[who].append(number)
        await connection.close()
        ended.append(who)

    async def kill() -> None:
        nonlocal killed
        admin = await asyncpg.connect(server.url)
        while killed < kills and len(ended) < clients:
            await asyncio.sleep(random.random() * 0.05)
            killed += len(
                await admin.fetch(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'aquipu' AND query LIKE '%aquipu.move(%'"
                )
            )
        await admin.close()

    async with Store.open(address) as store:
        await asyncio.gather(kill(), *(client(who) for who in range(clients)))
        total = sum(map(len, committed.values()))
        engine: Any = store._engine
        async with asyncio.timeout(100):
            while (await engine.log.head()).next_sequence < total:  # noqa: ASYNC110 - others move
                await asyncio.sleep(0.02)
    async with Reader.open(address) as reader:
        stored = [record.data.split() async for record in reader.scan()]
    assert len(stored) == total
    for who, numbers in committed.items():
        assert [int(number) for by, number in stored if int(by) == who] == numbers
    return {
        "records put into the outbox": clients * each,
        "committed": total,
        "movers killed": killed,
        "lost, doubled or out of order": 0,
    }
