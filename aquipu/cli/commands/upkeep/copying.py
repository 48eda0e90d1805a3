"""The command that brings a log from a directory into a database, or back: copy."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import anyio
import typer

from aquipu.cli.app import EPILOG, Purpose, app, exit_codes, usage
from aquipu.cli.arguments import JsonOption, OptionsOption
from aquipu.cli.commands.upkeep.ends import (
    Ends,
    Origin,
    Target,
    ends_of,
    keep,
    kept_in,
    origin_of,
    target_of,
)
from aquipu.cli.forms.objects import as_json
from aquipu.cli.streams.console import (
    Advance,
    bar,
    counted,
    let_interrupt_kill,
    standard_output,
    write_line,
)
from aquipu.errors import BackupRefusedError, RecordPurgedError
from aquipu.local.copying.pieces import ascending


class Copied(NamedTuple):
    """What a copy has come to."""

    path: str
    """Where the copy is: a directory, or an address without its password."""
    first_sequence: int
    next_sequence: int
    copied: int
    """Records that were brought this time."""
    cursors: int
    holds: int


@app.command("copy", epilog=EPILOG, rich_help_panel=Purpose.CARE)
def copy_command(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="The directory of the store, postgresql://HOST/DATABASE?log=NAME, or the place of"
            " an archive.",
        ),
    ],
    to: Annotated[
        str,
        typer.Argument(
            metavar="TO", help="The log: postgresql://HOST/DATABASE?log=NAME, or a directory."
        ),
    ],
    cursors: Annotated[
        bool, typer.Option("--cursors", help="Bring cursors and holds as well.")
    ] = False,
    option: OptionsOption = None,
    json_object: JsonOption = False,
) -> None:
    """Bring a log into a database, or from one into a directory.

    Into a database it comes from a directory, or from an archive. Sequences, times, labels and keys
    are kept. It works also while a service writes the log: then it brings what is acknowledged now,
    and the next time what has come since. Cut short, it goes on where it was. Nobody else may write
    the copy meanwhile.

    With --cursors, consumers go on there where they are here: give it the last time, when nothing
    consumes any more.

    \b
    With --json, one object:
      path            the directory, or the address without a password
      first_sequence  of the first record there
      next_sequence   one past the last record there
      copied          how many were brought this time
      cursors         how many were set there
      holds           how many were set there
    """
    ends = ends_of(store, to, option)
    if cursors and ends.archive is not None:
        raise typer.BadParameter("an archive keeps no cursors", param_hint="--cursors")
    let_interrupt_kill()
    with exit_codes():
        output = standard_output()
        with bar(None, counts_records=True) as advance, usage():
            done = anyio.run(_copy, ends, cursors, advance)
        write_line(output, as_json(done._asdict()) if json_object else _text(done))


async def _copy(ends: Ends, cursors: bool, advance: Advance) -> Copied:
    # before the log is looked at: no cursor is beyond what is copied
    kept = await kept_in(ends) if cursors else None
    async with origin_of(ends) as origin, target_of(ends, origin.start) as target:
        done = await _bring(origin, target, advance)
    if kept is None:
        return done
    await keep(ends, kept)
    return done._replace(cursors=len(kept.cursors), holds=len(kept.holds))


async def _bring(origin: Origin, target: Target, advance: Advance) -> Copied:
    start = (await target.head()).next_sequence
    if start < origin.start:
        raise RecordPurgedError(origin.path, start, origin.start)
    await _check_same(origin, target, start)
    async for records, keys in origin.pieces(start):
        for part in ascending(records, keys):
            await target.bring(*part)
        advance(sum(len(record.data) for record in records), len(records))
    head = await target.head()
    return Copied(
        *(target.path, head.first_sequence, head.next_sequence, head.next_sequence - start),
        *(0, 0),
    )


async def _check_same(origin: Origin, target: Target, start: int) -> None:
    """Raise BackupRefusedError unless the log there ends with a record of this one."""
    reason = None
    if start > origin.stop:
        reason = f"it has {start - origin.stop} records more"
    elif start > origin.start and not await target.has(await origin.record(start - 1)):
        reason = f"its record {start - 1} is another one"
    if reason is not None:
        raise BackupRefusedError(target.path, reason)


def _text(done: Copied) -> str:
    records = done.next_sequence - done.first_sequence
    which = f", {done.first_sequence} to {done.next_sequence - 1}" if records else ""
    there = f"{done.path} has {counted(records, 'record')}{which}"
    if done.cursors or done.holds:
        there += f"; {counted(done.cursors, 'cursor')} and {counted(done.holds, 'hold')} set there"
    return f"{counted(done.copied, 'record')} copied; {there}"
