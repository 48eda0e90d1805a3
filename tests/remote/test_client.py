"""remote: a client goes on when its daemon was away, and says what is wrong when it has failed.

What a client has in common with every other store is said in `tests.face`.
"""

from __future__ import annotations

import asyncio
from errno import EIO
from pathlib import Path
from typing import Any

import pytest

from aquipu import (
    AquipuError,
    BatchTooLargeError,
    RemoteStore,
    Stage,
    Store,
    StoreFailedError,
    StoreUnavailableError,
)
from tests.disk import FailingDisk
from tests.remote.daemon.served import Served, served, soon, until

pytestmark = pytest.mark.asyncio


async def test_the_health_of_the_way_to_the_daemon(tmp_path: Path) -> None:
    """ok, degraded while an answer is late, failed when the daemon could not be reached, and ok
    when it is back; closed.
    """
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it:
        store = await it.connect(timeout=0.1)
        await store.append(b"before")
        assert store.health() == ("ok", ())
        hold = disk.hold("write_synced")
        future = store.append_nowait(b"x")
        await until(hold.reached.is_set)
        late = store.health(max_answer_seconds=0)
        hold.released.set()
        await future
        assert late.state == "degraded"
        assert late.reasons[0].startswith("the daemon has not answered for")
        await it.end()
        with pytest.raises(StoreUnavailableError) as away:
            await store.append(b"y")
        assert store.health() == ("failed", (str(away.value),))
        await it.begin()
        await store.append(b"z")
        assert store.health(max_answer_seconds=0) == ("ok", ())
        await store.aclose()
        assert store.health() == ("closed", ("the store is closed",))


async def test_a_disk_that_fails(tmp_path: Path) -> None:
    """StoreFailedError for all, as long as that daemon is there; the next daemon takes what comes
    then.
    """
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, it.connect() as store:
        await store.append(b"before")
        disk.fail("write_synced", EIO)
        for _ in range(2):
            with pytest.raises(StoreFailedError) as failed:
                await store.append(b"x")
        assert isinstance(failed.value.__cause__, OSError)
        assert it.daemon.failed.done()
        assert (await store.get(0)).data == b"before"
        disk.mend()
        await it.end()
        await it.begin()
        await store.append(b"after")
        assert (await it.data())[-1] == b"after"


async def test_following_across_a_restart(store: RemoteStore, it: Served) -> None:
    """A follower waits for the next daemon, and misses nothing."""
    async with store.follow(0) as records:
        waiting = asyncio.ensure_future(anext(records))
        await store.flush()
        for number in range(3):
            await it.end()
            await it.begin()
            await it.store.append(b"%d" % number)
            assert (await soon(waiting)).data == b"%d" % number
            waiting = asyncio.ensure_future(anext(records))
        waiting.cancel()


async def test_a_step_of_a_follower_that_is_cancelled(store: RemoteStore, it: Served) -> None:
    """Nothing is lost or repeated, and nothing of it is left at the daemon, however often that is
    done.
    """
    async with store.follow(0) as records:
        for _ in range(1200):
            step = asyncio.ensure_future(anext(records))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            step.cancel()
        await store.append_many([b"a", b"b"])
        assert [(await soon(anext(records))).data for _ in range(2)] == [b"a", b"b"]
        step = asyncio.ensure_future(anext(records))
        (session,) = it.daemon.sessions
        await until(lambda: len(session._waits) == 1)
        step.cancel()
        await until(lambda: not session._waits)


async def test_a_follower_of_a_store_that_fails(tmp_path: Path) -> None:
    """It gives what may still be read, and then says that the store has failed."""
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, it.connect() as store:
        await store.append(b"before")
        disk.fail("write_synced", EIO)
        with pytest.raises(StoreFailedError):
            await store.append(b"x")
        records = store.follow(0)
        assert (await soon(anext(records))).data == b"before"
        with pytest.raises(StoreFailedError):
            await soon(anext(records))


async def test_a_daemon_that_comes_back_with_less_room(tmp_path: Path) -> None:
    """A batch that waits and would never have room there is refused; everybody else goes on, also
    who was accepted in a commit that is now too large: that goes alone.
    """
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, it.connect(buffer_records=100) as store:
        await store.append(b"before")
        hold = disk.hold("write_synced")
        first = store.append_nowait(b"first")
        await until(hold.reached.is_set)
        small = [asyncio.ensure_future(store.append_many([b"s"] * 10)) for _ in range(9)]
        large = asyncio.ensure_future(store.append_many([b"l"] * 50))
        behind = asyncio.ensure_future(store.append(b"behind"))
        await asyncio.sleep(0)
        hold.released.set()
        it.options["buffer_records"] = 20
        await it.daemon.aclose()
        await it.store.aclose()
        await it.begin()
        await soon(asyncio.wait([first, *small, large, behind]))
        with pytest.raises(BatchTooLargeError):
            large.result()
        assert [len(one.result()) for one in small] == [10] * 9
        assert behind.result().stage is Stage.SYNCED


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        *(
            ({"address": 7}, TypeError),
            ({"address": "/run/x"}, ValueError),
            ({"address": "unix:"}, ValueError),
        ),
        *(
            ({"timeout": -1}, ValueError),
            ({"timeout": "1"}, TypeError),
            ({"timeout": float("nan")}, ValueError),
        ),
        *(
            ({"buffer_records": 0}, ValueError),
            ({"buffer_bytes": 1.5}, TypeError),
            ({"buffer_records": 1 << 40}, ValueError),
        ),
    ],
)
async def test_options_that_cannot_be(options: dict[str, Any], kind: type[Exception]) -> None:
    """They are refused at once, before anything is awaited."""
    with pytest.raises(kind):
        Store.connect(**{"address": "unix:/nowhere", **options})


async def test_every_error_is_one_of_the_tree(tmp_path: Path) -> None:
    """Where no daemon is: after its time, and not before."""
    with pytest.raises(
        StoreUnavailableError, match=r"cannot reach the daemon at unix:.*No such file"
    ):
        await Store.connect(f"unix:{tmp_path}/nobody", timeout=0)
    with pytest.raises(AquipuError):
        await Store.connect(f"unix:{tmp_path}/nobody", timeout=0.05)
