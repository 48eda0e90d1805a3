"""The runs: backups, backups that are killed, and copies by other means, beside a writer.

Each returns how often what has happened, and yields no result for what must not: it raises.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from time import sleep

from aquipu import Backup, BackupRefusedError, IncompleteCopyError, OsManaged, Reader, Store
from aquipu.local.check.verify import verify_all
from aquipu.local.cursor import hold_beside_writer
from aquipu.local.disk.disk import Disk
from aquipu.local.format.names import BookmarkKind
from aquipu.local.retain.bookmarks import remove_bookmark
from tests.backups.writer import data_of, writing

MIB = 1024 * 1024
SEGMENT_BYTES = (MIB // 4, MIB, 8 * MIB, 64 * MIB)
RETENTION_BYTES = 32 * MIB
"""So that a run does not fill the disk, and purges come between."""
_BACKED_UP_BYTES = 8 * MIB
"""The same for backups, which take their time beside a writer at full speed."""
_KILLED_AFTER = 1.0  # seconds at most
TOOLS: dict[str, str] = {
    "cp": "cp -a {store} {copy}",
    "tar": "mkdir {copy} && tar -C {store} -cf - . | tar -C {copy} -xf -",
    "rsync": "rsync -a {store}/ {copy}/",
}


async def check(place: Path, reached: int) -> int:
    """Raise unless it verifies, opens for writing, and is the log up to this sequence at least."""
    verdict = verify_all(Disk(), str(place))
    assert verdict.damages == [], verdict.damages
    async with Store.open(place) as store:
        first, following = store.first_sequence, store.next_sequence
        assert following >= reached, f"{place} ends before {following}, not at {reached}"
        sequence = first
        async for record in store.scan():
            assert (record.sequence, record.data) == (sequence, data_of(sequence)), sequence
            sequence += 1
        assert sequence == following
    return following


async def one_backup(store: Path, place: Path) -> int:
    """Make a backup; it must reach what was acknowledged when it began."""
    async with Reader.open(store) as reader:
        reached = reader.next_sequence
        done = await reader.backup(place)
    assert done.next_sequence >= reached
    return await check(place, reached)


def backups(directory: Path, count: int, segment_bytes: int) -> Counter[str]:
    """Make so many backups, every other one to the place of the one before, which it goes on with.

    With small segments a hold keeps what the second of two is to copy. With larger ones that would
    be too much, beside such a writer: there, when a purge was quicker, the second takes a new
    place, as it is told to.
    """
    counts: Counter[str] = Counter()
    store, place, is_held = directory / "store", directory / "backup", segment_bytes <= MIB
    with writing(store, segment_bytes, _BACKED_UP_BYTES):
        for number in range(count):
            is_first = number % 2 == 0
            if is_first:
                shutil.rmtree(place, ignore_errors=True)
                if is_held:
                    hold_from_now_on(store)
            try:
                asyncio.run(one_backup(store, place))
                counts["whole" if is_first else "gone on with"] += 1
            except BackupRefusedError as refused:
                if is_first or is_held or "purged" not in refused.reason:
                    raise
                shutil.rmtree(place)
                asyncio.run(one_backup(store, place))
                counts["begun anew"] += 1
    return counts


def hold_from_now_on(store: Path) -> None:
    """Let go of all that there is, and keep what comes then."""
    disk, path = Disk(), str(store)
    remove_bookmark(disk, path, BookmarkKind.HOLD, "backups")
    _, end = asyncio.run(bounds(store))
    while asyncio.run(bounds(store))[0] < end:
        sleep(0.01)  # the writer goes on, and its retention lets go of what is older
    while not hold_beside_writer(disk, path, "backups", asyncio.run(bounds(store))[1]):
        sleep(0.01)


async def bounds(store: Path) -> tuple[int, int]:
    """Return the first sequence that is kept, and one past the last acknowledged one."""
    async with Reader.open(store) as reader:
        return reader.first_sequence, reader.next_sequence


def again(directory: Path, megabytes: int, new_megabytes: int) -> Counter[str]:
    """Back up a store at rest, and again when some of it is new: return what was copied, in MB."""
    store, place = directory / "store", directory / "backup"
    counts: Counter[str] = Counter()
    for what, size in (("first", megabytes), ("second", new_megabytes)):
        asyncio.run(_grown(store, size))
        done = asyncio.run(_backed_up(store, place))
        counts[f"MB copied by the {what}"] = round(done.copied_bytes / 1e6)
    assert asyncio.run(check(place, 0)) == done.next_sequence
    return counts


async def _grown(store: Path, megabytes: int) -> None:
    """Append about so many megabytes."""
    async with Store.open(store, sync_policy=OsManaged()) as log:
        for _ in range(megabytes):
            first = log.next_sequence
            await log.append_many([data_of(n) for n in range(first, first + 7_000)])


async def _backed_up(store: Path, place: Path) -> Backup:
    async with Reader.open(store) as reader:
        return await reader.backup(place)


def killed(directory: Path, count: int, segment_bytes: int, seed: int) -> Counter[str]:
    """Kill so many backups at random moments: what is left opens, and the next one goes on."""
    counts: Counter[str] = Counter()
    random, place = Random(seed), directory / "backup"
    command = [sys.executable, "-m", "aquipu", "backup", str(directory / "store"), str(place)]
    with writing(directory / "store", segment_bytes):
        for number in range(count):
            if number % 4 == 0:
                shutil.rmtree(place, ignore_errors=True)
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
                try:
                    process.wait(random.uniform(0.3, 0.3 + _KILLED_AFTER))
                    counts["ended by itself"] += 1
                except subprocess.TimeoutExpired:
                    process.kill()
                    counts["killed"] += 1
            if (place / "manifest").exists():
                asyncio.run(check(place, 0))
                counts["left a backup"] += 1
            asyncio.run(one_backup(directory / "store", place))
    return counts


def copies(directory: Path, count: int, segment_bytes: int, tool: str) -> Counter[str]:
    """Make so many copies by other means: each opens, or says that it is one."""
    counts: Counter[str] = Counter()
    with writing(directory / "store", segment_bytes, RETENTION_BYTES):
        for _ in range(count):
            copy = directory / "copy"
            command = TOOLS[tool].format(store=directory / "store", copy=copy)
            subprocess.run(command, shell=True, check=False, stderr=subprocess.DEVNULL)
            try:
                asyncio.run(check_copy(copy))
                counts["opens"] += 1
            except IncompleteCopyError as error:
                counts[f"says {'what' if error.reason.endswith('whole') else error}"] += 1
            shutil.rmtree(copy)
    return counts


async def check_copy(copy: Path) -> None:
    """Open a copy for writing; it must be a part of the log, dense and whole."""
    async with Store.open(copy) as store:
        sequence = store.first_sequence
        async for record in store.scan():
            assert (record.sequence, record.data) == (sequence, data_of(sequence)), sequence
            sequence += 1
        assert sequence == store.next_sequence


def tools() -> list[str]:
    """Return those means of copying that are installed here."""
    return [tool for tool in TOOLS if shutil.which(tool)]
