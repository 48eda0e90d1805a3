"""Repeat the proof at any size:

``python -m tests.services --kills 20``; with ``--shared`` four workers share the store, and the one
that writes it is killed, and all are replaced ``--reloads`` times. Exit status 1 when it fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from tests.services import kills, takeovers
from tests.services.takeovers import COMMANDS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.services", description=__doc__)
    parser.add_argument(
        "--kills", type=int, default=20, help="how many times a service is killed under load"
    )
    parser.add_argument("--shared", choices=COMMANDS, help="the server of four workers")
    parser.add_argument("--reloads", type=int, default=5, help="of all workers, with --shared")
    parser.add_argument("--seed", type=int, default=0, help="where the random choices begin")
    parser.add_argument(
        "--directory", default=".", help="on the disk to be used (default: the current directory)"
    )
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="services-", dir=asked.directory) as directory,
        Progress(console=Console(stderr=True)) as progress,
    ):
        bar = progress.add_task("kills", total=asked.kills)
        place, pause = Path(directory).resolve(), None
        if asked.shared is None:
            tally = kills.run(
                asked.kills, asked.seed, place, lambda done: progress.advance(bar, done)
            )
        else:
            tally, pause = takeovers.run(
                *(asked.shared, asked.kills, asked.reloads, place),
                lambda done: progress.advance(bar, done),
            )
    console = Console(file=sys.stdout, highlight=False, width=120)
    if pause is not None:
        console.print(f"{pause:>12.2f}  seconds at most without an answer")
    for name, count in tally.counts.items():
        console.print(f"{count:>12,}  {name}")
    console.print(f"{len(tally.violations):>12,}  violations")
    for line in tally.violations[:50]:
        console.print(f"              {line}", markup=False)
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
