"""A log in a database: what the face does not say, of several that write it and what is refused."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import asyncpg
import pytest

from aquipu import (
    Always,
    ConflictError,
    CorruptionError,
    EveryN,
    NotAStoreError,
    OsManaged,
    PositionLostError,
    Reader,
    Stage,
    Store,
    StoreClosedError,
    StoreUnavailableError,
    UnsupportedFormatError,
)
from tests.postgres.server import ASKED, Server
from tests.remote.daemon.served import soon

pytestmark = pytest.mark.asyncio


async def run(server: Server, *statements: str) -> Any:
    """What the last of these gives."""
    connection = await asyncpg.connect(server.url)
    try:
        for statement in statements:
            found = await connection.fetch(statement)
        return found
    finally:
        await connection.close()


async def fresh(server: Server, name: str) -> str:
    """The address of a database of its own."""
    await run(server, f"CREATE DATABASE {name}")
    return server.url.rpartition("/")[0] + f"/{name}"


async def test_several_write_one_log(address: str) -> None:
    """What they append stands in it densely, each one's in its order, and all of them see it."""
    async with (
        Store.open(address, sync_policy=Always()) as one,
        Store.open(address, sync_policy=OsManaged()) as two,
        one.follow("earliest") as records,
    ):
        await asyncio.gather(
            *(
                store.append(b"%d %d" % (who, number))
                for number in range(50)
                for who, store in enumerate((one, two))
            )
        )
        await two.append_many([b"2 0", b"2 1"])
        seen = [await soon(anext(records)) for _ in range(102)]
        assert [record.sequence for record in seen] == list(range(102))
        for who in (b"0", b"1", b"2"):
            numbers = [int(record.data[2:]) for record in seen if record.data[:1] == who]
            assert numbers == sorted(numbers)
        await one.hold("audit", 50)
        async with Reader.open(address) as reader:
            assert isinstance(reader, Reader)
            assert [record async for record in reader.scan()] == seen
            assert await reader.holds() == {"audit": 50}
        with pytest.raises(StoreClosedError):
            await reader.holds()


async def test_keys_and_expectations_hold_between_them(address: str) -> None:
    """A key that one has stored is known to the other, and so is the next sequence."""
    async with Store.open(address) as one, Store.open(address) as two:
        first = await one.append(b"x", key=("orders", 1))
        assert (await two.append(b"y", key=("orders", 1))).sequence == first.sequence
        await one.append(b"x", expect=1)
        with pytest.raises(ConflictError) as conflict:
            await two.append(b"y", expect=1)
        assert conflict.value.next_sequence == 2


async def test_every_n_counts_what_all_have_appended(address: str) -> None:
    """At no time are n records of the log acknowledged and not synced."""
    policy = EveryN(4, within=None)
    async with (
        Store.open(address, sync_policy=policy) as one,
        Store.open(address, sync_policy=policy) as two,
    ):
        stages = [(await store.append(b"x")).stage for store in (one, two) * 4]
        flushed = [Stage.FLUSHED] * 3
        assert stages == [*flushed, Stage.SYNCED, *flushed, Stage.SYNCED]


async def test_what_every_n_leaves_is_synced_in_time(address: str) -> None:
    """By the store itself, when nothing more is appended."""
    async with Store.open(address, sync_policy=EveryN(64, within=0.02)) as store:
        receipt = await store.append(b"x")
        assert receipt.stage is Stage.FLUSHED
        async with asyncio.timeout(20):
            while store.synced_sequence == 0:  # noqa: ASYNC110 - that is what is stated
                await asyncio.sleep(0.01)


async def test_damage_is_found(server: Server, address: str) -> None:
    """A byte that was altered in the database: whoever reads it gets CorruptionError."""
    async with Store.open(address) as store:
        await store.append_many([b"signed", b"sealed"])
        number = store._engine.log.number  # type: ignore[attr-defined]
        altered = "set_byte(data, 2, 0)"
        await run(server, f"UPDATE aquipu.batches SET data = {altered} WHERE log = {number}")
        with pytest.raises(CorruptionError) as damaged:
            await store.get(1)
        assert (damaged.value.path, damaged.value.offset) == (address, 0)


async def test_a_record_is_a_row_of_a_view(server: Server, address: str) -> None:
    """Who knows SQL may ask for records."""
    async with Store.open(address) as store:
        await store.append_many([b"ab", b"cde"], relations=("x", "y"))
        receipt = await store.append(b"f")
    name = address.rpartition("=")[2]
    rows = await run(server, f"SELECT * FROM aquipu.records WHERE log = '{name}' ORDER BY sequence")
    assert [(row["sequence"], row["data"], row["labels"]) for row in rows] == [
        (0, b"ab", ["x", "y"]),
        (1, b"cde", ["x", "y"]),
        (2, b"f", []),
    ]
    assert rows[2]["time"] == receipt.timestamp


async def test_partitions_follow_one_another_and_go(server: Server, address: str) -> None:
    """Records come into the partition of their sequence; a purge drops whole ones."""
    async with Store.open(address) as store:
        number = store._engine.log.number  # type: ignore[attr-defined]
        await run(
            server,
            f"UPDATE aquipu.logs SET partition_records = 10 WHERE id = {number}",
            f"UPDATE aquipu.logs SET next_sequence = 1000000 - 5 WHERE id = {number}",
        )
        for _ in range(10):
            await store.append_many([b"x"] * 3, relations=("a",))
        first = 1_000_000 - 5
        where = f"WHERE log = {number}"
        assert await run(server, f"SELECT count(*) FROM aquipu.partitions {where}") == [(4,)]
        purged = await store.purge(before=1_000_011)
        assert (purged.first_sequence, purged.segments) == (1_000_010, 2)
        assert await run(server, f"SELECT count(*) FROM aquipu.partitions {where}") == [(2,)]
        assert [record.sequence async for record in store.scan()] == list(
            range(1_000_010, first + 30)
        )
        assert await store.relations() == {"a": first + 30 - 1_000_010}


