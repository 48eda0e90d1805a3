"""The outbox: records that commit with a transaction of somebody else."""

from __future__ import annotations

import asyncpg
import pytest

from aquipu import Always, Store
from aquipu.postgres import moving
from tests.postgres.runs import name_in, outbox
from tests.postgres.server import Server
from tests.remote.daemon.served import soon

pytestmark = pytest.mark.asyncio

ENQUEUE = "SELECT aquipu_enqueue($1, $2, $3)"


async def test_it_commits_and_rolls_back(
    server: Server, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its transaction; what is moved has data, labels and a time, and is moved once."""
    monkeypatch.setattr(moving, "_PAUSE", 0.01)
    connection = await asyncpg.connect(server.url)
    async with (
        Store.open(address, sync_policy=Always()) as store,
        Store.open(address),  # both move
        store.follow() as records,
    ):
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(ENQUEUE, name_in(address), b"never", [])
        await transaction.rollback()
        async with connection.transaction():
            await connection.execute(ENQUEUE, name_in(address), b"one", ["order:1", "a"])
            await connection.execute(ENQUEUE, name_in(address), b"two", [])
        found = [await soon(anext(records)) for _ in range(2)]
        assert [(record.data, record.relations) for record in found] == [
            (b"one", ("order:1", "a")),
            (b"two", ()),
        ]
        assert found[0].timestamp > 1_700_000_000_000_000_000
        await store.append(b"three")
        assert (await soon(anext(records))).data == b"three"
        assert await store.relations() == {"a": 1, "order:1": 1}
    await connection.close()


@pytest.mark.parametrize(
    ("data", "labels", "said"),
    [
        (None, [], "has data"),
        (b"x", [""], "label"),
        (b"x", ["a\nb"], "label"),
        (b"x", ["aquipu:lost"], "label"),
        (b"x", ["l" * 1025], "label"),
        (b"x", ["l"] * 256, "at most 255"),
    ],
)
async def test_what_is_no_record(
    server: Server, address: str, data: bytes | None, labels: list[str], said: str
) -> None:
    """It is refused where it is given, so that nothing stands in the way of others later."""
    async with Store.open(address):
        pass
    connection = await asyncpg.connect(server.url)
    with pytest.raises(asyncpg.PostgresError, match=said):
        await connection.execute(ENQUEUE, name_in(address), data, labels)
    with pytest.raises(asyncpg.PostgresError, match="there is no log 'nobody'"):
        await connection.execute(ENQUEUE, "nobody", b"x", [])
    await connection.close()


@pytest.mark.parametrize(
    ("clients", "each", "kills"), [(4, 60, 4), pytest.param(16, 250, 20, marks=pytest.mark.proof)]
)
async def test_clients_that_roll_back_and_movers_that_are_killed(
    server: Server,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    clients: int,
    each: int,
    kills: int,
) -> None:
    """Exactly what has committed, once each, what one client has committed in its order. At full
    size it is ``python -m tests.postgres``.
    """
    monkeypatch.setattr(moving, "_PAUSE", 0.005)
    counts = await outbox(server, name_in(address), clients, each, kills)
    assert counts["committed"] == clients * (each - each // 3)
