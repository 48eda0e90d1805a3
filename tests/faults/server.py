"""The server: executes one run after another, each in a child, and has what it leaves judged by the
log of its store.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from shutil import copytree, rmtree
from typing import NoReturn

from aquipu import AquipuError, Record
from aquipu.local.format.names import BookmarkKind
from aquipu.local.read.examine import Findings
from tests.faults.index import CURSOR
from tests.faults.log import Log, bookmark_in, read_all, tables_in
from tests.faults.oracle import Account, Oracle
from tests.faults.plan import HOLD, Run
from tests.faults.runs import run_and_end
from tests.faults.tally import Tally

_REAL = 8  # one store in so many is on the real disk
_SCANS = 4  # one run in so many reads everything right after opening, by the face
_LINES_MAX = 3  # of one run


class Spoilt(Exception):
    """A store that broke the contract: it is not gone on with."""


class Server:
    """Executes runs and judges what they leave. It forks, so it has one thread and no loop."""

    def __init__(self, fast: str, real: str, seed: int) -> None:
        self.tally = Tally()
        self.oracle = Oracle(f"{fast}/oracle")
        self.seed = seed
        self.random = Random(seed)
        self._places = (fast, real)
        self._stores = 0
        self._errors = os.open(
            f"{fast}/errors", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )

    # stores

    def new_log(self, policy: int, seed: int) -> Log:
        """A store that does not exist yet."""
        self._stores += 1
        place = self._places[self._stores % _REAL == 0]
        return Log(f"{place}/{self._stores}/within/store", seed, policy)

    def branch(self, log: Log) -> Log:
        """A store of its own in the same state."""
        branch = self.new_log(log.policy, log.seed)
        if os.path.exists(log.path):
            copytree(log.path, branch.path)
        branch.round, branch.records = log.round, log.records
        branch.first, branch.held, branch.cursor = log.first, log.held, log.cursor
        return branch

    def drop(self, log: Log) -> None:
        rmtree(Path(log.path).parents[1], ignore_errors=True)

    def next_run(self, log: Log, program: str) -> Run:
        """The next run of the store."""
        log.round += 1
        scan = self.random.random() < 1 / _SCANS
        return Run(program, log.path, log.seed, log.round, log.policy, self.oracle.path, scan=scan)

    def go_on(self, log: Log) -> list[str]:
        """A short run, from opening to a clean close. The calls that it made to the disk."""
        return self.execute(log, self.next_run(log, "short"), 0, whole=True).trace

    # one run

    def execute(
        self,
        log: Log,
        run: Run,
        status: int,
        *,
        whole: bool = False,
        kill: Callable[[int], None] | None = None,
        fresh: bool = False,
    ) -> Account:
        """Execute one run to its end, which must be ``status``, and judge what it leaves.

        Raises Spoilt.
        """
        os.ftruncate(self._errors, 0)
        self.oracle.forget()
        pid = self._spawn(run) if fresh else self._fork(run)
        if kill is not None:
            kill(pid)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        lines = (
            []
            if ended == status
            else [f"it ended with {ended} instead of {status}: {self._last_words()}"]
        )
        account = self.oracle.account()
        try:
            kept, findings = read_all(log.path)
            held = bookmark_in(log.path, findings, BookmarkKind.HOLD, HOLD)
            cursor = bookmark_in(log.path, findings, BookmarkKind.CURSOR, CURSOR)
            tables = list(tables_in(findings))
        except (AquipuError, OSError) as error:
            self._violated(log, run, [*lines, f"the store cannot be opened: {error}"])
        first = findings.manifest.first_sequence if findings is not None else 0
        found = log.with_purged(kept, account, first)
        lines += log.judge(found, account, whole=whole, first=first, held=held, cursor=cursor)
        lines += filter(None, tables)
        if (
            run.program == "short"
            and ended == 0
            and not (findings is not None and findings.is_clean)
        ):
            lines.append("a clean close has left something to mend")
        if lines:
            self._violated(log, run, lines)
        self.tally.counts["runs on the real disk"] += log.path.startswith(self._places[1])
        self._count(account, found, findings)
        self.tally.counts["purges"] += first > log.first
        self.tally.counts["purges cut short"] += account.purging not in (account.purged, log.first)
        self.tally.counts["cursors cut short"] += account.saving not in (account.saved, log.cursor)
        self.tally.counts["tables held against their segments"] += len(tables)
        log.records, log.first, log.held, log.cursor = found, first, held, cursor
        return account

    def _fork(self, run: Run) -> int:
        pid = os.fork()
        if not pid:
            run_and_end(run, self.oracle, self._errors)
        return pid

    def _spawn(self, run: Run) -> int:
        command = [sys.executable, "-P", "-m", "tests.faults.runs", json.dumps(run._asdict())]
        redirect = [(os.POSIX_SPAWN_DUP2, self._errors, 1), (os.POSIX_SPAWN_DUP2, self._errors, 2)]
        return os.posix_spawn(sys.executable, command, os.environ, file_actions=redirect)

    def _last_words(self) -> str:
        lines = os.pread(self._errors, 1 << 20, 0).decode(errors="replace").splitlines()
        return lines[-1] if lines else "no word"

    def _violated(self, log: Log, run: Run, lines: list[str]) -> NoReturn:
        """Note what is wrong, and keep the store as it was found: a kill at random does not come
        again.
        """
        kept = tempfile.mkdtemp(prefix="aquipu-violation-")
        if os.path.exists(log.path):
            copytree(log.path, kept, dirs_exist_ok=True)
        for line in lines[:_LINES_MAX]:
            self.tally.violated(f"{run}: {line}; kept in {kept}")
        raise Spoilt

    def _count(self, account: Account, found: list[Record], findings: Findings | None) -> None:
        counts = self.tally.counts
        counts["runs"] += 1
        counts["acknowledged before the end"] += len(account.acknowledged)
        counts["records checked"] += len(found)
        counts["records read by the face"] += account.read[0] if account.read is not None else 0
        if findings is not None:
            counts["left: a torn tail"] += findings.torn is not None
            counts["left: frames without a mark"] += not findings.marked
            counts["left: a roll cut short"] += findings.empty_successor is not None
            counts["left: files of a purge"] += bool(findings.left_over)
            counts["left: an unfinished bookmark"] += bool(findings.bookmarks)
            counts["left: an unfinished table"] += any(
                ".relations" in name for name in findings.unnamed
            )
