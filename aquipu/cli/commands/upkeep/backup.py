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
    since. Cut short, it goes on the next time. To restore: aquipu backup DEST STORE.

    \b
    With --json, one object:
      path            the directory of the backup
      first_sequence  of the first record in it
      next_sequence   one past the last record in it
      segments        how many were written this time
      copied_bytes    how many were copied
      shared_bytes    how many the file system keeps once for both
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
        done = anyio.run(_backup, store, to, link, bookmarks)
        write_line(output, as_json(done._asdict()) if json_object else _backup_text(done))


async def _backup(store: str, to: str, link: bool, bookmarks: bool) -> Backup:
    if address_in(store) is not None:
        async with connecting(store) as remote:
            return await remote.backup(to, link=link, bookmarks=bookmarks)
    path, disk = absolute(store), Disk()
    async with Reader.open(path, disk=disk) as reader:
        with translate_os_errors(path, "read"):
            keep_rights(disk, path)
        return await reader.backup(to, link=link, bookmarks=bookmarks)


def _backup_text(done: Backup) -> str:
    records = done.next_sequence - done.first_sequence
    which = f", {done.first_sequence} to {done.next_sequence - 1}," if records else ""
    shared = f", {counted(done.shared_bytes, 'byte')} shared" if done.shared_bytes else ""
    return (
        f"{counted(records, 'record')}{which} in {done.path}; {counted(done.segments, 'segment')} "
        f"written, {counted(done.copied_bytes, 'byte')} copied{shared}; no damage"
    )
