"""Store.backup and Reader.backup as calls: cancelled, beside a close, and beside themselves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aquipu import Reader, Store, StoreClosedError
from tests.disk import FailingDisk
from tests.local.backup.made import check

pytestmark = pytest.mark.asyncio

DATA = [b"%04d" % number * 300 for number in range(20)]


async def filled(store: Store) -> None:
    for data in DATA:
        await store.append(data)


async def test_it_is_cancelled(tmp_path: Path) -> None:
    """It ends soon, what is there opens, and the store and the next backup go on."""
    disk = FailingDisk()
    async with Store.open(tmp_path / "store", max_segment_bytes=4096, disk=disk) as store:
        await filled(store)
        held = disk.hold("create", of="0004.segment.unnamed")
        backup = asyncio.create_task(store.backup(tmp_path / "backup"))
        await asyncio.to_thread(held.reached.wait, 30)
        backup.cancel()
        with pytest.raises(asyncio.CancelledError):
            await backup
        held.released.set()
        await store.append(b"meanwhile")
        done = await store.backup(tmp_path / "backup")  # which waits for the end of the other one
        assert done.next_sequence == 21
    check(tmp_path / "backup", [*DATA, b"meanwhile"])


async def test_two_at_once(tmp_path: Path) -> None:
    """To one place, one waits for the other; both are done."""
    async with Store.open(tmp_path / "store", max_segment_bytes=4096) as store:
        await filled(store)
        async with Reader.open(tmp_path / "store") as reader:
            done = await asyncio.gather(
                store.backup(tmp_path / "backup"), reader.backup(tmp_path / "backup")
            )
    assert [one.next_sequence for one in done] == [20, 20]
    check(tmp_path / "backup", DATA)


async def test_the_store_is_closed_meanwhile(tmp_path: Path) -> None:
    """The files are there: the backup comes to its end. One of a closed store is refused."""
    disk = FailingDisk()
    store = await Store.open(tmp_path / "store", max_segment_bytes=4096, disk=disk)
    await filled(store)
    held = disk.hold("create", of="0004.segment.unnamed")
    backup = asyncio.create_task(store.backup(tmp_path / "backup"))
    await asyncio.to_thread(held.reached.wait, 30)
    await store.aclose()
    held.released.set()
    assert (await backup).next_sequence == 20
    check(tmp_path / "backup", DATA)
    with pytest.raises(StoreClosedError):
        await store.backup(tmp_path / "backup")


async def test_what_is_only_flushed_is_synced_first(tmp_path: Path) -> None:
    """A power cut cannot take from the store what its backup has."""
    async with Store.open(tmp_path / "store") as store:
        await store.append(b"flushed")
        assert store.synced_sequence == 0
        await store.backup(tmp_path / "backup")
        assert store.synced_sequence == 1
