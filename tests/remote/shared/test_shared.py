"""shared: several processes have a store open; one writes it for all, and any of them may."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from errno import EIO, EROFS
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aquipu import (
    Always,
    CorruptionError,
    OsManaged,
    Reader,
    RemoteStore,
    Stage,
    Store,
    StoreFailedError,
    StoreLockedError,
    StoreUnavailableError,
)
from aquipu.local.disk.system import file_system, network_file_system
from aquipu.local.format.names import MANIFEST
from aquipu.remote.shared.leader import socket_of
from tests.disk import FailingDisk
from tests.remote.daemon.served import soon, until
from tests.remote.shared.members import member
from tests.support import flip, segment_in

pytestmark = pytest.mark.asyncio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest_asyncio.fixture
async def first(path: Path) -> AsyncIterator[Store]:
    """The one that writes."""
    async with Store.open(path, shared=True, sync_policy=Always()) as store:
        yield store


def has_socket(path: Path) -> bool:
    return os.path.lexists(socket_of(str(path)))


def mode_of_socket(path: Path) -> int:
    return os.stat(socket_of(str(path))).st_mode & 0o777


def is_there(path: Path) -> bool:
    return path.exists()


def leads(store: Store) -> bool:
    return leader_of(store).store is not None


def leader_of(store: Store) -> Any:
    return store._engine._leader  # type: ignore[attr-defined]


async def data_of(store: Store) -> list[bytes]:
    return [record.data async for record in store.scan()]


# together


async def test_two_that_append(path: Path, first: Store) -> None:
    """Their records are one log without gaps, and each sees all of them."""
    async with Store.open(path, shared=True, sync_policy=Always()) as second:
        assert isinstance(first, RemoteStore)
        assert isinstance(second, RemoteStore)
        assert (leads(first), leads(second)) == (True, False)
        receipts = await asyncio.gather(
            *(store.append(b"%d" % number) for number in range(50) for store in (first, second))
        )
        assert sorted(receipt.sequence for receipt in receipts) == list(range(100))
        assert {receipt.stage for receipt in receipts} == {Stage.SYNCED}
        assert await data_of(first) == await data_of(second)
        assert len(await data_of(first)) == 100


async def test_commits_of_several_processes(path: Path) -> None:
    """What several processes append at the same time shares syncs."""
    async with (
        Store.open(path, shared=True, sync_policy=Always()) as first,
        Store.open(path, shared=True, sync_policy=Always()) as second,
    ):
        local = leader_of(first).store
        before = local.statistics().syncs
        await asyncio.gather(*(store.append(b"x") for _ in range(200) for store in (first, second)))
        assert local.statistics().syncs - before <= 20


async def test_a_policy_that_is_stricter_than_that_of_the_writer(path: Path) -> None:
    """An append is as safe as the policy of its own process says, whoever writes."""
    async with (
        Store.open(path, shared=True, sync_policy=OsManaged()) as first,
        Store.open(path, shared=True, sync_policy=Always()) as second,
    ):
        assert leads(first)
        assert (await second.append(b"x")).stage is Stage.SYNCED
        assert (await first.append(b"x")).stage is Stage.FLUSHED


async def test_a_policy_that_is_looser_than_that_of_the_writer(path: Path, first: Store) -> None:
    """An append is as safe as the policy of the writer says."""
    async with Store.open(path, shared=True, sync_policy=OsManaged()) as second:
        assert (await second.append(b"x")).stage is Stage.SYNCED


async def test_a_reader_beside_them(path: Path, first: Store) -> None:
    """It needs no socket: it reads the files."""
    await first.append(b"x")
    async with Reader.open(path) as reader:
        assert [record.data async for record in reader.scan()] == [b"x"]


async def test_the_report_of_the_opening(path: Path, first: Store) -> None:
    """The process that has opened the files has it; the others say where it is."""
    assert first.recovery.created
    async with Store.open(path, shared=True) as second:
        with pytest.raises(AttributeError, match="the process that writes the store"):
            _ = second.recovery


# who writes


async def test_the_writer_closes(path: Path) -> None:
    """Another one writes from then on; what was under way is stored once."""
    first = await Store.open(path, shared=True, sync_policy=Always())
    async with Store.open(path, shared=True, sync_policy=Always()) as second:
        await second.append(b"before")
        under_way = [asyncio.ensure_future(second.append(b"%d" % n)) for n in range(100)]
        await soon(first.aclose())
        receipts = await soon(asyncio.gather(*under_way))
        await until(lambda: leads(second))
        assert [receipt.sequence for receipt in receipts] == list(range(1, 101))
        assert await data_of(second) == [b"before", *(b"%d" % n for n in range(100))]


async def test_who_writes_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once by the first one, and once by each that takes over, with its process: at INFO."""
    caplog.set_level(logging.INFO, "aquipu")
    async with Store.open(path, shared=True) as first:
        await first.append(b"x")
        async with Store.open(path, shared=True) as second:
            await second.append(b"x")
            await soon(first.aclose())
            await soon(second.append(b"after"))
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert said == [
        f"{path}: this process, {os.getpid()}, writes it, for all that share it",
        f"{path}: this process, {os.getpid()}, has taken it over and writes it now",
    ]


