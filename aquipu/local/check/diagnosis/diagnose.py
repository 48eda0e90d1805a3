"""A diagnosis: everything about a store that can be seen without touching it. Blocking.

No lock is taken. So a writer may come or go during the look; then it is taken once more, a few
times at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from time import time_ns

from aquipu.errors import AquipuError, CorruptionError
from aquipu.local.check.actions import RepairAction, firsts_in
from aquipu.local.check.at_work import verify_at_work
from aquipu.local.check.diagnosis.facts import (
    Consumer,
    Diagnosis,
    OtherFile,
    Place,
)
from aquipu.local.check.diagnosis.opening import steps_of
from aquipu.local.check.diagnosis.remarks import remarks_on
from aquipu.local.check.diagnosis.segments import Log, segments_of
from aquipu.local.check.inspect import TornTail, Writer, examined, iso_time, sizes_of, torn_tail_of
from aquipu.local.check.plan import plan, store_id_of
from aquipu.local.check.verify import Damage, damages_of, verify_all
from aquipu.local.disk.directory import check_there
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.lock import holder_of
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.disk.paths import is_shared
from aquipu.local.disk.rights import rights_of
from aquipu.local.disk.system import file_system, locked_by
from aquipu.local.format.history import Ending
from aquipu.local.format.names import (
    ACKNOWLEDGED,
    LOCK,
    MANIFEST,
    BookmarkKind,
    first_sequence_of,
    is_bookmark_in_the_making,
    is_of_the_volume,
    is_ours,
    is_unnamed,
)
from aquipu.local.format.structure import VERSION
from aquipu.local.format.structure import Damage as BadBytes
from aquipu.local.read.catalog import Catalog
from aquipu.local.read.examine import Findings
from aquipu.local.read.progress_reader import ProgressReader
from aquipu.local.read.segment_reader import OnProgress
from aquipu.local.retain.bookmarks import bookmark_names, read_bookmark
from aquipu.local.retain.history import read_mark_and_history
from aquipu.local.retain.manifest import read_manifest
from aquipu.local.write.generation import would_begin
from aquipu.local.write.recovery import check_place

_TRIES = 3
_ENDINGS = {Ending.OPEN: "not closed", Ending.CLOSED: "closed", Ending.UNKNOWN: "repaired"}


def diagnose(
    disk: Disk, path: str, *, whole: bool = True, progress: OnProgress = lambda size: None
) -> Diagnosis:
    """Look at a store, and change nothing; without ``whole``, read only what an opening reads.

    Raises NotAStoreError, UnsupportedFormatError and StoreUnavailableError. What is damaged is in
    the diagnosis.
    """
    check_there(disk, path)
    with suppress(CorruptionError):  # of the manifest: it is in the diagnosis
        check_place(disk, path)
    with translate_os_errors(path, "read"):
        for tries_left in reversed(range(_TRIES)):
            writer = writer_at(disk, path)
            seen = _at_rest if writer is None else _at_work
            found = seen(disk, path, _Seen(writer), whole, progress)
            if not tries_left or (writer is None) == (writer_at(disk, path) is None):
                break
        return _completed(disk, path, found, whole=whole)


def writer_at(disk: Disk, path: str) -> Writer | None:
    """Return the process that writes a store at this moment; None when none does.

    Nothing is locked to find out.
    """
    identities = [disk.identity(path)]
    with suppress(OSError):
        identities.append(disk.identity(f"{path}/{LOCK}"))
    pid = locked_by(identities)
    if pid is None:
        try:  # of a process in another container the system shows no lock, but its mark
            if not disk.is_shared(f"{path}/{ACKNOWLEDGED}"):
                return None
        except OSError:
            return None
    return Writer(pid or holder_of(disk, path), is_shared(path))


@dataclass
class _Seen:
    """What the look at the log itself has shown."""

    writer: Writer | None
    store_id: bytes | None = None
    first: int | None = None
    stop: int | None = None
    synced: int | None = None
    torn: TornTail | None = None
    damages: list[Damage] = field(default_factory=list)
    refusal: str | None = None
    repair: list[RepairAction] = field(default_factory=list)
    repair_refusal: str | None = None
    opening: list[str] = field(default_factory=list)


# at rest


def _at_rest(disk: Disk, path: str, seen: _Seen, whole: bool, progress: OnProgress) -> _Seen:
    findings: Findings | None = None
    seen.store_id = _store_id(disk, path)
    try:
        findings = examined(disk, path)
    except CorruptionError as error:
        seen.refusal = f"{type(error).__name__}: {error}"
        seen.damages = damages_of([error])
    if whole:
        seen.damages = verify_all(disk, path, progress).damages
    if seen.damages:
        _plan_repair(disk, path, seen)
    if findings is None:
        seen.opening = ["refuse the store, and change nothing"]
        with suppress(CorruptionError, OSError):
            seen.first = read_manifest(disk, path).first_sequence
        return seen
    manifest = findings.manifest
    seen.first, seen.stop = manifest.first_sequence, findings.contents.next_sequence
    seen.synced = max(manifest.synced_sequence, findings.watermark, findings.active.first_sequence)
    seen.torn = torn_tail_of(findings)
    begins = would_begin(disk, path, manifest.store_id, findings.contents.next_sequence)
    seen.opening = list(steps_of(findings, begins_generation=begins)) or [
        "go on where the log ends: there is nothing to mend"
    ]
    if seen.damages:
        seen.opening.append(
            "not notice the damage: of full segments an opening reads the headers and footers only"
        )
    return seen


def _plan_repair(disk: Disk, path: str, seen: _Seen) -> None:
    try:
        seen.repair = [action for step in plan(disk, path) for action in step.actions]
    except (AquipuError, OSError) as error:
        seen.repair_refusal = str(error)


def _store_id(disk: Disk, path: str) -> bytes | None:
    """Return the id of the store, by its manifest or else by its segments."""
    try:
        return read_manifest(disk, path).store_id
    except (CorruptionError, FileNotFoundError):
        ids = {store_id_of(disk, path, first) for first in firsts_in(disk, path)} - {None}
        return ids.pop() if len(ids) == 1 else None


# at work


def _at_work(disk: Disk, path: str, seen: _Seen, whole: bool, progress: OnProgress) -> _Seen:
    assert seen.writer is not None
    seen.store_id = _store_id(disk, path)
    seen.opening = [
        "join it: the process that writes it shares it"
        if seen.writer.shared
        else "wait for the process that writes it, up to lock_timeout seconds, and then refuse"
    ]
    try:
        with closing(Catalog(disk, path)) as catalog:
            view = catalog.look()
            seen.first, seen.stop = view.start, view.stop
    except CorruptionError as error:
        seen.damages = damages_of([error])
    if whole:
        seen.damages = verify_at_work(disk, path, seen.writer, progress).damages
    return seen


# all together


def _completed(disk: Disk, path: str, seen: _Seen, *, whole: bool) -> Diagnosis:
    log = Log(
        seen.store_id,
        seen.first or 0,
        None if seen.writer is None else seen.stop,
        seen.damages,
        seen.repair,
    )
    segments = tuple(segments_of(disk, path, log))
    generation, ending = _history(disk, path, seen.store_id)
    times = [time for one in segments for time in (one.first_time, one.last_time) if time]
    found = Diagnosis(
        path=path,
        seen_at=iso_time(time_ns()),
        checked="every byte" if whole else "what opening reads",
        store_id=None if seen.store_id is None else seen.store_id.hex(),
        format_version=VERSION,
        generation=generation,
        place=_place(disk, path),
        writer=seen.writer,
        ending=ending if seen.writer is None else None,
        copy=_is_copy(disk, path, seen),
        first_sequence=seen.first,
        next_sequence=seen.stop,
        synced_sequence=seen.synced,
        first_time=times[0] if times else None,
        last_time=times[-1] if times else None,
        bytes=sum(sizes_of(disk, path, is_ours).values()),
        segments=segments,
        torn_tail=seen.torn,
        damages=tuple(seen.damages),
        refusal=seen.refusal,
        repair=tuple(seen.repair),
        repair_refusal=seen.repair_refusal,
        opening=tuple(seen.opening),
        holds=tuple(_bookmarks(disk, path, seen, BookmarkKind.HOLD)),
        cursors=tuple(_bookmarks(disk, path, seen, BookmarkKind.CURSOR)),
        others=tuple(_others(disk, path)),
        remarks=(),
    )
    return replace(found, remarks=remarks_on(found))


def _history(disk: Disk, path: str, store_id: bytes | None) -> tuple[str | None, str | None]:
    """Return the generation, and how the last writer left, as far as they are known."""
    if store_id is None:
        return None, None
    try:
        mark, history = read_mark_and_history(disk, path, store_id)
    except (OSError, AquipuError, BadBytes):
        return None, None
    return history.current.hex(), None if mark is None else _ENDINGS[mark.ending]


def _place(disk: Disk, path: str) -> Place:
    mode, owner, group = rights_of(path)
    try:
        free = disk.free(path)
    except OSError:
        free = None
    return Place(file_system(path), free, mode, owner, group)


def _is_copy(disk: Disk, path: str, seen: _Seen) -> bool:
    """Return whether its page is that of another directory, and it was open when it was copied."""
    if seen.writer is not None or seen.store_id is None:
        return False
    if seen.refusal is not None and seen.refusal.startswith("IncompleteCopyError"):
        return True
    try:
        page = ProgressReader.open(disk, path, seen.store_id)
    except (OSError, AquipuError):
        return False
    _, ending = _history(disk, path, seen.store_id)
    return page is not None and page.is_copied and ending == _ENDINGS[Ending.OPEN]


def _bookmarks(disk: Disk, path: str, seen: _Seen, kind: BookmarkKind) -> Iterator[Consumer]:
    """Yield the holds or cursors that check: the others are damages."""
    if seen.store_id is None:
        return
    for name in bookmark_names(disk, path, kind):
        with suppress(AquipuError, OSError):
            sequence = read_bookmark(disk, path, seen.store_id, kind, name)
            if sequence is not None:
                behind = None if seen.stop is None else max(seen.stop - sequence, 0)
                yield Consumer(name, sequence, behind)


def _others(disk: Disk, path: str) -> Iterator[OtherFile]:
    for name in sorted(disk.list(path)):
        what = _what(name)
        if what is not None:
            with suppress(OSError):  # it is gone, or is a link that leads nowhere
                yield OtherFile(name, what, disk.seen(f"{path}/{name}")[3])


def _what(name: str) -> str | None:
    """Return what a file beside the log is; None for one that belongs to every store."""
    if not is_ours(name):
        return None if is_of_the_volume(name) else "unknown"
    if is_unnamed(name) or is_bookmark_in_the_making(name):
        return "unfinished"
    is_log = name == MANIFEST or first_sequence_of(name) is not None
    return "kept aside" if ".cut-" in name and not is_log else None
