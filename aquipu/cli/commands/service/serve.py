"""The command that serves a store to other processes."""

from __future__ import annotations

from asyncio import FIRST_COMPLETED, Future, get_running_loop, wait
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGTERM
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from aquipu.cli.app import EPILOG, SIGNALLED, WELL, Purpose, app, exit_codes, usage
from aquipu.cli.arguments import (
    LockTimeoutOption,
    ModeOption,
    OptionsOption,
    absolute,
    archive_meant,
    checked_rights,
    checked_timeout,
    directory,
    sync_policy_of,
)
from aquipu.cli.storing import say_what_was_cut
from aquipu.cli.streams.console import counted, say, until_signalled
from aquipu.cli.streams.missing import MissingPackageError
from aquipu.cli.waiting import opened_patiently
from aquipu.local.disk.paths import SCHEME
from aquipu.local.disk.sockets import tell_manager
from aquipu.local.retain.retention import Retention, check_age
from aquipu.remote.daemon.server import Daemon
from aquipu.runtime.closing import Opening
from aquipu.store import Store

if TYPE_CHECKING:
    from aquipu.cli.metrics import Place

_DAY = 86_400  # seconds


@app.command("serve", epilog=EPILOG, rich_help_panel=Purpose.SERVE)
def serve_command(
    store: Annotated[
        str,
        typer.Argument(metavar="STORE", help="The directory of the store; made if it is missing."),
    ],
    socket: Annotated[str, typer.Option(metavar="PATH", help="Where to listen: a unix socket.")],
    group: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Let this group connect as well; without, only this user may. With --mode, the"
            " files belong to it, too.",
        ),
    ] = None,
    mode: ModeOption = None,
    sync_policy: Annotated[
        str,
        typer.Option(
            metavar="always|every:N[/SECONDS]|os",
            help="When records are synced to the disk: see append.",
        ),
    ] = "every:64",
    retain_days: Annotated[
        float | None,
        typer.Option(
            metavar="DAYS",
            help="Let go of whole files when all records in them are older; see purge.",
        ),
    ] = None,
    retain_bytes: Annotated[
        int | None,
        typer.Option(
            metavar="BYTES",
            help="Let go of the oldest files (segments) when all have more bytes than that.",
        ),
    ] = None,
    max_segment_age: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Begin a new file (segment) when the oldest record of one has this age, so that"
            " --retain-days holds in a small log, too, and when nothing comes any more.",
        ),
    ] = None,
    compress: Annotated[
        bool,
        typer.Option(
            "--compress",
            help="Replace full files (segments) by compressed ones; see the extra compress.",
        ),
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Answer /metrics and /healthz over HTTP there; see the extra prometheus.",
        ),
    ] = None,
    archive: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Carry the log to an object store meanwhile, as aquipu archive --follow does.",
        ),
    ] = None,
    archive_interval: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How often what is new is put there; without, 1."),
    ] = None,
    archive_hold: Annotated[
        bool,
        typer.Option("--archive-hold", help="Have nothing purged that is not archived."),
    ] = False,
    archive_compress: Annotated[
        bool,
        typer.Option("--archive-compress", help="Compress full segments before they go up."),
    ] = False,
    option: OptionsOption = None,
    lock_timeout: LockTimeoutOption = 20.0,
) -> None:
    """Write a store on behalf of other processes.

    They reach it with Store.connect("unix:PATH"), and what they append at the same time shares one
    sync. It says on standard error when it listens.

    Ctrl-C, SIGTERM and SIGHUP end it: what is under way is answered, everything is synced, and the
    clients wait for the next daemon. So does a disk that fails: only a new daemon can see what is
    really there. SIGTERM is how a daemon is told to stop, so when all went well the exit code is 0
    then. Under systemd, with Type=notify, it says when it is ready: see aquipu/examples/deploy.
    """
    seconds = checked_timeout(lock_timeout)
    carried = archive_meant(archive, archive_interval, archive_hold, archive_compress, option)
    retention = _retention_of(retain_days, retain_bytes)
    with usage("--metrics"):
        place = None if metrics is None else _place(metrics)
    rights = checked_rights(mode)
    with usage("--max-segment-age"):
        if max_segment_age is not None:
            check_age("max_segment_age", max_segment_age)
    with exit_codes(), usage("--group"), _compressing():
        opening = Store.open(
            directory(store),
            sync_policy=sync_policy_of(sync_policy),
            retention=retention,
            max_segment_age=max_segment_age,
            lock_timeout=seconds,
            mode=rights,
            group=None if rights is None else group,
            compress=compress,
            archive=carried,
        )
    at = absolute(socket.removeprefix(SCHEME), "--socket")
    with exit_codes():
        number = anyio.run(_serve, opening, (store, seconds), at, group, place)
        raise typer.Exit(WELL if number == SIGTERM else SIGNALLED + number)


@contextmanager
def _compressing() -> Iterator[None]:
    """Say which package is missing to compress with."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackageError("--compress needs", error.name, "compress") from None


def _retention_of(days: float | None, bytes: int | None) -> Retention | None:
    if days is None and bytes is None:
        return None
    with usage("--retain-days" if bytes is None else "--retain-bytes" if days is None else None):
        return Retention(max_age=None if days is None else days * _DAY, max_bytes=bytes)


def _place(text: str) -> Place:
    from aquipu.cli.metrics import Place  # a server of HTTP, which no other command loads

    return Place.parsed(text)


@contextmanager
def _metrics(store: Store, place: Place | None) -> Iterator[None]:
    if place is None:
        yield
        return
    from aquipu.cli.metrics import served

    with served(store, place) as address:
        say(f"aquipu: metrics at {address}")
        yield


async def _serve(
    opening: Opening[Store],
    patience: tuple[str, float],
    socket: str,
    group: str | None,
    place: Place | None,
) -> int:
    """Serve until a signal comes. Its number. Raises StoreFailedError when the disk fails."""
    stopped: Future[int] = get_running_loop().create_future()
    with until_signalled(stopped.set_result):
        store = await _opened(opening, patience, stopped)
        if store is None:
            return stopped.result()
        async with store:
            say_what_was_cut(store.recovery)
            with _metrics(store, place):
                async with Daemon.open(store, socket, group=group) as daemon:
                    say(f"aquipu: {store.path} is served at unix:{socket}")
                    tell_manager("READY=1")
                    ends: list[Future[Any]] = [stopped, daemon.failed]
                    await wait(ends, return_when=FIRST_COMPLETED)
                    tell_manager("STOPPING=1")
                await store.aclose()
            records = counted(store.statistics().records, "record")
            say(f"aquipu: {records} stored, all of them on the disk")
    return stopped.result()


async def _opened(
    opening: Opening[Store], patience: tuple[str, float], stopped: Future[int]
) -> Store | None:
    """Open the store, which may wait for another process; None when it is told to stop first."""
    with anyio.CancelScope() as scope:
        stopped.add_done_callback(lambda _: scope.cancel())
        return await opened_patiently(opening, *patience)
    return None
