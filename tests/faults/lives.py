"""The lives: what runs in a forked child of the server, or in a fresh interpreter (``python -m tests.faults.lives``)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from itertools import islice
from typing import NoReturn

from tests.faults.author import Author
from tests.faults.exits import EXITS, in_loop
from tests.faults.index import build_tables, by_hand
from tests.faults.plan import SECONDS_MAX, Life, calls
from tests.faults.witness import Witness


async def _short(life: Life, witness: Witness) -> None:
    """A life of few calls, the same ones each time, one commit after another; and a clean close."""
    with by_hand():
        author = await Author.begin(life, witness)
        for call in islice(author.plan, life.calls):
            await author.make(call)
        await build_tables(author.store)
        await author.consume()
        await author.let_go()
        await asyncio.gather(*map(author.make, islice(author.plan, 2)))
        await author.store.sync()
        await author.store.aclose()


async def _long(life: Life, witness: Witness) -> None:
    """Appends from several tasks, closes and opens again, until it is killed."""
    plan = calls(life.seed, life.round)
    while True:
        author = await Author.begin(life, witness, plan)
        await author.write(life.calls)
        await author.store.aclose()
        life = life._replace(scan=False)


_PROGRAMS = {"short": in_loop(_short), "long": in_loop(_long)} | {name: way.program for name, way in EXITS.items()}


def _live(life: Life, witness: Witness) -> None:
    """Run the program. Nothing is closed or undone behind it: how it ends is the point."""
    signal.alarm(SECONDS_MAX)
    _PROGRAMS[life.program](life, witness)


def live_and_end(life: Life, witness: Witness, errors: int) -> NoReturn:
    """In a forked child: run the program, and never go back into the code of the server."""
    status = 1
    try:
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        _live(life, witness)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> None:
    """In a fresh interpreter: one life, whose end is that of the interpreter."""
    life = Life(**json.loads(sys.argv[1]))
    _live(life, Witness(life.witness))


if __name__ == "__main__":
    main()
