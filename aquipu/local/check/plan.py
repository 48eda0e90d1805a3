"""What is to be done about a damaged store. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from aquipu.errors import (
    CorruptionError,
    NotAStoreError,
    UnsupportedFormatError,
)
from aquipu.local.check.actions import RepairAction, Step, cut_beside, firsts_in, size_of
from aquipu.local.check.chain import Chain
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.system import process_id
from aquipu.local.format.bookmark import Bookmark
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import (
    MANIFEST,
    bookmark_in_the_making,
    bookmark_of,
    segment_name,
)
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES, SegmentHeader
from aquipu.local.format.structure import Damage, Unsupported
from aquipu.local.read.examine import examine
from aquipu.local.read.segment_reader import (
    OnProgress,
)
from aquipu.local.retain.bookmarks import read_bookmark
from aquipu.local.retain.manifest import read_manifest


def plan(disk: Disk, path: str, progress: OnProgress = lambda size: None) -> list[Step]:
    """Return what is to be done, in this order; nothing for a sound store."""
    steps: list[Step] = []
    try:
        findings = examine(disk, path)
        if findings is None:
            raise NotAStoreError(path, "the directory holds none")
        manifest = findings.manifest
    except CorruptionError:
        findings = None
        manifest, manifest_steps = _plan_manifest(disk, path)
        steps += manifest_steps
    chain = Chain(disk, path, manifest, progress)
    steps += chain.plan() if findings is None else chain.plan_sealed(len(findings.sealed))
    steps += _plan_bookmarks(disk, path, manifest)
    return steps


def _plan_manifest(disk: Disk, path: str) -> tuple[Manifest, list[Step]]:
    """Return the manifest of the store, made anew if need be.

    Raises CorruptionError when the segments do not tell enough.
    """
    name = f"{path}/{MANIFEST}"
    try:
        return read_manifest(disk, path), []
    except FileNotFoundError:
        size, reason = 0, "the manifest is missing"
    except CorruptionError as error:
        size, reason = size_of(disk, name), error.reason
    firsts = firsts_in(disk, path)
    store_ids = {
        store_id for first in firsts if (store_id := store_id_of(disk, path, first)) is not None
    }
    if len(store_ids) != 1:
        raise CorruptionError(
            name, 0, f"{reason}, and the segments do not tell which store this is"
        )
    # The last segment may be what is left of a roll, so only what lies before the last but one was
    # surely synced.
    manifest = Manifest(store_ids.pop(), firsts[0], firsts[-2:][0])
    action = f"made anew from the segments: the log begins at sequence {firsts[0]}"
    planned = RepairAction(name, 0, size, reason, action, None, None, None)
    return manifest, [Step(MANIFEST, (planned,), manifest.encode, cut_beside(MANIFEST))]


def store_id_of(disk: Disk, path: str, first: int) -> bytes | None:
    """Return the id of the store that a segment belongs to, if its header is sound."""
    with opened(disk, f"{path}/{segment_name(first)}") as descriptor:
        data = disk.read(descriptor, SEGMENT_HEADER_BYTES, 0)
    try:
        return SegmentHeader.decode(data, data[16:32], first).store_id
    except Damage:
        return None
    except Unsupported as unsupported:
        raise UnsupportedFormatError(f"{path}/{segment_name(first)}", str(unsupported)) from None


def _plan_bookmarks(disk: Disk, path: str, manifest: Manifest) -> Iterator[Step]:
    for name in sorted(disk.list(path)):
        bookmark = bookmark_of(name)
        if bookmark is None:
            continue
        try:
            read_bookmark(disk, path, manifest.store_id, *bookmark)
        except CorruptionError as error:
            anew = Bookmark(manifest.store_id, name, manifest.first_sequence)
            action = f"set to the first record kept, sequence {manifest.first_sequence}"
            planned = RepairAction(
                error.path, 0, size_of(disk, error.path), error.reason, action, None, None, None
            )
            unnamed = bookmark_in_the_making(name, process_id(), 0)
            yield Step(name, (planned,), anew.encode, cut_beside(name), unnamed=unnamed)
