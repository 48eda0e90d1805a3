"""The indexes of a store at rest: which of them are damaged, and all of them built. Blocking."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from aquipu.errors import CorruptionError
from aquipu.local.disk.disk import Disk
from aquipu.local.format.structure import Damage
from aquipu.local.index.table import Table, build, table_path
from aquipu.local.read.segment_reader import OnProgress, SegmentRef


def damaged_indexes(disk: Disk, sealed: Iterable[SegmentRef]) -> Iterator[CorruptionError]:
    """Yield what is wrong with the indexes of these segments; a missing one is not damaged."""
    for segment in sealed:
        try:
            _check(disk, segment)
        except FileNotFoundError:
            continue
        except Damage as damage:
            yield CorruptionError(table_path(segment), 0, str(damage))


def build_indexes(
    disk: Disk, sealed: Iterable[SegmentRef], *, anew: bool, progress: OnProgress
) -> int:
    """Build those that are missing or damaged, or all of them ``anew``. How many were built.

    ``progress`` hears of bytes of the segments. Raises what `relations.build` raises.
    """
    built = 0
    for segment in sealed:
        if anew or not _is_sound(disk, segment):
            build(disk, segment, progress=progress)
            built += 1
    return built


def _is_sound(disk: Disk, segment: SegmentRef) -> bool:
    try:
        _check(disk, segment)
    except (FileNotFoundError, Damage):
        return False
    return True


def _check(disk: Disk, segment: SegmentRef) -> None:
    """Check one index. Raises FileNotFoundError, Damage, or what reading the footer raises."""
    with segment.open(disk) as reader:
        contents = reader.footer()
    Table.open(disk, segment, contents.next_sequence, contents.link).check()
