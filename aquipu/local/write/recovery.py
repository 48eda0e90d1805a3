"""What opening finds, and what it does about it. Blocking; no other process writes meanwhile.

First the directory is *examined*, which changes nothing and either explains every byte or raises.
Then it is *mended*:

=======================================  =========================================================
found                                    done
=======================================  =========================================================
nothing, or the first steps of a         a new store
creation
a mark as the last frame: its            nothing, but that the mark itself, which nothing proves,
watermark says "all of it"               is written once more, to be synced with the first commit
sound frames that the manifest proves,   nothing, but that the last of them are written once more
as in a backup, or what was restored
sound frames that nothing proves         written once more, and synced, the names too: what is
                                         read may be a page that a failed sync left in memory,
                                         and syncing a clean page does nothing
zeros behind the last frame              nothing: space written ahead
bytes behind the last sound frame,       torn tail: kept aside in a ``.cut-`` file, then trimmed;
none proven                              on a full disk it is moved there, piece by piece
bytes behind it, and a later frame or    CorruptionError
the manifest proves them
an empty last segment behind another,    a roll that was cut short: removed, the one before goes
at most zeros behind its header          on, and its label index is removed, too
segments that lie before the first       left over from a purge: not looked at, and removed,
sequence kept                            unless a reader still has them
a bookmark that was not finished         removed, unless a process is still making it
a footer, header, link or segment that   CorruptionError
does not fit
the same in a copy that was made while   nothing, if it has all that was acknowledged then, as its
the store was being written (`copied`)   page says; otherwise IncompleteCopyError
=======================================  =========================================================

After mending, an empty frame with the new watermark is written: from then on what was found is
proven as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from aquipu.errors import (
    NotAStoreError,
    StoreFailedError,
    StoreUnavailableError,
)
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.durable import (
    OutcomeUnknown,
    move_aside,
    put_aside,
    sync,
    sync_directory,
)
from aquipu.local.disk.lock import Lock
from aquipu.local.disk.os_errors import is_no_space, translate_os_errors
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import MANIFEST, cut_name, is_of_the_volume, is_ours, segment_name
from aquipu.local.format.segment import SegmentHeader
from aquipu.local.read.examine import Findings, Torn, examine
from aquipu.local.read.segment_reader import READ_BYTES
from aquipu.local.retain.manifest import read_manifest, write_manifest
from aquipu.local.retain.purge import SealedSegments
from aquipu.local.retain.retention import Retention
from aquipu.local.write.journal import Journal
from aquipu.local.write.segment_writer import SegmentWriter


class RecoveryReport(NamedTuple):
    """What opening found and did; also ``store.recovery``."""

    created: bool
    """Whether there was no store, and this is a new one."""
    clean: bool
    """Whether the store had been closed, and nothing had to be done."""
    first_sequence: int
    next_sequence: int
    segments: int
    rewritten_bytes: int = 0
    """Bytes that were sound, but not proven to be on the disk: written once more and synced."""
    cut_bytes: int = 0
    """Bytes of a torn tail that was trimmed: the rest of this report speaks of it."""
    cut_from: str | None = None
    """The segment file that was trimmed."""
    cut_offset: int = 0
    cut_reason: str | None = None
    cut_kept_in: str | None = None
    """The file that holds the bytes that were cut."""
    cut_records: int = 0
    """Records in the cut bytes, as far as their frame headers can still be read."""
    cut_possibly_acknowledged: bool = False
    """Whether one of them may have been acknowledged as FLUSHED.

    Never as SYNCED, unless the disk lied.
    """


def check_place(disk: Disk, path: str) -> None:
    """Make the directory if there is none, durably; refuse what is no store.

    Nothing is written into it before that. Raises NotAStoreError, CorruptionError or
    UnsupportedFormatError (of the manifest), StoreUnavailableError.
    """
    with translate_os_errors(path, "use"):
        if not disk.exists(path):
            disk.make_directories(path)
        try:
            names = disk.list(path)
        except NotADirectoryError:
            raise NotAStoreError(path, "it is a file") from None
        if MANIFEST in names:
            read_manifest(disk, path)
        foreign = [name for name in names if not (is_ours(name) or is_of_the_volume(name))]
        if foreign and MANIFEST not in names:
            raise NotAStoreError(
                path, f"the directory holds other things, {min(foreign)!r} among them"
            )


def entitle(disk: Disk, path: str) -> None:
    """Give the existing files of the store the rights that were asked for.

    Raises StoreUnavailableError.
    """
    with translate_os_errors(path, "set the rights of"):
        for name in filter(is_ours, disk.list(path)):
            with suppress(
                FileNotFoundError, PermissionError
            ):  # a cursor that was just replaced; a file of another user
                disk.entitle(f"{path}/{name}")


def recover(
    disk: Disk,
    path: str,
    *,
    max_segment_bytes: int,
    new_store_id: bytes,
    now: int,
    retention: Retention | None = None,
    lock: Lock | None = None,
) -> tuple[Journal, RecoveryReport]:
    """Open the store in the directory ``path``, or make a new one; the caller holds its lock.

    Raises CorruptionError, UnsupportedFormatError or StoreUnavailableError.
    """
    try:
        with translate_os_errors(path, "open"):
            findings = examine(disk, path)
            if findings is None:
                return _create(disk, path, max_segment_bytes, retention, lock, new_store_id, now)
            return _mend(disk, path, findings, max_segment_bytes, retention, lock)
    except StoreFailedError as failed:
        raise StoreUnavailableError(path, "open", failed.reason) from failed.__cause__
    except OutcomeUnknown as unknown:
        reason = f"{unknown.doing}: {unknown.error.strerror}"
        raise StoreUnavailableError(path, "open", reason) from unknown.error


# mending


def _create(
    disk: Disk,
    path: str,
    max_segment_bytes: int,
    retention: Retention | None,
    lock: Lock | None,
    store_id: bytes,
    now: int,
) -> tuple[Journal, RecoveryReport]:
    """Make a new store: the first segment, and then the manifest that says that there is one."""
    disk.sync_name(path)
    segment = SegmentWriter.create(
        disk, f"{path}/{segment_name(0)}", SegmentHeader(store_id, 0, now, 0)
    )
    try:
        manifest = Manifest(store_id, 0, 0)
        write_manifest(disk, path, manifest)
    except BaseException:
        segment.close()
        raise
    journal = Journal(
        disk,
        path,
        manifest,
        [],
        segment,
        synced_sequence=0,
        max_segment_bytes=max_segment_bytes,
        marked=False,
        retention=retention,
        lock=lock,
    )
    return journal, RecoveryReport(
        created=True, clean=True, first_sequence=0, next_sequence=0, segments=1
    )


def _mend(
    disk: Disk,
    path: str,
    findings: Findings,
    max_segment_bytes: int,
    retention: Retention | None,
    lock: Lock | None,
) -> tuple[Journal, RecoveryReport]:
    """Bring the files into the state that the findings describe, and continue there."""
    active, contents, torn = findings.active, findings.contents, findings.torn
    report = RecoveryReport(
        created=False,
        clean=findings.is_clean,
        first_sequence=findings.manifest.first_sequence,
        next_sequence=contents.next_sequence,
        segments=len(findings.segments),
    )
    descriptor = disk.open(active.path, writable=True)
    try:
        if findings.is_purged:
            write_manifest(disk, path, findings.manifest)
        _remove(disk, path, findings.unnamed)
        for name in findings.bookmarks:
            with suppress(OSError):  # it does no harm
                disk.try_remove(f"{path}/{name}")
        if torn is not None:
            name_of = partial(cut_name, active.first_sequence, torn.offset)
            kept = _put_aside(disk, path, name_of, descriptor, torn)
            report = report._replace(
                cut_bytes=torn.size,
                cut_from=active.path,
                cut_offset=torn.offset,
                cut_reason=torn.reason,
                cut_kept_in=kept,
                cut_records=torn.records,
                cut_possibly_acknowledged=torn.possibly_acknowledged,
            )
        rewritten = _write_again(disk, descriptor, findings)
        if not findings.marked:
            sync(disk, descriptor)
            sync_directory(
                disk, path
            )  # a process that died may have made a name, and not made it durable
            report = report._replace(rewritten_bytes=0 if findings.is_proven else rewritten)
        if findings.empty_successor is not None:
            # only now: as long as a footer may come back after a power cut, a successor must be
            # there
            _remove(disk, path, [findings.empty_successor])
        segment = SegmentWriter(
            disk, active.path, descriptor, active.header, contents, contents.end
        )
        segment.dirty = findings.marked  # the mark was written again, and not synced
        journal = Journal(
            disk,
            path,
            findings.manifest,
            findings.sealed,
            segment,
            synced_sequence=contents.next_sequence,
            max_segment_bytes=max_segment_bytes,
            marked=findings.marked,
            sealed_segments=SealedSegments(
                disk, path, findings.sealed_segments, findings.left_over
            ),
            retention=retention,
            lock=lock,
        )
        if findings.left_over:
            sync_directory(
                disk, path
            )  # the manifest that says so may have a name that is not durable
            while journal.delete_dropped():
                pass
        if not findings.marked:
            journal.mark()
        return journal, report
    except BaseException:
        disk.close(descriptor)
        raise


def _put_aside(
    disk: Disk, path: str, name_of: Callable[[int], str], descriptor: int, torn: Torn
) -> str:
    """Keep a torn tail, and return the path of the file that has it."""
    try:
        return put_aside(disk, path, name_of, disk.read(descriptor, torn.size, torn.offset))
    except OSError as error:
        if not is_no_space(error):
            raise
        return move_aside(disk, path, name_of, descriptor, torn.offset, torn.size)


def _write_again(disk: Disk, descriptor: int, findings: Findings) -> int:
    """Trim what is behind the frames, and write once more those that no watermark proves.

    Returns how many bytes that were. Of a clean store that is the mark: its own sync may be the one
    that failed.
    """
    contents = findings.contents
    if findings.size != contents.end:
        disk.truncate(descriptor, contents.end)
    start = contents.unproven_from(findings.watermark)
    for offset in range(start, contents.end, READ_BYTES):
        piece = disk.read(descriptor, min(READ_BYTES, contents.end - offset), offset)
        disk.write(descriptor, [piece], offset)
    return contents.end - start


def _remove(disk: Disk, path: str, names: Sequence[str]) -> None:
    for name in names:
        disk.remove(f"{path}/{name}")
    if names:
        sync_directory(disk, path)
