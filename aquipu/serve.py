"""The command that serves a store to other processes."""

from __future__ import annotations

from asyncio import Future, get_running_loop
from typing import Annotated

import anyio
import typer

from aquipu.changes import say_what_was_cut, sync_policy_of
from aquipu.commands import EPILOG, SIGNALLED, LockTimeoutOption, absolute, app, checked_timeout, exit_codes
from aquipu.console import counted, say, until_signalled
from aquipu.daemon import Daemon
from aquipu.policy import SyncPolicy
from aquipu.store import Store


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
    lock_timeout: LockTimeoutOption = 20.0,
) -> None:
    """Write a store on behalf of other processes.

    They reach it with Store.connect("unix:PATH"), and what they append at the same time shares one sync. It says on
    standard error when it listens.

    Ctrl-C, SIGTERM and SIGHUP end it: what is under way is answered, everything is synced, and the clients wait for the
    next daemon.
    """
    policy, seconds = sync_policy_of(sync_policy), checked_timeout(lock_timeout)
    with exit_codes():
        raise typer.Exit(SIGNALLED + anyio.run(_serve, absolute(store), absolute(socket), group, policy, seconds))


async def _serve(path: str, socket: str, group: str | None, policy: SyncPolicy, lock_timeout: float) -> int:
    """Serve until a signal comes. Its number."""
    stopped: Future[int] = get_running_loop().create_future()
    with until_signalled(stopped.set_result):
        async with Store.open(path, sync_policy=policy, lock_timeout=lock_timeout) as store:
            say_what_was_cut(store.recovery)
            async with Daemon.open(store, socket, group=group):
                say(f"aquipu: {path} is served at unix:{socket}")
                number = await stopped
        say(f"aquipu: {counted(store.statistics().records, 'record')} stored, all of them on the disk")
    return number
