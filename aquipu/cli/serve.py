"""The command that serves a store to other processes."""

from __future__ import annotations

from asyncio import FIRST_COMPLETED, Future, get_running_loop, wait
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

import anyio
import typer

from aquipu.cli.app import EPILOG, SIGNALLED, LockTimeoutOption, absolute, app, checked_timeout, exit_codes, usage
from aquipu.cli.changes import say_what_was_cut, sync_policy_of
from aquipu.cli.console import counted, say, until_signalled
from aquipu.cli.metrics import Place, served
from aquipu.closing import Opening
from aquipu.daemon.server import Daemon
from aquipu.retention import Retention
from aquipu.store import Store

_DAY = 86_400  # seconds


@app.command("serve", epilog=EPILOG)
def serve_command(
    store: Annotated[str, typer.Argument(metavar="STORE", help="The directory of the store; made if it is missing.")],
    socket: Annotated[str, typer.Option(metavar="PATH", help="Where to listen: a unix socket.")],
    group: Annotated[
        str | None, typer.Option(metavar="NAME", help="Let this group connect as well; without, only this user may.")
    ] = None,
    sync_policy: Annotated[
        str, typer.Option(metavar="always|every:N[/SECONDS]|os", help="When records are synced to the disk: see append.")
    ] = "every:64",
    retain_days: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Let go of whole segments when all in them is older; see purge.")
    ] = None,
    retain_bytes: Annotated[
        int | None, typer.Option(metavar="BYTES", help="Let go of the oldest segments when all have more bytes than that.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="Answer Prometheus over HTTP there; see the extra prometheus.")
    ] = None,
    lock_timeout: LockTimeoutOption = 20.0,
) -> None:
    """Write a store on behalf of other processes.

    They reach it with Store.connect("unix:PATH"), and what they append at the same time shares one sync. It says on
    standard error when it listens.

    Ctrl-C, SIGTERM and SIGHUP end it: what is under way is answered, everything is synced, and the clients wait for the
    next daemon. So does a disk that fails: only a new daemon can see what is really there.
    """
    seconds = checked_timeout(lock_timeout)
    retention = _retention_of(retain_days, retain_bytes)
    with usage("--metrics"):
        place = None if metrics is None else Place.parsed(metrics)
    opening = partial(
        Store.open, absolute(store), sync_policy=sync_policy_of(sync_policy), retention=retention, lock_timeout=seconds
    )
    with exit_codes():
        raise typer.Exit(SIGNALLED + anyio.run(_serve, opening(), absolute(socket), group, place))


def _retention_of(days: float | None, bytes: int | None) -> Retention | None:
    if days is None and bytes is None:
        return None
    with usage("--retain-days" if bytes is None else "--retain-bytes" if days is None else None):
        return Retention(max_age=None if days is None else days * _DAY, max_bytes=bytes)


@contextmanager
def _metrics(store: Store, place: Place | None) -> Iterator[None]:
    if place is None:
        yield
        return
    with served(store, place) as address:
        say(f"aquipu: metrics at {address}")
        yield


async def _serve(opening: Opening[Store], socket: str, group: str | None, place: Place | None) -> int:
    """Serve until a signal comes. Its number. Raises StoreFailedError when the disk fails."""
    async with opening as store:
        say_what_was_cut(store.recovery)
        stopped: Future[int] = get_running_loop().create_future()
        with until_signalled(stopped.set_result), _metrics(store, place):
            async with Daemon.open(store, socket, group=group) as daemon:
                say(f"aquipu: {store.path} is served at unix:{socket}")
                ends: list[Future[Any]] = [stopped, daemon.failed]
                await wait(ends, return_when=FIRST_COMPLETED)
            await store.aclose()
        say(f"aquipu: {counted(store.statistics().records, 'record')} stored, all of them on the disk")
    return stopped.result()
