"""The repair of a damaged store: it is planned, then carried out. Blocking.

`repairing` takes the lock and gives the `Repair`: what is damaged, and what would be done, as
steps. Nothing is changed before `Repair.carry_out`. What is done about each damage:

* Frames of a segment: the segment is written anew, every sound frame as it was, and placeholders
  where a frame is lost (see `placeholder`).
* The header or the footer of a segment: made anew from its neighbours and its frames.
* A missing segment: made of placeholders, so what lies behind stays readable.
* The last one is missing, or its end, and the manifest says that there was more: placeholders up to
  where the manifest proves the log to have reached. What came after that is not known.
* The manifest: made anew from the segments.
* A hold or a cursor: set to the first record kept. So everything is held, and the consumer reads
  everything again.
* The index of a segment: removed. It is derived from the segment, and built again.

The rules: the damaged bytes are put aside first, durably, in a ``.cut-`` file beside. Then the file
is replaced as a whole, durably, or removed. So after a crash each file is the damaged one or the
sound one, and repairing goes on from there. It has the rights that the store's files have. What
is sound is never written to; a torn tail is left to the next opening.

Not repaired: segments that overlap, a store of which no segment says which one it is, and what the
disk cannot read at all.

Downsides: a damaged segment is read whole into memory, and needs its size once more on the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

from aquipu.errors import (
    CorruptionError,
    NotAStoreError,
    StoreLockedError,
    StoreUnavailableError,
)
from aquipu.local.check.actions import RepairAction, Step, firsts_in
from aquipu.local.check.plan import plan, store_id_of
from aquipu.local.check.rights import keep_rights
from aquipu.local.disk.directory import check_there
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.durable import OutcomeUnknown, put_aside, sync_directory, write_whole
from aquipu.local.disk.lock import Lock, holder_of
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.format.names import (
    ACKNOWLEDGED,
    MANIFEST,
    first_sequence_of,
)
from aquipu.local.read.segment_reader import (
    OnProgress,
)
from aquipu.local.write.generation import doubt
from aquipu.local.write.recovery import check_place


class Repair:
    """What is damaged in a store that is locked, and what is to be done."""

    def __init__(self, disk: Disk, path: str, progress: OnProgress) -> None:
        self.path = path
        self._disk = disk
        self._steps = plan(disk, path, progress)

    @property
    def plan(self) -> list[RepairAction]:
        """What would be done. Nothing: the store is sound."""
        return [action for step in self._steps for action in step.actions]

    def carry_out(self, progress: OnProgress = lambda size: None) -> list[RepairAction]:
        """Do it, read everything once more, and return what was done.

        Raises CorruptionError when that is not enough, StoreUnavailableError.
        """
        with _translated_errors(self.path):
            if self._steps:
                self._doubt()
            done = [action for step in self._steps for action in _take(self._disk, self.path, step)]
            left = plan(self._disk, self.path, progress)
        if left:
            worst = left[0].actions[0]
            raise CorruptionError(
                worst.path, worst.offset, f"{worst.reason}; repairing it did not help"
            )
        return done

    def _doubt(self) -> None:
        """Have the next opening begin a new generation, however far this comes.

        Consumers may have read what is lost.
        """
        for store_id in {
            store_id_of(self._disk, self.path, first) for first in firsts_in(self._disk, self.path)
        } - {None}:
            assert store_id is not None
            doubt(self._disk, self.path, store_id)


@contextmanager
def repairing(disk: Disk, path: str, progress: OnProgress = lambda size: None) -> Iterator[Repair]:
    """Find out what is to be repaired, and keep the store locked until the end.

    Raises NotAStoreError, StoreLockedError, StoreUnavailableError, UnsupportedFormatError, and
    CorruptionError for damage that cannot be repaired here. ``progress`` is called with the
    number of bytes that were read.
    """
    check_there(disk, path)
    with suppress(CorruptionError):  # that is what we are here for
        check_place(disk, path)
    with translate_os_errors(path, "lock"):
        if not any(
            name == MANIFEST or first_sequence_of(name) is not None for name in disk.list(path)
        ):
            raise NotAStoreError(path, "the directory holds none")
        keep_rights(disk, path)
        lock = Lock.take(disk, path)
    if lock is None:
        raise StoreLockedError(path, holder_of(disk, path))
    try:
        with _translated_errors(path):
            repair = Repair(disk, path, progress)
        yield repair
    finally:
        lock.release()


@contextmanager
def _translated_errors(path: str) -> Iterator[None]:
    try:
        with translate_os_errors(path, "repair"):
            yield
    except OutcomeUnknown as unknown:
        reason = f"{unknown.doing}: {unknown.error.strerror}"
        raise StoreUnavailableError(path, "repair", reason) from unknown.error


def _take(disk: Disk, path: str, step: Step) -> list[RepairAction]:
    """Do one step, durably."""
    name = f"{path}/{step.name}"
    done = [_kept(disk, path, action, step.cut_name) for action in step.actions]
    if step.stale_index is not None:
        _remove(disk, f"{path}/{step.stale_index}")
        _remove(disk, f"{path}/{ACKNOWLEDGED}")  # what it says of the log may no longer hold
    if step.content is None:
        _remove(disk, name)
    else:
        write_whole(disk, name, step.content(), unnamed=step.unnamed and f"{path}/{step.unnamed}")
    return done


def _kept(
    disk: Disk, path: str, action: RepairAction, name_of: Callable[[int, int], str] | None
) -> RepairAction:
    """Put the damaged bytes aside, if there are any, and say where."""
    if not action.bytes or name_of is None:
        return action
    with opened(disk, action.path) as descriptor:
        data = disk.read(descriptor, action.bytes, action.offset)
    return replace(action, kept_in=put_aside(disk, path, partial(name_of, action.offset), data))


def _remove(disk: Disk, name: str) -> None:
    if disk.exists(name):
        disk.remove(name)
        sync_directory(disk, name.rpartition("/")[0])