async def test_the_writer_closes_while_the_others_rest(path: Path) -> None:
    """One of them writes at once, without being asked: what is unsynced does not stay so."""
    first = await Store.open(path, shared=True)
    async with Store.open(path, shared=True) as second:
        await soon(first.aclose())
        await until(lambda: leads(second))


async def test_all_have_closed(path: Path) -> None:
    """Nothing is left behind: no socket, no lock, and a store that was closed."""
    async with Store.open(path, shared=True) as first, Store.open(path, shared=True) as second:
        await first.append(b"x")
        await second.append(b"x")
    assert not has_socket(path)
    async with Store.open(path, lock_timeout=0) as store:
        assert store.recovery.clean
        assert len(await data_of(store)) == 2


async def test_the_writer_is_killed(path: Path) -> None:
    """Another process goes on; nothing acknowledged is lost, and nothing is stored twice."""
    async with member(path) as writer, Store.open(path, shared=True) as store:
        assert not leads(store)
        sent = []
        for number in range(50):
            writer.ask(b"writer %d" % number)
            sent.append(asyncio.ensure_future(store.append(b"here %d" % number)))
        told = [await writer.heard()]
        await writer.kill()
        receipts = await soon(asyncio.gather(*sent))
        found = await data_of(store)
        assert leads(store)
        assert len(set(found)) == len(found)
        assert found[told[0][0]] == b"writer 0"
        assert [found[receipt.sequence] for receipt in receipts] == [
            b"here %d" % number for number in range(50)
        ]


async def test_the_writer_is_killed_while_the_others_rest(path: Path) -> None:
    """What a policy has promised to sync in time is synced, by the one that takes over."""
    async with (
        member(path, "every") as writer,
        Store.open(path, shared=True) as store,
    ):
        await writer.append(b"x")
        await writer.kill()
        await until(lambda: store.synced_sequence == 1)
        assert leads(store)


async def test_a_process_forked_by_the_writer_outlives_it(path: Path) -> None:
    """It keeps no socket at which nobody answers: another process takes over."""
    async with member(path, "always") as writer:
        await writer.append(b"fork")
        child = int(await writer.line())
        try:
            async with Store.open(path, shared=True) as store:
                await writer.kill()
                assert (await soon(store.append(b"x"))).sequence == 1
        finally:
            os.kill(child, signal.SIGKILL)


