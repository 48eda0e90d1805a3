"""All runs of a log in a database and their counts: ``python -m tests.postgres``."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from signal import SIGTERM, default_int_handler, signal

from aquipu.postgres.address import address_of
from aquipu.postgres.schema.migrating import migrate
from tests.postgres import runs
from tests.postgres.pair import Pair
from tests.postgres.server import Server


def main() -> None:
    """Run what was asked for; a violation is an exception."""
    parser = argparse.ArgumentParser(prog="python -m tests.postgres")
    parser.add_argument("--records", type=int, default=1_000_000, metavar="N", help="copied")
    parser.add_argument("--copy-kills", type=int, default=10, metavar="N")
    parser.add_argument("--take-overs", type=int, default=20, metavar="N")
    parser.add_argument("--cuts", type=int, default=20, metavar="N")
    parser.add_argument("--standbys", type=int, default=20, metavar="N", help="stopped")
    parser.add_argument("--ends", type=int, default=200, metavar="N", help="of backends")
    parser.add_argument("--outbox", type=int, default=100_000, metavar="N")
    parser.add_argument("--seed", type=int, default=5)
    wanted = parser.parse_args()
    signal(SIGTERM, default_int_handler)  # no server is left behind
    if wanted.records:
        seconds = 3 + wanted.records / 100_000
        _with_server(
            "copied there and back",
            lambda server, place: runs.copies(
                place, server, wanted.records, wanted.copy_kills, seconds
            ),
        )
    if wanted.take_overs:
        _with_pair("the primary killed", runs.takeovers, wanted.take_overs, wanted.seed)
    if wanted.cuts:
        _with_pair("the power cut", runs.cuts, wanted.cuts, wanted.seed)
    if wanted.standbys:
        _with_pair("the standby stopped", runs.standbys, wanted.standbys, wanted.seed)
    if wanted.ends:
        _with_server(
            "backends ended",
            lambda server, _: asyncio.run(runs.ended(server, "ended", wanted.ends, wanted.seed)),
        )
    if wanted.outbox:
        _with_server(
            "an outbox",
            lambda server, _: asyncio.run(
                runs.outbox(server, "outbox", 16, wanted.outbox // 16, 50)
            ),
        )


def _with_server(what: str, run: Callable[[Server, Path], runs.Counts]) -> None:
    server = Server.made()
    try:
        server.start()
        asyncio.run(migrate(address_of(server.url, needs_log=False)))
        with tempfile.TemporaryDirectory(prefix="aquipu-postgres-") as directory:
            _said(what, run(server, Path(directory)))
    finally:
        server.remove()


def _with_pair(
    what: str, run: Callable[[Pair, int, int], Awaitable[runs.Counts]], turns: int, seed: int
) -> None:
    pair = Pair.made(noting=run is runs.cuts)

    async def counted() -> runs.Counts:
        return await run(pair, turns, seed)

    try:
        _said(what, asyncio.run(counted()))
    finally:
        pair.remove()


def _said(what: str, counts: runs.Counts) -> None:
    said = ", ".join(f"{name}: {count:,}" for name, count in counts.items())
    sys.stdout.write(f"{what}: {said}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
