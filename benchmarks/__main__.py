"""``python -m benchmarks [NAME ...]``: all benchmarks, or those that are named."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import (
    append,
    backup,
    compress,
    daemon,
    finding,
    following,
    imports,
    labels,
    opening,
    peers,
    plots,
    postgres,
    profile,
    reading,
    saturated,
    services,
    shared,
    steady,
    synchronous,
    uvloop,
    web,
)
from benchmarks.measure import Progress
from benchmarks.report import Report, machine
from benchmarks.settings import Settings, full, quick, smallest
from benchmarks.terminal import ProgressBar, output, show

BENCHMARKS: dict[str, Callable[[Settings, Progress], Report]] = {
    "append": append.run,
    "profile": profile.run,
    "peers": peers.run,
    "saturated": saturated.run,
    "services": services.run,
    "steady": steady.run,
    "following": following.run,
    "daemon": daemon.run,
    "shared": shared.run,
    "synchronous": synchronous.run,
    "labels": labels.run,
    "finding": finding.run,
    "reading": reading.run,
    "compress": compress.run,
    "opening": opening.run,
    "backup": backup.run,
    "web": web.run,
    "postgres": postgres.run,
    "imports": imports.run,
    "uvloop": uvloop.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when everything ran, whatever the figures are."""
    asked = _asked(arguments)
    sizes = {"full": full, "quick": quick, "smallest": smallest}[asked.size]
    console = output()
    try:
        with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=asked.directory) as directory:
            settings = sizes(Path(directory), servers=not asked.no_servers)
            about = machine(settings.directory)
            console.print(", ".join(f"{key} {value}" for key, value in about.items()), markup=False)
            reports = _run(asked.names or list(BENCHMARKS), settings, console)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what was shown so far holds, and nothing is left behind\n")
        return 130
    if asked.out is not None:
        _save(asked.out, {"size": asked.size, **about}, reports, console)
    return 0


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--quick",
        dest="size",
        action="store_const",
        const="quick",
        help="a rough picture in a minute or two",
    )
    sizes.add_argument(
        "--smallest",
        dest="size",
        action="store_const",
        const="smallest",
        help="only to see that it runs",
    )
    parser.add_argument(
        "--directory",
        default=".",
        help="on the disk to be measured (default: the current directory)",
    )
    parser.add_argument("--out", type=Path, help="a directory for results.json and the plots")
    parser.add_argument(
        "--no-servers", action="store_true", help="start neither Redis nor PostgreSQL nor uvicorn"
    )
    parser.set_defaults(size="full")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    return asked


def _run(names: Sequence[str], settings: Settings, console: Console) -> list[Report]:
    reports = []
    with ProgressBar() as progress:
        for name in names:
            progress.begin(name)
            report = BENCHMARKS[name](settings, progress)
            with progress.aside():
                show(report, console)
            reports.append(report)
    return reports


def _save(
    directory: Path, about: dict[str, object], reports: list[Report], console: Console
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    results = directory / "results.json"
    content = {"about": about, "benchmarks": [report.as_json() for report in reports]}
    results.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    written = [results]
    try:
        written += plots.draw([curve for report in reports for curve in report.curves], directory)
    except ImportError as error:
        console.print(f"no plots: {error}; pip install -e '.[bench]'", markup=False)
    console.print(*written, sep="\n")


if __name__ == "__main__":
    sys.exit(main())
