"""What is certain to be on the disk, and the error for when that is not known."""

from __future__ import annotations

from errno import EIO, ENOSPC
from pathlib import Path

import pytest

from aquipu.local.disk.durable import (
    OutcomeUnknown,
    has_reserves,
    keep_reserves,
    sync,
    sync_directory,
    write_whole,
)
from tests.disk import FailingDisk


@pytest.mark.parametrize("error", [EIO, ENOSPC])
def test_a_sync_that_fails(tmp_path: Path, error: int) -> None:
    """Whatever its reason, the outcome is unknown; it is tried once."""
    disk = FailingDisk()
    descriptor = disk.create(str(tmp_path / "file"))
    disk.fail("sync", error)
    with pytest.raises(OutcomeUnknown) as caught:
        sync(disk, descriptor)
    assert (caught.value.doing, caught.value.error.errno) == ("fdatasync", error)
    assert disk.count("sync") == 1
    disk.close(descriptor)


def test_a_sync_of_a_directory_that_fails(tmp_path: Path) -> None:
    """The names in it are no longer certain: the outcome is unknown."""
    disk = FailingDisk()
    disk.fail("sync_directory", ENOSPC)
    with pytest.raises(OutcomeUnknown, match="directory"):
        sync_directory(disk, str(tmp_path))
    assert disk.count("sync_directory") == 1


def test_a_whole_file(tmp_path: Path) -> None:
    """It gets its name after its bytes are synced, and the name is synced after that."""
    disk = FailingDisk()
    path = tmp_path / "file"
    path.write_bytes(b"before, and longer")
    write_whole(disk, str(path), b"after")
    assert path.read_bytes() == b"after"
    steps = [
        call.method
        for call in disk.calls
        if call.method in ("write", "sync", "rename", "sync_directory")
    ]
    assert steps == ["write", "sync", "rename", "sync_directory"]


@pytest.mark.parametrize("method", ["create", "write", "sync", "rename"])
def test_a_whole_file_that_fails_before_it_has_its_name(tmp_path: Path, method: str) -> None:
    """What stood under the name stands there still."""
    disk = FailingDisk()
    path = tmp_path / "file"
    path.write_bytes(b"before")
    disk.fail(method, EIO)
    with pytest.raises((OSError, OutcomeUnknown)):
        write_whole(disk, str(path), b"after")
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize("error", [EIO, ENOSPC])
def test_reserves_that_cannot_be_asked_for(tmp_path: Path, error: int) -> None:
    """They count as used: nothing depends on them, and a store that writes does not fail of it."""
    disk = FailingDisk()
    assert keep_reserves(disk, str(tmp_path))
    disk.fail("exists", error)
    assert not has_reserves(disk, str(tmp_path))
    assert has_reserves(disk, str(tmp_path))
