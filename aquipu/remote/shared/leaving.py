"""The end of a program that shares a store and never closed it: what it accepted is written.

Without an event loop, and blocking. Whoever writes the store now takes it; when nobody does, for
example because it was this very process, the store is opened for a moment to write it.
"""

from __future__ import annotations

from collections.abc import Sequence
from logging import getLogger
from time import monotonic, monotonic_ns, sleep, time_ns
from typing import Any

from aquipu.engine import Commit
from aquipu.errors import StoreLockedError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.lock import Lock, holder_of
from aquipu.local.keyed import find_keyed
from aquipu.local.opening import Opened, recover_files
from aquipu.local.read.snapshot import Snapshot
from aquipu.options import Options
from aquipu.policy import Stage
from aquipu.record import Key
from aquipu.remote.leaving import Sent, deliver
from aquipu.remote.protocol import Head, commit_in

_PAUSE = 0.01  # seconds until it is tried again

_log = getLogger(__name__)


class Legacy:
    """What a program accepted for a shared store and did not bring there."""

    def __init__(
        self,
        path: str,
        socket: str,
        options: Options,
        disk: Disk,
        hello: Head,
        commits: Sequence[Sent],
    ) -> None:
        self._path = path
        self._socket = socket
        self._options = options
        self._disk = disk
        self._hello = hello
        self._commits = commits

    def deliver_or_say(self, deadline: float) -> None:
        """Have it written until the deadline (`monotonic`), or log that it was not."""
        try:
            self._deliver(deadline)
        except Exception as error:
            _log.error(
                "%s was not closed, and what was accepted before the exit could not be written: "
                "records that were accepted and not yet acknowledged may be missing; "
                "use aclose() or `async with`: %s",
                self._path,
                error,
            )

    def _deliver(self, deadline: float) -> None:
        while True:
            try:
                deliver(self._path, self._socket, self._hello, self._commits, deadline)
                return
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if self._write():
                    return
                if monotonic() >= deadline:
                    holder = holder_of(self._disk, self._path)
                    raise StoreLockedError(self._path, holder) from error
            sleep(_PAUSE)

    def _write(self) -> bool:
        """Write it, if nobody else has the store."""
        lock = Lock.take(self._disk, self._path)
        if lock is None:
            return False
        opened = recover_files(self._path, self._options, self._disk, lock)
        try:
            for head, records in self._commits:
                self._write_commit(opened, head, records)
            opened.journal.close()
        finally:
            opened.drop()
        return True

    def _write_commit(self, opened: Opened, head: Head, records: list[bytes]) -> None:
        """Write a commit, unless it is in the log: it was sent, and not answered."""
        journal = opened.journal
        writer = bytes.fromhex(self._hello["writer"])
        first, following = journal.segments[0].first_sequence, journal.next_sequence
        seen = Snapshot(self._disk, journal.segments, first, following)
        if find_keyed(seen, writer, head["number"]) is not None:
            return
        commit: Commit[Any] = Commit()
        payloads, labels = commit_in(b"".join(records))
        commit.time, commit.since = time_ns(), monotonic_ns()
        commit.payloads += payloads
        commit.timestamps += [commit.time] * len(payloads)
        commit.labels.update(labels)
        commit.keys.append(Key(writer, head["number"], 0, len(payloads)))
        commit.sync = head["stage"] is Stage.SYNCED
        journal.write(journal.prepare(commit))
