"""acknowledged: what the writer says on the page that it shares, and what a reader makes of it."""

from __future__ import annotations

import errno
import logging
import os
import sys
from pathlib import Path
from time import monotonic_ns

import pytest

from aquipu import Always, Store, UnsupportedFormatError
from aquipu.local.disk.disk import Disk
from aquipu.local.format.names import ACKNOWLEDGED
from aquipu.local.format.progress import PAGE_BYTES, Published
from aquipu.local.format.structure import extend
from aquipu.local.read import progress_reader as readers_room
from aquipu.local.read.progress_reader import ProgressReader
from aquipu.local.write import progress_page as writers_room
from aquipu.local.write.progress_page import ProgressPage
from tests.disk import FailingDisk
from tests.support import STORE_ID, engine_of, flip

COPIES = (64, 128)
LIFE = bytes(range(100, 116))


def create(path: Path, published: Published = Published(0, 0, 0)) -> ProgressPage:
    return ProgressPage.create(Disk(), str(path), STORE_ID, published)


def open_page(path: Path, store_id: bytes = STORE_ID) -> ProgressReader:
    reader = ProgressReader.open(Disk(), str(path), store_id)
    assert reader is not None
    return reader


def acknowledged_in(store: Store) -> int:
    """How far a reader would see the store now."""
    reader = ProgressReader.open(
        Disk(), store.path, engine_of(store)._journal.segments[-1].header.store_id
    )
    assert reader is not None
    published = reader.read()
    assert published is not None
    return published.acknowledged


def test_what_is_said_is_seen_at_once(tmp_path: Path) -> None:
    """Whoever looks sees what was said last, again and again, without opening anything anew."""
    page, reader = create(tmp_path, Published(7, 5, 2)), open_page(tmp_path)
    assert reader.read() == Published(7, 5, 2)
    for told in range(8, 20):
        page.publish(told, told, told - 2, told - 5)
        assert reader.read() == Published(told, told - 2, told - 5)
    page.close()
    assert reader.read() == Published(19, 17, 14)


def test_the_bytes_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is laid out as its room says, and all of its bytes have a place on the disk."""
    monkeypatch.setattr(writers_room, "machine_life", lambda: LIFE)
    before = monotonic_ns()
    create(tmp_path, Published(3, 2, 1)).close()
    file = tmp_path / ACKNOWLEDGED
    data = file.read_bytes()
    assert (len(data), file.stat().st_mode & 0o777) == (PAGE_BYTES, 0o600)
    assert file.stat().st_blocks * 512 >= PAGE_BYTES
    head = b"aquipuAC" + (1).to_bytes(4, "little") + bytes(4) + STORE_ID + LIFE
    head += extend(0, head).to_bytes(4, "little")
    assert data.startswith(head)
    for at in COPIES:
        numbers = data[at + 8 : at + 40]
        assert numbers == b"".join(number.to_bytes(8, "little") for number in (3, 3, 2, 1))
        assert before <= int.from_bytes(data[at + 40 : at + 48], "little") <= monotonic_ns()
        assert data[at + 48 : at + 52] == extend(extend(0, head), data[at : at + 48]).to_bytes(
            4, "little"
        )


@pytest.mark.parametrize("offset", range(52))
def test_a_copy_that_is_half_written(tmp_path: Path, offset: int) -> None:
    """A copy that does not check is not believed: the other one, of the turn before, is."""
    page, reader = create(tmp_path), open_page(tmp_path)
    for turn in range(1, 16, 2):
        bit = turn // 2
        page.publish(turn, turn, 0, 0)
        page.publish(turn + 1, turn + 1, 0, 0)
        latest = max(
            COPIES, key=lambda at: (tmp_path / ACKNOWLEDGED).read_bytes()[at : at + 8][::-1]
        )
        with open(tmp_path / ACKNOWLEDGED, "r+b") as file:  # in place: it is open
            file.seek(latest + offset)
            byte = file.read(1)[0]
            file.seek(latest + offset)
            file.write(bytes([byte ^ 1 << bit]))
        assert reader.read() == Published(turn, 0, 0), f"bit {bit}"
    page.publish(17, 17, 0, 0)
    assert reader.read() == Published(17, 0, 0)


def test_nothing_of_it_checks(tmp_path: Path) -> None:
    """When neither copy checks, nothing was said."""
    create(tmp_path).close()
    for at in COPIES:
        flip(tmp_path / ACKNOWLEDGED, at + 48)
    assert open_page(tmp_path).read() is None


def test_less_is_said_after_more(tmp_path: Path) -> None:
    """What was said last counts, also when it is less: a writer that failed is started anew and
    knows less.
    """
    page, reader = create(tmp_path, Published(100, 0, 0)), open_page(tmp_path)
    page.publish(90, 90, 0, 0)
    assert reader.read() == Published(90, 0, 0)


def test_the_writer_acknowledges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the writer lives, its callers count as told when all of them have been, however
    long that takes.
    """
    monkeypatch.setattr(readers_room, "_SOON", 0)
    page, reader = create(tmp_path), open_page(tmp_path)
    page.publish(5, 9, 0, 0)
    assert reader.read() == open_page(tmp_path).read() == Published(5, 0, 0)
    page.publish(9, 9, 0, 0)
    assert reader.read() == Published(9, 0, 0)


