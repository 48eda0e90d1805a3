"""The commands that look at a store as a whole: info and verify.

They change no byte, and work beside the process that writes the store, too.
"""

from __future__ import annotations

from contextlib import suppress

import anyio
import typer

from aquipu.cli.app import DAMAGED, EPILOG, WELL, Purpose, app, exit_codes
from aquipu.cli.arguments import (
    JsonOption,
    StoreArgument,
    absolute,
    connecting,
    database_of,
    directory,
)
from aquipu.cli.forms.objects import as_json
from aquipu.cli.forms.shown import local_time, nanoseconds_of
from aquipu.cli.streams.console import (
    bar,
    counted,
    standard_output,
    write_line,
)
from aquipu.errors import AquipuError, CorruptionError, StoreUnavailableError
from aquipu.local.check.at_work import check, look_into
from aquipu.local.check.inspect import Compressed, Info, TornTail, Writer, iso_time
from aquipu.local.check.verify import Verdict, segment_bytes
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.paths import address_in
from aquipu.local.format.structure import VERSION
from aquipu.local.retain.history import read_history
from aquipu.local.retain.manifest import read_manifest

# the store itself


@app.command("info", epilog=EPILOG, rich_help_panel=Purpose.CARE)
def info_command(store: StoreArgument, json_object: JsonOption = False) -> None:
    """Say what a store holds, and who writes it.

    This works also while a service does. Of a store that is written it is what readers see: all
    that was acknowledged. Times are those of the clock here; with --json they are UTC.

    \b
    With --json, one object:
      path            the directory, absolute; \\xff for a byte that is no UTF-8;
                      or the address of the daemon
      store_id        32 hexadecimal digits; null of a daemon
      format_version  a number
      first_sequence  of the first record kept
      next_sequence   one past the last record
      records         their number
      segments        the number of segment files
      bytes           of all files of the store; of a daemon, of the segments
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
    with exit_codes():
        output = standard_output()
        if address_in(store) is None:
            info = look_into(Disk(), absolute(store))
        else:
            info = anyio.run(_info_of, store)
        write_line(output, as_json(info) if json_object else _info_text(info))


@app.command("verify", epilog=EPILOG, rich_help_panel=Purpose.CARE)
def verify_command(store: StoreArgument, json_object: JsonOption = False) -> None:
    """Read every byte of a store and check it.

    Exit code 1 when anything is damaged. What a crash has left half written at the end, a torn
    tail, is no damage.

    A service may write the store meanwhile: then everything is checked that was acknowledged when
    this began. Of a daemon, unix:PATH, it reads the files, which must be there to be read. A store
    that none is writing cannot be opened for writing until this ends. A damaged index is damage,
    though no record depends on it.

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
    with exit_codes():
        output, disk = standard_output(), Disk()
        path = seen_directory(store)
        with bar(bytes_to_read(disk, path)) as advance:
            verdict = check(disk, path, advance)
        with suppress(BrokenPipeError):  # the exit code says it all the same
            write_line(output, as_json(verdict) if json_object else _verdict_text(verdict))
        raise typer.Exit(DAMAGED if verdict.damages else WELL)


async def _info_of(address: str) -> Info:
    """Return what the daemon at an address says of its store."""
    async with connecting(address) as store:
        holds, said = await store.holds(), None
        with suppress(StoreUnavailableError):  # a daemon of an earlier version
            said = await store.daemon_statistics()
        first, following = store.first_sequence, store.next_sequence
        times: list[str | None] = [None, None]
        if first < following:
            ends = [await store.get(first), await store.get(following - 1)]
            times = [iso_time(record.timestamp) for record in ends]
        return Info(
            path=address,
            store_id=None,
            format_version=VERSION,
            first_sequence=first,
            next_sequence=following,
            records=following - first,
            segments=None if said is None else said.segments,
            bytes=None if said is None else said.disk_bytes,
            first_time=times[0],
            last_time=times[1],
            clean=None,
            torn_tail=None,
            holds=holds,
            writer=Writer(None, shared=True),
        )


def seen_directory(store: str) -> str:
    """Return the directory of a store; of a daemon the one that it has, if it is seen from here.

    Raises StoreUnavailableError.
    """
    if address_in(store) is None:
        return directory(store)
    return anyio.run(_directory_of, store)


async def _directory_of(address: str) -> str:
    """Return the directory of a daemon's store, which must be the one that is seen from here."""
    async with connecting(address) as store:
        path, generation = await store.daemon_place(), store.generation
    here = _generation_in(address, path)
    if here is not None and here != generation:
        reason = f"they are in {path} there, and here that is another store"
        raise StoreUnavailableError(address, "read the files of", reason)
    return path


def _generation_in(address: str, path: str) -> str | None:
    """Return the generation of the store in a directory; None when damage hides it."""
    disk = Disk()
    try:
        history = read_history(disk, path, read_manifest(disk, path).store_id)
    except CorruptionError:
        return None
    except OSError as error:
        reason = f"they are in {path} there, and here: {error.strerror}"
        raise StoreUnavailableError(address, "read the files of", reason) from error
    return None if history is None else history.current.hex()


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
        "segments": None if info.segments is None else f"{info.segments:,}",
        "compressed": "none" if info.compressed is None else _compressed_text(info.compressed),
        "bytes": None if info.bytes is None else f"{info.bytes:,}",
        "first record": _time_text(info.first_time),
        "last record": _time_text(info.last_time),
        "written by": "nobody" if info.writer is None else _writer_text(info.writer),
        "closed cleanly": "yes" if info.clean else "no",
        "torn tail": _torn_text(info.torn_tail) if info.torn_tail else "none",
        "holds": ", ".join(f"{name} from {sequence}" for name, sequence in info.holds.items())
        or "none",
    }
    if info.writer is not None:
        del lines["closed cleanly"], lines["torn tail"]
    if info.store_id is None:  # nor does the daemon say this
        del lines["compressed"]
    return "\n".join(f"{name:<16}{value}" for name, value in lines.items() if value is not None)


def _time_text(iso: str | None) -> str:
    """Return a time by the clock here, as cat has it."""
    return "none" if iso is None else local_time(nanoseconds_of(iso))


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
