"""What must hold on any server that keeps objects, whoever made it.

Each is given what makes an archive of a prefix, and a directory of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from threading import Event

import pytest

from aquipu import (
    Archive,
    ArchiveTakenError,
    ArchiveUnavailableError,
    NoArchiveError,
    Reader,
    RecordPurgedError,
    Stage,
    Store,
)
from aquipu.archive.bucket import Different
from aquipu.archive.check import Checking
from aquipu.archive.fetch import read_state
from aquipu.archive.format.keys import SEGMENTS
from aquipu.archive.purge import purge
from aquipu.archive.restore import Restoring, Until
from aquipu.archive.uploader import Uploader
from aquipu.local.disk.disk import Disk
from tests.archive.made import JournalLog, append, data_of, opened
from tests.support import data_in

At = Callable[[str], Archive]
"""Gives the archive under a prefix of a bucket that is there."""


def an_object_is_put_once(at: At, directory: Path) -> None:
    """It is there, or another is; nothing is ever put in its place."""
    objects = at("once and for all").bucket()
    objects.put_new("entries/1", b"mine")
    objects.put_new("entries/1", b"mine")
    with pytest.raises(Different):
        objects.put_new("entries/1", b"another's")
    assert objects.list("entries") == {"entries/1": 4}
    assert objects.get("entries/1") == b"mine"
    assert objects.get("entries/2") is None
    assert objects.ranges("entries/1", [(1, 3)]) == [b"in"]
    with pytest.raises(FileNotFoundError):
        objects.ranges("entries/2", [(1, 3)])
    objects.put_new("entries/3", b"")
    assert objects.get("entries/3") == b""
    objects.remove(["entries/1", "entries/2", "entries/3"])
    assert objects.list("entries") == {}


def there_and_back(at: At, directory: Path) -> None:
    """A log is carried there beside its writer, taken over by another machine, and restored."""
    journal, archive = opened(directory / "store"), at("audit")
    with pytest.raises(NoArchiveError):
        read_state(archive.bucket())
    first = Uploader(archive.bucket(), JournalLog(journal), "the first")
    for begin in range(0, 30, 6):
        append(journal, range(begin, begin + 6))
        assert first.catch_up() == begin + 6
    restore(archive, directory / "copy", range(30))
    copy = opened(directory / "copy")
    append(copy, range(30, 33))
    second = Uploader(archive.bucket(), JournalLog(copy), "the second")
    assert second.catch_up() == 33
    append(journal, range(30, 31))
    with pytest.raises(ArchiveTakenError, match="is of the second"):
        first.catch_up()
    assert purge(archive.bucket(), 15, None, "the third", Event(), False).first_sequence == 15
    append(copy, range(33, 36))
    assert second.catch_up() == 36
    restore(archive, directory / "rest", range(15, 36))
    journal.close()
    copy.close()
    checked = Checking(archive.bucket(), Disk(), str(directory / "copy"), Event(), None).carry_out()
    assert (checked.next_sequence, checked.problems) == (36, [])


def restore(archive: Archive, place: Path, numbers: range) -> None:
    """Restore it; these records must be there."""
    Restoring(archive.bucket(), Disk(), str(place), Until(), Event()).carry_out()
    assert data_in(place) == [data_of(number) for number in numbers]


def by_the_face(at: At, directory: Path) -> None:
    """A store is opened with it, a record waited for, read and followed there, and purged."""
    asyncio.run(_by_the_face(at("orders"), directory / "store"))


async def _by_the_face(archive: Archive, path: Path) -> None:
    async with Store.open(path, archive=archive, max_segment_bytes=4096) as store:
        async with asyncio.timeout(60):
            for number in range(20):
                receipt = await store.append(data_of(number), relations=(f"user:{number % 5}",))
            await store.reached(Stage.ARCHIVED, receipt.sequence)
            async with Reader.open(archive) as reader, reader.follow(start=0) as records:
                found = [await anext(records) for _ in range(20)]
                assert [one.data for one in found] == [data_of(number) for number in range(20)]
                await store.append(b"later")
                assert (await anext(records)).data == b"later"
                hits = [one.sequence async for one in reader.scan(relation="user:3")]
                assert hits == [3, 8, 13, 18]
    bucket = archive.bucket()
    await asyncio.to_thread(purge, bucket, 10, None, "another", Event(), False)
    async with Reader.open(archive) as reader:
        with pytest.raises(RecordPurgedError):
            await reader.get(0)


def large_objects(at: At, directory: Path) -> None:
    """One of many megabytes comes back as it was put, also in parts."""
    body = Random(1).randbytes(40 * 1024 * 1024)
    bucket = at("large").bucket()
    bucket.put_new(f"{SEGMENTS}/large", body)
    assert bucket.get(f"{SEGMENTS}/large") == body
    begin, end = 10_000_000, 11_000_000
    assert bucket.ranges(f"{SEGMENTS}/large", [(begin, end)]) == [body[begin:end]]


def long_listings(at: At, directory: Path) -> None:
    """All names come, also when there are more than fit into one answer; they go in few."""
    bucket = at("many").bucket()
    names = {f"entries/{number:020d}" for number in range(1_030)}
    for name in names:
        bucket.put_new(name, b"")
    assert bucket.list("entries").keys() == names
    before = bucket.requests
    bucket.remove(sorted(names))
    assert (bucket.list("entries"), bucket.requests - before) == ({}, 3)


CONTRACT = (an_object_is_put_once, there_and_back, by_the_face)
"""What is tested with each server."""
SLOW = (large_objects, long_listings)
"""What takes a while, and depends on the server alone."""


def no_bucket(archive: Archive, *secrets: str) -> None:
    """Whatever is asked for, it is said that there is none."""
    bucket = archive.bucket()
    for ask in (
        lambda: bucket.put_new("a", b""),
        lambda: bucket.get("a"),
        lambda: bucket.list("a"),
        lambda: bucket.ranges("a", [(0, 1)]),
    ):
        refused(ask, "there is no such bucket", *secrets)


def refused(ask: Callable[[], object], words: str, *secrets: str) -> str:
    """Ask; it must be refused in these words, without a secret. Return what was said."""
    try:
        ask()
    except ArchiveUnavailableError as error:
        said = str(error)
        assert words in said, said
        assert not any(secret in said for secret in secrets), said
        return said
    raise AssertionError("it was not refused")
