"""copied: directories that were copied file by file while their store was being written, each kind
of them put together by hand out of two moments of one store.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from aquipu import Always, CorruptionError, Disk, IncompleteCopyError, Reader, Store
from aquipu.local.check.repair import repairing
from aquipu.local.format.names import ACKNOWLEDGED, HISTORY, MANIFEST
from aquipu.local.retain.manifest import read_manifest
from tests.support import copy_of, data_in, flip, frames_in, segment_in, segments_in

pytestmark = pytest.mark.asyncio

DATA = [b"%03d" % number * 300 for number in range(40)]
"""Four records of this size fill a segment."""


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store that is being written, with segments at 0, 5 and 10."""
    path = tmp_path / "store"
    async with Store.open(path, max_segment_bytes=4096, sync_policy=Always()) as store:
        await append(store, 12)
        yield store


async def append(store: Store, until: int) -> None:
    """Append the records that it does not have yet, up to this one, each as a commit."""
    for data in DATA[store.next_sequence : until]:
        await store.append(data)


def moment(store: Store, name: str) -> Path:
    """All its files, as they are now."""
    return copy_of(Path(store.path), name)


def mixed(early: Path, late: Path, *taken_late: str) -> Path:
    """A copy whose list is of an early moment, and of which some files were read later."""
    path = early.parent / f"mixed-{'-'.join(taken_late)}"
    shutil.copytree(early, path)
    for name in taken_late:
        shutil.copy(late / name, path / name)
    return path


async def records(path: Path) -> list[bytes]:
    """What a reader sees of it, and then a writer, which must be the same."""
    async with Reader.open(path) as reader:
        seen = [record.data async for record in reader.scan()]
    async with Store.open(path) as store:
        found = [record.data async for record in store.scan()]
    assert found[: len(seen)] == seen
    assert data_in(path) == found
    return found


async def refusal(path: Path) -> IncompleteCopyError:
    """What reading, opening and verifying it say, which is the same."""
    with pytest.raises(IncompleteCopyError) as said:
        async with Store.open(path):
            pass
    with pytest.raises(IncompleteCopyError) as seen:
        async with Reader.open(path):
            pass
    assert seen.value.args == said.value.args
    return said.value


async def repaired(path: Path) -> list[bytes]:
    """What is there after a repair."""
    with repairing(Disk(), str(path)) as repair:
        repair.carry_out()
    return await records(path)


async def test_a_copy_of_one_moment(store: Store) -> None:
    """It opens: nothing of it is missing."""
    assert await records(moment(store, "copy")) == DATA[:12]


async def test_its_last_segment_was_sealed_before_it_was_read(store: Store) -> None:
    """The page is of the time of the list: everything that it speaks of is there."""
    early = moment(store, "early")
    last = segments_in(early)[-1].name
    await append(store, 20)
    path = mixed(early, moment(store, "late"), last)
    found = await records(path)
    assert DATA[:12] == found[:12]
    assert found == DATA[: len(found)]
    assert len(found) > 12


async def test_its_last_segment_was_sealed_and_the_page_is_later(store: Store) -> None:
    """The page speaks of records that are missing: it says what is whole, and a repair keeps it."""
    early = moment(store, "early")
    last = segments_in(early)[-1]
    await append(store, 20)
    late = moment(store, "late")
    path = mixed(early, late, last.name, ACKNOWLEDGED)
    whole = frames_in(late, 10)[-1][1].next_sequence
    error = await refusal(path)
    assert error.path == str(path / last.name)
    assert error.reason == (
        "the segment is sealed, but the one behind it is missing, in a copy of a store that had not"
        f" been closed: sequences 0 to {whole - 1} are whole"
    )
    assert await repaired(path) == DATA[:whole]


def with_zeros(path: Path, late: Path, first: int, record: int) -> None:
    """Let the last segment have been read as it grew: a frame came behind the reading."""
    segment = segment_in(late, first).read_bytes()
    offset, header, _ = next(
        frame for frame in frames_in(late, first) if frame[1].next_sequence == record + 1
    )
    hole = segment[:offset] + bytes(header.size) + segment[offset + header.size :]
    segment_in(path, first).write_bytes(hole)


@pytest.mark.parametrize("is_later", [False, True])
async def test_its_last_segment_grew_while_it_was_read(store: Store, is_later: bool) -> None:
    """Zeros, and then frames: what stands behind the zeros is cut off and kept, if the page is
    earlier; otherwise it says that this is a copy, and what is whole.
    """
    early = moment(store, "early")
    await append(store, 14)
    late = moment(store, "late")
    path = mixed(early, late, *([ACKNOWLEDGED] if is_later else []))
    with_zeros(path, late, 10, 12)
    if is_later:
        error = await refusal(path)
        assert "a later frame proves that sequence 12 had been synced, in a copy" in error.reason
        assert error.reason.endswith("sequences 0 to 11 are whole")
        assert (await repaired(path))[:12] == DATA[:12]
        return
    async with Store.open(path) as copy:
        assert copy.recovery.cut_records == 1
        assert copy.recovery.cut_kept_in is not None
        assert copy.recovery.cut_kept_in.startswith(f"{path}/")
    assert await records(path) == DATA[:12]