@pytest.mark.skipif(
    sys.platform != "linux", reason="only there a dead writer can be told from a slow one"
)
def test_the_writer_dies_while_it_acknowledges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the writer is dead, whoever may have been told counts as told, to old readers and new;
    they ask only when it has been telling for a while.
    """
    page, reader = create(tmp_path), open_page(tmp_path)
    page.publish(5, 9, 3, 2)
    page.close()
    monkeypatch.setattr(readers_room, "_SOON", 1 << 62)
    assert reader.read() == Published(5, 3, 2)
    monkeypatch.setattr(readers_room, "_SOON", 0)
    assert reader.read() == open_page(tmp_path).read() == Published(9, 3, 2)
    (tmp_path / ACKNOWLEDGED).unlink()
    assert reader.read() == Published(5, 3, 2)  # nobody can be asked


def test_a_file_system_where_nobody_can_tell_who_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There all callers must have been told: a writer that lives is never taken for dead."""
    monkeypatch.setattr(readers_room, "_SOON", 0)
    monkeypatch.setattr(Disk, "is_shared", lambda disk, path: False)
    page, reader = create(tmp_path), open_page(tmp_path)
    page.publish(5, 9, 0, 0)
    assert reader.read() == Published(5, 0, 0)


def test_a_writer_that_is_started_anew(tmp_path: Path) -> None:
    """The next writer takes the same file over, so who has been looking goes on seeing."""
    create(tmp_path, Published(5, 0, 0)).close()
    reader = open_page(tmp_path)
    page = create(tmp_path, Published(4, 0, 0))
    assert reader.read() == Published(4, 0, 0)
    page.publish(6, 6, 0, 0)
    assert reader.read() == Published(6, 0, 0)
    assert reader.identity == open_page(tmp_path).identity


@pytest.mark.parametrize("size", [0, 1, 51, 64, 100, 127, 179])
def test_a_file_that_is_too_short(tmp_path: Path, size: int) -> None:
    """What was cut off says nothing; the next writer makes it whole."""
    create(tmp_path).close()
    os.truncate(tmp_path / ACKNOWLEDGED, size)
    assert ProgressReader.open(Disk(), str(tmp_path), STORE_ID) is None
    create(tmp_path, Published(9, 0, 0)).close()
    assert open_page(tmp_path).read() == Published(9, 0, 0)
    assert (tmp_path / ACKNOWLEDGED).stat().st_size == PAGE_BYTES


@pytest.mark.parametrize("size", [0, 1, 51, 64, 100, 127, 179, 200])
def test_the_file_is_cut_off_under_those_who_use_it(tmp_path: Path, size: int) -> None:
    """It ends nobody's process: a reader goes by what it saw last, and whatever the writer says
    next is there whole.
    """
    page, reader = create(tmp_path), open_page(tmp_path)
    page.publish(7, 7, 5, 2)
    assert reader.read() == Published(7, 5, 2)
    os.truncate(tmp_path / ACKNOWLEDGED, size)
    assert reader.read() == Published(7, 5, 2)
    page.publish(8, 8, 5, 2)
    assert reader.read() == open_page(tmp_path).read() == Published(8, 5, 2)


