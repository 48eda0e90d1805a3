"""The commands that look at a store as a whole: info and verify.

They change no byte, and work beside the process that writes the store, too.
"""

from __future__ import annotations

from contextlib import suppress

import typer

from aquipu.cli.app import DAMAGED, EPILOG, WELL, Purpose, app, exit_codes
from aquipu.cli.arguments import JsonOption, LogArgument, database_of, directory
from aquipu.cli.forms.objects import as_json
from aquipu.cli.streams.console import (
    bar,
    counted,
    standard_output,
    write_line,
)
from aquipu.errors import AquipuError
from aquipu.local.check.at_work import check, look_into
from aquipu.local.check.inspect import Compressed, Info, TornTail, Writer
from aquipu.local.check.verify import Verdict, segment_bytes
from aquipu.local.disk.disk import Disk

# the store itself


@app.command("info", epilog=EPILOG, rich_help_panel=Purpose.CARE)
def info_command(store: LogArgument, json_object: JsonOption = False) -> None:
    """Say what a store holds, and who writes it.

    This works also while a service does. Of a store that is written it is what readers see: all
    that was acknowledged.

    \b
    With --json, one object:
      path            the directory, absolute; \\xff for a byte that is no UTF-8
      store_id        32 hexadecimal digits
      format_version  a number
      first_sequence  of the first record kept
      next_sequence   one past the last record
      records         their number
      segments        the number of segment files
      bytes           of all files of the store
      first_time      of the first record, ISO 8601 in UTC; null without any
      last_time       of the last record
      clean           whether it was closed, and nothing is to be mended;
                      null while it is written
      torn_tail       null, or an object: path, offset, bytes, reason,
                      records (that it may hold), possibly_acknowledged
      holds           an object: from which sequence on each keeps everything
      compressed      null, or an object of the segments that are: segments,
                      bytes (of their files), plain_bytes (that they had)
      writer          null, or an object: pid (of the process that writes it,
                      or null), shared (whether others write through it)
    Of a log in a database: path, log, server, schema_version, generation,
    first_sequence, next_sequence, synced_sequence, records, partitions,
    bytes, first_time, last_time, synchronous_standbys, holds
    """
    if database_of(store) is not None:
        from aquipu.cli.commands.upkeep.database import say_info

        say_info(store, json_object=json_object)
        return
    path = directory(store)
    with exit_codes():
        output = standard_output()
        info = look_into(Disk(), path)
        write_line(output, as_json(info) if json_object else _info_text(info))


@app.command("verify", epilog=EPILOG, rich_help_panel=Purpose.CARE)
def verify_command(store: LogArgument, json_object: JsonOption = False) -> None:
    """Read every byte of a store and check it.

    Exit code 1 when anything is damaged. What a crash has left half written at the end, a torn
    tail, is no damage.

    A service may write the store meanwhile: then everything is checked that was acknowledged when
    this began. A store that none is writing cannot be opened for writing until this ends. A damaged
    index is damage, though no record depends on it.

    \b
    With --json, one object:
      path           the directory, absolute; \\xff for a byte that is no UTF-8
      next_sequence  one past the last record that was checked; null when
                     damage hides that
      records        their number; null when damage keeps them from being
                     counted
      frames         groups of records that were written together, and marks
                     of the log's own; null as records
      segments       the number of segment files
      bytes          of the segment files
      damages        a list of objects: path, offset, reason
      torn_tail      null, or an object: path, offset, bytes, reason,
                     records (that it may hold), possibly_acknowledged
      writer         null, or an object: pid (of the process that writes it,
                     or null), shared (whether others write through it)
    Of a log in a database: path, next_sequence, records, batches, bytes,
    damages (objects: sequence, reason)
    """
    if database_of(store) is not None:
        from aquipu.cli.commands.upkeep.database import say_verdict

        say_verdict(store, json_object=json_object)
        return
    path = directory(store)
    with exit_codes():
        output, disk = standard_output(), Disk()
        with bar(bytes_to_read(disk, path)) as advance:
            verdict = check(disk, path, advance)
        with suppress(BrokenPipeError):  # the exit code says it all the same
            write_line(output, as_json(verdict) if json_object else _verdict_text(verdict))
        raise typer.Exit(DAMAGED if verdict.damages else WELL)


def bytes_to_read(disk: Disk, path: str) -> int | None:
    """Return how many bytes a check reads, for a bar; None when that cannot be told."""
    with suppress(AquipuError):  # the command says what is wrong
        return segment_bytes(disk, path)
    return None


def _info_text(info: Info) -> str:
    lines = {
        "path": info.path,
        "store id": info.store_id,
        "format version": info.format_version,
        "records": f"{info.records:,}",
        "sequences": f"{info.first_sequence} to {info.next_sequence - 1}"
        if info.records
        else "none",
        "next sequence": info.next_sequence,
        "segments": f"{info.segments:,}",
        "compressed": "none" if info.compressed is None else _compressed_text(info.compressed),
        "bytes": f"{info.bytes:,}",
        "first record": info.first_time or "none",
        "last record": info.last_time or "none",
        "written by": "nobody" if info.writer is None else _writer_text(info.writer),
        "closed cleanly": "yes" if info.clean else "no",
        "torn tail": _torn_text(info.torn_tail) if info.torn_tail else "none",
        "holds": ", ".join(f"{name} from {sequence}" for name, sequence in info.holds.items())
        or "none",
    }
    if info.writer is not None:
        del lines["closed cleanly"], lines["torn tail"]
    return "\n".join(f"{name:<16}{value}" for name, value in lines.items())


def _compressed_text(compressed: Compressed) -> str:
    ratio = compressed.bytes / compressed.plain_bytes
    return f"{counted(compressed.segments, 'segment')}, to {ratio:.2f} of their size"


def _writer_text(writer: Writer) -> str:
    process = "another process" if writer.pid is None else f"process {writer.pid}"
    return f"{process}, and by others through it" if writer.shared else process


def _verdict_text(verdict: Verdict) -> str:
    where = f"{counted(verdict.segments, 'segment')}, {counted(verdict.bytes, 'byte')}"
    if verdict.records is None or verdict.frames is None:
        lines = [f"the records cannot be counted; {where}"]
    else:
        lines = [
            f"{counted(verdict.records, 'record')} in {counted(verdict.frames, 'frame')}, {where}"
        ]
    if verdict.writer is not None:
        lines.append(f"written by {_writer_text(verdict.writer)}")
        lines.append("checked is all that was acknowledged when this began")
        if verdict.next_sequence:
            lines[-1] += f": up to sequence {verdict.next_sequence - 1}"
    if verdict.torn_tail is not None:
        lines.append(f"torn tail: {_torn_text(verdict.torn_tail)}")
    lines += [
        f"damaged: {damage.path} at offset {damage.offset}: {damage.reason}"
        for damage in verdict.damages
    ]
    return "\n".join(lines if verdict.damages else [*lines, "no damage"])


def _torn_text(torn: TornTail) -> str:
    return (
        f"{counted(torn.bytes, 'byte')} of {torn.path} from offset {torn.offset}: {torn.reason}; "
        "the next append cuts them off and keeps them aside"
    )
