"""The command that copies a whole store: backup."""

from __future__ import annotations

from typing import Annotated

import anyio
import typer

from aquipu.cli.app import EPILOG, Purpose, app, exit_codes, usage
from aquipu.cli.arguments import (
    JsonOption,
    absolute,
    connecting,
    database_of,
)
from aquipu.cli.forms.objects import as_json
from aquipu.cli.streams.console import (
    counted,
    let_interrupt_kill,
    standard_output,
    write_line,
)
from aquipu.local.check.rights import keep_rights
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.disk.paths import address_in, checked_place
from aquipu.reader import Reader
from aquipu.record import Backup

# a copy of all of it


@app.command("backup", epilog=EPILOG, rich_help_panel=Purpose.CARE)
def backup_command(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="The directory of the store, or unix:PATH for the one that a daemon has.",
        ),
    ],
    place: Annotated[
        str, typer.Argument(metavar="DEST", help="The directory of the backup, made if missing.")
    ],
    link: Annotated[
        bool,
        typer.Option(
            "--link",
            help="Link full segments: that protects from a purge, not from a disk that fails.",
        ),
    ] = False,
    bookmarks: Annotated[
        bool,
        typer.Option("--bookmarks/--no-bookmarks", help="Take holds and cursors along."),
    ] = True,
    json_object: JsonOption = False,
) -> None:
    """Copy a store to another directory.

    This works also while a service writes the store.

    DEST is a store itself, with everything that was acknowledged when this began, synced, and
    checked frame by frame. Made again, it gets what is new, and keeps what the store has purged
    since. Cut short, it goes on the next time. To restore: aquipu backup DEST NEW, a directory that
    is new or empty: over a store that has purged records, they do not come back.

    \b
    With --json, one object:
      path            the directory of the backup
      first_sequence  of the first record in it
      next_sequence   one past the last record in it
      segments        how many were written this time
      copied_bytes    how many were copied
      shared_bytes    how many the file system keeps once for both
      left_out        how many older records STORE has, which a DEST that began later does not take
    """
    let_interrupt_kill()
    with exit_codes():
        output = standard_output()
        if database_of(store) is not None:
            raise typer.BadParameter(
                "a log in a database has no files here: `aquipu copy` brings it into a directory",
                param_hint="STORE",
            )
        with usage("DEST"):
            to = checked_place(place)
        done, left_out = anyio.run(_backup, store, to, link, bookmarks)
        if json_object:
            write_line(output, as_json({**done._asdict(), "left_out": left_out}))
        else:
            write_line(output, _backup_text(done, left_out))


async def _backup(store: str, to: str, link: bool, bookmarks: bool) -> tuple[Backup, int]:
    """Make a backup; return also how many records of the store are older than all in it."""
    if address_in(store) is not None:
        async with connecting(store) as remote:
            done = await remote.backup(to, link=link, bookmarks=bookmarks)
            return done, max(done.first_sequence - remote.first_sequence, 0)
    path, disk = absolute(store), Disk()
    async with Reader.open(path, disk=disk) as reader:
        with translate_os_errors(path, "read"):
            keep_rights(disk, path)
        done = await reader.backup(to, link=link, bookmarks=bookmarks)
        return done, max(done.first_sequence - reader.first_sequence, 0)


def _backup_text(done: Backup, left_out: int) -> str:
    records = done.next_sequence - done.first_sequence
    which = f", {done.first_sequence} to {done.next_sequence - 1}," if records else ""
    shared = f", {counted(done.shared_bytes, 'byte')} shared" if done.shared_bytes else ""
    older = (
        f"; {counted(left_out, 'older record')} not taken, because what was there begins with "
        f"sequence {done.first_sequence}: a new directory takes all"
        if left_out
        else ""
    )
    return (
        f"{counted(records, 'record')}{which} in {done.path}; {counted(done.segments, 'segment')} "
        f"written, {counted(done.copied_bytes, 'byte')} copied{shared}; no damage{older}"
    )
