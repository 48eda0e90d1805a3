"""Places in the log under a name: holds and cursors, each a small file of its own. Blocking.

A **hold** says that nothing from its sequence on may be purged; a **cursor** says where a consumer
goes on. Both are few, small and seldom written, so each is replaced as a whole, durably, and
nothing of them is kept in memory.

A bookmark that does not check is a CorruptionError and never "there is none": a damaged hold must
not let a purge through, and a consumer whose cursor is damaged must not begin anew. To be rid
of it, remove it; that reads nothing.

Until it is whole, each writer has a file of its own, which it holds (`Disk.try_hold`). So two that
write the same bookmark at the same moment do each other no harm: one of them is last. What a dead
writer left is deleted when the store is opened.

On a full disk, a bookmark that is there is written over: it lies in one sector, so a power cut
leaves the old one or the new one. One that is new takes the reserve of its kind. So a consumer that
keeps up with a full log can say so as often as it likes.

**Holds against purges.** Setting a hold reads what a purge writes, the manifest; deciding on a
purge reads the holds. Either is done while the file `holds.lock` is locked (`exclusive`), so a
purge that was decided is seen by the hold, which is then refused, and a hold that was set is seen
by the purge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from errno import ESTALE
from itertools import count

from aquipu.errors import CorruptionError, RecordPurgedError, UnsupportedFormatError
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.durable import sync_directory, write_over, write_whole
from aquipu.local.disk.os_errors import is_no_space, translate_os_errors
from aquipu.local.disk.system import process_id
from aquipu.local.format.bookmark import BOOKMARK_BYTES, Bookmark
from aquipu.local.format.names import (
    BOOKMARK_NAME,
    HOLDS_LOCK,
    BookmarkKind,
    Reserve,
    bookmark_in_the_making,
    bookmark_name,
    bookmark_of,
)
from aquipu.local.format.structure import Damage, Unsupported
from aquipu.local.retain.manifest import read_manifest

_RESERVES = {BookmarkKind.HOLD: Reserve.HOLD, BookmarkKind.CURSOR: Reserve.CURSOR}

_HOLDING_MAX = 93  # characters in the name of a cursor, with which its hold can still be named

_numbers = count(1)


def checked_name(name: object) -> str:
    """Return ``name`` itself; TypeError or ValueError for what can name no bookmark."""
    if not isinstance(name, str):
        raise TypeError(f"a hold or cursor is named by a str, not {type(name).__name__}")
    if not re.fullmatch(BOOKMARK_NAME, name):
        allowed = "1 to 100 of A-Z a-z 0-9 . _ - and begins with neither a dot nor a dash"
        raise ValueError(
            f"the name of a hold or cursor is {allowed}, "
            f"not {name[:100]!r} ({len(name)} characters)"
        )
    return name


def hold_of_cursor(name: str, hold: object) -> str | None:
    """Return the name of the hold that goes along with a cursor, if one does.

    TypeError or ValueError for what cannot be.
    """
    if not isinstance(hold, bool):
        raise TypeError(f"hold is True or False, not {hold!r:.100}")
    if hold and len(name) > _HOLDING_MAX:
        raise ValueError(
            f"a cursor that holds has a name of at most {_HOLDING_MAX} characters, not {len(name)}"
        )
    return f"cursor.{name}" if hold else None


def write_bookmark(
    disk: Disk,
    path: str,
    store_id: bytes,
    kind: BookmarkKind,
    name: str,
    sequence: int,
    generation: bytes = b"",
) -> None:
    """Set a bookmark durably, also on a full disk: after a crash it is the old one or the new one.

    Raises OSError or OutcomeUnknown.
    """
    file_name = bookmark_name(kind, checked_name(name))
    data = Bookmark(store_id, file_name, sequence, generation).encode()
    try:
        _replace(disk, path, file_name, data, kind)
    except (
        FileNotFoundError
    ):  # the store was being opened, and the file was taken for a dead writer's before it was held
        _replace(disk, path, file_name, data, kind)
    if disk.seen(path)[:2] != disk.identity(path):
        raise OSError(ESTALE, "another directory has this path now", path)


def _replace(disk: Disk, path: str, file_name: str, data: bytes, kind: BookmarkKind) -> None:
    name = f"{path}/{file_name}"
    try:
        _make_bookmark(disk, path, file_name, data, None)
    except OSError as error:
        if not is_no_space(error):
            raise
        if not write_over(disk, name, data):
            _make_bookmark(disk, path, file_name, data, _RESERVES[kind])


def _make_bookmark(
    disk: Disk, path: str, file_name: str, data: bytes, reserve: Reserve | None
) -> None:
    made = f"{path}/{bookmark_in_the_making(file_name, process_id(), next(_numbers))}"
    try:
        write_whole(disk, f"{path}/{file_name}", data, unnamed=made, reserve=reserve)
    except OSError:
        with suppress(OSError):  # on a full disk, each attempt would leave one
            disk.remove(made)
        raise


@contextmanager
def exclusive(disk: Disk, path: str) -> Iterator[bool]:
    """Exclude all others that would decide on a purge or set a hold.

    Gives False when another does so now: try again in a moment.
    """
    descriptor = disk.try_lock(f"{path}/{HOLDS_LOCK}")
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            disk.close(descriptor)


def set_hold(disk: Disk, path: str, name: str, sequence: int) -> bool:
    """Set a hold durably, in any process.

    False when another sets one, or decides on a purge: try again in a moment. Raises
    RecordPurgedError, what reading the manifest raises, OSError or OutcomeUnknown.
    """
    checked_name(name)
    with exclusive(disk, path) as is_exclusive:
        if is_exclusive:
            manifest = read_manifest(disk, path)
            if sequence < manifest.first_sequence:
                raise RecordPurgedError(path, sequence, manifest.first_sequence)
            write_bookmark(disk, path, manifest.store_id, BookmarkKind.HOLD, name, sequence)
        return is_exclusive


def read_bookmark(
    disk: Disk, path: str, store_id: bytes, kind: BookmarkKind, name: str
) -> int | None:
    """Return the sequence of a bookmark of this store; None when there is none.

    Raises CorruptionError or UnsupportedFormatError.
    """
    found = read_cursor(disk, path, store_id, name, kind)
    return None if found is None else found.sequence


def read_cursor(
    disk: Disk, path: str, store_id: bytes, name: str, kind: BookmarkKind = BookmarkKind.CURSOR
) -> Bookmark | None:
    """Return a bookmark as `read_bookmark`, with the generation in which it was saved."""
    return _read(disk, path, store_id, bookmark_name(kind, checked_name(name)))


def list_bookmarks(disk: Disk, path: str, store_id: bytes, kind: BookmarkKind) -> dict[str, int]:
    """Return the sequences of all bookmarks of one kind, by name.

    Raises CorruptionError or UnsupportedFormatError for one that does not check.
    """
    names = bookmark_names(disk, path, kind)
    found = {name: _read(disk, path, store_id, bookmark_name(kind, name)) for name in names}
    return {
        name: bookmark.sequence for name, bookmark in found.items() if bookmark is not None
    }  # None: removed meanwhile


def holds(disk: Disk, path: str, store_id: bytes) -> dict[str, int]:
    """Return all holds by their names; may be called from any thread.

    Raises CorruptionError, UnsupportedFormatError or StoreUnavailableError.
    """
    with translate_os_errors(path, "read the holds of"):
        return list_bookmarks(disk, path, store_id, BookmarkKind.HOLD)


def bookmark_names(disk: Disk, path: str, kind: BookmarkKind) -> list[str]:
    """Return the names of all bookmarks of one kind, sound or damaged, in order."""
    bookmarks = filter(None, map(bookmark_of, disk.list(path)))
    return sorted(name for its_kind, name in bookmarks if its_kind is kind)


def encoded_bookmarks(disk: Disk, path: str) -> dict[str, bytes]:
    """Return the bytes of all bookmarks, sound or damaged, by file name. Raises OSError."""
    found: dict[str, bytes] = {}
    for name in sorted(filter(bookmark_of, disk.list(path))):
        with suppress(FileNotFoundError), opened(disk, f"{path}/{name}") as descriptor:
            found[name] = disk.read(descriptor, BOOKMARK_BYTES + 1, 0)
    return found


def write_encoded(disk: Disk, path: str, bookmarks: Mapping[str, bytes]) -> None:
    """Set bookmarks durably, the bytes of each by file name. Raises OSError or OutcomeUnknown."""
    for name, data in bookmarks.items():
        made = f"{path}/{bookmark_in_the_making(name, process_id(), next(_numbers))}"
        write_whole(disk, f"{path}/{name}", data, unnamed=made)


def remove_bookmark(disk: Disk, path: str, kind: BookmarkKind, name: str) -> bool:
    """Remove a bookmark, sound or damaged; False when there was none.

    Raises OSError or OutcomeUnknown. Whatever it returns, no power cut brings the bookmark back: a
    process that removed it before may have died before that was durable.
    """
    there = True
    try:
        disk.remove(f"{path}/{bookmark_name(kind, checked_name(name))}")
    except FileNotFoundError:
        there = False
    sync_directory(disk, path)
    return there


def _read(disk: Disk, path: str, store_id: bytes, file_name: str) -> Bookmark | None:
    whole_path = f"{path}/{file_name}"
    try:
        with opened(disk, whole_path) as descriptor:
            data = disk.read(descriptor, BOOKMARK_BYTES + 1, 0)
    except FileNotFoundError:
        return None
    try:
        return Bookmark.decode(data, store_id, file_name)
    except Damage as damage:
        raise CorruptionError(whole_path, 0, str(damage)) from None
    except Unsupported as unsupported:
        raise UnsupportedFormatError(whole_path, str(unsupported)) from None