@pytest.mark.parametrize("by_time", [False, True])
async def test_which_hold_keeps_a_purge_from_going_further(address: str, by_time: bool) -> None:
    """The oldest one, where without holds more would go; none where the bound itself keeps it."""
    async with Store.open(address) as store:
        for _ in range(4):
            receipt = await store.append_many([b"x", b"y"])
        times = [record.timestamp async for record in store.scan()]
        times.append(receipt[-1].timestamp + 1)
        await store.hold("later", 6)
        await store.hold("older", 3)

        async def held(before: int, dry_run: bool = False) -> tuple[int, str | None, int | None]:
            bound: dict[str, Any] = (
                {"before_time": times[before]} if by_time else {"before": before}
            )
            purged = await store.purge(**bound, dry_run=dry_run)
            return purged.first_sequence, purged.held_by, purged.held_from

        assert await held(2) == (2, None, None)
        assert await held(8, dry_run=True) == await held(4) == await held(8) == (2, "older", 3)
        await store.release("older")
        assert await held(6) == (6, None, None)
        assert await held(8) == (6, "later", 6)
        await store.release("later")
        assert await held(8) == (8, None, None)


# what is refused


async def test_a_database_without_tables(server: Server) -> None:
    """It says what makes them, and nothing was made."""
    url = await fresh(server, "without_tables")
    for opening in (Store.open(f"{url}?log=audit"), Reader.open(f"{url}?log=audit")):
        with pytest.raises(StoreUnavailableError, match="aquipu migrate"):
            await opening
    connection = await asyncpg.connect(url)
    assert await connection.fetch("SELECT 1 FROM pg_namespace WHERE nspname = 'aquipu'") == []
    await connection.close()


async def test_tables_of_a_later_version(server: Server) -> None:
    """They are left alone."""
    from aquipu.postgres.address import address_of
    from aquipu.postgres.schema.migrating import migrate

    url = await fresh(server, "later_version")
    await migrate(address_of(url, needs_log=False))
    connection = await asyncpg.connect(url)
    await connection.execute("INSERT INTO aquipu.version VALUES (999)")
    await connection.close()
    for call in (
        Store.open(f"{url}?log=audit"),
        Reader.open(f"{url}?log=audit"),
        migrate(address_of(url, needs_log=False)),
    ):
        with pytest.raises(UnsupportedFormatError, match="version 999"):
            await call


async def test_a_reader_of_a_log_that_is_not_there(address: str) -> None:
    """Reading makes none."""
    with pytest.raises(NotAStoreError, match="no log"):
        await Reader.open(address)


async def test_a_server_that_does_not_sync(server: Server, address: str) -> None:
    """It is refused under Always, unless the address says otherwise."""
    await run(server, "SELECT 1")
    from aquipu.postgres import opening

    said = opening._SERVER.replace("current_setting('fsync') = 'on'", "false")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(opening, "_SERVER", said)
        with pytest.raises(StoreUnavailableError, match="fsync = off"):
            await Store.open(address, sync_policy=Always())
        async with Store.open(f"{address}&unsafe=yes", sync_policy=Always()):
            pass
        async with Store.open(address, sync_policy=OsManaged()):
            pass
        patched.setattr(opening, "SERVER_MIN", 999_999)
        with pytest.raises(StoreUnavailableError, match="the earliest that works is 14"):
            await Store.open(address)


async def test_a_server_that_is_not_there(unused_tcp_port: int) -> None:
    """It is waited for as long as was said, and no password is shown."""
    url = f"postgresql://ada:s3cret@127.0.0.1:{unused_tcp_port}/db?log=audit"
    with pytest.raises(StoreUnavailableError) as refused:
        await Store.open(url, lock_timeout=0.05)
    assert "s3cret" not in f"{refused.value!r} {refused.value} {refused.value.__cause__!r}"


async def test_a_wrong_password(server: Server, address: str) -> None:
    """It is said at once, and neither it nor the right one is shown."""
    await run(server, f"CREATE ROLE {ASKED} LOGIN PASSWORD 'r1ght'")
    for opened in (Store.open, Reader.open):
        wrong = address.replace("//postgres@", f"//{ASKED}:wr0ng@")
        with pytest.raises(StoreUnavailableError, match="refuses the user or the pass") as refused:
            await opened(wrong)
        shown = "".join(traceback.format_exception(refused.value)) + repr(refused.value)
        assert "wr0ng" not in shown
        right = address.replace("//postgres@", f"//{ASKED}:r1ght@")
        with pytest.raises(StoreUnavailableError, match="permission denied"):
            await opened(right)


async def test_no_right_to_the_tables(server: Server, address: str) -> None:
    """The error says so, and names the user's address."""
    await run(server, "CREATE ROLE nobody_much LOGIN")
    other = address.replace("//postgres@", "//nobody_much@")
    with pytest.raises(StoreUnavailableError, match="permission denied"):
        await Store.open(other)


async def test_a_position_of_another_log(address: str) -> None:
    """Its generation is not known there."""
    async with Store.open(address) as store:
        await store.append(b"x")
        with pytest.raises(PositionLostError):
            await anext(store.follow("0123456789abcdef-1"))
