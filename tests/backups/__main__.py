"""``python -m tests.backups [--backups N] [--kills N] [--copies N]``: all of it, and its counts."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.backups.runs import SEGMENT_BYTES, again, backups, copies, killed, tools


def main() -> None:
    """Run what was asked for; a violation is an exception."""
    parser = argparse.ArgumentParser(prog="python -m tests.backups")
    for name in ("backups", "kills", "copies"):
        parser.add_argument(f"--{name}", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--again", type=int, default=0, metavar="MB", help="a store at rest, backed up twice"
    )
    wanted = parser.parse_args()
    if wanted.again:
        _said("backed up twice, 67,108,864", again, wanted.again, 10)
    share = len(SEGMENT_BYTES)
    for size in SEGMENT_BYTES:
        if wanted.backups:
            _said(f"backups, {size:,}", backups, wanted.backups // share, size)
        if wanted.kills:
            _said(f"kills, {size:,}", killed, wanted.kills // share, size, wanted.seed)
        for tool in tools() if wanted.copies else ():
            _said(f"{tool}, {size:,}", copies, wanted.copies // share, size, tool)


def _said(what: str, run: Callable[..., Counter[str]], *arguments: object) -> None:
    with tempfile.TemporaryDirectory(prefix="aquipu-backups-") as directory:
        counts = run(Path(directory), *arguments)
    said = ", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))
    sys.stdout.write(f"{what} bytes a segment: {said}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
