"""What is certain to be on the disk, and the error for when that is no longer known. Blocking."""

from __future__ import annotations

from aquipu.disk import Disk
from aquipu.layout import UNNAMED


class OutcomeUnknown(Exception):
    """A sync failed, or undoing a failed write did. Whatever the reason: what the disk holds now is not known."""

    def __init__(self, doing: str, error: OSError) -> None:
        super().__init__(doing, error)
        self.doing, self.error = doing, error


def sync(disk: Disk, descriptor: int) -> None:
    """Make a file durable. Raises OutcomeUnknown; the sync is never repeated: it might report success for lost pages."""
    try:
        disk.sync(descriptor)
    except OSError as error:
        raise OutcomeUnknown("fdatasync", error) from error


def sync_directory(disk: Disk, path: str) -> None:
    """Make the names in a directory durable. Raises OutcomeUnknown."""
    try:
        disk.sync_directory(path)
    except OSError as error:
        raise OutcomeUnknown("fsync of the directory", error) from error


def write_whole(disk: Disk, path: str, data: bytes) -> None:
    """A file that is there under its name with all its bytes, or is as it was before. Raises OSError or OutcomeUnknown."""
    descriptor = disk.create(path + UNNAMED)
    try:
        disk.write(descriptor, [data], 0)
        sync(disk, descriptor)
    finally:
        disk.close(descriptor)
    disk.rename(path + UNNAMED, path)
    sync_directory(disk, path.rpartition("/")[0])
