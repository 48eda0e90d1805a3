"""The command that makes the tables of a database, migrate; and how logs in one are looked at."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import anyio
import typer

from aquipu.cli.app import DAMAGED, EPILOG, WELL, Purpose, app, exit_codes, usage
from aquipu.cli.arguments import JsonOption
from aquipu.cli.forms.objects import as_json
from aquipu.cli.streams.console import bar, counted, standard_output, write_line

T = TypeVar("T")

DatabaseArgument = Annotated[
    str, typer.Argument(metavar="URL", help="The database: postgresql://USER@HOST/DATABASE.")
]


@app.command("migrate", epilog=EPILOG, rich_help_panel=Purpose.CARE)
def migrate_command(
    url: DatabaseArgument,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    json_object: JsonOption = False,
) -> None:
    """Make or upgrade the tables of a PostgreSQL database.

    They stand in a schema of their own, aquipu. It is done in one transaction, and nothing else
    ever does it: a log in a database without them, or with those of another version, cannot be
    opened, and says so. The user needs the right to create a schema there.

    \b
    With --json, one object:
      database        the address, without a password
      version_before  of the tables; 0: there were none
      version         of the tables now
      steps           a list: what each version has brought
      dry_run         whether this is only what would be
    """
    with exit_codes():
        output = standard_output()
        from aquipu.postgres.address import address_of
        from aquipu.postgres.schema.migrating import migrate

        with usage("URL"):
            address = address_of(url, needs_log=False)
        done = _run(lambda: migrate(address, dry_run=dry_run), "URL")
        if json_object:
            write_line(output, as_json({**done._asdict(), "dry_run": dry_run}))
        elif not done.steps:
            write_line(output, f"{done.database} is of version {done.version}; nothing to do")
        else:
            would = "would be brought" if dry_run else "was brought"
            steps = "; ".join(done.steps)
            write_line(
                output,
                f"{done.database} {would} from version {done.version_before} to {done.version}: "
                f"{steps}",
            )


def say_info(store: str, *, json_object: bool) -> None:
    """Say what a log in a database holds, as info does."""
    with exit_codes():
        output = standard_output()
        from aquipu.postgres.address import address_of
        from aquipu.postgres.care.inspect import look_into

        with usage("STORE"):
            address = address_of(store)
        info = _run(lambda: look_into(address), "STORE")
        if json_object:
            write_line(output, as_json(info._asdict()))
            return
        sequences = f"{info.first_sequence} to {info.next_sequence - 1}" if info.records else "none"
        holds = ", ".join(f"{name} from {sequence}" for name, sequence in info.holds.items())
        lines = {
            "log": info.log,
            "database": info.path,
            "server": f"PostgreSQL {info.server}",
            "schema version": info.schema_version,
            "records": f"{info.records:,}",
            "sequences": sequences,
            "next sequence": info.next_sequence,
            "synced up to": info.synced_sequence,
            "partitions": f"{info.partitions:,}",
            "bytes": f"{info.bytes:,}",
            "first record": info.first_time or "none",
            "last record": info.last_time or "none",
            "standbys": info.synchronous_standbys or "none confirms",
            "holds": holds or "none",
        }
        write_line(output, "\n".join(f"{name:<16}{value}" for name, value in lines.items()))


def say_verdict(store: str, *, json_object: bool) -> None:
    """Check a log in a database, and say what was found, as verify does."""
    with exit_codes():
        output = standard_output()
        from aquipu.postgres.address import address_of
        from aquipu.postgres.care.inspect import check

        with usage("STORE"):
            address = address_of(store)
        with bar(None, counts_records=True) as advance:
            verdict = _run(lambda: check(address, advance), "STORE")
        if json_object:
            damages = [damage._asdict() for damage in verdict.damages]
            write_line(output, as_json({**verdict._asdict(), "damages": damages}))
        else:
            read = (counted(verdict.records, "record"), counted(verdict.batches, "row"))
            lines = [f"{' in '.join(read)}, {counted(verdict.bytes, 'byte')}"]
            lines += [
                f"damaged: sequence {damage.sequence}: {damage.reason}"
                for damage in verdict.damages
            ]
            write_line(output, "\n".join(lines if verdict.damages else [*lines, "no damage"]))
        raise typer.Exit(DAMAGED if verdict.damages else WELL)


def say_findings(url: str, *, json_object: bool) -> None:
    """Say which settings of a server weaken what is promised of logs there, as doctor does."""
    with exit_codes():
        output = standard_output()
        from aquipu.postgres.address import address_of
        from aquipu.postgres.care.doctor import examine

        with usage("STORE"):
            address = address_of(url, needs_log=False)
        found = _run(lambda: examine(address), "STORE")
        findings = [finding._asdict() for finding in found.findings]
        if json_object:
            write_line(output, as_json({**found._asdict(), "findings": findings}))
        else:
            lines = [f"{found.database}: PostgreSQL {found.server}"]
            lines += [
                f"{finding.weight}: {finding.setting} = {finding.value}: {finding.means}; "
                f"{finding.remedy}"
                for finding in found.findings
            ]
            write_line(output, "\n".join(lines if findings else [*lines, "nothing to remark"]))
        is_dangerous = any(finding.weight == "danger" for finding in found.findings)
        raise typer.Exit(DAMAGED if is_dangerous else WELL)


def _run(call: Callable[[], Coroutine[Any, Any, T]], hint: str) -> T:
    """Return what a call gives; an address that the driver refuses is a usage error."""
    with usage(hint):
        return anyio.run(call)