async def test_a_store_that_has_failed(path: Path) -> None:
    """Its callers hear of it, and whoever appends next finds it opened anew."""
    disk = FailingDisk()
    async with (
        Store.open(path, shared=True, sync_policy=Always(), disk=disk) as first,
        Store.open(path, shared=True, sync_policy=Always()) as second,
    ):
        await first.append(b"before")
        disk.fail("write_synced", EIO)
        with pytest.raises(StoreFailedError):
            await soon(second.append(b"x"))
        await until(lambda: not leads(first))  # it lets go of the store
        assert (await soon(first.append(b"after"))).stage is Stage.SYNCED
        assert (await soon(second.append(b"after"))).stage is Stage.SYNCED
        assert (await data_of(second))[0] == b"before"


async def test_the_directory_was_removed(path: Path) -> None:
    """It is not made anew by the one that takes over: that would be another log."""
    first = await Store.open(path, shared=True)
    second = await Store.open(path, shared=True, lock_timeout=0.2)
    await second.append(b"x")
    os.rename(path, path.with_name("moved"))
    with suppress(StoreFailedError):
        await soon(first.aclose())
    with pytest.raises(StoreUnavailableError, match="removed or replaced"):
        await soon(second.append(b"x"))
    with pytest.raises(StoreUnavailableError, match="removed or replaced"):
        await soon(second.aclose())
    assert not is_there(path)


async def test_nobody_can_say_whether_the_directory_is_there(path: Path) -> None:
    """Whoever would take over says what the system says, and not that the directory is gone."""
    disk = FailingDisk()
    first = await Store.open(path, shared=True)
    second = await Store.open(path, shared=True, disk=disk, lock_timeout=0.2)
    await second.append(b"x")
    disk.fail("exists", EIO, forever=True, of=MANIFEST)
    await first.aclose()
    with pytest.raises(StoreUnavailableError, match=r"go on with.*Input/output error"):
        await soon(second.append(b"y"))
    with pytest.raises(StoreUnavailableError, match="Input/output error"):
        await soon(second.aclose())


# who may not


async def test_a_store_that_one_process_has_for_itself(path: Path) -> None:
    """It is waited for, and then the error names the process."""
    async with Store.open(path):
        with pytest.raises(StoreLockedError, match=str(os.getpid())):
            await soon(Store.open(path, shared=True, lock_timeout=0.1).__aenter__())


async def test_a_store_that_others_share(path: Path) -> None:
    """Whoever wants it alone is refused, and told how to join them."""
    async with member(path):
        with pytest.raises(StoreLockedError, match="shared=True"):
            await Store.open(path, lock_timeout=0)


async def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    """It is reached all the same."""
    path = tmp_path.joinpath(*["a" * 50] * 4)
    async with (
        Store.open(path, shared=True) as first,
        Store.open(path, shared=True) as second,
    ):
        await first.append(b"x")
        assert (await second.append(b"x")).sequence == 1


