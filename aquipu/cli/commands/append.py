"""The command that stores records: append.

It writes through a `Store`, and so holds its lock, or goes through who has it and shares it.
"""

from __future__ import annotations

from typing import Annotated

import anyio
import typer

from aquipu.cli.app import EPILOG, SIGNALLED, Purpose, app, exit_codes, usage
from aquipu.cli.arguments import (
    LockTimeoutOption,
    ModeOption,
    absolute,
    checked_rights,
    checked_timeout,
    connecting,
    sync_policy_of,
)
from aquipu.cli.streams.console import (
    Advance,
    Input,
    bar,
    counted,
    say,
    until_signalled,
)
from aquipu.cli.streams.lines import LINE_BYTES_MAX, Lines
from aquipu.local.disk.paths import address_in, is_shared
from aquipu.local.write.recovery import RecoveryReport
from aquipu.policy import Stage
from aquipu.record import checked_relations
from aquipu.runtime.closing import Opening
from aquipu.store import RemoteStore, Store

_BATCH_RECORDS = 16_384  # fewer than any buffer holds that was opened without saying otherwise
_WRITTEN_ALONE = (
    "that process writes it alone: have it open the store with shared=True, or be an aquipu serve "
    "that is asked by its address, and this command goes through it; or end it first"
)
_BUSY_PAUSE = 0.01  # seconds, while somebody else decides on a purge or sets a hold


# append


@app.command("append", epilog=EPILOG, rich_help_panel=Purpose.WRITE)
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
    nul: Annotated[
        bool, typer.Option("-0", help="A NUL byte ends each record, and not a line end.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Keep what ends each record as a part of it.")
    ] = False,
    lock_timeout: LockTimeoutOption = 20.0,
) -> None:
    """Store standard input, a record for each line.

    Each line is stored as soon as it comes, without its line end, which `aquipu cat` puts behind it
    again. With --raw, both leave every byte as it is. At the end, one line on standard error says
    how many records were stored, the last sequence, and how safe they are.

    Ctrl-C, SIGTERM and SIGHUP end it as the end of the input does: what was read is stored and
    synced.
    """
    seconds = checked_timeout(lock_timeout)
    with usage("--relation"):
        labels = checked_relations(relation or ())
    opening = _opening_for_append(store, sync_policy, seconds, checked_rights(mode), group)
    lines = Lines(end=b"\0" if nul else b"\n", keep_end=raw)
    with exit_codes(_WRITTEN_ALONE):
        stopped_by = anyio.run(_append, opening, lines, labels)
        if stopped_by is not None:
            raise typer.Exit(SIGNALLED + stopped_by)


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
    opening: Opening[Store] | Opening[RemoteStore], lines: Lines, labels: tuple[str, ...]
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
                    await _append_lines(store, source, lines, labels, advance)
            finally:
                await _close(store)
    finally:
        source.close()
    return source.stopped_by


async def _append_lines(
    store: Store | RemoteStore,
    source: Input,
    lines: Lines,
    labels: tuple[str, ...],
    advance: Advance,
) -> None:
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
