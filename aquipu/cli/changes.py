"""The commands that change a store while it works: append, purge, hold.

append and purge write through a `Store`, and so hold its lock. hold needs none: it works while a
service writes the store.
"""

from __future__ import annotations

from datetime import datetime
from re import fullmatch
from time import sleep
from typing import Annotated

import anyio
import typer

from aquipu.cli.app import (
    EPILOG,
    SIGNALLED,
    USAGE,
    JsonOption,
    LockTimeoutOption,
    ModeOption,
    StoreArgument,
    absolute,
    app,
    as_json,
    bounds,
    checked_rights,
    checked_timeout,
    connecting,
    exit_codes,
    sequence_or_time,
    usage,
)
from aquipu.cli.console import (
    Advance,
    Input,
    bar,
    counted,
    say,
    standard_output,
    until_signalled,
    write_line,
)
from aquipu.cli.lines import LINE_BYTES_MAX, Lines
from aquipu.errors import RecordNotWrittenError
from aquipu.local.check.rights import keep_rights
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.disk.paths import address_in, is_shared
from aquipu.local.format.names import BookmarkKind
from aquipu.local.retain.bookmarks import checked_name, list_bookmarks, remove_bookmark, set_hold
from aquipu.local.retain.manifest import read_manifest
from aquipu.local.write.recovery import RecoveryReport
from aquipu.policy import Always, EveryN, OsManaged, Stage, SyncPolicy
from aquipu.reader import Reader
from aquipu.record import Purged, checked_relations
from aquipu.runtime.closing import Opening
from aquipu.store import RemoteStore, Store

_BATCH_RECORDS = 16_384  # fewer than any buffer holds that was opened without saying otherwise
_WRITTEN_ALONE = (
    "that process writes it alone: have it open the store with shared=True, or be an aquipu serve "
    "that is asked by its address, and this command goes through it; or end it first"
)
_BUSY_PAUSE = 0.01  # seconds, while somebody else decides on a purge or sets a hold


# append


@app.command("append", epilog=EPILOG)
def append_command(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="The directory of the store, made if it is missing; or unix:PATH for the one that"
            " a daemon has.",
        ),
    ],
    sync_policy: Annotated[
        str | None,
        typer.Option(
            metavar="always|every:N[/SECONDS]|os",
            show_default="every:64",
            help="When records are synced to the disk: each commit; after N records, or SECONDS"
            " ('none': whenever) at the latest; by the operating system. At the end everything is"
            " synced.",
        ),
    ] = None,
    relation: Annotated[
        list[str] | None,
        typer.Option(
            "--relation", metavar="LABEL", help="Store each line with this label; may be repeated."
        ),
    ] = None,
    mode: ModeOption = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The group that the files belong to, and may read them."),
    ] = None,
    lock_timeout: LockTimeoutOption = 20.0,
) -> None:
    """Store standard input, a record per line.

    Each line is stored with its line end, as soon as it comes, so that `aquipu cat` gives back
    exactly what was read. At the end, one line on standard error says how many records were stored,
    the last sequence, and how safe they are.

    Ctrl-C, SIGTERM and SIGHUP end it as the end of the input does: what was read is stored and
    synced.
    """
    seconds = checked_timeout(lock_timeout)
    with usage("--relation"):
        labels = checked_relations(relation or ())
    opening = _opening_for_append(store, sync_policy, seconds, checked_rights(mode), group)
    with exit_codes(_WRITTEN_ALONE):
        stopped_by = anyio.run(_append, opening, labels)
        if stopped_by is not None:
            raise typer.Exit(SIGNALLED + stopped_by)


def sync_policy_of(text: str) -> SyncPolicy:
    """Return the policy of always, os, every:N, every:N/SECONDS or every:N/none.

    Anything else is a usage error.
    """
    if text in ("always", "os"):
        return Always() if text == "always" else OsManaged()
    match = fullmatch(r"every:([0-9]+)(?:/(none|[0-9]*\.?[0-9]+))?", text)
    try:
        if match is None:
            raise ValueError(f"{text!r} is not one of always, every:N, every:N/SECONDS, os")
        if match[2] is None:
            return EveryN(int(match[1]))
        return EveryN(int(match[1]), within=None if match[2] == "none" else float(match[2]))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--sync-policy") from None


def _opening_for_append(
    store: str, sync_policy: str | None, seconds: float, mode: int | None, group: str | None
) -> Opening[Store] | Opening[RemoteStore]:
    if address_in(store) is None:
        policy = sync_policy_of(sync_policy or "every:64")
        with usage("--group"):
            return Store.open(
                absolute(store),
                sync_policy=policy,
                max_record_bytes=LINE_BYTES_MAX,
                lock_timeout=seconds,
                mode=mode,
                group=group,
                shared=is_shared(absolute(store)),
            )
    for option, value in (("--sync-policy", sync_policy), ("--mode", mode), ("--group", group)):
        if value is not None:
            raise typer.BadParameter(
                f"the daemon at {store} has its own: see serve", param_hint=option
            )
    return connecting(store, seconds)


