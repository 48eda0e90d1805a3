"""acknowledged: what the writer says on the page that it shares, and what a reader makes of it."""

from __future__ import annotations

import errno
import logging
import os
import sys
from pathlib import Path
from time import monotonic_ns

import pytest

from aquipu import Always, Store, UnsupportedFormatError, acknowledged
from aquipu.acknowledged import BOARD_BYTES, Board, Glass, Standing
from aquipu.checksum import extend
from aquipu.disk import Disk, Shared
from aquipu.layout import ACKNOWLEDGED
from tests.support import STORE_ID, flip

COPIES = (64, 128)
LIFE = bytes(range(100, 116))


class FullDisk(Disk):
    """A disk without room for one more file."""

    def share(self, path: str, data: bytes) -> Shared:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def put_up(path: Path, standing: Standing = Standing(0, 0, 0)) -> Board:
    return Board.put_up(Disk(), str(path), STORE_ID, standing)


def put_on(path: Path, store_id: bytes = STORE_ID) -> Glass:
    glass = Glass.put_on(Disk(), str(path), store_id)
    assert glass is not None
    return glass


def told_to(store: Store) -> int:
    """How far a reader would see the store now."""
    glass = Glass.put_on(Disk(), store.path, store._journal.catalogue[-1].header.store_id)
    assert glass is not None
    standing = glass.look()
    assert standing is not None
    return standing.told


def test_what_is_said_is_seen_at_once(tmp_path: Path) -> None:
    """Whoever looks sees what was said last, again and again, without opening anything anew."""
    board, glass = put_up(tmp_path, Standing(7, 5, 2)), put_on(tmp_path)
    assert glass.look() == Standing(7, 5, 2)
    for told in range(8, 20):
        board.show(told, told, told - 2, told - 5)
        assert glass.look() == Standing(told, told - 2, told - 5)
    board.close()
    assert glass.look() == Standing(19, 17, 14)


