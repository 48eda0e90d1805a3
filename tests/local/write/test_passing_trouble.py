"""Trouble that passes: what the system refuses for a moment, without having done anything, poisons
no store.
"""

from __future__ import annotations

import errno
import logging
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from aquipu.errors import StoreFailedError, StoreUnavailableError
from aquipu.local.disk.durable import OutcomeUnknown
from aquipu.local.format.names import MANIFEST, UNNAMED, segment_name
from aquipu.local.write.journal import Journal
from tests.disk import FailingDisk
from tests.local.logs import SEGMENT_BYTES, THIRD, fill
from tests.support import copy_of, data_in, open_log, segment_in, segments_in, write

PASSING = [
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EACCES,
    errno.EPERM,
    errno.EINTR,
    errno.EAGAIN,
]
SAID = "the next segment cannot be made"
OLD, NEXT = segment_name(0), segment_name(3)
ROLL: list[dict[str, Any]] = [
    {"method": "truncate", "of": OLD},
    {"method": "create", "of": NEXT + UNNAMED},
    {"method": "write", "of": NEXT + UNNAMED, "written": 10},
    {"method": "rename", "of": NEXT},
    {"method": "sync_directory"},
    {"method": "write", "of": OLD, "written": 20},
]
"""The calls of a roll that may be refused before anything is changed: the zeros, the next segment,
its name, the footer.
"""
each_call = pytest.mark.parametrize(
    "call", ROLL, ids=["trim", "create", "header", "rename", "sync of the name", "footer"]
)


@pytest.fixture
def journal(disk: FailingDisk, store: Path) -> Journal:
    """The log of a store whose segment is full: the next `maintain` rolls."""
    journal, _ = open_log(store, disk, max_segment_bytes=SEGMENT_BYTES)
    fill(journal)
    return journal


def said_of_a_roll(journal: Journal) -> int:
    """Count the troubles of the next segment; the clock of these commits is wrong, too."""
    return sum(SAID in reason for reason in journal.troubles.reasons)


def refuse(disk: FailingDisk, call: dict[str, Any], number: int, **which: Any) -> None:
    rest = {key: value for key, value in call.items() if key != "method"}
    disk.fail(call["method"], number, **rest, **which)


@pytest.mark.parametrize("number", PASSING, ids=[errno.errorcode[number] for number in PASSING])
@each_call
def test_a_roll_that_is_refused_for_a_moment(
    journal: Journal,
    disk: FailingDisk,
    store: Path,
    call: dict[str, Any],
    number: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log goes on in the segment at hand, says so once, and rolls when it can."""
    refuse(disk, call, number)
    journal.maintain()
    assert disk.failures == 1
    assert journal.failure is None
    assert segments_in(store) == [segment_in(store, 0)]
    assert said_of_a_roll(journal) == 1
    assert [record.levelno for record in caplog.records if SAID in record.getMessage()] == [
        logging.WARNING
    ]
    write(journal, b"goes on")
    journal.maintain()
    assert said_of_a_roll(journal) == 0
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 4)]
    write(journal, b"next")
    journal.close()
    assert data_in(store) == [THIRD, THIRD, THIRD, b"goes on", b"next"]
    again, report = open_log(store)
    again.drop()
    assert report.clean
    assert report.next_sequence == 5


def test_a_roll_that_is_asked_for_and_refused(
    journal: Journal, disk: FailingDisk, store: Path
) -> None:
    """It says that it was not done, the log goes on in the segment at hand, and rolls later."""
    disk.fail("create", errno.EMFILE)
    assert not journal.roll()
    assert said_of_a_roll(journal) == 1
    assert segments_in(store) == [segment_in(store, 0)]
    write(journal, b"goes on")
    assert journal.roll()
    assert said_of_a_roll(journal) == 0
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 4)]


@each_call
def test_a_process_that_dies_while_rolls_are_refused(
    journal: Journal, disk: FailingDisk, store: Path, call: dict[str, Any]
) -> None:
    """Everything is found after it, whatever the refused roll has left."""
    for _ in range(3):
        refuse(disk, call, errno.EMFILE)
        journal._roller.roll_at = 0
        journal.maintain()
        disk.mend()
        write(journal, b"goes on")
    disk.end_process()
    again, report = open_log(copy_of(store, "again"))
    again.close()
    assert report.next_sequence == 6


def test_a_name_that_cannot_be_taken_away(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """A segment that is named and was never begun is gone, for certain, before another one gets its
    name.
    """
    disk.fail("sync_directory", errno.EMFILE)
    disk.fail("remove", errno.EACCES, of=NEXT)
    journal.maintain()
    assert segment_in(store, 3).exists()
    write(journal, b"goes on")
    disk.fail("sync_directory", errno.EMFILE)
    journal.maintain()
    assert segments_in(store) == [segment_in(store, 0)]
    disk.calls.clear()
    journal._roller.roll_at = 0
    journal.maintain()
    assert disk.steps("sync_directory", "rename")[:2] == [
        ("sync_directory", store.name),
        ("rename", segment_name(4)),
    ]
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 4)]


def test_rolls_are_tried_again_less_and_less_often(
    journal: Journal, disk: FailingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once the first time, then after pauses that double up to a bound, so that no commit pays
    for each attempt.
    """
    clock = [0]
    monkeypatch.setattr("aquipu.local.write.roller.monotonic_ns", lambda: clock[0])
    disk.fail("create", errno.EMFILE, forever=True)
    attempts = []
    for clock[0] in range(0, 25_000_000_000, 5_000_000):
        before = disk.failures
        journal.maintain()
        attempts += [clock[0] // 1_000_000] * (disk.failures - before)
    pauses = [later - earlier for earlier, later in pairwise(attempts)]
    assert pauses == [5, 20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000, 5000]


def test_a_segment_without_records_is_not_followed(store: Path) -> None:
    """However large marks have made it: the next one would have its name."""
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    for _ in range(100):
        journal.mark()
    assert segment_in(store).stat().st_size > 4096
    journal.maintain()
    assert len(journal.segments) == 1
    write(journal, b"x")
    journal.maintain()
    journal.close()
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 1)]
    assert data_in(store) == [b"x"]


