"""The command that finds out whether a store could be made of an archive: archive check."""

from __future__ import annotations

from threading import Event
from typing import Annotated

import anyio
import typer

from aquipu.archive.check import Checked, Checking
from aquipu.archive.errors import NoArchiveError
from aquipu.cli.app import DAMAGED, EPILOG, exit_codes
from aquipu.cli.arguments import JsonOption, OptionsOption, UrlArgument, archive_of, directory
from aquipu.cli.commands.upkeep.archive import archive_app, until_stopped
from aquipu.cli.forms.objects import as_json
from aquipu.cli.streams.console import counted, say, standard_output, write_line
from aquipu.cli.times import seconds_in
from aquipu.local.disk.disk import Disk


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
    max_lag: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="With --store: how long its oldest record that is not archived may wait, such as"
            " 10m or 1h30m.",
        ),
    ] = None,
    option: OptionsOption = None,
    json_object: JsonOption = False,
) -> None:
    """Find out whether a store could be made of an archive; for cron.

    Of the segments a sample is read, another one each time and the last one always, each frame
    checked; and all that was young. Of the others it is looked whether they are there.

    With --store, segments that the store has as well are compared, it is looked whether the archive
    can be gone on with, and it is said how far it is behind.

    Exit code 1 when something could not be restored, also when there is no archive, or is not what
    the store has, or is further behind than --max-lag.

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
      behind_records  how many records of the store are not archived; null
                      without --store, or when it is of another store
      behind_seconds  age of the oldest of these; 0 without any
    """
    archive, most = archive_of(url, option), _lag_in(max_lag, store)
    path = None if store is None else directory(store, "--store")
    with exit_codes():
        output = standard_output()

        def check(stop: Event) -> Checked:
            count = None if everything else sample
            return Checking(archive.bucket(), Disk(), path, stop, count).carry_out()

        try:
            done = anyio.run(until_stopped, check)
        except NoArchiveError as error:
            say(
                f"aquipu: {error.url}: there is no archive there: {error.reason}; nothing could be"
                " restored from it"
            )
            raise typer.Exit(DAMAGED) from None
        if most is not None and done.behind_seconds is not None and done.behind_seconds > most:
            done.problems.append(
                f"it is {_seconds(done.behind_seconds)} behind the store, and may be {max_lag}"
            )
        if json_object:
            write_line(output, as_json(done._asdict()))
        else:
            write_line(output, _checked_text(done, path))
        if done.problems:
            raise typer.Exit(DAMAGED)


def _lag_in(text: str | None, store: str | None) -> int | None:
    if text is None:
        return None
    if store is None:
        raise typer.BadParameter("takes a --store", param_hint="--max-lag")
    found = seconds_in(text)
    if found is None:
        raise typer.BadParameter(
            f"{text!r} is no length of time: write 90s, 10m, 1h30m, 2d or 1w",
            param_hint="--max-lag",
        )
    return found


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f} s"


def _checked_text(done: Checked, store: str | None) -> str:
    lines = [f"{done.url}: {problem}" for problem in done.problems]
    compared = "" if store is None else f", {done.compared:,} compared with the store"
    return "\n".join(
        [
            *lines,
            f"{counted(done.next_sequence - done.first_sequence, 'record')} from "
            f"{done.first_sequence} on; {counted(done.segments, 'full segment')}, "
            f"{done.read:,} of them read{compared}; {_behind_text(done)}"
            + (counted(len(lines), "problem") if lines else "no damage"),
        ]
    )


def _behind_text(done: Checked) -> str:
    if done.behind_records is None or done.behind_seconds is None:
        return ""
    if not done.behind_records:
        return "not behind the store; "
    behind = counted(done.behind_records, "record")
    return f"{behind}, {_seconds(done.behind_seconds)}, behind the store; "
