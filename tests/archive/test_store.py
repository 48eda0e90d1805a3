"""A store that is opened with an archive."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Callable
from errno import EINTR, EIO, EMFILE, ENOMEM, ENOSPC
from os import strerror
from pathlib import Path
from random import Random
from time import sleep
from typing import Any

import pytest

from aquipu import (
    Archive,
    ArchiveRefusedError,
    ArchiveTakenError,
    ArchiveUnavailableError,
    OsManaged,
    PositionLostError,
    Reader,
    Retention,
    Stage,
    Store,
    StoreClosedError,
    StoreFailedError,
    StoreUnavailableError,
)
from aquipu.archive.bucket import Bucket
from aquipu.archive.errors import NoArchiveError
from aquipu.archive.fetch import read_state
from aquipu.archive.restore import Until
from aquipu.local.archiving import ArchivedEngine
from aquipu.local.write.journal import Journal
from tests.archive.faulty import FaultyBucket, MemoryBucket
from tests.archive.made import URL, Kept, archived, impatient, restored
from tests.disk import FailingDisk
from tests.support import data_in, engine_of

SECONDS = 20.0
"""For what takes a moment."""


async def reached(store: Store, sequence: int) -> None:
    """Wait until a record is archived."""
    async with asyncio.timeout(SECONDS):
        await store.reached(Stage.ARCHIVED, sequence)


async def until(happened: Callable[[], bool]) -> None:
    """Wait until something has happened on another thread."""
    async with asyncio.timeout(SECONDS):
        while not happened():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.mark.asyncio
async def test_a_record_reaches_the_archive(tmp_path: Path) -> None:
    """A caller can wait until the loss of the machine would not take its record."""
    objects = MemoryBucket()
    async with Store.open(tmp_path / "store", archive=Kept(objects)) as store:
        for number in range(10):
            receipt = await store.append(b"%d" % number)
            await reached(store, receipt.sequence)
            assert read_state(Bucket(URL, objects)).head.next_sequence > receipt.sequence
        seen = store.statistics()
        assert (seen.archived_sequence, seen.unarchived_records) == (10, 0)
        assert seen.archive_lag_seconds == 0
        assert store.health().state == "ok"
    restored(objects, tmp_path / "copy")
    assert data_in(tmp_path / "copy") == [b"%d" % number for number in range(10)]


@pytest.mark.asyncio
async def test_what_came_last_is_archived_at_the_end(tmp_path: Path) -> None:
    """Closing waits for the archive, when that answers."""
    objects = MemoryBucket()
    for begin in (0, 50):
        async with Store.open(
            tmp_path / "store", archive=Kept(objects), max_segment_bytes=4096
        ) as store:
            await store.append_many([bytes(200)] * 50)
        assert read_state(Bucket(URL, objects)).head.next_sequence == begin + 50


@pytest.mark.asyncio
async def test_appends_do_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the object store is away, appends go on, and health says it; then it catches up."""
    impatient(monkeypatch)
    objects = FaultyBucket(Random(1), 1.0, ("refused", "lost before"))
    async with Store.open(tmp_path / "store", archive=Kept(objects)) as store:
        receipt = await store.append(b"record")
        await until(lambda: store.health().state != "ok")
        assert "the archive does not answer" in store.health().reasons[0]
        assert store.statistics().unarchived_records == 1
        objects.share = 0.0
        await reached(store, receipt.sequence)
        assert store.health().state == "ok"


@pytest.mark.asyncio
async def test_processes_that_share_a_store(tmp_path: Path) -> None:
    """Whichever writes it carries it, and each of them can wait for the archive."""
    objects = MemoryBucket()
    for number in range(2):
        async with (
            Store.open(tmp_path / "store", shared=True, archive=Kept(objects)) as one,
            Store.open(tmp_path / "store", shared=True, archive=Kept(objects)) as other,
        ):
            for store in (one, other):
                await reached(store, (await store.append(b"record")).sequence)
        assert read_state(Bucket(URL, objects)).head.next_sequence == 2 * (number + 1)


@pytest.mark.asyncio
async def test_consumers_of_a_restored_store(tmp_path: Path) -> None:
    """A consumer goes on where it was, also in the archive, if that is there; else it is told."""
    objects = MemoryBucket()
    async with Store.open(tmp_path / "store", archive=Kept(objects)) as store:
        await store.append_many([b"one", b"two", b"three"])
        async with store.follow(0) as records:
            positions = [records.position_after(await anext(records)) for _ in range(3)]
    restored(objects, tmp_path / "copy", Until(sequence=3))
    restored(objects, tmp_path / "part", Until(sequence=0))
    async with Reader.open(Kept(objects)) as archive:
        await archive.check_position(positions[-1])
    async with Store.open(tmp_path / "copy") as copy:
        for position in positions:
            await copy.check_position(position)
    async with Store.open(tmp_path / "part") as part:
        with pytest.raises(PositionLostError) as raised:
            await part.check_position(positions[0])
        assert raised.value.resume == 0


