"""The indexes of a store at rest: which of them are damaged, and all of them built. Blocking."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from aquipu.disk import Disk, opened
from aquipu.errors import CorruptionError
from aquipu.journal import Extent
from aquipu.layout import Damage
from aquipu.recovery import Progress
from aquipu.relations import Table, build, table_path
from aquipu.segment import read_footer


def damaged_indexes(disk: Disk, sealed: Iterable[Extent]) -> Iterator[CorruptionError]:
    """What is wrong with the indexes of these segments. One that is missing is not damaged."""
    for extent in sealed:
        try:
            _check(disk, extent)
        except FileNotFoundError:
            continue
        except Damage as damage:
            yield CorruptionError(table_path(extent), 0, str(damage))


def build_indexes(disk: Disk, sealed: Iterable[Extent], *, anew: bool, progress: Progress) -> int:
    """Build those that are missing or damaged, or all of them ``anew``. How many were built.

    ``progress`` hears of bytes of the segments. Raises what `relations.build` raises.
    """
    built = 0
    for extent in sealed:
        if anew or not _is_sound(disk, extent):
            build(disk, extent, progress=progress)
            built += 1
    return built


def _is_sound(disk: Disk, extent: Extent) -> bool:
    try:
        _check(disk, extent)
    except (FileNotFoundError, Damage):
        return False
    return True


def _check(disk: Disk, extent: Extent) -> None:
    """Raises FileNotFoundError, Damage, or what reading the segment's footer raises."""
    with opened(disk, extent.path) as descriptor:
        contents = read_footer(disk, descriptor, extent.path, extent.header.seed)
    if contents is None:
        raise CorruptionError(extent.path, 0, "the footer of a sealed segment is missing")
    Table.open(disk, extent, contents.next_sequence, contents.link).check()
