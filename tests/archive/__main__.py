"""All runs of the archive and their counts: ``python -m tests.archive``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.archive.runs import MIB, appends, killed, lost, reads, restores


def main() -> None:
    """Run what was asked for; a violation is an exception."""
    parser = argparse.ArgumentParser(prog="python -m tests.archive")
    parser.add_argument("--kills", type=int, default=100, metavar="N")
    parser.add_argument("--losses", type=int, default=50, metavar="N")
    parser.add_argument("--records", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--read", type=int, default=5_000_000, metavar="N")
    parser.add_argument("--pairs", type=int, default=15, metavar="N")
    parser.add_argument("--restore-kills", type=int, default=20, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    if wanted.kills:
        _said("killed while it carries", killed, wanted.kills, MIB, wanted.seed)
    if wanted.losses:
        _said("machines lost", lost, wanted.losses, MIB, wanted.seed)
    if wanted.records:
        _said("restored", restores, wanted.records, wanted.restore_kills, wanted.seed)
    if wanted.pairs:
        _said("appends", appends, wanted.pairs)
    if wanted.read:
        _said("read without restoring", reads, wanted.read)


def _said(what: str, run: Callable[..., Mapping[str, float]], *arguments: object) -> None:
    with tempfile.TemporaryDirectory(prefix="aquipu-archive-") as directory:
        counts = run(Path(directory), *arguments)
    said = ", ".join(f"{name}: {count:,}" for name, count in counts.items())
    sys.stdout.write(f"{what}: {said}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
