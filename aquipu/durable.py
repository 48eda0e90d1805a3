"""What is certain to be on the disk, and the error for when that is no longer known. Blocking."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import count

from aquipu.disk import Disk, opened
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


def put_aside(disk: Disk, path: str, name_of: Callable[[int], str], data: bytes) -> str:
    """Keep damaged bytes in a file of their own, durably, and beside those of an earlier time, called ``name_of(number)``.

    The path of the file. Raises OSError or OutcomeUnknown.
    """
    for number in count(1):
        name = f"{path}/{name_of(number)}"
        if not disk.exists(name):
            break
        with opened(disk, name) as descriptor:
            if disk.read(descriptor, len(data) + 1, 0) == data:
                break
    write_whole(disk, name, data)
    return name


def write_whole(disk: Disk, path: str, data: bytes, *, unnamed: str | None = None) -> None:
    """A file that is there under its name with all its bytes, or is as it was before. Raises OSError or OutcomeUnknown.

    Until then it is called ``unnamed`` and held, where several may write it; usually one at a time does.
    """
    made = path + UNNAMED if unnamed is None else unnamed
    descriptor = disk.create(made)
    try:
        if unnamed is not None:
            disk.try_hold(descriptor)
        disk.write(descriptor, [data], 0)
        sync(disk, descriptor)
        disk.rename(made, path)
    finally:
        with suppress(OSError):  # says nothing of what is on the disk: what matters was synced
            disk.close(descriptor)
    sync_directory(disk, path.rpartition("/")[0])
