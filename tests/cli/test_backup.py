"""backup: a store copied by a command, beside a service or not, and copied back."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from aquipu import Store
from tests.cli.support import SAMPLE, run, well


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with a few lines of a real log, in the working directory."""
    monkeypatch.chdir(tmp_path)
    well("append", "--raw", "store", "--mode", "640", input=SAMPLE)
    return tmp_path / "store"


def test_there_and_back(store: Path) -> None:
    """A backup is a store, and so is a backup of it."""
    lines = len(SAMPLE.splitlines())
    said = well("backup", "store", "copies/nightly").decode()
    place = store.parent / "copies" / "nightly"
    assert said.startswith(f"{lines} records, 0 to {lines - 1}, in {place}; 1 segment written, ")
    assert said.endswith("; no damage\n")
    well("backup", "copies/nightly", "restored")
    assert well("cat", "--raw", "restored") == SAMPLE
    assert b"no damage" in well("verify", "restored")
    assert os.stat("restored/manifest").st_mode & 0o777 == 0o640


def test_its_object(store: Path) -> None:
    """The object that --json prints has the documented fields."""
    found = json.loads(well("backup", store, "copy", "--json", "--link", "--no-bookmarks"))
    assert list(found) == [
        "path",
        "first_sequence",
        "next_sequence",
        "segments",
        "copied_bytes",
        "shared_bytes",
        "left_out",
    ]
    assert found["path"] == str(store.parent / "copy")


def test_a_restore_over_a_store_that_has_purged_too_much(tmp_path: Path) -> None:
    """The older records do not come back there: that is said, and a new directory takes them."""
    store, backup, new = tmp_path / "store", tmp_path / "backup", tmp_path / "new"
    asyncio.run(three_segments(store))
    assert json.loads(well("backup", store, backup, "--json"))["left_out"] == 0
    well("purge", store, "--before", "2")
    assert well("backup", store, backup).endswith(b"; no damage\n")
    assert well("backup", backup, store).endswith(
        b"; no damage; 2 older records not taken, because what was there begins with sequence 2: "
        b"a new directory takes all\n"
    )
    assert json.loads(well("backup", backup, store, "--json"))["left_out"] == 2
    assert well("backup", backup, new).startswith(b"4 records, 0 to 3, in ")


async def three_segments(path: Path) -> None:
    async with Store.open(path) as store:
        for data in (b"a", b"b", b"c"):
            await store.append(data)
            await store.roll()
        await store.append(b"d")


def test_an_empty_store(store: Path) -> None:
    """There is nothing to be lost, and that is what it says."""
    well("append", "--raw", "empty")
    assert well("backup", "empty", "copy").startswith(b"0 records in ")


@pytest.mark.parametrize(
    ("place", "code", "words"),
    [
        ("store/copy", 2, b"within the store"),
        (".", 2, b"the store lies within it"),
        ("", 2, b"no path of a directory"),
        ("unix:/run/socket", 2, b"a backup goes to a directory"),
        ("s3://bucket/copy", 2, b"`aquipu archive STORE URL`"),
        ("file:///copy", 2, b"`aquipu archive STORE URL`"),
        ("postgresql://user:secret@host/logs", 2, b"`aquipu copy`"),
        ("ftp://host/copy", 2, b"is no place of a store"),
        ("dangling", 2, b"is a link to nothing"),
        ("other", 2, b"holds another store"),
        ("/proc/copy", 4, b"cannot use /proc/copy"),
    ],
)
def test_what_is_no_place(store: Path, place: str, code: int, words: bytes) -> None:
    """Each has an exit code and one line that says what to do."""
    well("append", "--raw", "other", input=b"a line\n")
    Path("dangling").symlink_to("nothing")
    before = set(store.parent.rglob("*"))
    done = run("backup", "store", place)
    assert (done.returncode, done.stdout) == (code, b"")
    assert words in b" ".join(done.stderr.replace("│".encode(), b"").split())
    assert b"secret" not in done.stderr
    assert set(store.parent.rglob("*")) == before
