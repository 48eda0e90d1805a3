"""Storing lines: what append and import share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import typer

from aquipu.cli.app import usage
from aquipu.cli.arguments import (
    absolute,
    connecting,
    database_of,
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
from aquipu.cli.waiting import opened_patiently
from aquipu.local.disk.paths import address_in, is_shared
from aquipu.local.write.recovery import RecoveryReport
from aquipu.policy import Stage
from aquipu.remote.store import RemoteStore
from aquipu.runtime.closing import Opening
from aquipu.store import Store

# append


Storing = Callable[[Store | RemoteStore, list[bytes]], Awaitable[None]]
"""Stores some lines, in their order."""


def opening_for_append(
    store: str, sync_policy: str | None, seconds: float, mode: int | None, group: str | None
) -> Opening[Store] | Opening[RemoteStore]:
    """Return what opens the store, or reaches who writes it; a usage error for what cannot be."""
    if database_of(store) is not None:
        return _opening_database(store, sync_policy, seconds, mode, group)
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


def opening_alone(store: str, sync_policy: str | None, seconds: float) -> Opening[Store]:
    """Return what opens a directory for this process alone, which gives records their times.

    A usage error for any other place.
    """
    elsewhere = None
    if database_of(store) is not None:
        elsewhere = "a log in a database: import into a directory, and `aquipu copy` that there"
    elif address_in(store) is not None:
        elsewhere = "a daemon: end it, and import into its directory"
    if elsewhere is not None:
        raise typer.BadParameter(
            f"times of the original are not kept by {elsewhere}", param_hint="--time"
        )
    return Store.open(
        absolute(store),
        sync_policy=sync_policy_of(sync_policy or "every:64"),
        max_record_bytes=LINE_BYTES_MAX,
        lock_timeout=seconds,
    )


def _opening_database(
    store: str, sync_policy: str | None, seconds: float, mode: int | None, group: str | None
) -> Opening[Store]:
    for option, value in (("--mode", mode), ("--group", group)):
        if value is not None:
            raise typer.BadParameter("a log in a database has no files", param_hint=option)
    policy = sync_policy_of(sync_policy or "every:64")
    with usage("STORE"):
        return Store.open(
            store, sync_policy=policy, max_record_bytes=LINE_BYTES_MAX, lock_timeout=seconds
        )


async def store_lines(
    opening: Opening[Store] | Opening[RemoteStore],
    place: tuple[str, float],
    source: Input,
    lines: Lines,
    storing: Storing,
) -> int | None:
    """Store all lines of the input; return the signal that ended it, if one did.

    ``place``: the store as it was named, and for how many seconds its opening waits.
    """
    try:
        store: Store | RemoteStore = await opened_patiently(opening, *place)
        with until_signalled(source.stop):
            try:
                report = getattr(store, "recovery", None)
                if report is not None:  # else a daemon has said it, or a server
                    say_what_was_cut(report)
                with bar(source.size, counts_records=True, shown=not source.is_terminal) as advance:
                    await _store_pieces(store, source, lines, storing, advance)
            finally:
                await _close(store)
    finally:
        source.close()
    return source.stopped_by


async def _store_pieces(
    store: Store | RemoteStore, source: Input, lines: Lines, storing: Storing, advance: Advance
) -> None:
    while piece := await source.read():
        found = lines.feed(piece)
        await storing(store, found)
        advance(len(piece), len(found))
    rest = lines.rest()
    if rest:
        await storing(store, [rest])
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
    """Say what the opening of a store has cut off, if anything."""
    if report.cut_bytes:
        say(
            f"aquipu: a torn tail of {counted(report.cut_bytes, 'byte')} was cut from "
            f"{report.cut_from} at offset {report.cut_offset}: {report.cut_reason}; "
            f"it is kept in {report.cut_kept_in}"
        )
