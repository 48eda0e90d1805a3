"""The commands that change a store: append, purge, hold, index, repair.

append and purge write through a `Store`, and so hold its lock; index and repair hold it themselves. hold needs none: it
works while a service writes the store.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import asdict
from datetime import datetime
from re import fullmatch
from time import sleep
from typing import Annotated

import anyio
import typer

from aquipu.bookmark import checked_name, list_bookmarks, remove_bookmark, set_hold
from aquipu.cli.app import (
    DAMAGED,
    EPILOG,
    SIGNALLED,
    USAGE,
    JsonOption,
    LockTimeoutOption,
    StoreArgument,
    absolute,
    app,
    as_json,
    checked_timeout,
    exit_codes,
    sequence_or_time,
    usage,
)
from aquipu.cli.console import (
    PIECE_BYTES,
    Advance,
    Input,
    bar,
    can_ask,
    confirmed,
    counted,
    say,
    standard_output,
    until_signalled,
    write_line,
)
from aquipu.cli.lines import LINE_BYTES_MAX, Lines
from aquipu.disk import Disk, explained
from aquipu.errors import AquipuError, RecordNotWrittenError, StoreLockedError
from aquipu.indexes import build_indexes
from aquipu.inspection import examined, segment_bytes
from aquipu.layout import BookmarkKind
from aquipu.lock import Lock, holder_of
from aquipu.manifest import read_manifest
from aquipu.policy import Always, EveryN, OsManaged, Stage, SyncPolicy
from aquipu.purge import Purged
from aquipu.reader import Reader
from aquipu.record import checked_relations
from aquipu.recovery import RecoveryReport
from aquipu.repair import Mended, Repair, repairing
from aquipu.store import Store

_BUSY_PAUSE = 0.01  # seconds, while somebody else decides on a purge or sets a hold
_YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


# append


@app.command("append", epilog=EPILOG)
def append_command(
    store: Annotated[str, typer.Argument(metavar="STORE", help="The directory of the store; made if it is missing.")],
    sync_policy: Annotated[
        str,
        typer.Option(
            metavar="always|every:N[/SECONDS]|os",
            help="When records are synced to the disk: each commit; after N records, or SECONDS ('none': whenever) at"
            " the latest; by the operating system. At the end everything is synced.",
        ),
    ] = "every:64",
    relation: Annotated[
        list[str] | None,
        typer.Option("--relation", metavar="LABEL", help="Store each line with this label; may be repeated."),
    ] = None,
    lock_timeout: LockTimeoutOption = 20.0,
) -> None:
    """Store standard input, a record per line.

    Each line is stored with its line end, as soon as it comes, so that `aquipu cat` gives back exactly what was read. At
    the end, one line on standard error says how many records were stored, the last sequence, and how safe they are.

    Ctrl-C, SIGTERM and SIGHUP end it as the end of the input does: what was read is stored and synced.
    """
    policy, seconds = sync_policy_of(sync_policy), checked_timeout(lock_timeout)
    with usage("--relation"):
        labels = checked_relations(relation or ())
    with exit_codes():
        stopped_by = anyio.run(_append, absolute(store), policy, labels, seconds)
        if stopped_by is not None:
            raise typer.Exit(SIGNALLED + stopped_by)


def sync_policy_of(text: str) -> SyncPolicy:
    """always, os, every:N, every:N/SECONDS or every:N/none; a usage error for anything else."""
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


async def _append(path: str, policy: SyncPolicy, labels: tuple[str, ...], lock_timeout: float) -> int | None:
    """Append standard input. The signal that ended it, if one did."""
    source = Input()
    try:
        store = await Store.open(
            path,
            sync_policy=policy,
            max_record_bytes=LINE_BYTES_MAX,
            buffer_records=PIECE_BYTES,  # a piece holds no more lines than bytes, so each can be one commit
            lock_timeout=lock_timeout,
        )
        with until_signalled(source.stop):
            try:
                say_what_was_cut(store.recovery)
                with bar(source.size, counts_records=True, shown=not source.is_terminal) as advance:
                    await _append_lines(store, source, labels, advance)
            finally:
                await _close(store)
    finally:
        source.close()
    return source.stopped_by


async def _append_lines(store: Store, source: Input, labels: tuple[str, ...], advance: Advance) -> None:
    lines = Lines()
    while piece := await source.read():
        records = lines.feed(piece)
        await store.append_many(records, relations=labels)
        advance(len(piece), len(records))
    rest = lines.rest()
    if rest:
        await store.append(rest, relations=labels)
        advance(0, 1)


async def _close(store: Store) -> None:
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
            f"aquipu: a torn tail of {counted(report.cut_bytes, 'byte')} was cut from {report.cut_from} at offset "
            f"{report.cut_offset}: {report.cut_reason}; it is kept in {report.cut_kept_in}"
        )


# purge and hold


@app.command("purge", epilog=EPILOG)
def purge_command(
    store: StoreArgument,
    before: Annotated[
        str, typer.Option(metavar="SEQUENCE|TIME", help="What lies before it may go: a sequence, or ISO 8601 with a zone.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    lock_timeout: LockTimeoutOption = 20.0,
    json_object: JsonOption = False,
) -> None:
    """Let go of the oldest records: whole sealed segments, in which everything lies before the sequence or time.

    What a hold keeps stays, and so does the segment that is being written. No other process may be writing the store.

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
    with exit_codes():
        output = standard_output()
        purged = anyio.run(_purge, absolute(store), bound, dry_run, seconds)
        if json_object:
            write_line(output, as_json({**purged._asdict(), "dry_run": dry_run}))
        else:
            write_line(output, _purged_text(purged, dry_run=dry_run))


