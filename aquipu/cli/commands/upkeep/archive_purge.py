"""The command that lets go of the oldest records of an archive: archive purge."""

from __future__ import annotations

from threading import Event
from typing import Annotated

import anyio
import typer

from aquipu.archive.purge import purge
from aquipu.cli.app import EPILOG, exit_codes
from aquipu.cli.arguments import (
    JsonOption,
    OptionsOption,
    UrlArgument,
    archive_of,
    sequence_or_time,
)
from aquipu.cli.commands.upkeep.archive import archive_app, until_stopped, writer_here
from aquipu.cli.forms.objects import as_json
from aquipu.cli.streams.console import counted, standard_output, write_line
from aquipu.record import Purged, nanoseconds


@archive_app.command("purge", epilog=EPILOG)
def purge_command(
    url: UrlArgument,
    before: Annotated[
        str,
        typer.Option(
            metavar="SEQUENCE|TIME",
            help="What lies before it goes: a sequence, 90d (ago), 2026-11-28, or ISO 8601.",
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    option: OptionsOption = None,
    json_object: JsonOption = False,
) -> None:
    """Delete the oldest records of an archive; for cron.

    Also while it is being carried on, which goes on. They go in full segments: each in which
    everything lies before the sequence or time. The newest full segment stays, and what is younger.
    The store itself is not touched. What is gone cannot be restored.

    \b
    With --json, one object:
      first_sequence_before  of the first record archived until now
      first_sequence         of the first record archived
      segments               how many went
      records                how many went
      bytes                  of the objects that went
      dry_run                whether this is only what would be
    """
    archive, bound = archive_of(url, option), sequence_or_time(before, "--before")
    sequence = bound if isinstance(bound, int) else None
    time = None if isinstance(bound, int) else nanoseconds(bound)
    with exit_codes():
        output = standard_output()

        def let_go(stop: Event) -> Purged:
            return purge(archive.bucket(), sequence, time, writer_here(), stop, dry_run)

        done = anyio.run(until_stopped, let_go)
        if json_object:
            said = {name: value for name, value in done._asdict().items() if "held" not in name}
            write_line(output, as_json({**said, "dry_run": dry_run}))
        else:
            went, begins = ("would go", "would begin") if dry_run else ("removed", "begins")
            write_line(
                output,
                f"{counted(done.records, 'record')} in {counted(done.segments, 'full segment')} "
                f"{went}; {archive.url} {begins} at sequence {done.first_sequence}",
            )
