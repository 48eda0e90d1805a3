"""The two ends of a copy: what records are taken from, what takes them, and what consumers keep.

A log is in files (a directory, or an archive of one) or in a database; each is opened as one of two
things, whichever it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from typing import NamedTuple, Protocol

import typer

from aquipu.archive.archive import Archive
from aquipu.archive.read.log import opened
from aquipu.cli.arguments import absolute, archive_of, check_no_options, database_of, directory
from aquipu.local.copying.pieces import Piece, pieces_of
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.paths import address_in, is_archive
from aquipu.local.read.catalog import Catalog
from aquipu.local.read.snapshot import Snapshot, find
from aquipu.reader import Reader
from aquipu.record import Key, Record
from aquipu.store import Store


class Origin(Protocol):
    """A log from which records are taken, as far as it reached when it was opened."""

    path: str
    start: int
    stop: int

    async def record(self, sequence: int) -> Record:
        """Return one record."""

    def pieces(self, start: int) -> AsyncIterator[Piece]:
        """Yield the records from a sequence on, with the keys by the index of their first."""


class Reach(Protocol):
    """How far a log reaches."""

    @property
    def first_sequence(self) -> int: ...

    @property
    def next_sequence(self) -> int: ...


class Target(Protocol):
    """A log that takes records at their sequences, and is written by nobody else meanwhile."""

    path: str

    async def head(self) -> Reach:
        """Return how far it reaches."""

    async def has(self, record: Record) -> bool:
        """Return whether it has exactly this record."""

    async def bring(self, records: Sequence[Record], keys: Sequence[Key]) -> None:
        """Store records at its end, synced, whose times never decrease."""

    async def aclose(self) -> None:
        """Let go of the log."""


class _Files:
    """A log in files, which may be an archive's."""

    def __init__(self, path: str, view: Snapshot) -> None:
        self.path = path
        self._view = view
        self.start, self.stop = view.start, view.stop

    async def record(self, sequence: int) -> Record:
        return find(self._view._replace(start=sequence, stop=sequence + 1))

    async def pieces(self, start: int) -> AsyncIterator[Piece]:
        for piece in pieces_of(self._view, start):
            yield piece


class Ends(NamedTuple):
    """Where a copy goes from and to; each place is a directory, or an address."""

    store: str
    to: str
    archive: Archive | None
    """What is copied from, if it is one."""


def ends_of(store: str, to: str, options: list[str] | None) -> Ends:
    """Return the ends that are meant; a usage error for a pair that no copy is between."""
    refused = None
    if is_archive(to):
        refused = "aquipu archive carries a store, of a directory, to an object store"
    elif address_in(to) is not None:
        refused = "a daemon has the files of its store: give another directory, or a database"
    elif database_of(to) is None and _database_in(store) is None:
        refused = "aquipu backup copies a store to a directory"
        if is_archive(store):
            refused = "aquipu restore makes a store of an archive"
    elif store == to:
        refused = "it is the log that is copied"
    if refused is not None:
        raise typer.BadParameter(refused, param_hint="TO")
    if not is_archive(store):
        check_no_options(options)
    place = to if database_of(to) is not None else absolute(to, "TO")
    if is_archive(store):
        return Ends(store, place, archive_of(store, options, hint="STORE"))
    return Ends(store if database_of(store) is not None else directory(store), place, None)


def _database_in(store: str) -> str | None:
    """Return the address of a database that is copied from; None for any other place."""
    return None if is_archive(store) else database_of(store)


@asynccontextmanager
async def origin_of(ends: Ends) -> AsyncIterator[Origin]:
    """Open what is copied from. Raises as `Reader.open`."""
    if ends.archive is not None:
        log = opened(ends.archive)
        try:
            yield _Files(log.path, log.view)
        finally:
            log.disk.end()
    elif database_of(ends.store) is not None:
        from aquipu.postgres.address import address_of
        from aquipu.postgres.care.giving import Giver

        async with aclosing(await Giver.open(address_of(ends.store))) as giver:
            yield giver
    else:
        with closing(Catalog(Disk(), ends.store)) as catalog:
            yield _Files(ends.store, catalog.look())


@asynccontextmanager
async def target_of(ends: Ends, first: int) -> AsyncIterator[Target]:
    """Open what is copied to; a log in which nothing was ever stored begins with ``first``.

    Raises as `Store.open`.
    """
    target: Target
    if database_of(ends.to) is not None:
        from aquipu.postgres.address import address_of
        from aquipu.postgres.care.receiving import Receiver as DatabaseReceiver

        target = await DatabaseReceiver.open(address_of(ends.to), first)
    else:
        from aquipu.local.copying.receiver import Receiver

        target = await Receiver.open(ends.to, first)
    async with aclosing(target):
        yield target


# what consumers keep


class Kept(NamedTuple):
    """Where the consumers of a log stand, and what holds keep for them."""

    cursors: dict[str, int]
    holds: dict[str, int]


async def kept_in(ends: Ends) -> Kept:
    """Return what is kept in the log that is copied from; an archive keeps nothing."""
    if ends.archive is not None:
        return Kept({}, {})
    async with Reader.open(ends.store) as reader:
        cursors = {name: lag.sequence for name, lag in (await reader.cursors()).items()}
        return Kept(cursors, await reader.holds())


async def keep(ends: Ends, kept: Kept) -> None:
    """Set cursors and holds in the log that was copied to, as they were in the other."""
    if not (kept.cursors or kept.holds):
        return
    async with Store.open(ends.to) as store:
        for name, sequence in kept.holds.items():
            await store.hold(name, max(sequence, store.first_sequence))
        for name, sequence in kept.cursors.items():
            await store.cursor(name).save(sequence)