@pytest.mark.parametrize("number", PASSING, ids=[errno.errorcode[number] for number in PASSING])
@pytest.mark.parametrize("method", ["create", "write", "rename", "sync_directory"])
def test_a_close_that_cannot_write_the_manifest(
    store: Path, disk: FailingDisk, method: str, number: int
) -> None:
    """The mark in the log proves what was stored: without the manifest a close is a close."""
    journal, _ = open_log(store, disk)
    write(journal, b"a")
    disk.fail(
        method,
        number,
        of={"rename": MANIFEST, "sync_directory": ""}.get(method, MANIFEST + UNNAMED),
        forever=True,
    )
    journal.close()
    assert disk.failures
    again, report = open_log(store)
    again.drop()
    assert report.next_sequence == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EINTR])
def test_a_close_whose_manifest_cannot_be_synced(
    store: Path, disk: FailingDisk, number: int
) -> None:
    """A sync that fails is never passed over, whatever it says of itself: nothing is written after
    it.
    """
    journal, _ = open_log(store, disk)
    write(journal, b"a")
    disk.fail("sync", number, of=MANIFEST + UNNAMED)
    with pytest.raises(StoreFailedError):
        journal.close()
    again, report = open_log(store)
    again.drop()
    assert report.next_sequence == 1


@pytest.mark.parametrize("method", ["create", "write", "rename"])
def test_a_purge_that_is_refused_for_a_moment(
    journal: Journal, disk: FailingDisk, method: str
) -> None:
    """It has changed nothing, says so, and the next one does it."""
    journal.maintain()
    disk.fail(method, errno.ENOMEM, of=MANIFEST if method == "rename" else MANIFEST + UNNAMED)
    with pytest.raises(StoreUnavailableError, match="cannot purge"):
        journal.purge(before=3)
    assert (journal.failure, journal.segments[0].first_sequence) == (None, 0)
    journal.purge(before=3)
    assert journal.segments[0].first_sequence == 3


def test_a_purge_whose_manifest_may_be_either(journal: Journal, disk: FailingDisk) -> None:
    """The new one has its name, and nobody knows whether a power cut takes it away: where the log
    begins is not known.
    """
    journal.maintain()
    disk.fail("sync_directory", errno.ENOMEM)
    with pytest.raises(StoreFailedError):
        journal.purge(before=3)


@pytest.mark.parametrize("method", ["sync", "sync_directory"])
def test_a_sync_that_fails_is_no_passing_trouble(
    journal: Journal, disk: FailingDisk, method: str
) -> None:
    """What a failed sync has left on the disk is not known: it is not tried again."""
    disk.fail(method, errno.EIO)
    with pytest.raises(StoreFailedError):
        journal.maintain()
    assert isinstance(journal.failure, StoreFailedError)
    assert isinstance(journal.failure.__cause__, OSError | OutcomeUnknown)


OUT_OF_DESCRIPTORS = """
import asyncio, os, resource, sys
from aquipu import Always, Store

async def main(path):
    store = await Store.open(path, sync_policy=Always(), max_segment_bytes=16384)
    await store.append(b"x")
    loaded = set(sys.modules)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    hogs = []
    try:
        while True:
            hogs.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for _ in range(40):
        await store.append(b"x" * 1000)
    while not (health := store.health()).reasons:
        await asyncio.sleep(0)
    store.statistics()
    if sys.argv[2] == "passes":
        for hog in hogs:
            os.close(hog)
        while store.health().reasons:
            await store.append(b"x")
        print(store.statistics().segments > 1)
    await store.aclose()
    print(health.state, len(set(sys.modules) - loaded), store.health().state)
    for hog in hogs if sys.argv[2] == "stays" else ():
        os.close(hog)
    async with Store.open(path) as store:
        print(store.next_sequence >= 41, store.recovery.clean)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("how", ["passes", "stays"])
def test_a_process_that_runs_out_of_descriptors(tmp_path: Path, how: str) -> None:
    """Its store goes on, says what is wrong, and is closed, all without opening or importing
    anything; and it rolls when there are descriptors again.
    """
    command = [sys.executable, "-c", OUT_OF_DESCRIPTORS, str(tmp_path / "store"), how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    words = done.stdout.split()
    assert words == [
        *(["True"] if how == "passes" else []),
        "degraded",
        "0",
        "closed",
        "True",
        "True",
    ], done.stderr
    assert done.stderr.count("the next segment cannot be made") == 1
