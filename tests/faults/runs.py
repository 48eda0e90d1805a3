"""What is executed in a forked child of the server, or in a fresh interpreter (``python -m
tests.faults.runs``): one run.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from itertools import islice
from typing import NoReturn

from tests.faults.exits import EXITS, in_loop
from tests.faults.index import build_tables, by_hand
from tests.faults.oracle import Oracle
from tests.faults.plan import SECONDS_MAX, Run, calls
from tests.faults.script import Script


async def _short(run: Run, oracle: Oracle) -> None:
    """A run of few calls, the same ones each time, one commit after another; and a clean close."""
    with by_hand():
        script = await Script.begin(run, oracle)
        for call in islice(script.plan, run.calls):
            await script.make(call)
        await build_tables(script.store)
        await script.consume()
        await script.let_go()
        await asyncio.gather(*map(script.make, islice(script.plan, 2)))
        await script.store.sync()
        await script.store.aclose()


async def _long(run: Run, oracle: Oracle) -> None:
    """Appends from several tasks, closes and opens again, until it is killed."""
    plan = calls(run.seed, run.round)
    while True:
        script = await Script.begin(run, oracle, plan)
        await script.write(run.calls)
        await script.store.aclose()
        run = run._replace(scan=False)


_PROGRAMS = {"short": in_loop(_short), "long": in_loop(_long)} | {
    name: way.program for name, way in EXITS.items()
}


def _execute(run: Run, oracle: Oracle) -> None:
    """Run the program. Nothing is closed or undone behind it: how it ends is the point."""
    signal.alarm(SECONDS_MAX)
    _PROGRAMS[run.program](run, oracle)


def run_and_end(run: Run, oracle: Oracle, errors: int) -> NoReturn:
    """In a forked child: run the program, and never go back into the code of the server."""
    status = 1
    try:
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        _execute(run, oracle)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> None:
    """In a fresh interpreter: one run, whose end is that of the interpreter."""
    run = Run(**json.loads(sys.argv[1]))
    _execute(run, Oracle(run.oracle))


if __name__ == "__main__":
    main()
