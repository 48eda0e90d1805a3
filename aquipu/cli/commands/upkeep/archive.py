"""The commands that carry a store to an archive, and make it again: archive (put) and restore."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from signal import SIGTERM
from socket import gethostname
from threading import Event
from typing import Annotated, Any, NamedTuple, TypeVar

import anyio
import anyio.to_thread
import typer
from typer.core import TyperGroup

from aquipu.archive.archive import Archive
from aquipu.archive.bucket import PATIENCE
from aquipu.archive.log import CatalogLog
from aquipu.archive.restore import Restored, Restoring, Until
from aquipu.archive.uploader import Progress, Uploader
from aquipu.cli.app import EPILOG, FAILED, SIGNALLED, Purpose, app, exit_codes, usage
from aquipu.cli.arguments import (
    DirectoryArgument,
    JsonOption,
    OptionsOption,
    UrlArgument,
    archive_of,
    directory,
    sequence_or_time,
)
from aquipu.cli.forms.objects import as_json
from aquipu.cli.forms.shown import local_time
from aquipu.cli.streams.console import counted, say, standard_output, until_signalled, write_line
from aquipu.cli.telling import Teller
from aquipu.local.backup.pace import Stopped
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.paths import checked_place, is_within
from aquipu.local.disk.system import process_id
from aquipu.local.read.catalog import Catalog
from aquipu.record import nanoseconds

_LAST_SECONDS = 5.0  # that a command which is told to end goes on with what has come last

T = TypeVar("T")


class _PutsByDefault(TyperGroup):
    """Takes what is no command of its own as the store that is to be archived."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["put", *args]
        return list(super().parse_args(ctx, args))


archive_app = typer.Typer(
    cls=_PutsByDefault,
    help="Carry a store to an object store, and see what is there.\n\n"
    "aquipu archive STORE URL [--follow] is short for aquipu archive put.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(archive_app, name="archive", rich_help_panel=Purpose.CARE)


@archive_app.command("put", epilog=EPILOG)
def put_command(
    store: DirectoryArgument,
    url: UrlArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    interval: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="With --follow: how often what is new is put."),
    ] = 1.0,
    hold: Annotated[
        bool, typer.Option("--hold", help="Have nothing purged that is not archived.")
    ] = False,
    compress: Annotated[
        bool, typer.Option("--compress", help="Compress full segments before they go up.")
    ] = False,
    option: OptionsOption = None,
    json_object: JsonOption = False,
) -> None:
    """Carry a store to an object store, also while a service writes it.

    Everything that was acknowledged when this began, synced, each frame checked. Made again, it
    carries what is new. With --follow it goes on, and a machine that is lost takes no more than
    the last seconds with it. To get it back: aquipu restore URL DIR.

    One process at a time carries a store to a place: one that begins ends the one before.

    With --follow, what has come last is archived when it is told to end, for up to 5 seconds. If
    something is left, it says how much, and the exit code is 4; otherwise it is 0 after SIGTERM.

    \b
    With --json, one object:
      url            the place
      next_sequence  one past the last archived record
    """
    path, archive = (
        directory(store),
        archive_of(url, option, interval=interval, tells=False, hold=hold, compress=compress),
    )
    with exit_codes():
        output = standard_output()
        done = anyio.run(_put, path, archive, follow)
        if not done.never_reached:
            said = {"url": archive.url, "next_sequence": done.next_sequence}
            text = f"archived before sequence {done.next_sequence} at {archive.url}"
            write_line(output, as_json(said) if json_object else text)
        if done.left is not None:
            say(f"aquipu: {done.left}")
            raise typer.Exit(FAILED)
        if done.signal is not None and done.signal != SIGTERM:
            raise typer.Exit(SIGNALLED + done.signal)


class _Put(NamedTuple):
    """How carrying a store has ended."""

    next_sequence: int
    signal: int | None = None
    """What has ended it."""
    left: str | None = None
    """What was not archived, and why; None: all was."""
    never_reached: bool = False
    """Whether nothing is known of the archive: it has not answered."""


def _ended(url: str, progress: Progress, signal: int, start: int, stop: int) -> _Put:
    """Return how a follower of a log, which reaches from here to there, has ended. Pure."""
    reached, trouble = progress.next_sequence, progress.trouble
    records = counted(stop - max(reached, start), "record")
    if trouble is not None and not reached:
        left = f"{url} has not answered: {trouble}; nothing was archived there by this process"
        return _Put(reached, signal, f"{left}, of {records} in the store", never_reached=True)
    if reached >= stop:
        return _Put(reached, signal)
    why = "" if trouble is None else f": {trouble}"
    left = f"{records} of the store, from sequence {reached} on, are not archived{why}"
    return _Put(reached, signal, f"{left}; nothing was lost; do this again")


