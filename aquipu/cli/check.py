"""The commands that look at the store as a whole, and mend it: index, repair, info and verify.

The first two need a store at rest, and hold its lock; the others change no byte, and work beside
the process that writes it, too.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import asdict
from typing import Annotated

import anyio
import typer

from aquipu.cli.app import (
    DAMAGED,
    EPILOG,
    WELL,
    DirectoryArgument,
    JsonOption,
    app,
    as_json,
    bounds,
    directory,
    exit_codes,
)
from aquipu.cli.console import (
    bar,
    can_ask,
    confirmed,
    counted,
    say,
    standard_output,
    write_line,
)
from aquipu.errors import AquipuError, StoreLockedError
from aquipu.local.check.actions import RepairAction
from aquipu.local.check.at_work import check, look_into
from aquipu.local.check.indexes import build_indexes
from aquipu.local.check.inspect import Info, TornTail, Writer, examined
from aquipu.local.check.repair import Repair, repairing
from aquipu.local.check.rights import keep_rights
from aquipu.local.check.verify import Verdict, segment_bytes
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.lock import Lock, holder_of
from aquipu.local.disk.os_errors import translate_os_errors

_YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


# index


@app.command("index", epilog=EPILOG)
def index_command(
    store: DirectoryArgument,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build all of them anew, also those that are sound.")
    ] = False,
) -> None:
    """Build the indexes of the sealed segments that are missing or damaged.

    A service does this by itself, in the background; this is for a store that none is writing. An
    index only makes finding faster: nothing is lost with it.
    """
    path = directory(store)
    with exit_codes(
        "that process builds what is missing by itself, in the background; to build it here, end "
        "that process first"
    ):
        disk = Disk()
        anyio.run(bounds, path)  # a store must be there, before its lock is made
        with translate_os_errors(path, "lock"):
            keep_rights(disk, path)
            lock = Lock.take(disk, path)
        if lock is None:
            raise StoreLockedError(path, holder_of(disk, path))
        try:
            sealed = examined(disk, path).sealed
            with translate_os_errors(path, "index"), bar(segment_bytes(disk, path)) as advance:
                built = build_indexes(disk, sealed, anew=rebuild, progress=advance)
        finally:
            lock.release()
        say(f"{counted(len(sealed), 'sealed segment')}, indexes built: {built:,}")


# repair


@app.command("repair", epilog=EPILOG)
def repair_command(
    store: DirectoryArgument, yes: _YesOption = False, json_object: JsonOption = False
) -> None:
    """Make a damaged store whole.

    What is sound stays as it is; the damaged bytes are kept in files beside.

    What would be done is shown, and done after a yes: on a terminal, or with --yes. Where a record
    is lost, an empty one with the label aquipu:lost stands in for it: `aquipu find STORE
    aquipu:lost --json` lists them. Copy the directory away first, if it matters. No other process
    may be using the store.

    Exit code 1 when something is damaged and nothing was done.

    \b
    With --json, one object:
      path          the directory, absolute; \\xff for a byte that is no UTF-8
      done          whether it was done; false: this is what would be
      lost_records  how many
      mended        a list of objects: path, offset, bytes, reason, action,
                    kept_in (the file with the damaged bytes, or null),
                    lost_from, lost_before (sequences, or null)
    """
    path = directory(store)
    with exit_codes("only a store that no process writes can be repaired: end that process first"):
        output, disk = standard_output(), Disk()
        with ExitStack() as held:
            with bar(_bytes_of(disk, path)) as advance:
                repair = held.enter_context(repairing(disk, path, advance))
            done = bool(repair.plan) and (yes or _agreed(repair))
            actions = _carried_out(repair, disk) if done else repair.plan
        if json_object:
            lost = sum(one.lost for one in actions)
            found = {
                "path": path,
                "done": done,
                "lost_records": lost,
                "mended": [asdict(one) for one in actions],
            }
            write_line(output, as_json(found))
        else:
            write_line(output, _actions_text(actions) if actions else "nothing to repair")
        if actions and not done:
            say(
                "aquipu: nothing was changed"
                + ("" if can_ask() else "; give --yes to have it done")
            )
            raise typer.Exit(DAMAGED)


def _agreed(repair: Repair) -> bool:
    """Return whether the user says yes to the plan; False when there is no terminal to ask on."""
    if not can_ask():
        return False
    say(_actions_text(repair.plan))
    return confirmed("Repair it so?")


def _carried_out(repair: Repair, disk: Disk) -> list[RepairAction]:
    with bar(_bytes_of(disk, repair.path)) as advance:
        return repair.carry_out(advance)


def _bytes_of(disk: Disk, path: str) -> int | None:
    with suppress(AquipuError):  # the repair says what is wrong
        return segment_bytes(disk, path)
    return None


def _actions_text(actions: list[RepairAction]) -> str:
    return "\n".join(map(_action_text, actions))


def _action_text(action: RepairAction) -> str:
    parts = [f"{action.path} at offset {action.offset}: {action.reason}: {action.action}"]
    if action.lost:
        parts.append(f"{counted(action.lost, 'record')} lost, from sequence {action.lost_from}")
    if action.kept_in is not None:
        parts.append(f"{counted(action.bytes, 'byte')} kept in {action.kept_in}")
    return "; ".join(parts)


# the store itself


@app.command("info", epilog=EPILOG)
def info_command(store: DirectoryArgument, json_object: JsonOption = False) -> None:
    """Say what a store holds, and who writes it, also while a service does.

    Of a store that is written it is what readers see: all that was acknowledged.

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
      writer          null, or an object: pid (of the process that writes it,
                      or null), shared (whether others write through it)
    """
    path = directory(store)
    with exit_codes():
        output = standard_output()
        info = look_into(Disk(), path)
        write_line(output, as_json(info) if json_object else _info_text(info))


@app.command("verify", epilog=EPILOG)
def verify_command(store: DirectoryArgument, json_object: JsonOption = False) -> None:
    """Read every byte of a store and check it.

    Exit code 1 when anything is damaged; a torn tail is no damage.

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
      frames         commits and marks, as records
      segments       the number of segment files
      bytes          of the segment files
      damages        a list of objects: path, offset, reason
      torn_tail      null, or an object: path, offset, bytes, reason,
                     records (that it may hold), possibly_acknowledged
      writer         null, or an object: pid (of the process that writes it,
                     or null), shared (whether others write through it)
    """
    path = directory(store)
    with exit_codes():
        output, disk = standard_output(), Disk()
        with bar(_bytes_of(disk, path)) as advance:
            verdict = check(disk, path, advance)
        with suppress(BrokenPipeError):  # the exit code says it all the same
            write_line(output, as_json(verdict) if json_object else _verdict_text(verdict))
        raise typer.Exit(DAMAGED if verdict.damages else WELL)


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
        last = "" if not verdict.next_sequence else f", up to sequence {verdict.next_sequence - 1}"
        lines.append(
            f"written by {_writer_text(verdict.writer)}; checked is what was acknowledged when this"
            f" began{last}"
        )
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
