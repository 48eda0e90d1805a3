"""What is done about a damage, and the step that does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from aquipu.local.disk.disk import Disk, opened
from aquipu.local.format.names import (
    first_sequence_of,
    whole_cut_name,
)


@dataclass(frozen=True, slots=True)
class RepairAction:
    """One damage, and what is, or would be, done about it."""

    path: str
    """The damaged file."""
    offset: int
    bytes: int
    """Number of bytes that do not check."""
    reason: str
    action: str
    kept_in: str | None
    """File that keeps the damaged bytes.

    None as long as nothing is done, and where there are none.
    """
    lost_from: int | None
    """Sequence of the first record that is lost; None for none."""
    lost_before: int | None
    """Sequence one past the last record that is lost."""

    @property
    def lost(self) -> int:
        """Number of records that are lost."""
        return (
            0
            if self.lost_from is None or self.lost_before is None
            else self.lost_before - self.lost_from
        )


class Step(NamedTuple):
    """One file that is replaced, or removed, as a whole."""

    name: str
    actions: tuple[RepairAction, ...]
    content: Callable[[], bytes] | None
    """The bytes of the new file; None: the file is removed."""
    cut_name: Callable[[int, int], str] | None = None
    """The file that keeps damaged bytes, by offset and number; None: they are worth nothing."""
    stale_index: str | None = None
    """An index that speaks of what is replaced: it goes first."""
    unnamed: str | None = None
    """What the new file is called until it is whole, if that is special."""


def firsts_in(disk: Disk, path: str) -> list[int]:
    return sorted(
        first for name in disk.list(path) if (first := first_sequence_of(name)) is not None
    )


def size_of(disk: Disk, path: str) -> int:
    with opened(disk, path) as descriptor:
        return disk.size(descriptor)


def cut_beside(name: str) -> Callable[[int, int], str]:
    return lambda offset, number: whole_cut_name(name, number, offset)
