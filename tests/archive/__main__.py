"""All runs of the archive and their counts: ``python -m tests.archive``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path

from aquipu import Archive
from tests.archive.azurite import CONTAINER, azurite_server
from tests.archive.contract import CONTRACT, SLOW, no_bucket, refused
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
    parser.add_argument(
        "--azurite",
        metavar="PROGRAM",
        help="only see what must hold on a server of Azure: that of azurite-blob (npm)",
    )
    wanted = parser.parse_args()
    if wanted.azurite:
        _said("on Azurite", azure, wanted.azurite)
        return
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


def azure(directory: Path, program: str) -> dict[str, float]:
    """See that all that must hold on any server does on Azurite; return how many rules."""
    with azurite_server(program, directory / "server") as options:

        def archive(prefix: str, container: str = CONTAINER, **others: str) -> Archive:
            return Archive(f"az://{container}/{prefix}", interval=0.1, **{**options, **others})

        rules = (*CONTRACT, *SLOW)
        for rule in rules:
            place = directory / rule.__name__
            place.mkdir()
            rule(archive, place)
        no_bucket(archive("x", "nowhere"), options["account_key"])
        wrong = b64encode(bytes(64)).decode()
        denied = archive("x", account_key=wrong).bucket()
        refused(lambda: denied.put_new("a", b""), "no permission", wrong)
    return {"rules": len(rules) + 2}


def _said(what: str, run: Callable[..., Mapping[str, float]], *arguments: object) -> None:
    with tempfile.TemporaryDirectory(prefix="aquipu-archive-") as directory:
        counts = run(Path(directory), *arguments)
    said = ", ".join(f"{name}: {count:,}" for name, count in counts.items())
    sys.stdout.write(f"{what}: {said}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
