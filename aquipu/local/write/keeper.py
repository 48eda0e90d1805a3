"""Keeper: which segments stay and which go, by purges, the retention and holds. Blocking.

The decisions are those of `retention`, the removal is that of `purge`; here they are carried out
on the log that is written: durably, and with no hold set meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from logging import getLogger
from time import time_ns

from aquipu.errors import AquipuError, StoreFailedError
from aquipu.local.disk.os_errors import is_passing, translate_os_errors
from aquipu.local.format.names import BookmarkKind
from aquipu.local.format.segment import TIME_END
from aquipu.local.retain.bookmarks import exclusive, holds, remove_bookmark, set_hold
from aquipu.local.retain.clock import HOUR, SECOND, ClockAlarm, elapsed_ns
from aquipu.local.retain.manifest import write_manifest
from aquipu.local.retain.retention import (
    Retention,
    aged,
    believed,
    kept_from,
    kept_from_sequence,
    kept_from_time,
)
from aquipu.local.retain.space import FreeSpace
from aquipu.local.write.log_files import LogFiles
from aquipu.record import Purged
from aquipu.runtime.trouble import Troubles

_BUSY_PAUSE = SECOND // 20
"""Nanoseconds until the next attempt when another process sets a hold."""
_HELD_PAUSE_MAX = HOUR
"""The most nanoseconds between two looks whether what is too old is still held."""

_log = getLogger(__name__)


class Keeper:
    """Drops the oldest segments of a log, and keeps what is held."""

    def __init__(
        self,
        files: LogFiles,
        retention: Retention | None,
        space: FreeSpace,
        troubles: Troubles,
        clock: ClockAlarm,
    ) -> None:
        """Keep these files by a retention, or all of them without one."""
        self._files = files
        self._retention = retention
        self._space = space
        self._troubles = troubles
        self._clock = clock
        self._is_due = retention is not None
        self._rests_until = 0  # the last attempt to let go of what is too old was in vain
        self._delete_at = 0  # when files that could not be deleted are tried again

    def purge(
        self, *, before: int | None = None, before_time: int | None = None, dry_run: bool = False
    ) -> Purged | None:
        """Drop the whole sealed segments before a sequence, or with only records older than a time.

        Their files are deleted by `delete_dropped`. Returns None when another process sets a hold
        at this moment: try again.

        Raises CorruptionError or UnsupportedFormatError for a hold that does not check,
        StoreUnavailableError, StoreFullError (nothing was changed) or StoreFailedError.
        """
        files = self._files
        sealed, active = files.sealed.sealed, files.active.header.first_sequence
        if before is not None:
            return self._drop(partial(kept_from_sequence, sealed, active, before), dry_run=dry_run)
        assert before_time is not None, "before a sequence or a time"
        now = TIME_END if self._clock.look() is not None else time_ns()
        sealed = believed(sealed, files.active.contents.first_time, now)
        return self._drop(partial(kept_from_time, sealed, active, before_time), dry_run=dry_run)

    def expect(self) -> None:
        """Let `retain` decide again: a segment was sealed."""
        self._is_due = self._retention is not None

    def retain(self) -> None:
        """Drop the segments that the retention no longer keeps.

        Called after opening, after each roll, and when the disk is full. Raises StoreFailedError.
        """
        files = self._files
        is_due = self._is_due or self._is_overdue
        if self._retention is None or not is_due or files.failure is not None:
            return
        active = (files.active.header.first_sequence, files.active.contents.end)
        try:
            purged = self._drop(
                partial(
                    kept_from, aged(files.sealed.sealed), *active, self._retention, elapsed_ns()
                )
            )
            self._is_due = purged is None
            self._troubles.end("retention")
        except StoreFailedError:
            raise
        except AquipuError as error:
            self._is_due = False
            reason = f"the retention keeps everything until the next segment begins: {error}"
            if self._troubles.begin("retention", reason):
                _log.warning("%s: %s", files.path, reason)
        self._rest()

    @property
    def look_at(self) -> int | None:
        """When the oldest segment is to go by its age, where segments are sealed by their age.

        By the clock of ages; None when nothing will be due.
        """
        looks = []
        if self._files.age is not None and self._files.sealed.is_blocked:  # a reader is at it, say
            looks.append(self._delete_at)
        if (over_at := self._over_at) is not None:
            looks.append(max(over_at, self._rests_until))
        return min(looks, default=None)

    @property
    def _over_at(self) -> int | None:
        """When the oldest sealed segment is older than the retention keeps it."""
        sealed, retention = self._files.sealed.sealed, self._retention
        if self._files.age is None or retention is None or retention.age_ns is None or not sealed:
            return None
        return sealed[0].aging_since + retention.age_ns + 1

    @property
    def _is_overdue(self) -> bool:
        return (look_at := self.look_at) is not None and elapsed_ns() >= look_at

    def _rest(self) -> None:
        """Look again only after a pause, where what is due by its age could not go: it is held."""
        age = self._files.age
        if age is not None:
            now, over_at = elapsed_ns(), self._over_at
            pause = _BUSY_PAUSE if self._is_due else min(age.max_age, _HELD_PAUSE_MAX)
            self._delete_at = now + pause
            self._rests_until = now + pause if over_at is not None and over_at <= now else 0

    def delete_dropped(self) -> bool:
        """Delete the files of one dropped segment.

        False when there is none, or none that can be deleted now.
        """
        return self._files.failure is None and self._files.sealed.delete()

    def make_room(self) -> bool:
        """Delete files that the retention does not keep; return whether any were deleted."""
        if self._retention is None:
            return False
        self._is_due = True
        self.retain()
        deleted = False
        while self.delete_dropped():
            deleted = True
        return deleted

    # holds

    def set_hold(self, name: str, sequence: int) -> bool:
        """Keep everything from this sequence on.

        False when another process sets a hold at this moment: try again. Raises RecordPurgedError,
        StoreUnavailableError, StoreFullError (nothing was changed) or StoreFailedError.
        """
        files = self._files
        files.refuse_if_failed()
        self._space.use_reserve()
        with translate_os_errors(files.path, "set a hold in"), files.changing():
            return set_hold(files.disk, files.path, name, sequence)

    def remove_hold(self, name: str) -> bool:
        """Remove a hold, and return whether there was one.

        Raises StoreUnavailableError or StoreFailedError.
        """
        files = self._files
        files.refuse_if_failed()
        with translate_os_errors(files.path, "remove a hold from"), files.changing():
            return remove_bookmark(files.disk, files.path, BookmarkKind.HOLD, name)

    def holds(self) -> dict[str, int]:
        """Return all holds by their names; may be called from any thread.

        Raises CorruptionError or UnsupportedFormatError.
        """
        files = self._files
        return holds(files.disk, files.path, files.manifest.store_id)

    # the decision

    def _drop(
        self, decide: Callable[[Iterable[int]], int], *, dry_run: bool = False
    ) -> Purged | None:
        """Decide with the current holds what to drop, durably; no hold can be set meanwhile.

        None when another process is setting one.
        """
        files = self._files
        files.refuse_if_failed()
        with (
            translate_os_errors(files.path, "purge"),
            exclusive(files.disk, files.path) as is_exclusive,
        ):
            if not is_exclusive:
                return None
            held = self.holds()
            purged = files.sealed.before(files.manifest.first_sequence, decide(held.values()))
            if decide(()) > purged.first_sequence:
                name = min(held, key=lambda name: (held[name], name))
                purged = purged._replace(held_by=name, held_from=held[name])
            if not dry_run:
                if purged.segments:
                    self._begin_at(purged.first_sequence)
                files.sealed.try_again()
            return purged

    def _begin_at(self, first_sequence: int) -> None:
        """Write the new first sequence into the manifest, durably, before any file is deleted."""
        files = self._files
        manifest = files.manifest._replace(first_sequence=first_sequence)
        self._space.use_reserve()
        try:
            with files.changing():
                write_manifest(files.disk, files.path, manifest)
        except OSError as error:
            if is_passing(error):  # nothing was changed
                raise
            raise files.fail("writing the manifest", error) from error
        files.manifest = manifest
        files.segments = tuple(
            ref for ref in files.segments if ref.first_sequence >= first_sequence
        )
        files.sealed.drop(first_sequence)
