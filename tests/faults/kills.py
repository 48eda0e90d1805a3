"""The process is killed at random moments, before and within each single system call, and ends in
every way short of a clean close.

A server (a fresh interpreter with one thread, so that it may fork) executes *runs*. Each is a child
process that opens the same store once more, appends, and is killed. What it had been told by then
stands in an `Oracle`: memory that it shares with the server and that outlives it. Every byte that
it appends follows from the seed, the run's number and the place of the call in that run, so the
server knows what must be in the store:

* everything acknowledged, under every policy, with its sequence, its timestamp and its labels;
* beyond that only what had been called, in the order of the calls, without a gap, a batch whole or
  not at all;
* everything that was there when a run began, unchanged: nothing that was once found goes away,
  unless it is purged;
* the log begins where the last purge that ended has told, or where the one that was cut short was
  to bring it: with the old or the new first sequence; what was held is held, and there;
* after a run that ended without `aclose`, but not by force: everything that had been accepted.

The server reads the files without changing them; the next run opens them with the real
`Store.open`, is checked to have found the same, and goes on. Three kinds of kills:

* **at random**: a SIGKILL from outside, after some time or some acknowledgements, beside several
  appending tasks;
* **at a call**: a SIGKILL before each single call that changes anything on the disk in a short run
  (opening, commits, rolls with their seals, a hold and a purge, the close), and within and right
  behind each write. That run begins with no store, with a closed one, or with one that needs every
  mending. What it leaves, the next run mends, and may be killed at. Calls that only read are left
  out: a kill there leaves the same;
* **exits**: `os._exit`, exceptions, a loop closed under the store, an interpreter that ends without
  `aclose`, forks.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count, islice
from subprocess import PIPE, Popen

import anyio.lowlevel

from tests.faults.crashing_disk import Kill, kill_in_seal, kills_of
from tests.faults.exits import EXITS, Exit
from tests.faults.log import Log
from tests.faults.plan import POLICIES
from tests.faults.server import Server, Spoilt
from tests.faults.tally import Tally

_EXACT_POLICIES = 3  # the first three have no timer: the same run makes the same calls
_MEMORY = "/dev/shm"  # a store there is as good as on a disk while the machine stays on, and faster
_ROUNDS = 20  # runs at random of one store: a check reads all of it
_FRESH = 100  # one kill at random in so many is that of a fresh interpreter
_EXITS = 64  # one kill in so many is an exit
_NEXT_KILLS_MAX = 12  # kills that are tried in the run after one kill
_VIOLATIONS_MAX = 20


class Rounds:
    """The kills of a run, one kind after another."""

    def __init__(self, server: Server, tick: Callable[[int], None]) -> None:
        self._server = server
        self._random = server.random
        self._counts = server.tally.counts
        self._tick = tick

    def run(self, size: int) -> None:
        """So many kills of all kinds; the exits once round at least."""
        exits = max(size // _EXITS, len(EXITS))
        at_calls = (size - exits) * 2 // 3
        self._until(at_calls, self._kills_at_calls(at_calls))
        self._until(size - exits - at_calls, self._kills_at_random())
        self._until(exits, self._exits())

    def _until(self, size: int, kills: Iterator[None]) -> None:
        for _ in islice(kills, size):
            self._tick(1)
            if len(self._server.tally.violations) >= _VIOLATIONS_MAX:
                return

    # at a call

    def _kills_at_calls(self, size: int) -> Iterator[None]:
        """Kill at calls: with an even seed at each that a first run makes, from each of the states.

        So one even seed begins about where the one before ends. After that, and at once with an odd
        seed: kills in the runs after these.
        """
        states = [log for policy in range(_EXACT_POLICIES) for log in self._states(policy)]
        firsts = [(log, kill) for log in states for kill in kills_of(self._trace(log), 0.5)]
        if self._server.seed % 2 == 0 and firsts:
            begin = self._server.seed // 2 * size % len(firsts)
            for log, kill in firsts[begin:] + firsts[:begin]:
                yield from self._kill_each(log, [kill])
            self._counts["rounds through every call"] += 1
        while firsts:
            yield from self._kill_twice(*self._random.choice(firsts))

    def _states(self, policy: int) -> Iterator[Log]:
        """What a run may begin with: no store, a closed one, half of a footer with an empty
        segment behind it.
        """
        new = self._server.new_log(policy, self._server.seed)
        if not policy:  # a store is made in the same way under each
            yield new
        closed = self._server.branch(new)
        with suppress(Spoilt):
            self._server.go_on(closed)
            yield closed
            torn = self._server.branch(closed)
            kill = kill_in_seal(self._trace(torn))
            if kill is not None:
                self._kill(torn, kill)
                yield torn

    def _kill_each(self, log: Log, kills: Sequence[Kill]) -> Iterator[None]:
        """Each of these kills in the next run, each from the same state; and one more run after
        each.
        """
        for kill in kills:
            branch = self._server.branch(log)
            with suppress(Spoilt):
                self._kill(branch, kill)
                self._server.go_on(branch)
            self._server.drop(branch)
            yield

    def _kill_twice(self, log: Log, kill: Kill) -> Iterator[None]:
        """A kill, and then others at some calls of the next run, which has something to mend."""
        after = self._server.branch(log)
        with suppress(Spoilt):
            self._kill(after, kill)
            yield
            seconds = kills_of(self._trace(after), self._random.random())
            yield from self._kill_each(
                after, self._random.sample(seconds, min(_NEXT_KILLS_MAX, len(seconds)))
            )
        self._server.drop(after)

    def _trace(self, log: Log) -> list[str]:
        """The calls to the disk that the next run will make."""
        branch = self._server.branch(log)
        with suppress(Spoilt):
            return self._server.go_on(branch)
        return []

    def _kill(self, log: Log, kill: Kill) -> None:
        run = self._server.next_run(log, "short")._replace(moment=kill.moment, share=kill.share)
        where = "before" if not kill.share else "behind" if kill.share == 1 else "within"
        self._counts["SIGKILLs"] += 1
        self._counts[f"SIGKILLs {where} {kill.call}"] += 1
        if self._server.execute(log, run, -signal.SIGKILL).trace[-1] != kill.call:
            self._counts["SIGKILLs at another call than meant"] += 1

    # at random

    def _kills_at_random(self) -> Iterator[None]:
        while True:
            log = self._server.new_log(
                self._random.randrange(len(POLICIES)), self._random.getrandbits(32)
            )
            try:
                for _ in range(_ROUNDS):
                    self._kill_at_random(log)
                    yield
                self._server.go_on(log)
            except Spoilt:
                yield
            self._server.drop(log)

    def _kill_at_random(self, log: Log) -> None:
        random = self._random
        run = self._server.next_run(log, "long")._replace(
            max_segment_bytes=random.choice((4096, 65_536, 1 << 20)),
            buffer_records=random.choice((16, 65_536)),
            calls=random.choice((5, 50, 500)),
            tasks=random.randint(1, 8),
        )
        fresh = random.random() < 1 / _FRESH
        self._counts["SIGKILLs"] += 1
        if fresh or random.random() < 0.5:
            self._counts["SIGKILLs after some acknowledgements"] += 1
            kill = partial(self._kill_when_told, acknowledgements=int(random.expovariate(1 / 60)))
        else:
            self._counts["SIGKILLs after some time"] += 1
            kill = partial(self._kill_after, seconds=random.uniform(0, 0.025))
        self._counts["SIGKILLs of a fresh interpreter"] += fresh
        self._server.execute(log, run, -signal.SIGKILL, kill=kill, fresh=fresh)

    def _kill_after(self, pid: int, seconds: float) -> None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)

    def _kill_when_told(self, pid: int, acknowledgements: int) -> None:
        while self._server.oracle.count <= acknowledgements and not _has_ended(pid):
            time.sleep(0.0002)
        os.kill(pid, signal.SIGKILL)

    # exits

    def _exits(self) -> Iterator[None]:
        """One store after another goes through all of them."""
        for number in count():
            log = self._server.new_log(number % len(POLICIES), self._server.seed + number)
            for name, way in EXITS.items():
                self._counts[f"exits: {name}"] += 1
                try:
                    self._exit(log, name, way)
                except Spoilt:
                    self._server.drop(log)
                    log = self._server.new_log(log.policy, log.seed)
                yield
            self._server.drop(log)

    def _exit(self, log: Log, name: str, way: Exit) -> None:
        """A run that ends so, and one after it: also while a child that the first left behind
        still runs.
        """
        run = self._server.next_run(log, name)._replace(tasks=4)
        child = self._server.execute(log, run, way.status, whole=way.whole, fresh=way.fresh).child
        try:
            self._server.go_on(log)
        finally:
            if child:
                os.kill(child, signal.SIGKILL)


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


# the way in


def run(size: int, seed: int, tick: Callable[[int], None], directory: str | None = None) -> Tally:
    """Kill ``size`` processes.

    Some of the stores are in ``directory`` (or that of temporary files), most in memory.
    """
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else directory
    with (
        tempfile.TemporaryDirectory(prefix="aquipu-", dir=memory) as fast,
        tempfile.TemporaryDirectory(prefix="aquipu-", dir=directory) as real,
    ):
        task = json.dumps({"size": size, "seed": seed, "fast": fast, "real": real})
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-P", "-m", "tests.faults.kills", task]
        with Popen(command, stdout=PIPE, env=environment, text=True) as server:
            assert server.stdout is not None
            try:
                return _follow(server.stdout, tick)
            except BaseException:
                server.kill()
                raise


def _follow(lines: Iterable[str], tick: Callable[[int], None]) -> Tally:
    for line in lines:
        told = json.loads(line)
        if isinstance(told, int):
            tick(told)
        else:
            return Tally(Counter(told["counts"]), told["violations"])
    raise RuntimeError("the server has ended without a result")


def _tell(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _serve(size: int, seed: int, fast: str, real: str) -> None:
    asyncio.run(anyio.lowlevel.checkpoint())  # loads what every child would load anew
    server = Server(fast, real, seed)
    Rounds(server, _tell).run(size)
    _tell({"counts": server.tally.counts, "violations": server.tally.violations})


def main() -> None:
    _serve(**json.loads(sys.argv[1]))


if __name__ == "__main__":
    main()