def test_the_bytes_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is laid out as its room says, and all of its bytes have a place on the disk."""
    monkeypatch.setattr(acknowledged, "machine_life", lambda: LIFE)
    before = monotonic_ns()
    put_up(tmp_path, Standing(3, 2, 1)).close()
    file = tmp_path / ACKNOWLEDGED
    data = file.read_bytes()
    assert (len(data), file.stat().st_mode & 0o777) == (BOARD_BYTES, 0o600)
    assert file.stat().st_blocks * 512 >= BOARD_BYTES
    head = b"aquipuAC" + (1).to_bytes(4, "little") + bytes(4) + STORE_ID + LIFE
    head += extend(0, head).to_bytes(4, "little")
    assert data.startswith(head)
    for at in COPIES:
        numbers = data[at + 8 : at + 40]
        assert numbers == b"".join(number.to_bytes(8, "little") for number in (3, 3, 2, 1))
        assert before <= int.from_bytes(data[at + 40 : at + 48], "little") <= monotonic_ns()
        assert data[at + 48 : at + 52] == extend(extend(0, head), data[at : at + 48]).to_bytes(4, "little")


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("offset", range(52))
def test_a_copy_that_is_half_written(tmp_path: Path, offset: int, bit: int) -> None:
    """A copy that does not check is not believed: the other one, of the turn before, is."""
    board, glass = put_up(tmp_path), put_on(tmp_path)
    board.show(1, 1, 0, 0)
    board.show(2, 2, 0, 0)
    latest = max(COPIES, key=lambda at: (tmp_path / ACKNOWLEDGED).read_bytes()[at : at + 8][::-1])
    with open(tmp_path / ACKNOWLEDGED, "r+b") as file:  # in place: it is mapped
        file.seek(latest + offset)
        byte = file.read(1)[0]
        file.seek(latest + offset)
        file.write(bytes([byte ^ 1 << bit]))
    assert glass.look() == Standing(1, 0, 0)
    board.show(3, 3, 0, 0)
    assert glass.look() == Standing(3, 0, 0)


def test_nothing_of_it_checks(tmp_path: Path) -> None:
    """When neither copy checks, nothing was said."""
    put_up(tmp_path).close()
    for at in COPIES:
        flip(tmp_path / ACKNOWLEDGED, at + 48)
    assert put_on(tmp_path).look() is None


def test_less_is_said_after_more(tmp_path: Path) -> None:
    """What was said last counts, also when it is less: a writer that failed is started anew and knows less."""
    board, glass = put_up(tmp_path, Standing(100, 0, 0)), put_on(tmp_path)
    board.show(90, 90, 0, 0)
    assert glass.look() == Standing(90, 0, 0)


def test_the_writer_tells_its_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the writer lives, its callers count as told when all of them have been, however long that takes."""
    monkeypatch.setattr(acknowledged, "_SOON", 0)
    board, glass = put_up(tmp_path), put_on(tmp_path)
    board.show(5, 9, 0, 0)
    assert glass.look() == put_on(tmp_path).look() == Standing(5, 0, 0)
    board.show(9, 9, 0, 0)
    assert glass.look() == Standing(9, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only there a dead writer can be told from a slow one")
def test_the_writer_dies_while_it_tells_its_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the writer is dead, whoever may have been told counts as told, to old readers and new; they ask only when it has
    been telling for a while."""
    board, glass = put_up(tmp_path), put_on(tmp_path)
    board.show(5, 9, 3, 2)
    board.close()
    monkeypatch.setattr(acknowledged, "_SOON", 1 << 62)
    assert glass.look() == Standing(5, 3, 2)
    monkeypatch.setattr(acknowledged, "_SOON", 0)
    assert glass.look() == put_on(tmp_path).look() == Standing(9, 3, 2)
    (tmp_path / ACKNOWLEDGED).unlink()
    assert glass.look() == Standing(5, 3, 2)  # nobody can be asked


def test_a_file_system_where_nobody_can_tell_who_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There all callers must have been told: a writer that lives is never taken for dead."""
    monkeypatch.setattr(acknowledged, "_SOON", 0)
    monkeypatch.setattr(Disk, "is_shared", lambda disk, path: False)
    board, glass = put_up(tmp_path), put_on(tmp_path)
    board.show(5, 9, 0, 0)
    assert glass.look() == Standing(5, 0, 0)


def test_a_writer_that_is_started_anew(tmp_path: Path) -> None:
    """The next writer takes the same file over, so who has been looking goes on seeing."""
    put_up(tmp_path, Standing(5, 0, 0)).close()
    glass = put_on(tmp_path)
    board = put_up(tmp_path, Standing(4, 0, 0))
    assert glass.look() == Standing(4, 0, 0)
    board.show(6, 6, 0, 0)
    assert glass.look() == Standing(6, 0, 0)
    assert glass.identity == put_on(tmp_path).identity


@pytest.mark.parametrize("size", [0, 1, 51, 64, 200, BOARD_BYTES - 1])
def test_a_file_that_is_too_short(tmp_path: Path, size: int) -> None:
    """A file that a look could fall out of is none; the next writer makes it whole."""
    put_up(tmp_path).close()
    os.truncate(tmp_path / ACKNOWLEDGED, size)
    assert Glass.put_on(Disk(), str(tmp_path), STORE_ID) is None
    put_up(tmp_path, Standing(9, 0, 0)).close()
    assert put_on(tmp_path).look() == Standing(9, 0, 0)


def test_no_file(tmp_path: Path) -> None:
    """Without a file, nothing is said."""
    assert Glass.put_on(Disk(), str(tmp_path), STORE_ID) is None


def test_the_file_of_another_store(tmp_path: Path) -> None:
    """What another store said is not believed."""
    put_up(tmp_path).close()
    assert Glass.put_on(Disk(), str(tmp_path), bytes(16)) is None


@pytest.mark.parametrize("offset", [0, 7, 12, 16, 31, 32, 47, 48, 51])
def test_a_damaged_head(tmp_path: Path, offset: int) -> None:
    """A head that does not check says nothing."""
    put_up(tmp_path).close()
    flip(tmp_path / ACKNOWLEDGED, offset)
    assert Glass.put_on(Disk(), str(tmp_path), STORE_ID) is None


def test_a_later_version(tmp_path: Path) -> None:
    """A page in a format that is not known is refused by name."""
    put_up(tmp_path).close()
    flip(tmp_path / ACKNOWLEDGED, 8, 1)
    with pytest.raises(UnsupportedFormatError, match="version 3") as caught:
        Glass.put_on(Disk(), str(tmp_path), STORE_ID)
    assert caught.value.path == str(tmp_path / ACKNOWLEDGED)


def test_the_machine_was_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said before the machine was started anew can still be read, and is told apart."""
    put_up(tmp_path, Standing(5, 0, 0)).close()
    assert put_on(tmp_path).is_live
    monkeypatch.setattr(acknowledged, "machine_life", lambda: LIFE)
    glass = put_on(tmp_path)
    assert not glass.is_live
    assert glass.look() == Standing(5, 0, 0)


def test_a_board_that_was_closed(tmp_path: Path) -> None:
    """After its end nothing more is said, and what was said last stays."""
    board = put_up(tmp_path, Standing(5, 0, 0))
    board.close()
    board.show(6, 6, 0, 0)
    board.close()
    assert put_on(tmp_path).look() == Standing(5, 0, 0)


@pytest.mark.asyncio
async def test_no_space_for_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A store without room for its board is opened and works; the program's log says what that costs."""
    with caplog.at_level(logging.WARNING, "aquipu"):
        async with Store.open(tmp_path, disk=FullDisk()) as store:
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
        assert told_to(store) == 5


@pytest.mark.asyncio
async def test_said_after_the_caller_was_told(tmp_path: Path) -> None:
    """A record is said to be acknowledged only after its own caller, however it appended, has been told."""
    async with Store.open(tmp_path, sync_policy=Always()) as store:
        receipt = await store.append(b"x")
        assert told_to(store) <= receipt.sequence
        receipt = await store.append_nowait(b"x")
        assert told_to(store) <= receipt.sequence
        receipts = await store.append_many([b"x"] * 300)
        assert told_to(store) <= receipts[0].sequence
    assert store.next_sequence == 302
    assert told_to(store) == 302


@pytest.mark.asyncio
async def test_a_purge_is_said(tmp_path: Path) -> None:
    """Where the log begins is said as soon as a purge has moved it, also when nothing more is appended."""
    async with Store.open(tmp_path, max_segment_bytes=4096) as store:
        for _ in range(5):
            await store.append(b"x" * 4096)
        await store.purge(before=3)
        glass = Glass.put_on(Disk(), store.path, store._journal.catalogue[-1].header.store_id)
        assert glass is not None
        standing = glass.look()
        assert standing is not None
        assert standing.first_sequence == store.first_sequence == 3
