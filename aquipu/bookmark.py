"""Places in the log under a name: holds and cursors, each a small file of its own. Blocking.

A **hold** says that nothing from its sequence on may be purged; a **cursor** says where a consumer goes on. Both are few,
small and seldom written, so each is replaced as a whole, durably, and nothing of them is kept in memory.

A bookmark that does not check is a CorruptionError and never "there is none": a damaged hold must not let a purge through,
and a consumer whose cursor is damaged must not begin anew. Who wants to be rid of it removes it; that reads nothing.

Until it is whole, each writer has a file of its own, which it holds (`Disk.try_hold`). So two who write the same bookmark
at the same moment do each other no harm: one of them is last. What a dead writer left goes when the store is opened.

**Holds against purges.** Who sets a hold and who decides on a purge look at what the other writes: the manifest, the holds.
Either is done while holding the store's directory `alone`, so a purge that was decided is seen by the hold, which is then
refused, and a hold that was set is seen by the purge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

from aquipu.disk import Disk, opened, process_id
from aquipu.durable import sync_directory, write_whole
from aquipu.errors import CorruptionError, RecordPurgedError, UnsupportedFormatError
from aquipu.layout import (
    BOOKMARK_BYTES,
    BOOKMARK_NAME,
    Bookmark,
    BookmarkKind,
    Damage,
    Unsupported,
    bookmark_in_the_making,
    bookmark_name,
    bookmark_of,
)
from aquipu.manifest import read_manifest

_numbers = count(1)


def checked_name(name: object) -> str:
    """``name`` itself; TypeError or ValueError for what can name no bookmark."""
    if not isinstance(name, str):
        raise TypeError(f"a hold or cursor is named by a str, not {type(name).__name__}")
    if not re.fullmatch(BOOKMARK_NAME, name):
        allowed = "1 to 100 of A-Z a-z 0-9 . _ - and begins with neither a dot nor a dash"
        raise ValueError(f"the name of a hold or cursor is {allowed}, not {name[:100]!r} ({len(name)} characters)")
    return name


def write_bookmark(disk: Disk, path: str, store_id: bytes, kind: BookmarkKind, name: str, sequence: int) -> None:
    """Set a bookmark durably: after a crash it is the old one or the new one. Raises OSError or OutcomeUnknown."""
    file_name = bookmark_name(kind, checked_name(name))
    data = Bookmark(store_id, file_name, sequence).encode()
    try:
        _replace(disk, path, file_name, data)
    except FileNotFoundError:  # the store was being opened, and the file was taken for a dead writer's before it was held
        _replace(disk, path, file_name, data)


def _replace(disk: Disk, path: str, file_name: str, data: bytes) -> None:
    made = f"{path}/{bookmark_in_the_making(file_name, process_id(), next(_numbers))}"
    try:
        write_whole(disk, f"{path}/{file_name}", data, unnamed=made)
    except OSError:
        with suppress(OSError):  # on a full disk, each attempt would leave one
            disk.remove(made)
        raise


@contextmanager
def alone(disk: Disk, path: str) -> Iterator[bool]:
    """Decide on a purge or set a hold while nobody else does; False when somebody is at it: try again in a moment."""
    with opened(disk, path) as directory:
        yield disk.try_hold(directory, alone=True)


def set_hold(disk: Disk, path: str, name: str, sequence: int) -> bool:
    """Set a hold durably, in any process; False when somebody else does, or decides on a purge: try again in a moment.

    Raises RecordPurgedError, what reading the manifest raises, OSError or OutcomeUnknown.
    """
    checked_name(name)
    with alone(disk, path) as is_alone:
        if is_alone:
            manifest = read_manifest(disk, path)
            if sequence < manifest.first_sequence:
                raise RecordPurgedError(path, sequence, manifest.first_sequence)
            write_bookmark(disk, path, manifest.store_id, BookmarkKind.HOLD, name, sequence)
        return is_alone


def read_bookmark(disk: Disk, path: str, store_id: bytes, kind: BookmarkKind, name: str) -> int | None:
    """The sequence of a bookmark of this store; None when there is none.

    Raises CorruptionError or UnsupportedFormatError.
    """
    return _read(disk, path, store_id, bookmark_name(kind, checked_name(name)))


def list_bookmarks(disk: Disk, path: str, store_id: bytes, kind: BookmarkKind) -> dict[str, int]:
    """All bookmarks of one kind, by name. Raises CorruptionError or UnsupportedFormatError for one that does not check."""
    bookmarks = filter(None, map(bookmark_of, disk.list(path)))
    names = sorted(name for its_kind, name in bookmarks if its_kind is kind)
    found = {name: _read(disk, path, store_id, bookmark_name(kind, name)) for name in names}
    return {name: sequence for name, sequence in found.items() if sequence is not None}  # None: removed since it was listed


def remove_bookmark(disk: Disk, path: str, kind: BookmarkKind, name: str) -> bool:
    """Remove a bookmark, sound or damaged; False when there was none. Raises OSError or OutcomeUnknown.

    Whatever it says, no power cut brings it back: one who removed it before may have died before that was certain.
    """
    there = True
    try:
        disk.remove(f"{path}/{bookmark_name(kind, checked_name(name))}")
    except FileNotFoundError:
        there = False
    sync_directory(disk, path)
    return there


def _read(disk: Disk, path: str, store_id: bytes, file_name: str) -> int | None:
    whole_path = f"{path}/{file_name}"
    try:
        with opened(disk, whole_path) as descriptor:
            data = disk.read(descriptor, BOOKMARK_BYTES + 1, 0)
    except FileNotFoundError:
        return None
    try:
        return Bookmark.decode(data, store_id, file_name).sequence
    except Damage as damage:
        raise CorruptionError(whole_path, 0, str(damage)) from None
    except Unsupported as unsupported:
        raise UnsupportedFormatError(whole_path, str(unsupported)) from None