async def _purge(path: str, before: int | datetime, dry_run: bool, lock_timeout: float) -> Purged:
    async with Reader.open(path):
        pass  # a store that is not there must not be made
    async with Store.open(path, lock_timeout=lock_timeout) as store:
        if isinstance(before, int):
            return await store.purge(before=before, dry_run=dry_run)
        return await store.purge(before_time=before, dry_run=dry_run)


@app.command("hold", epilog=EPILOG)
def hold_command(
    store: StoreArgument,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Without: list the holds.")] = None,
    sequence: Annotated[
        int | None, typer.Argument(metavar="[SEQUENCE]", min=0, help="Keep everything from here on; without: all there is.")
    ] = None,
    release: Annotated[bool, typer.Option("--release", help="Remove the hold.")] = False,
    json_object: JsonOption = False,
) -> None:
    """Keep records from being purged, whatever the retention says. Also while a service writes the store.

    Without a name, the holds are listed: sequence, tab, name. With --json, one object: the sequence by name.
    """
    if (name is None and release) or (release and sequence is not None):
        raise typer.BadParameter("takes a name, and nothing else", param_hint="--release")
    if name is not None:
        with usage("NAME"):
            checked_name(name)
    with exit_codes():
        output, disk, path = standard_output(), Disk(), absolute(store)
        first, following = anyio.run(_bounds, path)
        if name is not None and release:
            _release(disk, path, name)
        elif name is not None:
            _hold(disk, path, name, first if sequence is None else sequence, following)
        holds = _holds(disk, path)
        if json_object:
            write_line(output, as_json(holds))
        elif name is None and holds:
            write_line(output, "\n".join(f"{kept_from}\t{name}" for name, kept_from in holds.items()))


async def _bounds(path: str) -> tuple[int, int]:
    async with Reader.open(path) as reader:
        return reader.first_sequence, reader.next_sequence


def _hold(disk: Disk, path: str, name: str, sequence: int, following: int) -> None:
    if sequence > following:
        raise RecordNotWrittenError(path, sequence, following)
    with explained(path, "set a hold in"):
        while not set_hold(disk, path, name, sequence):
            sleep(_BUSY_PAUSE)
    say(f"{name} keeps everything from sequence {sequence} on")


def _release(disk: Disk, path: str, name: str) -> None:
    with explained(path, "remove a hold from"):
        was_there = remove_bookmark(disk, path, BookmarkKind.HOLD, name)
    if not was_there:
        say(f"aquipu: {path} has no hold of the name {name}")
        raise typer.Exit(USAGE)
    say(f"{name} keeps nothing any more")


def _holds(disk: Disk, path: str) -> dict[str, int]:
    with explained(path, "read the holds of"):
        return list_bookmarks(disk, path, read_manifest(disk, path).store_id, BookmarkKind.HOLD)


