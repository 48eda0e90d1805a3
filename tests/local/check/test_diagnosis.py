"""A diagnosis: what stands on the disk of a store, seen without touching it."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from aquipu import Always, Disk, EveryN, Store, UnsupportedFormatError
from aquipu.local.check.diagnosis.diagnose import diagnose, writer_at
from aquipu.local.check.diagnosis.facts import (
    Diagnosis,
    IndexState,
    Kind,
    State,
    Weight,
)
from aquipu.local.check.diagnosis.file_systems import warning_about
from aquipu.local.check.diagnosis.stretches import stretches_of, with_torn_tail
from aquipu.local.check.indexes import build_indexes
from aquipu.local.check.inspect import Writer, examined
from aquipu.local.check.repair import repairing
from aquipu.local.disk.lock import Lock
from aquipu.local.disk.system import locked_by, process_state
from aquipu.local.format.names import MANIFEST, relations_name
from aquipu.local.format.segment import plain_bytes_in
from tests.disk import FailingDisk
from tests.remote.daemon.served import until
from tests.support import copy_of, flip, frames_in, segment_in, segments_in, snapshot

LOOKS = frozenset(
    {"close", "exists", "free", "identity", "is_shared", "life", "list", "look_into", "open"}
    | {"pin", "read", "seen", "size", "whereabouts"}
)
"""Calls of a disk that change nothing and lock nothing."""


async def fill(store: Store, number: int = 12) -> None:
    for _ in range(number):
        await store.append(bytes(1000), relations=("label",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store that was closed: records 0 to 11, four in each sealed segment."""

    async def make() -> None:
        async with Store.open(tmp_path / "store", sync_policy=Always()) as store:
            for number in range(12):
                if number and number % 4 == 0:
                    await store.roll()
                await store.append(bytes(1000), relations=("label",))

    asyncio.run(make())
    sealed = examined(Disk(), str(tmp_path / "store")).sealed
    build_indexes(Disk(), sealed, anew=False, progress=lambda size: None)
    return tmp_path / "store"


def seen(path: Path, disk: Disk | None = None, **options: Any) -> Diagnosis:
    return diagnose(disk or Disk(), str(path), **options)


# sound stores


def test_a_store_that_was_closed(path: Path) -> None:
    """It is sound, everything in it is proven, and an opening has nothing to mend."""
    found = seen(path)
    assert (found.first_sequence, found.next_sequence, found.records) == (0, 12, 12)
    assert (found.synced_sequence, found.ending, found.writer) == (12, "closed", None)
    assert not found.is_damaged
    assert found.opening == ("go on where the log ends: there is nothing to mend",)
    assert [one.state for one in found.segments] == [State.SEALED, State.SEALED, State.ACTIVE]
    assert [one.next_sequence for one in found.segments] == [4, 8, 12]
    assert [one.frames for one in found.segments] == [4, 4, 5]
    assert {one.mode for one in found.segments} == {"0600"}
    assert found.place.mode == "0700"
    assert found.bytes == sum(file.stat().st_size for file in path.iterdir())


def test_nothing_is_changed_and_nothing_is_locked(path: Path) -> None:
    """No byte, no name and no time of a file; and no call of the disk that could."""
    disk, before = FailingDisk(), snapshot(path)
    seen(path, disk)
    assert snapshot(path) == before
    assert {call.method for call in disk.calls} <= LOOKS
    lock = Lock.take(Disk(), str(path))
    assert lock is not None
    seen(path)
    lock.release()


def test_a_torn_tail_is_explained(path: Path) -> None:
    """Where it is, why it is one, and what an opening does about it, which it then does."""
    last = segments_in(path)[-1]
    offset = last.stat().st_size
    last.write_bytes(last.read_bytes() + b"half a commit")
    found = seen(path)
    assert found.torn_tail is not None
    assert (found.torn_tail.offset, found.torn_tail.bytes) == (offset, 13)
    assert not found.is_damaged
    assert found.segments[-1].stretches[-1] == (Kind.TORN, offset, 13)
    kept = f"00000000000000000008.cut-{offset}"
    assert any("cut 13 bytes off" in step and kept in step for step in found.opening)
    assert any("torn tail of 13 bytes" in remark.text for remark in found.remarks)

    async def opened() -> None:
        async with Store.open(path):
            pass

    asyncio.run(opened())
    assert (path / kept).read_bytes() == b"half a commit"
    (other,) = seen(path).others
    assert (other.name, other.what, other.bytes) == (kept, "kept aside", 13)