@pytest.mark.parametrize("is_later", [False, True])
async def test_a_purge_came_between(store: Store, is_later: bool) -> None:
    """The manifest is from before it. If the page knows of it, the copy opens, and again."""
    early = moment(store, "early")
    await store.purge(before=10)
    late = moment(store, "late")
    path = mixed(late, early, MANIFEST, *([] if is_later else [ACKNOWLEDGED]))
    if is_later:
        for _ in range(2):
            async with Store.open(path) as copy:
                assert copy.first_sequence == 10
                assert read_manifest(Disk(), str(path)).first_sequence == 10
        assert data_in(path) == DATA[10:12]
        return
    error = await refusal(path)
    assert error.reason.startswith("the first segment is missing, in a copy")
    assert error.reason.endswith("nothing of it is whole")


async def test_it_was_closed_meanwhile(store: Store) -> None:
    """The manifest is from after that, and says that more was synced."""
    early = moment(store, "early")
    await append(store, 14)
    await store.aclose()
    path = mixed(early, Path(store.path), MANIFEST)
    assert (await refusal(path)).reason.endswith("sequences 0 to 11 are whole")
    path = mixed(early, Path(store.path), MANIFEST, HISTORY)
    assert (await refusal(path)).reason.endswith("sequences 0 to 11 are whole")
    found = await repaired(path)
    assert found == [*DATA[:12], b"", b""]


async def test_a_segment_in_the_middle_is_missing(store: Store) -> None:
    """It says so, and what is whole before it."""
    path = moment(store, "copy")
    segment_in(path, 5).unlink()
    error = await refusal(path)
    assert "sequences 5 to 9 are missing" in error.reason
    assert error.reason.endswith("sequences 0 to 4 are whole")


async def test_a_segment_in_the_middle_was_still_being_written(store: Store) -> None:
    """It has no footer: what it has is whole."""
    early = moment(store, "early")
    await append(store, 20)
    path = mixed(moment(store, "late"), early, segments_in(early)[-1].name)
    assert (await refusal(path)).reason.endswith("sequences 0 to 11 are whole")


# damage


async def damaged(path: Path) -> CorruptionError:
    with pytest.raises(CorruptionError) as caught:
        async with Store.open(path):
            pass
    return caught.value


@pytest.mark.parametrize("number", range(10, 12))
async def test_damage_in_a_copy_is_damage(store: Store, number: int) -> None:
    """Of a store at rest the page says exactly how far it was acknowledged: whatever is damaged
    before that is refused, if a later frame proves it.
    """
    await append(store, 14)
    path = moment(store, "copy")
    for offset, header, _ in frames_in(path, 10):
        if header.first_sequence == number and header.records:
            flip(segment_in(path, 10), offset + 100)
    assert f"sequence {number} had been synced" in (await damaged(path)).reason


async def test_a_last_segment_that_is_missing_from_a_copy(store: Store) -> None:
    """What it held was acknowledged, as the page says."""
    path = moment(store, "copy")
    segment_in(path, 10).unlink()
    assert "the one behind it is missing" in (await damaged(path)).reason


def in_place(path: Path, kept: Path) -> None:
    """Put files into a directory as they were, but for the page, which stays the one that it is."""
    for file in path.iterdir():
        if file.name != ACKNOWLEDGED:
            file.unlink()
    for file in kept.iterdir():
        if file.name != ACKNOWLEDGED:
            shutil.copy(file, path / file.name)


async def test_what_is_no_copy_is_damaged(store: Store) -> None:
    """The same files in the directory of the store itself are damage, and nothing else."""
    early = moment(store, "early")
    last = segments_in(early)[-1].name
    await append(store, 20)
    mix = mixed(early, moment(store, "late"), last)
    await store.aclose()
    in_place(Path(store.path), mix)
    error = await damaged(Path(store.path))
    assert type(error) is CorruptionError
    assert error.reason == "the segment is sealed, but the one behind it is missing"


async def test_a_copy_of_a_closed_store_that_is_damaged(store: Store) -> None:
    """It was whole when it was copied: that it is a copy explains nothing."""
    await store.aclose()
    path = moment(store, "copy")
    segment_in(path, 5).unlink()
    assert type(await damaged(path)) is CorruptionError


async def test_a_page_that_names_no_file(store: Store) -> None:
    """That of an earlier version is believed in nothing."""
    early = moment(store, "early")
    last = segments_in(early)[-1].name
    await append(store, 20)
    path = mixed(early, moment(store, "late"), last)
    page = bytearray((path / ACKNOWLEDGED).read_bytes())
    page[180:192] = bytes(12)
    (path / ACKNOWLEDGED).write_bytes(page)
    assert type(await damaged(path)) is CorruptionError


async def test_the_machine_was_started_anew(store: Store) -> None:
    """A power cut may have come before the copy: then no page proves anything."""
    early = moment(store, "early")
    last = segments_in(early)[-1].name
    await append(store, 20)
    path = mixed(early, moment(store, "late"), last)

    class Started(Disk):
        def life(self) -> bytes:
            return b"another life...."

    with pytest.raises(IncompleteCopyError, match="are whole"):
        async with Store.open(path, disk=Started()):
            pass


# two stores


async def test_a_copy_begins_a_generation(store: Store) -> None:
    """It goes on apart from the store, which is in its own."""
    path = moment(store, "copy")
    async with Store.open(path) as copy:
        assert copy.generation != store.generation


async def test_a_copy_that_was_opened_is_none_any_more(store: Store) -> None:
    """Its page is its own now: damage in it is damage."""
    path = moment(store, "copy")
    async with Store.open(path) as copy:
        await copy.append(b"apart")
    segment_in(path, 5).unlink()
    assert type(await damaged(path)) is CorruptionError