@pytest.mark.asyncio
async def test_another_machine_takes_over(tmp_path: Path) -> None:
    """The archive of the first one stops, loudly; the store itself goes on."""
    objects = MemoryBucket()
    async with Store.open(tmp_path / "store", archive=Kept(objects)) as store:
        await reached(store, (await store.append(b"record")).sequence)
        restored(objects, tmp_path / "copy")
        assert archived(objects, tmp_path / "copy", writer="the other") == 1
        receipt = await store.append(b"another")
        for _ in range(2):
            with pytest.raises(ArchiveTakenError, match="is of the other"):
                await reached(store, receipt.sequence)
        assert "the archive has stopped" in store.health().reasons[0]
        await store.append(b"and it goes on")


@pytest.mark.asyncio
async def test_the_archive_of_another_store(tmp_path: Path) -> None:
    """Nothing is written there; who waits for the archive is told, and so is who looks."""
    objects = MemoryBucket()
    async with Store.open(tmp_path / "one", archive=Kept(objects)) as store:
        await reached(store, (await store.append(b"record")).sequence)
    before = dict(objects.objects)
    async with Store.open(tmp_path / "two", archive=Kept(objects)) as store:
        receipt = await store.append(b"record")
        with pytest.raises(ArchiveRefusedError, match="another store"):
            await reached(store, receipt.sequence)
    assert objects.objects == before


@pytest.mark.asyncio
async def test_closed_while_a_caller_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing a store whose archive is away ends after a moment, and so does every wait. How many
    records it does not have is logged, and that they are safe; nothing when it has all.
    """
    monkeypatch.setattr("aquipu.local.archiving._LAST_SECONDS", 0.01)
    objects = FaultyBucket(Random(1), 1.0, ("refused", "lost before"))
    store = await Store.open(tmp_path / "store", archive=Kept(objects))
    receipt = await store.append(b"record")
    waiting = asyncio.create_task(reached(store, receipt.sequence))
    await asyncio.sleep(0)
    async with asyncio.timeout(SECONDS):
        await store.aclose()
        with pytest.raises(StoreClosedError):
            await waiting
    said = f"{tmp_path}/store is closed; records that are not archived: 1, up to sequence 0; "
    assert [line for line in caplog.messages if line.startswith(said)]
    caplog.clear()
    objects.share = 0.0
    monkeypatch.undo()
    async with Store.open(tmp_path / "store", archive=Kept(objects)) as again:
        await reached(again, receipt.sequence)
    assert not [line for line in caplog.messages if "not archived" in line]


@pytest.mark.asyncio
async def test_nothing_is_purged_that_is_not_archived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``hold`` a retention keeps what the archive does not have, and lets go of the rest."""
    impatient(monkeypatch)
    objects = FaultyBucket(Random(1), 0.0, ("refused", "lost before"))
    async with Store.open(
        tmp_path / "store",
        archive=Kept(objects, hold=True),
        max_segment_bytes=4096,
        retention=Retention(max_bytes=1),
    ) as store:
        while not await store.holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await reached(store, (await store.append(bytes(4000))).sequence)
        objects.share = 1.0
        for _ in range(5):
            await store.append(bytes(4000))
        assert store.first_sequence <= (store.statistics().archived_sequence or 0) < 3
        objects.share = 0.0
        await reached(store, store.next_sequence - 1)
        async with asyncio.timeout(SECONDS):
            while store.first_sequence < 5:
                await store.append(bytes(4000))
                await asyncio.sleep(0.01)
        assert [name for name in await store.holds() if name.startswith("archive.")]


_DROPPED = """
import asyncio, sys
from aquipu import Archive, Store

async def main(place):
    global store
    store = await Store.open(f"{place}/store", archive=Archive(f"file://{place}/elsewhere"))
    await store.append(b"kept")

asyncio.run(main(sys.argv[1]))
"""