def test_a_missing_index_and_what_is_not_the_stores_own(path: Path) -> None:
    """They are noted, and are no damage; a pipe of an odd name is not opened."""
    for file in path.glob("*.relations"):
        file.unlink()
    os.mkfifo(path / "\x1b[31m")
    found = seen(path)
    assert [one.index for one in found.segments] == [
        IndexState.MISSING,
        IndexState.MISSING,
        IndexState.NONE,
    ]
    assert [(one.name, one.what) for one in found.others] == [("\x1b[31m", "unknown")]
    assert {remark.weight for remark in found.remarks if "label index" in remark.text} == {
        Weight.NOTE
    }
    assert not found.is_damaged


# damage


def test_a_flipped_bit_and_what_repair_would_save(path: Path) -> None:
    """The frame is shown as damaged, and no other; repair does what is said, and loses as much."""
    offset, header, _ = frames_in(path)[1]
    flip(segment_in(path), offset + 100)
    found = seen(path)
    assert found.is_damaged
    assert found.refusal is None
    (damage,) = found.damages
    assert (damage.path, damage.offset) == (str(segment_in(path)), offset)
    (action,) = found.repair
    assert (action.offset, action.bytes, action.lost) == (offset, header.size, 1)
    assert (Kind.DAMAGE, offset, header.size) in found.segments[0].stretches
    assert found.segments[0].state is State.DAMAGED
    assert seen(path, whole=False).damages == ()
    with repairing(Disk(), str(path)) as repair:
        assert tuple(repair.plan) == found.repair


def test_a_missing_segment(path: Path) -> None:
    """It has a line of its own, and the one behind it is not blamed; opening would refuse."""
    segment_in(path, 4).unlink()
    found = seen(path)
    states = [(one.first_sequence, one.state) for one in found.segments]
    assert states == [(0, State.SEALED), (4, State.MISSING), (8, State.ACTIVE)]
    assert found.refusal is not None
    assert found.refusal.startswith("CorruptionError: ")
    assert found.next_sequence is None
    assert sum(action.lost for action in found.repair) == 4
    assert found.opening == ("refuse the store, and change nothing",)


def test_a_manifest_that_does_not_check(path: Path) -> None:
    """What the segments hold is shown all the same: they say which store this is."""
    before = seen(path)
    flip(path / MANIFEST, 20)
    found = seen(path)
    assert found.is_damaged
    assert found.store_id == before.store_id
    assert [one.frames for one in found.segments] == [4, 4, 5]


def test_an_index_that_is_damaged(path: Path) -> None:
    """It is damage of that file; the segment itself is whole."""
    index = path / relations_name(0)
    flip(index, 30)
    found = seen(path)
    assert found.segments[0].index is IndexState.DAMAGED
    assert found.segments[0].state is State.SEALED
    assert found.is_damaged


def test_a_later_format_is_no_damage(path: Path) -> None:
    """It is refused as opening refuses it."""
    manifest = bytearray((path / MANIFEST).read_bytes())
    manifest[8] += 1
    (path / MANIFEST).write_bytes(manifest)
    with pytest.raises(UnsupportedFormatError):
        seen(path)


@pytest.mark.parametrize("offset", range(0, 4200, 150))
def test_no_damage_keeps_it_from_looking(path: Path, offset: int) -> None:
    """Wherever a byte is wrong, every file is explained from its beginning to its end."""
    flip(segment_in(path), offset % segment_in(path).stat().st_size, 3)
    found = seen(path)
    assert found.is_damaged
    for one in found.segments:
        assert sum(part.bytes for part in one.stretches) == one.bytes


