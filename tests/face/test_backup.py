"""The face: a copy of all of it, at another place, by any of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from aquipu import Backup, BackupRefusedError, NotAStoreError, Reader
from tests.face.faces import all_of, filled, of_files
from tests.remote.daemon.served import served

pytestmark = pytest.mark.asyncio


@of_files("its database is backed up as a whole")
async def test_a_backup(tmp_path: Path) -> None:
    """It holds what was acknowledged when it began, with labels and cursors, and opens; the next
    one brings what has come since.
    """
    place = tmp_path / "copy"
    async with served(tmp_path, max_segment_bytes=8192) as it, it.connect() as store:
        records = await filled(it.store)
        await store.cursor("billing").save(100)
        done = await store.backup(place)
        assert isinstance(done, Backup)
        assert (done.path, done.first_sequence, done.next_sequence) == (str(place), 0, 400)
        async with Reader.open(place) as copy:
            assert await all_of(copy.scan()) == records
            assert await copy.cursor("billing").load() == 100
            assert await copy.relations("tens") == {"tens": 40}
        await store.append(b"later")
        again = await store.backup(place, bookmarks=False)
        assert (again.next_sequence, again.copied_bytes < done.copied_bytes) == (401, True)
        async with Reader.open(place) as copy:
            assert (await copy.get(400)).data == b"later"


@of_files("its database is backed up as a whole")
async def test_what_is_no_place(tmp_path: Path) -> None:
    """Each gives the error that it gives where the files are; the store goes on."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "holiday.jpg").touch()
    async with served(tmp_path) as it, it.connect() as store:
        within = Path(it.store.path) / "copy"
        with pytest.raises(BackupRefusedError, match="within the store"):
            await store.backup(within)
        assert not within.exists()
        with pytest.raises(NotAStoreError, match=r"holiday\.jpg"):
            await store.backup(tmp_path / "other")
        await store.append(b"data")


@of_files("its database is backed up as a whole")
@pytest.mark.parametrize(
    ("place", "options", "kind"),
    [
        (7, {}, TypeError),
        (b"bytes", {}, TypeError),
        ("", {}, ValueError),
        ("a\0b", {}, ValueError),
        ("unix:/run/socket", {}, ValueError),
        ("s3://bucket/copy", {}, ValueError),
        ("postgresql://localhost/logs", {}, ValueError),
        ("copy", {"link": 1}, TypeError),
        ("copy", {"bookmarks": None}, TypeError),
    ],
)
async def test_arguments_that_cannot_be(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: object,
    options: dict[str, object],
    kind: type[Exception],
) -> None:
    """They are refused before anything is done."""
    monkeypatch.chdir(tmp_path)
    async with served(tmp_path) as it, it.connect() as store:
        with pytest.raises(kind):
            await store.backup(place, **options)
    assert not [name for name in ("copy", "s3:", "postgresql:") if (tmp_path / name).exists()]
