"""The archive on a server that speaks as S3 does: part of the proof."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from aquipu import Archive, ArchiveTakenError, ArchiveUnavailableError
from aquipu.archive.bucket import Bucket, Different
from aquipu.archive.restore import Restoring, Until
from aquipu.archive.uploader import Uploader
from aquipu.local.disk.disk import Disk
from tests.archive.made import JournalLog, append, data_of, opened
from tests.archive.s3 import BUCKET, s3_server
from tests.support import data_in

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def options() -> Iterator[dict[str, Any]]:
    """How the server is reached."""
    with s3_server() as found:
        yield found


def bucket(options: dict[str, Any], prefix: str, name: str = BUCKET) -> Bucket:
    """Return the objects under a prefix."""
    return Archive(f"s3://{name}/{prefix}", **options).bucket()


def test_an_object_is_put_once(options: dict[str, Any]) -> None:
    """It is there, or another is; nothing is ever put in its place."""
    objects = bucket(options, "once and for all")
    objects.put_new("entries/1", b"mine")
    objects.put_new("entries/1", b"mine")
    with pytest.raises(Different):
        objects.put_new("entries/1", b"another's")
    assert objects.list("entries") == {"entries/1": 4}
    assert objects.get("entries/1") == b"mine"
    assert objects.get("entries/2") is None
    assert objects.ranges("entries/1", [(1, 3)]) == [b"in"]
    objects.remove(["entries/1", "entries/2"])
    assert objects.list("entries") == {}


def test_there_and_back(options: dict[str, Any], tmp_path: Path) -> None:
    """A log is carried there beside its writer, taken over by another machine, and restored."""
    journal = opened(tmp_path / "store")
    first = Uploader(bucket(options, "audit"), JournalLog(journal), "the first")
    for begin in range(0, 30, 3):
        append(journal, range(begin, begin + 3))
        assert first.catch_up() == begin + 3
    Restoring(
        bucket(options, "audit"), Disk(), str(tmp_path / "copy"), Until(), Event()
    ).carry_out()
    assert data_in(tmp_path / "copy") == [data_of(number) for number in range(30)]
    copy = opened(tmp_path / "copy")
    append(copy, range(30, 33))
    second = Uploader(bucket(options, "audit"), JournalLog(copy), "the second")
    assert second.catch_up() == 33
    append(journal, range(30, 31))
    with pytest.raises(ArchiveTakenError, match="is of the second"):
        first.catch_up()
    journal.close()
    copy.close()


def test_what_is_said_of_trouble(options: dict[str, Any]) -> None:
    """No bucket, and no server: each is one clear error, without a credential."""
    with pytest.raises(ArchiveUnavailableError, match="there is no such bucket"):
        bucket(options, "x", "nowhere").put_new("a", b"")
    with pytest.raises(ArchiveUnavailableError, match="there is no such bucket") as raised:
        bucket(options, "x", "nowhere").list("a")
    assert "AKIAEXAMPLE" not in str(raised.value)