def test_the_file_is_emptied_and_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A page that cannot be written stops nothing, is said once, and is there again as soon as
    there is space.
    """

    def full(disk: Disk, descriptor: int, data: bytes | bytearray) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    page, reader = create(tmp_path, Published(1, 0, 0)), open_page(tmp_path)
    assert reader.read() == Published(1, 0, 0)
    os.truncate(tmp_path / ACKNOWLEDGED, 0)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "aquipu"):
        patch.setattr(Disk, "publish", full)
        page.publish(2, 2, 0, 0)
        page.publish(3, 3, 0, 0)
    assert caplog.text.count("readers in other processes") == 1
    assert reader.read() == Published(1, 0, 0)
    page.publish(4, 4, 0, 0)
    assert reader.read() == open_page(tmp_path).read() == Published(4, 0, 0)


def test_nothing_is_left_open(tmp_path: Path) -> None:
    """A reader gives its descriptor back when nobody looks any more, and when what it found is no
    page of this store.
    """
    create(tmp_path).close()
    before = len(os.listdir("/dev/fd"))
    reader = open_page(tmp_path)
    assert ProgressReader.open(Disk(), str(tmp_path), bytes(16)) is None
    assert len(os.listdir("/dev/fd")) == before + 1
    del reader
    assert len(os.listdir("/dev/fd")) == before


def test_no_file(tmp_path: Path) -> None:
    """Without a file, nothing is said."""
    assert ProgressReader.open(Disk(), str(tmp_path), STORE_ID) is None


def test_the_file_of_another_store(tmp_path: Path) -> None:
    """What another store said is not believed."""
    create(tmp_path).close()
    assert ProgressReader.open(Disk(), str(tmp_path), bytes(16)) is None


@pytest.mark.parametrize("offset", [0, 7, 12, 16, 31, 32, 47, 48, 51])
def test_a_damaged_head(tmp_path: Path, offset: int) -> None:
    """A head that does not check says nothing."""
    create(tmp_path).close()
    flip(tmp_path / ACKNOWLEDGED, offset)
    assert ProgressReader.open(Disk(), str(tmp_path), STORE_ID) is None


def test_a_later_version(tmp_path: Path) -> None:
    """A page in a format that is not known is refused by name."""
    create(tmp_path).close()
    flip(tmp_path / ACKNOWLEDGED, 8, 1)
    with pytest.raises(UnsupportedFormatError, match="version 3") as caught:
        ProgressReader.open(Disk(), str(tmp_path), STORE_ID)
    assert caught.value.path == str(tmp_path / ACKNOWLEDGED)


def test_the_machine_was_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said before the machine was started anew can still be read, and is told apart."""
    create(tmp_path, Published(5, 0, 0)).close()
    assert open_page(tmp_path).is_live
    monkeypatch.setattr(readers_room, "machine_life", lambda: LIFE)
    reader = open_page(tmp_path)
    assert not reader.is_live
    assert reader.read() == Published(5, 0, 0)


def test_a_page_that_was_closed(tmp_path: Path) -> None:
    """After its end nothing more is said, and what was said last stays."""
    page = create(tmp_path, Published(5, 0, 0))
    page.close()
    page.publish(6, 6, 0, 0)
    page.close()
    assert open_page(tmp_path).read() == Published(5, 0, 0)


@pytest.mark.asyncio
async def test_no_space_for_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A store without room for its page is opened and works; the program's log says what that
    costs.
    """
    disk = FailingDisk()
    disk.fail("share", errno.ENOSPC)
    with caplog.at_level(logging.WARNING, "aquipu"):
        async with Store.open(tmp_path, disk=disk) as store:
            assert (await store.append(b"x")).sequence == 0
    assert not (tmp_path / ACKNOWLEDGED).exists()
    assert "readers in other processes" in caplog.text


@pytest.mark.asyncio
async def test_a_store_says_what_it_found(tmp_path: Path) -> None:
    """What opening found is as good as acknowledged: it is said before the store is handed out."""
    async with Store.open(tmp_path) as store:
        await store.append_many([b"x"] * 5)
    (tmp_path / ACKNOWLEDGED).unlink()
    async with Store.open(tmp_path) as store:
        assert acknowledged_in(store) == 5


@pytest.mark.asyncio
async def test_published_after_the_caller_was_acknowledged(tmp_path: Path) -> None:
    """A record is said to be acknowledged only after its own caller, however it appended, has been
    told.
    """
    async with Store.open(tmp_path, sync_policy=Always()) as store:
        receipt = await store.append(b"x")
        assert acknowledged_in(store) <= receipt.sequence
        receipt = await store.append_nowait(b"x")
        assert acknowledged_in(store) <= receipt.sequence
        receipts = await store.append_many([b"x"] * 300)
        assert acknowledged_in(store) <= receipts[0].sequence
    assert store.next_sequence == 302
    assert acknowledged_in(store) == 302


@pytest.mark.asyncio
async def test_a_purge_is_said(tmp_path: Path) -> None:
    """Where the log begins is said as soon as a purge has moved it, also when nothing more is
    appended.
    """
    async with Store.open(tmp_path, max_segment_bytes=4096) as store:
        for _ in range(5):
            await store.append(b"x" * 4096)
        await store.purge(before=3)
        reader = ProgressReader.open(
            Disk(), store.path, engine_of(store)._journal.segments[-1].header.store_id
        )
        assert reader is not None
        published = reader.read()
        assert published is not None
        assert published.first_sequence == store.first_sequence == 3