# beside a writer


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store at work: everything acknowledged, nothing synced."""
    policy = EveryN(1000, within=None)
    async with Store.open(tmp_path / "store", sync_policy=policy) as store:
        await fill(store, 5)
        yield store


@pytest.mark.asyncio
async def test_beside_its_writer(store: Store) -> None:
    """It says who writes, and shows what readers see; the writer keeps its lock and goes on."""
    await store.cursor("mail").save(2)
    await store.hold("audit", 1)
    found = await asyncio.to_thread(seen, Path(store.path))
    assert found.writer == Writer(os.getpid(), shared=False)
    assert (found.next_sequence, found.ending, found.torn_tail) == (5, None, None)
    assert [(one.name, one.sequence, one.records) for one in found.cursors] == [("mail", 2, 3)]
    assert [(one.name, one.sequence, one.records) for one in found.holds] == [("audit", 1, 4)]
    assert not found.is_damaged
    assert found.opening[0].startswith("wait for the process that writes it")
    await fill(store, 1)


@pytest.mark.asyncio
async def test_segments_that_are_compressed(tmp_path: Path) -> None:
    """They are sealed as the others, and it is said what that has saved."""
    path = tmp_path / "store"
    async with Store.open(path, sync_policy=Always(), compress=True) as store:
        await fill(store, 5)
        await store.roll()
        await until(lambda: plain_bytes_in(segment_in(path).read_bytes()[:64]) > 0)
        found = await asyncio.to_thread(seen, path)
    assert [one.state for one in found.segments] == [State.SEALED, State.ACTIVE]
    assert found.segments[0].plain_bytes > found.segments[0].bytes
    assert (found.segments[1].plain_bytes, found.records, found.is_damaged) == (0, 5, False)
    assert seen(path).segments[0].stretches[1].kind is Kind.FRAMES


@pytest.mark.asyncio
async def test_a_copy_of_a_store_at_work(store: Store) -> None:
    """It says that it is a copy: of one that is whole, and of one that is not."""
    whole = copy_of(Path(store.path), "whole")
    found = await asyncio.to_thread(seen, whole)
    assert (found.copy, found.writer, found.is_damaged) == (True, None, False)
    await store.roll()
    await fill(store, 1)
    half = copy_of(Path(store.path), "half")
    segment_in(half, 5).unlink()
    found = await asyncio.to_thread(seen, half)
    assert found.copy
    assert found.refusal is not None
    assert found.refusal.startswith("IncompleteCopyError")
    assert any("aquipu backup" in remark.text for remark in found.remarks)


@pytest.mark.asyncio
async def test_a_writer_that_goes_during_the_look(store: Store, tmp_path: Path) -> None:
    """It is looked at once more, as it is then."""
    loop = asyncio.get_running_loop()
    disk = FailingDisk()
    disk.before(
        "list", lambda: asyncio.run_coroutine_threadsafe(store.aclose(), loop).result(), nth=2
    )
    found = await asyncio.to_thread(seen, tmp_path / "store", disk)
    assert (found.writer, found.ending) == (None, "closed")


def test_who_writes_is_found_without_the_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the system's list of locks, or else by the mark on the writer's page."""
    assert writer_at(Disk(), str(path)) is None
    lock = Lock.take(Disk(), str(path))
    assert lock is not None
    found = writer_at(Disk(), str(path))
    monkeypatch.setattr("aquipu.local.disk.system.LOCKS", "/nowhere")
    assert locked_by([Disk().identity(str(path))]) is None
    assert writer_at(Disk(), str(path)) is None  # it has the lock, and has not published anything
    lock.release()
    assert found == Writer(os.getpid(), shared=False)


def test_the_state_of_a_process() -> None:
    """This one runs, and one that was waited for is gone."""
    assert process_state(os.getpid()) == "running"
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    assert process_state(child) == "gone"


# pure parts


@given(
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.lists(st.tuples(st.integers(0, 12_000), st.none() | st.integers(0, 5000)), max_size=4),
    st.tuples(st.integers(0, 10_000), st.integers(0, 5000)),
)
def test_stretches_cover_a_file(
    size: int, end: int, damages: list[tuple[int, int | None]], torn: tuple[int, int]
) -> None:
    """Each byte is in just one of them, and no two neighbours are of a kind."""
    stretches = stretches_of(size, end, Kind.UNWRITTEN, damages)
    if torn[0] + torn[1] <= size:
        stretches = with_torn_tail(stretches, *torn)
    at = 0
    for one in stretches:
        assert (one.offset, one.bytes > 0) == (at, True)
        at += one.bytes
    assert at == size
    assert all(a.kind is not b.kind for a, b in itertools.pairwise(stretches))
    if damages and size and not torn[1]:
        assert any(one.kind is Kind.DAMAGE for one in stretches)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("tmpfs", "memory"),
        ("overlay", "container"),
        ("nfs4", "network"),
        ("fuse.rclone", "FUSE"),
        ("ext4", None),
        ("xfs", None),
        ("btrfs", None),
        (None, None),
    ],
)
def test_a_file_system_that_does_not_keep(kind: str | None, word: str | None) -> None:
    """It is warned of, in the words of what may happen; where a store is at home nothing is."""
    warning = warning_about(kind)
    assert warning is None if word is None else warning is not None and word in warning


def test_rights_that_let_everyone_write(path: Path, tmp_path: Path) -> None:
    """It is warned of; and so is a store of which the files differ."""
    shutil.copytree(path, tmp_path / "open")
    segment_in(tmp_path / "open").chmod(0o666)
    texts = [remark.text for remark in seen(tmp_path / "open").remarks]
    assert any("every user may write here (mode 0666)" in text for text in texts)
    assert any("different rights (0600, 0666)" in text for text in texts)
