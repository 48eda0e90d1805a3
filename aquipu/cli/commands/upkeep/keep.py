"""The commands that say what goes and what stays: purge and hold.

purge writes through a `Store`, as append does. hold needs no lock: it works while a service writes
the store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Annotated

import anyio
import typer

from aquipu.cli.app import EPILOG, USAGE, WRITTEN_ALONE, Purpose, app, exit_codes, usage
from aquipu.cli.arguments import (
    JsonOption,
    LockTimeoutOption,
    StoreArgument,
    absolute,
    bounds,
    checked_timeout,
    connecting,
    database_of,
    sequence_or_time,
)
from aquipu.cli.forms.objects import as_json
from aquipu.cli.forms.screen import table
from aquipu.cli.streams.console import (
    counted,
    say,
    standard_output,
    write_line,
)
from aquipu.cli.waiting import opened_patiently
from aquipu.errors import RecordNotWrittenError, RecordPurgedError
from aquipu.local.check.rights import keep_rights
from aquipu.local.cursor import hold_beside_writer
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.disk.paths import address_in, is_shared
from aquipu.local.format.names import BookmarkKind
from aquipu.local.retain.bookmarks import checked_name, list_bookmarks, remove_bookmark
from aquipu.local.retain.manifest import read_manifest
from aquipu.reader import Reader
from aquipu.record import Purged
from aquipu.remote.store import RemoteStore
from aquipu.store import Store

_BUSY_PAUSE = 0.01  # seconds, while somebody else decides on a purge or sets a hold


# purge and hold


@app.command("purge", epilog=EPILOG, rich_help_panel=Purpose.KEEP)
def purge_command(
    store: StoreArgument,
    before: Annotated[
        str,
        typer.Option(
            metavar="SEQUENCE|TIME",
            help="What lies before it may go: a sequence, 90d, '2026-11-28 10:00' (local time, "
            "or with a zone), '5 minutes ago'.",
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    lock_timeout: LockTimeoutOption = 20.0,
    json_object: JsonOption = False,
) -> None:
    """Delete the oldest records.

    They go in whole files of the log: one that is full goes when everything in it lies before the
    sequence or time. What a hold keeps stays, and so does the file that is being written. A store
    that a service writes alone is its to purge; one that is shared, or served, is purged through
    who writes it.

    \b
    With --json, one object:
      first_sequence_before  of the first record kept until now
      first_sequence         of the first record kept
      segments               how many went
      records                how many went
      bytes                  of the segment files that went
      held_by                name of the oldest hold, if more would go without holds
      held_from              the sequence from which that hold keeps everything
      dry_run                whether this is only what would be
    """
    bound, seconds = sequence_or_time(before, "--before"), checked_timeout(lock_timeout)
    with exit_codes(WRITTEN_ALONE):
        output = standard_output()
        purged = anyio.run(_purge, store, bound, dry_run, seconds)
        if json_object:
            write_line(output, as_json({**purged._asdict(), "dry_run": dry_run}))
        else:
            write_line(output, _purged_text(purged, dry_run=dry_run))


async def _purge(store: str, before: int | datetime, dry_run: bool, lock_timeout: float) -> Purged:
    if address_in(store) is not None:
        async with connecting(store, lock_timeout) as remote:
            return await _purge_before(remote, before, dry_run)
    if database_of(store) is not None:
        async with await _opened_database(store, lock_timeout) as log:
            return await _purge_before(log, before, dry_run)
    path = absolute(store)
    async with Reader.open(path):
        pass  # a store that is not there must not be made
    disk = Disk()
    keep_rights(disk, path)
    shared = is_shared(path)
    opening = Store.open(path, lock_timeout=lock_timeout, shared=shared, disk=disk)
    async with await opened_patiently(opening, store, lock_timeout) as local:
        return await _purge_before(local, before, dry_run)


async def _purge_before(
    store: Store | RemoteStore, before: int | datetime, dry_run: bool
) -> Purged:
    if isinstance(before, int):
        return await store.purge(before=before, dry_run=dry_run)
    return await store.purge(before_time=before, dry_run=dry_run)


@app.command("hold", epilog=EPILOG, rich_help_panel=Purpose.KEEP)
def hold_command(
    store: StoreArgument,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Without: list the holds.")
    ] = None,
    sequence: Annotated[
        int | None,
        typer.Argument(
            metavar="[SEQUENCE]", min=0, help="Keep everything from here on; without: all there is."
        ),
    ] = None,
    release: Annotated[bool, typer.Option("--release", help="Remove the hold.")] = False,
    json_object: JsonOption = False,
) -> None:
    """Keep records from being purged, or list what is kept.

    This works also while a service writes the store.

    Without a name, the holds are listed: sequence, tab, name; on a terminal as a table. With
    --json, one object: the sequence by name.
    """
    if (name is None and release) or (release and sequence is not None):
        raise typer.BadParameter("takes a name, and nothing else", param_hint="--release")
    if name is not None:
        with usage("NAME"):
            checked_name(name)
    with exit_codes():
        output = standard_output()
        if address_in(store) is None and database_of(store) is None:
            holds = _hold_in_files(absolute(store), name, sequence, release)
        else:
            holds = anyio.run(_hold_by_asking, store, name, sequence, release)
        if json_object:
            write_line(output, as_json(holds))
        elif name is None and holds:
            rows = [(str(kept_from), name) for name, kept_from in holds.items()]
            write_line(output, table(output, ("KEPT FROM", "HOLD"), rows))


def _hold_in_files(
    path: str, name: str | None, sequence: int | None, release: bool
) -> dict[str, int]:
    """Set or remove a hold, if there is a name; return the holds that there are then."""
    disk = Disk()
    first, following = anyio.run(bounds, path)
    if name is not None and release:
        with translate_os_errors(path, "remove a hold from"):
            _say_released(path, name, remove_bookmark(disk, path, BookmarkKind.HOLD, name))
    elif name is not None:
        if sequence is not None and sequence > following:
            raise RecordNotWrittenError(path, sequence, following)
        with translate_os_errors(path, "set a hold in"):
            keep_rights(disk, path)
        hold = partial(_hold_beside_writer, disk, path, name)
        _say_held(name, anyio.run(_hold, hold, sequence, first))
    return _holds(disk, path)


async def _hold_by_asking(
    address: str, name: str | None, sequence: int | None, release: bool
) -> dict[str, int]:
    """Hold records through the daemon that writes the store, or the server that has the log."""
    is_daemon = address_in(address) is not None
    async with await (connecting(address) if is_daemon else _opened_database(address)) as store:
        if name is not None and release:
            _say_released(address, name, await store.release(name))
        elif name is not None:
            hold = partial(store.hold, name)
            _say_held(name, await _hold(hold, sequence, store.first_sequence))
        return await store.holds()


async def _hold(hold: Callable[[int], Awaitable[None]], sequence: int | None, first: int) -> int:
    """Keep everything from a sequence on, or all there is; return from where on."""
    kept_from = first if sequence is None else sequence
    while True:
        try:
            await hold(kept_from)
            return kept_from
        except RecordPurgedError as purged:  # just now, where all there is was asked for
            if sequence is not None:
                raise
            kept_from = purged.bound


async def _hold_beside_writer(disk: Disk, path: str, name: str, sequence: int) -> None:
    while not hold_beside_writer(disk, path, name, sequence):  # noqa: ASYNC110 - another process
        await anyio.sleep(_BUSY_PAUSE)


async def _opened_database(address: str, seconds: float = 20.0) -> Store:
    """Return a log in a database, which must exist, opened for writing."""
    with usage("STORE"):
        reading = Reader.open(address)
        opening = Store.open(address, lock_timeout=seconds)
    async with reading:
        pass
    return await opening


def _say_held(name: str, sequence: int) -> None:
    say(f"{name} keeps everything from sequence {sequence} on")


def _say_released(path: str, name: str, was_there: bool) -> None:
    if not was_there:
        say(f"aquipu: {path} has no hold of the name {name}")
        raise typer.Exit(USAGE)
    say(f"{name} keeps nothing any more")


def _holds(disk: Disk, path: str) -> dict[str, int]:
    with translate_os_errors(path, "read the holds of"):
        return list_bookmarks(disk, path, read_manifest(disk, path).store_id, BookmarkKind.HOLD)


# texts


def _purged_text(purged: Purged, *, dry_run: bool) -> str:
    what = (
        f"{counted(purged.segments, 'segment')}, {counted(purged.records, 'record')}, "
        f"{counted(purged.bytes, 'byte')}"
    )
    went, begins = ("would go", "would begin") if dry_run else ("purged", "begins")
    kept = (
        f"; the hold {purged.held_by} keeps everything from sequence {purged.held_from} on"
        if purged.held_by is not None
        else ""
    )
    return f"{what} {went}; the log {begins} with sequence {purged.first_sequence}{kept}"