# index


@app.command("index", epilog=EPILOG)
def index_command(
    store: StoreArgument,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build all of them anew, also those that are sound.")] = False,
) -> None:
    """Build the indexes of the sealed segments that are missing or damaged. No other process may be writing the store.

    A service does this by itself, in the background. An index only makes finding faster: nothing is lost with it.
    """
    with exit_codes():
        disk, path = Disk(), absolute(store)
        anyio.run(_bounds, path)  # a store must be there, before its lock is made
        with explained(path, "lock"):
            lock = Lock.take(disk, path)
        if lock is None:
            raise StoreLockedError(path, holder_of(disk, path))
        try:
            sealed = examined(disk, path).sealed
            with explained(path, "index"), bar(segment_bytes(disk, path)) as advance:
                built = build_indexes(disk, sealed, anew=rebuild, progress=advance)
        finally:
            lock.release()
        say(f"{counted(len(sealed), 'sealed segment')}, indexes built: {built:,}")


# repair


@app.command("repair", epilog=EPILOG)
def repair_command(store: StoreArgument, yes: _YesOption = False, json_object: JsonOption = False) -> None:
    """Make a damaged store whole. What is sound stays as it is; the damaged bytes are kept in files beside.

    What would be done is shown, and done after a yes: on a terminal, or with --yes. Where a record is lost, an empty one
    with the label aquipu:lost stands in for it: `aquipu find STORE aquipu:lost --json` lists them. Copy the directory away
    first, if it matters. No other process may be using the store.

    Exit code 1 when something is damaged and nothing was done.

    \b
    With --json, one object:
      path          the directory, absolute
      done          whether it was done; false: this is what would be
      lost_records  how many
      mended        a list of objects: path, offset, bytes, reason, action,
                    kept_in (the file with the damaged bytes, or null),
                    lost_from, lost_before (sequences, or null)
    """
    with exit_codes():
        output, disk, path = standard_output(), Disk(), absolute(store)
        with ExitStack() as held:
            with bar(_bytes_of(disk, path)) as advance:
                repair = held.enter_context(repairing(disk, path, advance))
            done = bool(repair.plan) and (yes or _agreed(repair))
            mended = _carried_out(repair, disk) if done else repair.plan
        if json_object:
            lost = sum(one.lost for one in mended)
            found = {"path": path, "done": done, "lost_records": lost, "mended": [asdict(one) for one in mended]}
            write_line(output, as_json(found))
        else:
            write_line(output, _mended_text(mended) if mended else "nothing to repair")
        if mended and not done:
            say("aquipu: nothing was changed" + ("" if can_ask() else "; give --yes to have it done"))
            raise typer.Exit(DAMAGED)


def _agreed(repair: Repair) -> bool:
    """Whether the user says yes to the plan; not where nobody can be asked."""
    if not can_ask():
        return False
    say(_mended_text(repair.plan))
    return confirmed("Repair it so?")


def _carried_out(repair: Repair, disk: Disk) -> list[Mended]:
    with bar(_bytes_of(disk, repair.path)) as advance:
        return repair.carry_out(advance)


def _bytes_of(disk: Disk, path: str) -> int | None:
    with suppress(AquipuError):  # whoever repairs it says what is wrong
        return segment_bytes(disk, path)
    return None


# texts


def _purged_text(purged: Purged, *, dry_run: bool) -> str:
    what = f"{counted(purged.segments, 'segment')}, {counted(purged.records, 'record')}, {counted(purged.bytes, 'byte')}"
    went, begins = ("would go", "would begin") if dry_run else ("purged", "begins")
    return f"{what} {went}; the log {begins} with sequence {purged.first_sequence}"


def _mended_text(mended: list[Mended]) -> str:
    return "\n".join(map(_one_mended_text, mended))


def _one_mended_text(mended: Mended) -> str:
    parts = [f"{mended.path} at offset {mended.offset}: {mended.reason}: {mended.action}"]
    if mended.lost:
        parts.append(f"{counted(mended.lost, 'record')} lost, from sequence {mended.lost_from}")
    if mended.kept_in is not None:
        parts.append(f"{counted(mended.bytes, 'byte')} kept in {mended.kept_in}")
    return "; ".join(parts)
