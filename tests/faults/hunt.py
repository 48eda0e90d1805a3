"""A short run of every kind of fault, one after another until one finds a violation: exit status 1,
and its name.

The part that is named in the call comes first, with the seed that is named and then with others:
``python -m tests.faults.hunt flips 3``. They are those that found this mutant before, and what they
meet depends a little on the machine: a few unlucky seeds must not let it pass, also when one in two
finds it. What is found with the first costs no others. With ``alone`` behind them it ends there.

Exit status 0: all is well. Anything else is a defect of the hunt itself.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic, process_time

from aquipu import SyncPolicy
from tests.faults import crashes, errors, flips, model, passing, places
from tests.faults.tally import Tally

_SEEDS = range(1, 13)
_SECONDS = 400  # a part takes a tenth of that on a machine with nothing else to do
_LOOK_SECONDS = 15
_IDLE = 0.1  # seconds computed from one look to the next, at least


def _quiet(done: int) -> None:
    """No progress is shown."""


def _power_cuts(policy: SyncPolicy, seed: int) -> Tally:
    return crashes.run(policy, 2400, seed, _quiet, enough=1)[0]


def parts(seed: int) -> Iterator[tuple[str, Callable[[], Tally]]]:
    """The parts of the hunt, cheapest first."""
    yield "short writes", errors.short_writes
    yield "places", places.run
    yield "passing", partial(passing.run, seed, 3)
    yield "model", partial(model.run, 100, seed, _quiet)
    for policy in crashes.POLICIES:
        yield f"power cuts, {type(policy).__name__}", partial(_power_cuts, policy, seed)
    yield "forgotten pages", errors.forgotten_pages
    yield "errors", partial(errors.run, 600, seed, _quiet, enough=1)
    yield "flips", partial(flips.run, 4000, seed, _quiet, enough=1)


def _nobody_may_wait_for_ever(name: str) -> None:
    """End the hunt with a find when this part computes nothing any more, or takes far too long.

    On a machine that has other things to do a part is slow, and computes all the same.
    """
    begun, computed = monotonic(), -_IDLE

    def look(*_: object) -> None:
        nonlocal computed
        before, computed = computed, process_time()
        if computed - before < _IDLE or monotonic() - begun > _SECONDS:
            os.write(1, f"{name}: somebody waits for ever\n".encode())
            os._exit(1)
        signal.alarm(_LOOK_SECONDS)

    signal.signal(signal.SIGALRM, look)
    signal.alarm(_LOOK_SECONDS)


def _in_order(
    first: str, seed: int, *, alone: bool
) -> Iterator[tuple[str, int, Callable[[], Tally]]]:
    """The part of this name with each seed, this one first, then the others with one."""
    for each in [seed] if alone else sorted(_SEEDS, key=lambda other: other != seed):
        yield from ((name, each, run) for name, run in parts(each) if name == first)
    if alone:
        return
    yield from ((name, seed, run) for name, run in parts(seed) if name != first)


def main() -> int:
    """Hunt."""
    for name, seed, hunt in _in_order(sys.argv[1], int(sys.argv[2]), alone="alone" in sys.argv[3:]):
        _nobody_may_wait_for_ever(name)
        violations = hunt().violations
        signal.alarm(0)  # in the end of the interpreter it would be a death, and no find
        if violations:
            sys.stdout.write(f"{name}, seed {seed}: {violations[0]}\n")
            return 1
    sys.stdout.write("nothing found\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
