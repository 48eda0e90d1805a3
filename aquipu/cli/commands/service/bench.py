"""The command that measures this disk, and says which policy to choose: bench."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import anyio
import typer

from aquipu.cli.app import EPILOG, SIGNALLED, Purpose, app, exit_codes
from aquipu.cli.arguments import JsonOption, absolute
from aquipu.cli.bench.advice import advice_for
from aquipu.cli.bench.measure import measured, workplace
from aquipu.cli.bench.plan import RECORD_BYTES, Plan, planned
from aquipu.cli.bench.plot import check_there, picture_of
from aquipu.cli.bench.results import Results, Run, SyncCost, warnings_about
from aquipu.cli.bench.table import text_of
from aquipu.cli.forms.objects import as_json
from aquipu.cli.forms.screen import paint_for
from aquipu.cli.streams.console import (
    say,
    show_passing,
    standard_output,
    until_signalled,
    write_line,
)
from aquipu.cli.streams.output import to_file
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.system import file_system

_RATE_MAX = 1e9


@app.command("bench", epilog=EPILOG, rich_help_panel=Purpose.SERVE)
def bench_command(
    directory: Annotated[
        str,
        typer.Argument(metavar="[DIR]", help="Where the store will be; without, this directory."),
    ] = ".",
    quick: Annotated[
        bool, typer.Option("--quick", help="Take 20 seconds; without, less than three minutes.")
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(metavar="N", help="Say which policy fits N requests a second."),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Draw it as well (PNG); see the extra bench."),
    ] = None,
    json_object: JsonOption = False,
) -> None:
    """Measure this disk, and say which policy fits.

    What a single sync costs; then each policy with 1, 16, 64 and 256 callers, each of which appends
    a record and waits for it: appends a second, how long one takes, and how many acknowledged
    records a power cut can take. It warns of a disk that cannot be as fast as it seems.

    Everything is written into a directory of its own in DIR, which is removed at the end, also
    after Ctrl-C. Do it while nothing else is going on.

    \b
    With --json, one object; times are in seconds:
      directory     absolute
      file_system   its kind, or null
      record_bytes  of each record
      sync          what one fdatasync costs, an object: count, median, p99
      runs          a list of objects: policy, callers, records, seconds,
                    appends_per_second, p50, p90, p99, slowest, risk (what a
                    power cut can take at most; null: what the kernel has not
                    written yet), risk_seen
      warnings      a list of texts
      advice        a text, or null without --rate
    """
    if rate is not None and not 0 < rate <= _RATE_MAX:
        raise typer.BadParameter(f"{rate:g} is no number of requests a second", param_hint="--rate")
    place, plan = absolute(directory, "DIR"), planned(quick=quick)
    if not Path(place).is_dir():
        raise typer.BadParameter(f"{place} is no directory", param_hint="DIR")
    with exit_codes():
        output = standard_output()
        if plot is not None:
            check_there()
        results = _measured(place, plan, rate)
        if plot is not None:
            with to_file(plot) as picture:
                picture.write(picture_of(results))
            say(f"the plot is in {plot}")
        shown = as_json(asdict(results)) if json_object else text_of(results, paint_for(output))
        write_line(output, shown)


def _measured(place: str, plan: Plan, rate: float | None) -> Results:
    disk, stopped_by = Disk(), list[int]()
    found: tuple[SyncCost, list[Run]] | None = None

    async def measure(within: str) -> None:
        nonlocal found
        with anyio.CancelScope() as scope:

            def stop(number: int) -> None:
                stopped_by.append(number)
                scope.cancel()

            with until_signalled(stop):
                found = await measured(within, plan, disk, show_passing)

    try:
        with workplace(place, plan, disk) as within:
            anyio.run(measure, within)
    finally:
        show_passing("")
    if found is None:
        raise typer.Exit(SIGNALLED + stopped_by[0])
    sync, runs = found
    kind = file_system(place)
    return Results(
        directory=place,
        file_system=kind,
        record_bytes=RECORD_BYTES,
        sync=sync,
        runs=tuple(runs),
        warnings=warnings_about(kind, sync),
        advice=None if rate is None else advice_for(rate, runs),
    )
