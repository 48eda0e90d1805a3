"""Publisher: makes known to all readers how far the log is acknowledged."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future
from collections import deque
from typing import TypeVar
from weakref import WeakSet

from aquipu.engine import Commit
from aquipu.errors import StoreFailedError, copy_error
from aquipu.local.read.follow import Recent
from aquipu.local.read.tail import Windows
from aquipu.local.write.journal import Journal
from aquipu.local.write.progress_page import ProgressPage
from aquipu.reading import Follow

T = TypeVar("T")

_NEVER = 2**64  # beyond every sequence

RECENT_BYTES = 1024 * 1024
"""Bytes of the last commits that are kept for followers that are a little late.

The very last commit always is.
"""


class Publisher:
    """Makes known each commit whose callers have been acknowledged.

    The followers in this process are woken, and the last commits are kept for them; the readers in
    other processes see the progress page.
    """

    def __init__(
        self, loop: AbstractEventLoop, journal: Journal, page: ProgressPage, acknowledged: int
    ) -> None:
        self._acknowledged = self._acknowledging = acknowledged
        self._until = _NEVER  # where a store that has failed may still be read
        self._loop = loop
        self._journal = journal
        self._page = page
        self.windows = Windows()
        """What followers have read last from the files."""
        self._followers: WeakSet[Follow] = WeakSet()
        self._waiting: set[Future[None]] = set()
        self._recent: deque[Recent] = deque()
        self._bytes = 0  # of the recent ones
        self._failure: StoreFailedError | None = None
        self._over = False

    @property
    def acknowledged(self) -> int:
        """One past the last record that was acknowledged to its caller and may be read."""
        return min(self._acknowledged, self._until)

    def begin(self, next_sequence: int) -> None:
        """Say that all records below this sequence are about to be acknowledged."""
        self._acknowledging = next_sequence
        self.republish()

    def publish(self, first_sequence: int, commit: Commit[T]) -> None:
        """Publish a commit whose callers were acknowledged.

        To do it once more changes nothing.
        """
        following = first_sequence + len(commit)
        if following <= self._acknowledged:
            self._wake()
            return
        self._acknowledged = following
        self.republish()
        if not self._followers:
            self._forget()  # one that was dropped says nothing
        elif self._failure is None:
            recent = Recent(
                first_sequence, commit.payloads, commit.timestamps, commit.labels, commit.size
            )
            self._recent.append(recent)
            self._bytes += recent.size
            while self._bytes > RECENT_BYTES and len(self._recent) > 1:
                self._bytes -= self._recent.popleft().size
            self._wake()

    def republish(self) -> None:
        """Publish to other processes how far the log has come now."""
        segments, until = self._journal.segments, self._until
        self._page.publish(
            min(self._acknowledged, until),
            min(self._acknowledging, until),
            segments[-1].first_sequence,
            segments[0].first_sequence,
        )

    def fail(self, failure: StoreFailedError, readable_until: int) -> None:
        """End the log with an error: nothing from ``readable_until`` on may be read any more."""
        self._failure = failure
        self._page.note_failure(max(self._acknowledged, self._acknowledging))
        self._until = readable_until
        self.republish()
        self._forget()
        self._wake()

    def end(self) -> None:
        """End the log, because the store is closed: nothing more will come."""
        self._over = True
        self._page.close()
        self._wake()

    # what followers ask

    def recent(self, sequence: int) -> Recent | None:
        """Return the commit with this sequence, if it is still in memory."""
        if (
            sequence >= self.acknowledged
            or not self._recent
            or sequence < self._recent[0].first_sequence
        ):
            return None
        recent = next(
            recent for recent in reversed(self._recent) if recent.first_sequence <= sequence
        )
        # an interrupt may have left one out
        return recent if sequence < recent.next_sequence else None

    async def news(self) -> bool:
        """Wait for the next commit; False at the end. Raises StoreFailedError."""
        if self._failure is not None:
            raise copy_error(self._failure)
        if self._over:
            return False
        waiter: Future[None] = self._loop.create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)
        return True

    def joined(self, follower: Follow) -> None:
        """Add a follower, for which commits are kept."""
        self._followers.add(follower)

    def left(self, follower: Follow) -> None:
        """Drop a follower."""
        self._followers.discard(follower)
        self._wake()  # it may be waiting itself

    def _forget(self) -> None:
        self._recent.clear()
        self._bytes = 0

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()