def test_a_program_that_ends_and_leaves_its_store_open(tmp_path: Path) -> None:
    """It ends, though no thread can be started any more, and its record is there."""
    command = [sys.executable, "-c", _DROPPED, str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, timeout=60, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert data_in(tmp_path / "store") == [b"kept"]


_FORKED = """
import asyncio, os, signal, sys
from aquipu import Archive, ArchiveUnavailableError, Reader
from aquipu.archive.bucket import Doubt

async def open_reader():
    await Reader.open(archive)

def ask(call):
    try:
        return call()
    except ArchiveUnavailableError as error:
        return "forked" if "was forked from one" in str(error) else str(error)
    except Doubt:
        return "doubt"

options = dict(endpoint="http://127.0.0.1:9", access_key_id="AKIA", secret_access_key="secret")
archive, files = Archive("s3://b/p", region="x", **options), Archive(f"file://{sys.argv[1]}/a")
bucket, written = archive.bucket(), files.bucket_for(f"{sys.argv[1]}/store")
assert ask(lambda: bucket.get("entries/0")) == "doubt"
written.put_new("entries/0", b"entry")
child = os.fork()
if child == 0:
    signal.alarm(60)  # it must not hang
    assert ask(lambda: bucket.get("entries/0")) == "forked"
    assert ask(archive.bucket) == "forked"
    assert ask(lambda: asyncio.run(open_reader())) == "forked"
    for one in (written, files.bucket()):
        assert one.get("entries/0") == b"entry"
    print("as it must be", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert ask(lambda: bucket.get("entries/0")) == "doubt"
"""


def test_after_a_fork(tmp_path: Path) -> None:
    """An object store says at once that it cannot be used; a directory can."""
    done = subprocess.run(
        [sys.executable, "-c", _FORKED, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        timeout=120,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"as it must be\n"), done.stderr


@pytest.mark.asyncio
async def test_without_an_archive(tmp_path: Path) -> None:
    """There is no such stage, and nothing is counted."""
    async with Store.open(tmp_path / "store") as store:
        receipt = await store.append(b"record")
        with pytest.raises(ValueError, match=r"Stage\.ARCHIVED"):
            await store.reached(Stage.ARCHIVED, receipt.sequence)
        with pytest.raises(ValueError, match="ARCHIVED by `reached`"):
            await store.append(b"record", durability=Stage.ARCHIVED)
        assert store.statistics().archived_sequence is None


@pytest.mark.asyncio
async def test_what_cannot_be_an_archive(tmp_path: Path) -> None:
    """It is an error before anything is made."""
    with pytest.raises(TypeError, match="archive is an Archive or None, not str"):
        Store.open(tmp_path / "store", archive="s3://bucket")  # type: ignore[arg-type]
    with pytest.raises(ArchiveUnavailableError, match="'nonsense' is not valid") as raised:
        await Store.open(tmp_path / "store", archive=Archive("s3://b/p", nonsense="secret"))
    assert "secret" not in str(raised.value)
    with pytest.raises(ArchiveRefusedError, match="lies within the store"):
        await Store.open(tmp_path / "store", archive=Archive(f"file://{tmp_path}/store/within"))
    assert not (tmp_path / "store").exists()


def test_an_archive_is_a_value() -> None:
    """It compares by its attributes, can be a key, and shows no option."""
    archive = Archive("s3://bucket/prefix/", interval=2, secret_access_key="the secret")
    assert archive == Archive("s3://bucket/prefix", interval=2.0, secret_access_key="the secret")
    assert archive != Archive("s3://bucket/prefix", interval=2.0)
    assert len({archive, pickle.loads(pickle.dumps(archive))}) == 1
    assert "the secret" not in repr(archive)
    assert "secret_access_key=…" in repr(archive)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"url": 1}, TypeError),
        ({"url": "bucket"}, ValueError),
        ({"url": "http://host/x"}, ValueError),
        ({"url": "s3://"}, ValueError),
        ({"url": "s3://a:b@bucket"}, ValueError),
        ({"url": "s3://bucket?region=x"}, ValueError),
        ({"url": "file://relative/x"}, ValueError),
        ({"url": "file:///"}, ValueError),
        ({"url": "file:///x", "region": "y"}, TypeError),
        ({"url": "s3://bucket", "interval": 0}, ValueError),
        ({"url": "s3://bucket", "interval": "1"}, TypeError),
        ({"url": "s3://bucket", "hold": 1}, TypeError),
    ],
)
def test_bad_archives(arguments: dict[str, Any], error: type[Exception]) -> None:
    """What names no place, or is no option, is refused at once."""
    with pytest.raises(error):
        Archive(**arguments)


def test_a_place_that_is_none() -> None:
    """What is said names all that can be given: to read, archives, too."""
    with pytest.raises(ValueError, match=r"to read, also an archive: s3://, gs://, az://, file://"):
        Reader.open("foo://a/b")
    with pytest.raises(ValueError, match=r"carried there by archive=Archive\('s3://"):
        Store.open("s3://bucket/log")


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(ArchiveUnavailableError, match=r"'\.\[archive\]'"):
        Archive("s3://bucket/prefix").bucket()


def test_errors_can_be_pickled() -> None:
    """Each error of an archive can be sent to another process."""
    error = pickle.loads(pickle.dumps(NoArchiveError(URL, "it is empty")))
    assert (error.url, error.reason) == (URL, "it is empty")


