"""The command that says what stands on the disk, and what opening would do: doctor."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from aquipu.cli.app import DAMAGED, EPILOG, WELL, Purpose, app, exit_codes, usage
from aquipu.cli.arguments import JsonOption, database_of
from aquipu.cli.commands.upkeep.look import bytes_to_read, seen_directory
from aquipu.cli.forms.diagnosis.page import page_of
from aquipu.cli.forms.diagnosis.text import text_of
from aquipu.cli.forms.objects import as_json
from aquipu.cli.forms.screen import paint_for
from aquipu.cli.streams.console import bar, let_interrupt_kill, say, standard_output, write_line
from aquipu.cli.streams.output import check_outside, to_file
from aquipu.local.check.diagnosis.diagnose import diagnose
from aquipu.local.check.diagnosis.facts import Diagnosis
from aquipu.local.disk.disk import Disk


@app.command("doctor", epilog=EPILOG, rich_help_panel=Purpose.CARE)
def doctor_command(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="The directory of the store, unix:PATH for the one that a daemon has, or"
            " postgresql://HOST/DATABASE for a server.",
        ),
    ],
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Read only what an opening reads, not every byte."),
    ] = False,
    html: Annotated[
        str | None,
        typer.Option(
            "--html", metavar="FILE", help="Write a page for a browser, whole in itself, as well."
        ),
    ] = None,
    json_object: JsonOption = False,
) -> None:
    """Say what stands on the disk, and what opening would do.

    Nothing is changed and nothing is locked, so this may run beside any writer, and on a store that
    does not open any more. Of a daemon, unix:PATH, it is the directory that is looked at, which
    must be there to be read. It shows each segment, a torn tail and why it is one, what is damaged
    and what repair would save, who writes the store, holds and cursors, the file system, free space
    and rights.

    Exit code 1 when something is damaged; a torn tail, as a crash leaves it, is no damage.

    Of a PostgreSQL server it says which settings weaken what is promised of logs there, and what to
    set; exit code 1 when acknowledged records may be lost. With --json: database, server, findings
    (a list of objects: setting, value, weight, means, remedy).

    \b
    With --json, one object; what is not known is null:
      path             the directory, absolute; \\xff for a byte that is no UTF-8
      seen_at          when it was looked at, ISO 8601 in UTC
      checked          "every byte", or "what opening reads"
      store_id         32 hexadecimal digits
      format_version   a number
      generation       16 hexadecimal digits
      place            an object: file_system, free_bytes, mode, owner, group
      writer           null, or an object: pid, shared (see info)
      ending           how the last writer left: "closed", "not closed" or
                       "repaired"
      copy             whether it is a copy of a store that was being written
      first_sequence   of the first record kept
      next_sequence    one past the last record
      synced_sequence  everything below is proven to be on the disk
      records          their number
      first_time       of the first commit, ISO 8601 in UTC
      last_time        of the last one
      bytes            of all files of the store
      segments         a list of objects: name, state, first_sequence,
                       next_sequence, frames, bytes, first_time, last_time,
                       plain_bytes (before it was compressed), index,
                       index_bytes, mode, and stretches: a list of objects:
                       kind, offset, bytes
      torn_tail        null, or an object (see info)
      damages          a list of objects: path, offset, reason
      refusal          the error with which opening would refuse it, or null
      repair           what repair would do: a list of objects (see repair)
      repair_refusal   why repair could not, or null
      opening          what opening would do: a list of texts
      holds            a list of objects: name, sequence, records (from there)
      cursors          the same of the consumers
      others           other files: a list of objects: name, what, bytes
      remarks          a list of objects: weight ("damage", "warning",
                       "note"), text
    """
    let_interrupt_kill()
    if database_of(store) is not None:
        from aquipu.cli.commands.upkeep.database import say_findings

        if html is not None or quick:
            raise typer.BadParameter("is for a directory", param_hint="--html, --quick")
        say_findings(store, json_object=json_object)
        return
    with exit_codes():
        output, path = standard_output(), seen_directory(store)
        if html is not None:
            with usage("--html"):
                check_outside(html, path)
        disk = Disk()
        with bar(None if quick else bytes_to_read(disk, path), shown=not quick) as advance:
            found = diagnose(disk, path, whole=not quick, progress=advance)
        if html is not None:
            with to_file(html) as page:
                page.write(page_of(found).encode(errors="backslashreplace"))
            say(f"the report is in {html}")
        write_line(
            output, as_json(_plain(found)) if json_object else text_of(found, paint_for(output))
        )
        raise typer.Exit(DAMAGED if found.is_damaged else WELL)


def _plain(found: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis as objects, lists and texts; a named tuple is an object, too."""
    plain = asdict(found) | {"records": found.records}
    plain["remarks"] = [remark._asdict() for remark in found.remarks]
    for one, facts in zip(plain["segments"], found.segments, strict=True):
        one["stretches"] = [stretch._asdict() for stretch in facts.stretches]
    return plain