async def _append(
    opening: Opening[Store] | Opening[RemoteStore], labels: tuple[str, ...]
) -> int | None:
    """Append standard input; return the signal that ended it, if one did."""
    source = Input()
    try:
        store = await opening
        with until_signalled(source.stop):
            try:
                if not isinstance(store, RemoteStore):  # the daemon has said it
                    say_what_was_cut(store.recovery)
                with bar(source.size, counts_records=True, shown=not source.is_terminal) as advance:
                    await _append_lines(store, source, labels, advance)
            finally:
                await _close(store)
    finally:
        source.close()
    return source.stopped_by


async def _append_lines(
    store: Store | RemoteStore, source: Input, labels: tuple[str, ...], advance: Advance
) -> None:
    lines = Lines()
    while piece := await source.read():
        records = lines.feed(piece)
        for first in range(0, len(records), _BATCH_RECORDS):
            await store.append_many(records[first : first + _BATCH_RECORDS], relations=labels)
        advance(len(piece), len(records))
    rest = lines.rest()
    if rest:
        await store.append(rest, relations=labels)
        advance(0, 1)


async def _close(store: Store | RemoteStore) -> None:
    """Close it, and say how far its records have come, whatever happens."""
    try:
        await store.aclose()
    finally:
        records, next_sequence = store.statistics().records, store.next_sequence
        last = f"last sequence {next_sequence - 1}" if next_sequence else "no sequence yet"
        stage = Stage.SYNCED if store.synced_sequence == next_sequence else Stage.FLUSHED
        say(f"{counted(records, 'record')} appended, {last}, {stage.name}")


def say_what_was_cut(report: RecoveryReport) -> None:
    if report.cut_bytes:
        say(
            f"aquipu: a torn tail of {counted(report.cut_bytes, 'byte')} was cut from "
            f"{report.cut_from} at offset {report.cut_offset}: {report.cut_reason}; "
            f"it is kept in {report.cut_kept_in}"
        )


# purge and hold


@app.command("purge", epilog=EPILOG)
def purge_command(
    store: StoreArgument,
    before: Annotated[
        str,
        typer.Option(
            metavar="SEQUENCE|TIME",
            help="What lies before it may go: a sequence, or ISO 8601 with a zone.",
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    lock_timeout: LockTimeoutOption = 20.0,
    json_object: JsonOption = False,
) -> None:
    """Delete the oldest records, in whole sealed segments.

    A segment goes when everything in it lies before the sequence or time.

    What a hold keeps stays, and so does the segment that is being written. A store that a service
    writes alone is its to purge; one that is shared, or served, is purged through who writes it.

    \b
    With --json, one object:
      first_sequence_before  of the first record kept until now
      first_sequence         of the first record kept
      segments               how many went
      records                how many went
      bytes                  of the segment files that went
      dry_run                whether this is only what would be
    """
    bound, seconds = sequence_or_time(before, "--before"), checked_timeout(lock_timeout)
    with exit_codes(_WRITTEN_ALONE):
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
    path = absolute(store)
    async with Reader.open(path):
        pass  # a store that is not there must not be made
    disk = Disk()
    keep_rights(disk, path)
    shared = is_shared(path)
    async with Store.open(path, lock_timeout=lock_timeout, shared=shared, disk=disk) as local:
        return await _purge_before(local, before, dry_run)


async def _purge_before(
    store: Store | RemoteStore, before: int | datetime, dry_run: bool
) -> Purged:
    if isinstance(before, int):
        return await store.purge(before=before, dry_run=dry_run)
    return await store.purge(before_time=before, dry_run=dry_run)


@app.command("hold", epilog=EPILOG)
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
    """Keep records from being purged, whatever the retention says.

    This works also while a service writes the store.

    Without a name, the holds are listed: sequence, tab, name. With --json, one object: the sequence
    by name.
    """
    if (name is None and release) or (release and sequence is not None):
        raise typer.BadParameter("takes a name, and nothing else", param_hint="--release")
    if name is not None:
        with usage("NAME"):
            checked_name(name)
    with exit_codes():
        output = standard_output()
        if address_in(store) is None:
            holds = _hold_in_files(absolute(store), name, sequence, release)
        else:
            holds = anyio.run(_hold_by_daemon, store, name, sequence, release)
        if json_object:
            write_line(output, as_json(holds))
        elif name is None and holds:
            write_line(
                output, "\n".join(f"{kept_from}\t{name}" for name, kept_from in holds.items())
            )


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
        _hold(disk, path, name, first if sequence is None else sequence, following)
    return _holds(disk, path)


async def _hold_by_daemon(
    address: str, name: str | None, sequence: int | None, release: bool
) -> dict[str, int]:
    """Hold records through the daemon that writes the store."""
    async with connecting(address) as store:
        if name is not None and release:
            _say_released(address, name, await store.release(name))
        elif name is not None:
            kept_from = store.first_sequence if sequence is None else sequence
            await store.hold(name, kept_from)
            _say_held(name, kept_from)
        return await store.holds()


def _hold(disk: Disk, path: str, name: str, sequence: int, following: int) -> None:
    if sequence > following:
        raise RecordNotWrittenError(path, sequence, following)
    with translate_os_errors(path, "set a hold in"):
        keep_rights(disk, path)
        while not set_hold(disk, path, name, sequence):
            sleep(_BUSY_PAUSE)
    _say_held(name, sequence)


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
    return f"{what} {went}; the log {begins} with sequence {purged.first_sequence}"
