"""The commands that mend a store: index and repair. They need it at rest, and hold its lock."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from typing import Annotated

import anyio
import typer

from aquipu.cli.app import DAMAGED, EPILOG, Purpose, app, exit_codes
from aquipu.cli.arguments import DirectoryArgument, JsonOption, bounds, directory
from aquipu.cli.commands.upkeep.look import bytes_to_read
from aquipu.cli.forms.objects import as_json
from aquipu.cli.streams.console import (
    bar,
    can_ask,
    confirmed,
    counted,
    say,
    standard_output,
    write_line,
)
from aquipu.errors import StoreLockedError
from aquipu.local.check.actions import RepairAction
from aquipu.local.check.indexes import build_indexes
from aquipu.local.check.inspect import examined
from aquipu.local.check.repair import Repair, repairing
from aquipu.local.check.rights import keep_rights
from aquipu.local.check.verify import segment_bytes
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.lock import Lock, holder_of
from aquipu.local.disk.os_errors import translate_os_errors

_YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


# index


@app.command("index", epilog=EPILOG, rich_help_panel=Purpose.CARE)
def index_command(
    store: DirectoryArgument,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build all of them anew, also those that are sound.")
    ] = False,
) -> None:
    """Build what searches by labels go by, where it is missing.

    Each full file of the log has such an index. A service does this by itself, in the background;
    this is for a store that none is writing. An index only makes finding faster: nothing is lost
    with it.
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


@app.command("repair", epilog=EPILOG, rich_help_panel=Purpose.CARE)
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
            with bar(bytes_to_read(disk, path)) as advance:
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
    with bar(bytes_to_read(disk, repair.path)) as advance:
        return repair.carry_out(advance)


def _actions_text(actions: list[RepairAction]) -> str:
    return "\n".join(map(_action_text, actions))


def _action_text(action: RepairAction) -> str:
    parts = [f"{action.path} at offset {action.offset}: {action.reason}: {action.action}"]
    if action.lost:
        parts.append(f"{counted(action.lost, 'record')} lost, from sequence {action.lost_from}")
    if action.kept_in is not None:
        parts.append(f"{counted(action.bytes, 'byte')} kept in {action.kept_in}")
    return "; ".join(parts)
