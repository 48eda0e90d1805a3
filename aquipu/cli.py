"""The command line: append, cat, info, verify.

``append`` writes through a `Store`. The others read a store at rest: they hold its lock shared, examine it as opening
would, and never change a byte. Every error becomes an exit code in one place, `_exit_codes`.
"""

from __future__ import annotations

import json
from asyncio import get_running_loop
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from re import fullmatch
from signal import SIGINT
from typing import Annotated

import anyio
import typer

from aquipu.console import (
    PIECE_BYTES,
    Advance,
    Input,
    bar,
    counted,
    let_interrupt_kill,
    say,
    standard_output,
    until_signalled,
    write,
    write_line,
)
from aquipu.disk import Disk
from aquipu.errors import AquipuError, CorruptionError, NotAStoreError, StoreLockedError
from aquipu.handoff import Handoff
from aquipu.inspection import Info, TornTail, Verdict, at_rest, examined, inspect, segment_bytes, verify_all
from aquipu.lines import LINE_BYTES_MAX, Lines, LineTooLongError
from aquipu.policy import Always, EveryN, OsManaged, Stage, SyncPolicy
from aquipu.recovery import RecoveryReport
from aquipu.scan import Scan
from aquipu.store import Store
from aquipu.view import View

WELL, DAMAGED, USAGE, LOCKED, FAILED = range(5)
_SIGNALLED = 128  # and the number of the signal: what a shell reports

_EPILOG = """\b
Exit codes:
  0    well (also when whoever read the output has closed it)
  1    damage found in the store
  2    usage: a bad argument, no store there, a line that is too long
  3    locked: another process is using the store
  4    an input/output error, or a format that this version does not know
  130  stopped by Ctrl-C; 143 by SIGTERM; 129 by SIGHUP
"""

app = typer.Typer(
    help="A durable log. Data goes to standard output, everything else to standard error.",
    epilog=_EPILOG,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="The directory of the store.")]
_JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def run() -> None:
    """Run the command that the arguments name; ends in SystemExit."""
    app(prog_name="aquipu")


# the commands


@app.command("append", epilog=_EPILOG)
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
    lock_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long to wait for another process that uses the store.")
    ] = 20.0,
) -> None:
    """Store standard input, a record per line.

    Each line is stored with its line end, as soon as it comes, so that `aquipu cat` gives back exactly what was read. At
    the end, one line on standard error says how many records were stored, the last sequence, and how safe they are.

    Ctrl-C, SIGTERM and SIGHUP end it as the end of the input does: what was read is stored and synced.
    """
    policy = sync_policy_of(sync_policy)
    if not lock_timeout >= 0:
        raise typer.BadParameter(f"{lock_timeout} is not 0 or more seconds", param_hint="--lock-timeout")
    with _exit_codes():
        stopped_by = anyio.run(_append, _absolute(store), policy, lock_timeout)
        if stopped_by is not None:
            raise typer.Exit(_SIGNALLED + stopped_by)


@app.command("cat", epilog=_EPILOG)
def cat_command(store: _StoreArgument) -> None:
    """Write all records to standard output as they were, one behind another with nothing in between.

    The store cannot be written meanwhile. A torn tail (see info) is not part of it.
    """
    let_interrupt_kill()  # there is nothing to lose
    with _exit_codes():
        output, disk, path = standard_output(), Disk(), _absolute(store)
        with at_rest(disk, path):
            anyio.run(_cat, _everything(disk, path), output)


@app.command("info", epilog=_EPILOG)
def info_command(store: _StoreArgument, as_json: _JsonOption = False) -> None:
    """Say what a store holds.

    \b
    With --json, one object:
      path            the directory, absolute
      store_id        32 hexadecimal digits
      format_version  a number
      first_sequence  of the first record kept
      next_sequence   one past the last record
      records         their number
      segments        the number of segment files
      bytes           of all files of the store
      first_time      of the first record, ISO 8601 in UTC; null without any
      last_time       of the last record
      clean           whether it was closed, and nothing is to be mended
      torn_tail       null, or an object: path, offset, bytes, reason,
                      records (that it may hold), possibly_acknowledged
    """
    with _exit_codes():
        output, disk, path = standard_output(), Disk(), _absolute(store)
        with at_rest(disk, path):
            info = inspect(disk, path)
        write_line(output, _as_json(info) if as_json else _info_text(info))


@app.command("verify", epilog=_EPILOG)
def verify_command(store: _StoreArgument, as_json: _JsonOption = False) -> None:
    """Read every byte of a store and check it. Exit code 1 when anything is damaged; a torn tail is no damage.

    \b
    With --json, one object:
      path       the directory, absolute
      records    their number; null when damage keeps them from being counted
      frames     commits and marks, as records
      segments   the number of segment files
      bytes      of the segment files
      damages    a list of objects: path, offset, reason
      torn_tail  null, or an object: path, offset, bytes, reason,
                 records (that it may hold), possibly_acknowledged
    """
    with _exit_codes():
        output, disk, path = standard_output(), Disk(), _absolute(store)
        with at_rest(disk, path), bar(segment_bytes(disk, path)) as advance:
            verdict = verify_all(disk, path, advance)
        with suppress(BrokenPipeError):  # the exit code says it all the same
            write_line(output, _as_json(verdict) if as_json else _verdict_text(verdict))
        raise typer.Exit(DAMAGED if verdict.damages else WELL)