async def test_a_network_file_system(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store on one is not shared, and nothing is made: other machines cannot reach a socket."""
    monkeypatch.setattr("aquipu.remote.shared.leader.network_file_system", lambda path: "nfs4")
    with pytest.raises(StoreUnavailableError, match=r"network file system \(nfs4\)"):
        await Store.open(path, shared=True)
    assert not is_there(path)


async def test_a_directory_of_another_user(
    path: Path, first: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its socket is for one user; who is another one is told at once."""
    assert mode_of_socket(path) == 0o600

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", refuse)
    with pytest.raises(StoreUnavailableError, match="Permission denied"):
        await soon(Store.open(path, shared=True).__aenter__())


async def test_another_version_of_the_package(
    path: Path, first: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it speaks is told, and nothing is written."""
    monkeypatch.setattr("aquipu.remote.engine.VERSION", 2)
    with pytest.raises(StoreUnavailableError, match="version 2 of the protocol"):
        await soon(Store.open(path, shared=True, lock_timeout=0.1).__aenter__())


async def test_a_read_only_directory(path: Path) -> None:
    """It says so, and nothing is left open."""
    disk = FailingDisk()
    disk.fail("try_lock", EROFS)
    with pytest.raises(StoreUnavailableError, match="Read-only file system"):
        await Store.open(path, shared=True, disk=disk)


async def test_a_socket_that_cannot_be_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and the store is closed again."""

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aquipu.remote.shared.leader.listen_alone", refuse)
    with pytest.raises(StoreUnavailableError, match=r"listen at .*No space left"):
        await Store.open(path, shared=True)
    async with Store.open(path, lock_timeout=0) as store:
        assert store.recovery.clean


async def test_a_damaged_store(path: Path) -> None:
    """It is not shared: whoever opens it hears what is damaged."""
    async with Store.open(path, sync_policy=Always()) as store:
        await store.append(b"x")
    flip(segment_in(path), 100)
    with pytest.raises(CorruptionError):
        await Store.open(path, shared=True)


@pytest.mark.parametrize("shared", [1, None, "yes"])
async def test_what_is_no_truth_value(path: Path, shared: Any) -> None:
    """It is refused, and nothing is made."""
    with pytest.raises(TypeError, match="shared is True or False"):
        Store.open(path, shared=shared)


async def test_the_address_of_a_daemon(tmp_path: Path) -> None:
    """It shares by itself, and so cannot be told to."""
    with pytest.raises(TypeError, match="shared cannot be given"):
        Store.open(f"unix:{tmp_path}/s", shared=True)


@pytest.mark.parametrize("step", range(0, 40, 3))
async def test_an_opening_that_is_cancelled(path: Path, step: int) -> None:
    """It leaves no lock and no socket, at whatever step it is."""
    opening = asyncio.ensure_future(Store.open(path, shared=True).__aenter__())
    for _ in range(step):
        await asyncio.sleep(0.0005)
    opening.cancel()
    with suppress(asyncio.CancelledError):
        await (await opening).aclose()
    async with Store.open(path):  # what is undone on a thread, is so in a moment
        assert not has_socket(path)


# the end of a program


async def test_a_writer_that_is_never_closed(path: Path) -> None:
    """What it has accepted is written at its end, and it leaves no socket behind."""
    async with member(path, "always", "leaves") as writer:
        await writer.append(b"x")
        said = await writer.end()
    assert "was never closed" in said
    assert "may be missing" not in said
    assert not has_socket(path)
    async with Store.open(path, lock_timeout=0) as store:
        assert await data_of(store) == [b"x", b"left 0", b"left 1", b"left 2"]


async def test_another_that_is_never_closed(path: Path, first: Store) -> None:
    """What it has accepted is brought to the one that writes."""
    async with member(path, "always", "leaves") as other:
        await other.append(b"x")
        said = await other.end()
    assert "may be missing" not in said
    assert await data_of(first) == [b"x", b"left 0", b"left 1", b"left 2"]


# file systems


def mountinfo(tmp_path: Path, *mounts: tuple[str, str]) -> str:
    lines = [f"36 35 98:0 / {point} rw - {kind} /dev/x rw\n" for point, kind in mounts]
    file = tmp_path / "mountinfo"
    file.write_text("".join(lines))
    return str(file)


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/srv/audit", "nfs4", "nfs4"),
        ("/srv/with space/audit", "fuse.sshfs", "fuse.sshfs"),
        ("/srvs", "ext4", None),
        ("/", "ext4", None),
        ("/tmp/audit", "tmpfs", None),
    ],
)
async def test_the_file_system_of_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kind: str, network: str | None
) -> None:
    """It is that of the nearest place at which something is mounted, the last one there."""
    mounts = [("/", "ext4"), ("/srv", "ext3"), ("/srv", "nfs4"), ("/tmp", "tmpfs")]
    file = mountinfo(tmp_path, *mounts, (r"/srv/with\040space", "fuse.sshfs"))
    monkeypatch.setattr("aquipu.local.disk.system.MOUNTS", file)
    assert (file_system(path), network_file_system(path)) == (kind, network)


async def test_a_system_that_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of the file system then."""
    monkeypatch.setattr("aquipu.local.disk.system.MOUNTS", "/nowhere")
    assert file_system("/") is None
