"""Repeat the proof at any size: ``python -m tests.services --kills 20``. Exit status 1 when it fails."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from tests.services import kills


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.services", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="how many times a service is killed under load")
    parser.add_argument("--seed", type=int, default=0, help="where the random choices begin")
    parser.add_argument("--directory", default=".", help="on the disk to be used (default: the current directory)")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="services-", dir=asked.directory) as directory,
        Progress(console=Console(stderr=True)) as progress,
    ):
        bar = progress.add_task("kills", total=asked.kills)
        tally = kills.run(asked.kills, asked.seed, Path(directory).resolve(), lambda done: progress.advance(bar, done))
    console = Console(file=sys.stdout, highlight=False, width=120)
    for name, count in tally.counts.items():
        console.print(f"{count:>12,}  {name}")
    console.print(f"{len(tally.violations):>12,}  violations")
    for line in tally.violations[:50]:
        console.print(f"              {line}", markup=False)
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