async def _put(path: str, archive: Archive, follow: bool) -> _Put:
    disk = Disk()
    catalog = await anyio.to_thread.run_sync(Catalog, disk, path)
    try:
        log, bucket = CatalogLog(disk, path, catalog), archive.bucket_for(path)
        making = partial(
            Uploader,
            bucket,
            log,
            writer_here(),
            interval=archive.interval,
            hold=archive.hold,
            compress=archive.compress,
        )
        if follow:
            uploader, signalled = making(told=Teller()), list[int]()

            def finish(number: int) -> None:
                signalled.append(number)
                uploader.finish(_LAST_SECONDS)

            with until_signalled(finish):
                await anyio.to_thread.run_sync(uploader.follow)
            seen = await anyio.to_thread.run_sync(catalog.look)
            return _ended(archive.url, uploader.progress, signalled[0], seen.start, seen.stop)

        def catch_up(stop: Event) -> int:
            return making(stop=stop, patience=PATIENCE, told=Teller()).catch_up()

        return _Put(await until_stopped(catch_up))
    finally:
        catalog.close()


async def until_stopped(call: Callable[[Event], T]) -> T:
    """Run something on a thread, which is told to stop by a signal: that is its end."""
    stop, signalled = Event(), list[int]()

    def ended(number: int) -> None:
        signalled.append(number)
        stop.set()

    with until_signalled(ended):
        try:
            return await anyio.to_thread.run_sync(call, stop)
        except Stopped:
            raise typer.Exit(SIGNALLED + signalled[0]) from None


def writer_here() -> str:
    """Return how an archive calls this process."""
    return f"process {process_id()} of {gethostname()}"


# restore


@app.command("restore", epilog=EPILOG, rich_help_panel=Purpose.CARE)
def restore_command(
    url: UrlArgument,
    place: Annotated[
        str, typer.Argument(metavar="DIR", help="The directory of the store, made if missing.")
    ],
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME|SEQUENCE",
            help="Only what lies before: '2026-11-28 10:00' (local time, or with a "
            "zone), '5 minutes ago', 1h, or a sequence.",
        ),
    ] = None,
    bookmarks: Annotated[
        bool,
        typer.Option("--bookmarks/--no-bookmarks", help="Take holds and cursors along."),
    ] = True,
    option: OptionsOption = None,
    json_object: JsonOption = False,
) -> None:
    """Make a store of an archive.

    Each byte is checked. Cut short, it goes on the next time; done already, it takes along what has
    come since, unless the store was opened. What was appended at once is restored at once: with
    --until, the last record is that of the last commit before. Holds and cursors are as they were
    some seconds before the end of the archive.

    \b
    With --json, one object:
      path            the directory of the store
      first_sequence  of the first record in it
      next_sequence   one past the last record in it
      last_timestamp  when that was accepted, nanoseconds since the epoch; null without any
      segments        how many files of the log
      bytes           of these files
      fetched_bytes   how many came from the archive this time
      seconds         how long that took
    """
    archive, bound = archive_of(url, option), _bound(until)
    with exit_codes():
        output = standard_output()
        with usage("DIR"):
            to = _outside(archive, checked_place(place))

        def restore(stop: Event) -> Restored:
            restoring = Restoring(archive.bucket(), Disk(), to, bound, stop, bookmarks=bookmarks)
            return restoring.carry_out()

        done = anyio.run(until_stopped, restore)
        write_line(output, as_json(done._asdict()) if json_object else _restored_text(done))


def _outside(archive: Archive, to: str) -> str:
    """Return the directory of a store, outside an archive in files; otherwise ValueError."""
    if archive.directory is not None and is_within(to, archive.directory):
        raise ValueError(f"{to} lies within the archive {archive.url}: give another directory")
    return to


def _bound(until: str | None) -> Until:
    if until is None:
        return Until()
    bound = sequence_or_time(until, "--until")
    return Until(sequence=bound) if isinstance(bound, int) else Until(time=nanoseconds(bound))


def _restored_text(done: Restored) -> str:
    records = done.next_sequence - done.first_sequence
    which = f", {done.first_sequence} to {done.next_sequence - 1}," if records else ""
    if done.last_timestamp is not None:
        which += f" the last of {local_time(done.last_timestamp)},"
    rate = done.bytes / 1e6 / max(done.seconds, 1e-9)
    return (
        f"{counted(records, 'record')}{which} in {done.path}; {counted(done.fetched_bytes, 'byte')}"
        f" fetched, {rate:,.1f} MB/s; no damage"
    )