def wait_for_failure(journal: Journal) -> None:
    """Wait until the worker has noted it, on the thread of the loop, which hears nothing of it."""
    while journal.failure is None:
        sleep(0)


@pytest.mark.asyncio
@pytest.mark.parametrize("when", ["is under way", "has failed"])
async def test_a_sync_of_the_writer_that_fails(tmp_path: Path, when: str) -> None:
    """What it may have lost is not archived, though a second sync of the same file goes well.

    Neither while the first one is under way, nor after that before the event loop has heard of it.
    """
    disk, objects = FailingDisk(), MemoryBucket()
    archive = Kept(objects)
    path = tmp_path / "store"
    store = await Store.open(path, archive=archive, disk=disk, sync_policy=OsManaged())
    engine = engine_of(store)
    assert isinstance(engine, ArchivedEngine)
    log = engine._uploader._log
    await reached(store, (await store.append(b"kept")).sequence)
    carrier = disk.hold("open", of=".segment")
    await store.append(b"lost")
    await until(carrier.reached.is_set)
    disk.fail("sync", EIO)
    worker = disk.hold("sync")
    syncing = asyncio.create_task(store.sync())
    await until(worker.reached.is_set)
    if when == "has failed":
        worker.released.set()
        wait_for_failure(engine._journal)
    assert log.look().stop == 1
    worker.released.set()
    carrier.released.set()
    with pytest.raises(StoreFailedError):
        await syncing
    assert log.look().stop == 1
    with pytest.raises(StoreFailedError):
        await store.aclose()
    assert store.statistics().archived_sequence == 1
    assert read_state(Bucket(URL, objects)).head.next_sequence == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("method", "error"), [("open", EMFILE), ("open", ENOMEM), ("read", EIO), ("sync", EINTR)]
)
async def test_a_passing_error_of_the_disk(tmp_path: Path, method: str, error: int) -> None:
    """The archive waits, and health says why; then it goes on, and health is well again."""
    disk = FailingDisk()
    path, archive = tmp_path / "store", Kept(MemoryBucket())
    async with Store.open(path, archive=archive, disk=disk, sync_policy=OsManaged()) as store:
        await reached(store, (await store.append(b"record")).sequence)
        disk.fail(method, error, forever=True, of=".segment")
        receipt = await store.append(b"another")
        waiting = asyncio.create_task(reached(store, receipt.sequence))
        await until(lambda: store.health().state != "ok")
        (reason,) = store.health().reasons
        assert reason.startswith("the archive has to wait: cannot ")
        assert strerror(error) in reason
        disk.mend()
        await waiting
        await until(lambda: store.health().state == "ok")


@pytest.mark.asyncio
async def test_no_space_for_the_hold(tmp_path: Path) -> None:
    """The archive waits for that, too: nothing is put that might be purged before it is there."""
    disk, objects = FailingDisk(), MemoryBucket()
    path, archive = tmp_path / "store", Kept(objects, hold=True)
    disk.fail("rename", ENOSPC, forever=True, of=".hold")
    async with Store.open(path, archive=archive, disk=disk) as store:
        receipt = await store.append(b"record")
        await until(lambda: store.health().state != "ok")
        (reason,) = store.health().reasons
        assert reason.startswith(f"the archive has to wait: cannot set a hold in {path}: ")
        assert objects.objects == {}
        disk.mend()
        await reached(store, receipt.sequence)
        await until(lambda: store.health().state == "ok")


@pytest.mark.asyncio
async def test_closed_while_the_store_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing ends after a moment."""
    monkeypatch.setattr("aquipu.local.archiving._LAST_SECONDS", 0.01)
    disk = FailingDisk()
    path, archive = tmp_path / "store", Kept(MemoryBucket())
    store = await Store.open(path, archive=archive, disk=disk)
    disk.fail("read", EIO, forever=True, of=".segment")
    await store.append(b"record")
    await until(lambda: store.health().state != "ok")
    async with asyncio.timeout(SECONDS):
        await store.aclose()


@pytest.mark.asyncio
async def test_a_sync_of_the_archive_that_fails(tmp_path: Path) -> None:
    """It is the end: the next sync would say that all is well, whatever was lost."""
    disk, objects = FailingDisk(), MemoryBucket()
    path, archive = tmp_path / "store", Kept(objects)
    async with Store.open(path, archive=archive, disk=disk, sync_policy=OsManaged()) as store:
        await reached(store, (await store.append(b"record")).sequence)
        disk.fail("sync", EIO, of=".segment")
        receipt = await store.append(b"another")
        with pytest.raises(StoreUnavailableError, match="cannot sync"):
            await reached(store, receipt.sequence)
        (reason,) = store.health().reasons
        assert reason.startswith("the archive has stopped: cannot sync")
        assert read_state(Bucket(URL, objects)).head.next_sequence == 1
