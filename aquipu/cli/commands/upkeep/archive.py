"""The commands about an archive: archive (put), archive check, and restore."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from socket import gethostname
from threading import Event
from typing import Annotated, Any, TypeVar

import anyio
import anyio.to_thread
import typer
from typer.core import TyperGroup

from aquipu.archive.archive import Archive
from aquipu.archive.bucket import PATIENCE
from aquipu.archive.check import Checked, Checking
from aquipu.archive.log import CatalogLog
from aquipu.archive.restore import Restored, Restoring, Until
from aquipu.archive.uploader import Progress, Uploader
from aquipu.cli.app import DAMAGED, EPILOG, SIGNALLED, Purpose, app, exit_codes, usage
from aquipu.cli.arguments import (
    DirectoryArgument,
    JsonOption,
    OptionsOption,
    UrlArgument,
    archive_of,
    directory,
)
from aquipu.cli.forms.objects import as_json
from aquipu.cli.streams.console import counted, say, standard_output, until_signalled, write_line
from aquipu.cli.times import moment
from aquipu.local.backup.pace import Stopped
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.paths import checked_place
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

    \b
    With --json, one object:
      url            the place
      next_sequence  one past the last archived record
    """
    path, archive = (
        directory(store),
        archive_of(url, option, interval, hold=hold, compress=compress),
    )
    with exit_codes():
        output = standard_output()
        next_sequence = anyio.run(_put, path, archive, follow)
        if json_object:
            write_line(output, as_json({"url": archive.url, "next_sequence": next_sequence}))
        else:
            write_line(output, f"archived before sequence {next_sequence:,} at {archive.url}")


async def _put(path: str, archive: Archive, follow: bool) -> int:
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
            uploader = making(told=_Teller())
            with until_signalled(lambda number: uploader.finish(_LAST_SECONDS)):
                await anyio.to_thread.run_sync(uploader.follow)
            return uploader.progress.next_sequence
        return await until_stopped(lambda stop: making(stop=stop, patience=PATIENCE).catch_up())
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


class _Teller:
    """Says on standard error what is in the way of the archive, and when it is not any more."""

    def __init__(self) -> None:
        self._before = Progress()

    def __call__(self, progress: Progress) -> None:
        before, self._before = self._before, progress
        if progress.trouble is not None and before.trouble is None:
            say(f"aquipu: the archive does not answer: {progress.trouble}; it is asked again")
        elif progress.trouble is None and before.trouble is not None:
            say("aquipu: the archive answers again")
        if progress.blocked is not None and before.blocked is None:
            say(f"aquipu: the archive has to wait: {progress.blocked}; it is tried again")
        elif progress.blocked is None and before.blocked is not None:
            say("aquipu: the archive goes on")


# check


@archive_app.command("check", epilog=EPILOG)
def check_command(
    url: UrlArgument,
    store: Annotated[
        str | None,
        typer.Option(metavar="STORE", help="Compare it with the store that it is of."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Read all of it, in place of a sample.")
    ] = False,
    sample: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, help="How many segments are read.")
    ] = 3,
    option: OptionsOption = None,
    json_object: JsonOption = False,
) -> None:
    """Find out whether a store could be made of an archive; for cron.

    Of the segments a sample is read, another one each time and the last one always, each frame
    checked; and all that was young. Of the others it is looked whether they are there.

    Exit code 1 when something could not be restored, or is not what the store has.

    \b
    With --json, one object:
      url             the place
      first_sequence  of the first archived record
      next_sequence   one past the last archived record
      segments        how many full segments are archived
      read            how many of them were read
      compared        how many were compared with those of the store
      bytes           how many bytes were read
      problems        a list of sentences; none when all is well
    """
    archive = archive_of(url, option)
    path = None if store is None else directory(store)
    with exit_codes():
        output = standard_output()

        def check(stop: Event) -> Checked:
            count = None if everything else sample
            return Checking(archive.bucket(), Disk(), path, stop, count).carry_out()

        done = anyio.run(until_stopped, check)
        if json_object:
            write_line(output, as_json(done._asdict()))
        else:
            write_line(output, _checked_text(done))
        if done.problems:
            raise typer.Exit(DAMAGED)


def _checked_text(done: Checked) -> str:
    lines = [f"{done.url}: {problem}" for problem in done.problems]
    compared = f", {done.compared:,} compared with the store" if done.compared else ""
    return "\n".join(
        [
            *lines,
            f"{counted(done.next_sequence - done.first_sequence, 'record')} from "
            f"{done.first_sequence:,} on; {counted(done.segments, 'full segment')}, "
            f"{done.read:,} of them read{compared}; "
            + (counted(len(lines), "problem") if lines else "no damage"),
        ]
    )


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
      segments        how many files of the log
      bytes           of these files
      fetched_bytes   how many came from the archive this time
      seconds         how long that took
    """
    archive, bound = archive_of(url, option), _bound(until)
    with exit_codes():
        output = standard_output()
        with usage("DIR"):
            to = checked_place(place)

        def restore(stop: Event) -> Restored:
            restoring = Restoring(archive.bucket(), Disk(), to, bound, stop, bookmarks=bookmarks)
            return restoring.carry_out()

        done = anyio.run(until_stopped, restore)
        write_line(output, as_json(done._asdict()) if json_object else _restored_text(done))


def _bound(until: str | None) -> Until:
    if until is None:
        return Until()
    with usage("--until"):
        if until.isascii() and until.isdigit() and len(until) < 21:
            return Until(sequence=int(until))
        return Until(time=nanoseconds(moment(until, datetime.now().astimezone())))


def _restored_text(done: Restored) -> str:
    records = done.next_sequence - done.first_sequence
    which = f", {done.first_sequence} to {done.next_sequence - 1}," if records else ""
    rate = done.bytes / 1e6 / max(done.seconds, 1e-9)
    return (
        f"{counted(records, 'record')}{which} in {done.path}; {counted(done.fetched_bytes, 'byte')}"
        f" fetched, {rate:,.1f} MB/s; no damage"
    )
