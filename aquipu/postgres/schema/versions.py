"""The versions of the schema, each as what makes it of the one before. Pure.

A database says its version in `aquipu.version`. A migration is done in one transaction, so it is
there as a whole, or not at all. What is here is never changed once it was released: a new version
follows it.
"""

from __future__ import annotations

from typing import NamedTuple

from aquipu.postgres.schema.functions import APPEND, KEEP, MAKE
from aquipu.postgres.schema.outbox import OUTBOX
from aquipu.postgres.schema.receiving import RECEIVE
from aquipu.postgres.schema.tables import TABLES


class Migration(NamedTuple):
    """What makes one version of the one before."""

    version: int
    adds: str
    """What it brings, in a few words."""
    sql: str


MIGRATIONS = (
    Migration(
        1,
        "logs, their batches and labels",
        "CREATE TABLE aquipu.version (version integer NOT NULL,"
        " migrated timestamptz NOT NULL DEFAULT now());" + TABLES + MAKE + APPEND + KEEP,
    ),
    Migration(2, "an outbox for the transactions of others", OUTBOX),
    Migration(3, "logs that take over records from another one", RECEIVE),
)
VERSION = MIGRATIONS[-1].version
"""The one that this version of aquipu works with."""


def missing_from(version: int) -> tuple[Migration, ...]:
    """Return what a database of this version lacks, in order; 0: it has nothing yet."""
    return tuple(step for step in MIGRATIONS if step.version > version)


def refusal_of(version: int) -> str | None:
    """Return why a log in a database of this version cannot be opened; None when it can."""
    if version == 0:
        return "it has no tables of aquipu yet: `aquipu migrate` with this address makes them"
    if version < VERSION:
        return (
            f"its tables are of version {version}, and this aquipu works with {VERSION}: "
            "`aquipu migrate` with this address upgrades them"
        )
    return None
