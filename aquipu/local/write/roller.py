"""Roller: turns from a segment to the next one, whose file was prepared. Blocking.

When the next segment cannot be made, for lack of space or for a reason that passes (`is_passing`),
the current one grows, and after a pause, longer each time, that is tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from logging import getLogger
from time import monotonic_ns

from aquipu.errors import StoreFailedError
from aquipu.local.disk.durable import OutcomeUnknown, sync_directory
from aquipu.local.disk.os_errors import is_no_space, is_passing
from aquipu.local.format.names import segment_name
from aquipu.local.format.segment import SegmentHeader
from aquipu.local.retain.clock import SECOND
from aquipu.local.retain.retention import SealedSegment
from aquipu.local.write.log_files import LogFiles, segment_ref
from aquipu.local.write.segment_writer import SegmentWriter, Spare
from aquipu.runtime.allowance import Allowance
from aquipu.runtime.trouble import Troubles

_ROLL_PAUSE = SECOND // 100  # between two attempts to make the next segment, doubling
_ROLL_PAUSE_MAX = 5 * SECOND
_TURNS = 16
_TURN_SECONDS = 60
"""The system clock is followed `_TURNS` times at once, and in the long run once in `_TURN_SECONDS`:
each time a segment begins.
"""

_log = getLogger(__name__)


class Roller:
    """The next segment of a log: its spare file, and the attempts to begin it."""

    def __init__(self, files: LogFiles, troubles: Troubles, make_room: Callable[[], bool]) -> None:
        """Roll these files; ``make_room`` deletes what need not be kept, when the disk is full."""
        self._files = files
        self._troubles = troubles
        self._make_room = make_room
        self._spare: Spare | None = None
        self._failed = 0  # attempts, one after another
        self.roll_at = 0
        """Time of the monotonic clock before which nothing is attempted, when that went wrong."""
        self._turns = Allowance(_TURNS, _TURN_SECONDS * SECOND)
        self._unused: str | None = None  # a segment not begun, whose name may still be there

    def attempt(self, step: Callable[[], bool]) -> bool:
        """Do a step for the next segment, and return whether it went; if not, try again later.

        Raises StoreFailedError.
        """
        if self._rests:
            return False
        try:
            went = step()
        except OSError as error:
            if not (is_no_space(error) or is_passing(error)):
                raise self._files.fail("rolling to a new segment", error) from error
            self._attempt_later(error)
            return False
        except OutcomeUnknown as unknown:
            raise self._files.fail(unknown.doing, unknown.error) from unknown.error
        if went and self._failed:
            self._failed = 0
            self._troubles.end("roll")
        return went

    def turn(self, step: Callable[[], bool]) -> bool:
        """Do a step as `attempt`, because the clock was set back: not too often."""
        return not self._rests and self._turns.take(monotonic_ns()) and self.attempt(step)

    @property
    def _rests(self) -> bool:
        """Whether the next segment could not be made just now."""
        return self._failed > 0 and monotonic_ns() < self.roll_at

    def _attempt_later(self, error: OSError) -> None:
        """Note that the next segment cannot be made now, and nothing else is wrong.

        The first time that is tried again after the next commit.
        """
        pause = min(_ROLL_PAUSE << min(self._failed, 16), _ROLL_PAUSE_MAX) if self._failed else 0
        self.roll_at = monotonic_ns() + pause
        self._failed += 1
        reason = f"the next segment cannot be made, so the one at hand grows: {error.strerror}"
        if self._troubles.begin("roll", reason):
            _log.warning(
                "%s: %s; nothing was lost, and it is tried again", self._files.path, reason
            )
        if is_no_space(error) and self._make_room():
            self.roll_at = 0

    def prepare(self) -> bool:
        """Make the file of the next segment, a step after each commit, so that none waits long."""
        if self._spare is None:
            self._spare = Spare.prepared(self._files.disk, self._files.active.path)
        elif self._spare.dirty:
            self._spare.sync()
        return True

    def drop_spare(self) -> None:
        """Remove the file that was prepared, if there is one."""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.drop()

    def close(self) -> None:
        """Close the file that was prepared, and leave it where it is."""
        if self._spare is not None:
            self._spare.close()

    def roll(self, next_sequence: int, created: int) -> SegmentWriter:
        """Make the next segment, durably, then seal the active one, and return that.

        See the promises in `format/segment`. ``created``: no record that follows is earlier, unless
        the clock is set back before the first one comes. After an OSError all is as before, but
        that a name may be left, which `_forget_unused` removes. A segment that somebody has cut off
        is not sealed: a footer would give it its size back, and the hole would not show.
        """
        files, old = self._files, self._files.active
        files.check_size()
        self._forget_unused()
        old.trim()
        header = SegmentHeader(old.header.store_id, next_sequence, created, old.contents.link)
        spare, self._spare = self._spare, None
        self._unused = f"{files.path}/{segment_name(next_sequence)}"
        successor = SegmentWriter.create(files.disk, self._unused, header, spare)
        try:
            files.check_size()
            size = old.seal()
        except OSError as error:
            self._unroll(successor)
            raise error
        except (OutcomeUnknown, StoreFailedError):
            successor.close()
            raise
        self._unused = None
        old.close()
        files.active = successor
        times = (old.contents.first_time, old.contents.last_time)
        sealed = files.segments[-1]._replace(growing=None, times=times)
        files.segments = (*files.segments[:-1], sealed, segment_ref(successor))
        first = old.header.first_sequence
        files.sealed.add(
            SealedSegment(first, next_sequence, size, times[1], times[0], files.seal_age())
        )
        return old

    def _unroll(self, successor: SegmentWriter) -> None:
        """Undo a roll: this segment cannot be sealed, so it goes on, without a successor.

        What there is of a footer is removed first: as long as one may come back after a power cut,
        a successor must be there.
        """
        successor.close()
        self._files.active.cut_back()
        try:
            self._forget_unused()
        except OSError as error:
            if not is_passing(error):
                raise OutcomeUnknown("removing an unused segment", error) from error

    def _forget_unused(self) -> None:
        """Remove, durably, the name of a segment that was not begun: no other may be named before.

        An empty last segment is what opening expects of a roll that was cut short; an empty one
        between two others is not.
        """
        if self._unused is not None:
            with suppress(FileNotFoundError):
                self._files.disk.remove(self._unused)
            sync_directory(self._files.disk, self._files.path)
            self._unused = None