# errors and exit codes


_CODES: tuple[tuple[type[Exception], int], ...] = (
    (CorruptionError, DAMAGED),
    (NotAStoreError, USAGE),
    (LineTooLongError, USAGE),
    (StoreLockedError, LOCKED),
)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turn whatever goes wrong into a line on standard error and an exit code."""
    try:
        yield
    except BrokenPipeError:  # whoever read the output has had enough
        raise typer.Exit(WELL) from None
    except KeyboardInterrupt:
        raise typer.Exit(_SIGNALLED + SIGINT) from None
    except (AquipuError, OSError, LineTooLongError) as error:
        say(f"aquipu: {error}")
        raise typer.Exit(next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)) from None


# the arguments


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


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


# append


async def _append(path: str, policy: SyncPolicy, lock_timeout: float) -> int | None:
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
                _say_what_was_cut(store.recovery)
                with bar(source.size, counts_records=True, shown=not source.is_terminal) as advance:
                    await _append_lines(store, source, advance)
            finally:
                await _close(store)
    finally:
        source.close()
    return source.stopped_by


async def _append_lines(store: Store, source: Input, advance: Advance) -> None:
    lines = Lines()
    while piece := await source.read():
        records = lines.feed(piece)
        await store.append_many(records)
        advance(len(piece), len(records))
    rest = lines.rest()
    if rest:
        await store.append(rest)
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


def _say_what_was_cut(report: RecoveryReport) -> None:
    if report.cut_bytes:
        say(
            f"aquipu: a torn tail of {counted(report.cut_bytes, 'byte')} was cut from {report.cut_from} at offset "
            f"{report.cut_offset}: {report.cut_reason}; it is kept in {report.cut_kept_in}"
        )


# cat


def _everything(disk: Disk, path: str) -> View:
    """All records. What stands behind the last sound frame is not part of it."""
    findings = examined(disk, path)
    return View(disk, tuple(findings.extents), findings.manifest.first_sequence, findings.contents.next_sequence)


async def _cat(view: View, output: FileIO) -> None:
    async def taken() -> View:
        return view

    pieces: list[bytes] = []
    size = 0
    async with Scan(taken, Handoff(get_running_loop())) as scan:
        try:
            async for record in scan:
                pieces.append(record.data)
                size += len(record.data)
                if size >= PIECE_BYTES:
                    _write_pieces(output, pieces)
                    size = 0
        finally:  # what stands before a damage is sound
            _write_pieces(output, pieces)


def _write_pieces(output: FileIO, pieces: list[bytes]) -> None:
    """Write and forget them, also when writing fails: they must not be written twice."""
    data = b"".join(pieces)
    pieces.clear()
    write(output, data)


# texts


def _info_text(info: Info) -> str:
    lines = {
        "path": info.path,
        "store id": info.store_id,
        "format version": info.format_version,
        "records": f"{info.records:,}",
        "sequences": f"{info.first_sequence} to {info.next_sequence - 1}" if info.records else "none",
        "next sequence": info.next_sequence,
        "segments": f"{info.segments:,}",
        "bytes": f"{info.bytes:,}",
        "first record": info.first_time or "none",
        "last record": info.last_time or "none",
        "closed cleanly": "yes" if info.clean else "no",
        "torn tail": _torn_text(info.torn_tail) if info.torn_tail else "none",
    }
    return "\n".join(f"{name:<16}{value}" for name, value in lines.items())


def _verdict_text(verdict: Verdict) -> str:
    where = f"{counted(verdict.segments, 'segment')}, {counted(verdict.bytes, 'byte')}"
    if verdict.records is None or verdict.frames is None:
        lines = [f"the records cannot be counted; {where}"]
    else:
        lines = [f"{counted(verdict.records, 'record')} in {counted(verdict.frames, 'frame')}, {where}"]
    if verdict.torn_tail is not None:
        lines.append(f"torn tail: {_torn_text(verdict.torn_tail)}")
    lines += [f"damaged: {damage.path} at offset {damage.offset}: {damage.reason}" for damage in verdict.damages]
    return "\n".join(lines if verdict.damages else [*lines, "no damage"])


def _torn_text(torn: TornTail) -> str:
    return (
        f"{counted(torn.bytes, 'byte')} of {torn.path} from offset {torn.offset}: {torn.reason}; "
        "the next append cuts them off and keeps them aside"
    )


def _as_json(answer: Info | Verdict) -> str:
    return json.dumps(asdict(answer), indent=2)
