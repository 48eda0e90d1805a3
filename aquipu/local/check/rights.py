"""The rights of what the commands make in a store: those that its files have."""

from __future__ import annotations

from contextlib import suppress

from aquipu.local.check.actions import firsts_in
from aquipu.local.disk.disk import Disk
from aquipu.local.format.names import MANIFEST, segment_name


def keep_rights(disk: Disk, path: str) -> None:
    """Make files from now on as the newest segment of the store is, or else its manifest.

    So a group goes on reading what it reads, and the service that owns the store can write what
    root has mended. Raises OSError; does nothing where neither is there.
    """
    for name in (*map(segment_name, firsts_in(disk, path)[-1:]), MANIFEST):
        with suppress(FileNotFoundError):
            disk.permit_as(f"{path}/{name}")
            return
