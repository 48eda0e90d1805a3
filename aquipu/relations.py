"""The index of one sealed segment: which label stands at which of its records. Built, opened, asked, checked. Blocking.

`build` reads the segment, every frame checked, and writes the table beside it. `Table.open` reads only the table's end;
after that a look-up reads one block. A `Table` holds no descriptor: keep as many as there are segments.

The log is the truth. Whatever in a table does not check, or does not fit its segment, raises `Damage`; whoever asked then
reads the segment itself, and has the table built anew.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import groupby, zip_longest
from operator import itemgetter, lt

from aquipu.disk import Disk, opened
from aquipu.durable import sync
from aquipu.errors import CorruptionError
from aquipu.frame import Walk
from aquipu.journal import Extent
from aquipu.layout import SEGMENT_HEADER_BYTES, UNNAMED, Contents, Damage, relations_name
from aquipu.postings import (
    TRAILER_BYTES,
    Block,
    EncodedBlock,
    Gathering,
    Held,
    Outline,
    Pace,
    Pause,
    as_array,
    encode_blocks,
    outline_at,
    summed,
)
from aquipu.segment import read_footer, walk_frames, what_stopped

Progress = Callable[[int], None]

GATHERED_BYTES_MAX = 128 * 1024 * 1024
"""About how much memory a build takes. A segment with more different labels than that is read more than once."""
_PIECE_BYTES = 1024 * 1024  # that are written and synced in one go: a long sync would hold up the log's own


def table_path(extent: Extent) -> str:
    """The file of the table that belongs to this segment."""
    return f"{extent.path.rpartition('/')[0]}/{relations_name(extent.first_sequence)}"


# asking


class Table:
    """A table that was found to belong to its segment. Its end is in memory; each block is checked when it is read.

    Every method raises Damage for a block that does not check, and OSError. May be used from any thread.
    """

    def __init__(self, disk: Disk, path: str, seed: int, records: int, outline: Outline) -> None:
        self.path = path
        self._disk = disk
        self._seed = seed
        self._records = records  # in the segment
        self._outline = outline

    @classmethod
    def open(cls, disk: Disk, extent: Extent, next_sequence: int, link: int) -> Table:
        """The table of a sealed segment, which ends before ``next_sequence`` with the frame whose check is ``link``.

        Its footer says that, and so does the header of the segment behind it. Raises FileNotFoundError when there is no
        table, Damage when it does not check or was made of something else.
        """
        path, seed = table_path(extent), extent.header.seed
        with opened(disk, path) as descriptor:
            size = disk.size(descriptor)
            start = outline_at(disk.read(descriptor, TRAILER_BYTES, max(size - TRAILER_BYTES, 0)), size)
            outline = Outline.decode(disk.read(descriptor, size - start, start), seed)
        if (outline.next_sequence, outline.link) != (next_sequence, link):
            raise Damage("the index was made of another life of the segment")
        return cls(disk, path, seed, next_sequence - extent.first_sequence, outline)

    @property
    def labels(self) -> int:
        """How many different ones the segment holds."""
        return self._outline.labels

    @property
    def postings(self) -> int:
        """How many records each label has, added up."""
        return self._outline.postings

    def positions(self, label: str, pause: Pause = lambda: None) -> array[int]:
        """Where this label stands: places in the segment, ascending. ``pause`` is called behind each block."""
        found = array("I")
        for block in self._blocks(self._outline.holding(label)):
            found += block.positions(label)
            pause()
        return found

    def counts(self, prefix: str = "", pause: Pause = lambda: None) -> Iterator[tuple[str, int]]:
        """The labels that begin so, in order, and how many records each has."""
        return summed([self._counted(prefix, pause)])

    def _counted(self, prefix: str, pause: Pause) -> Iterator[tuple[str, int]]:
        """Block by block: a label with many positions comes several times."""
        for n in self._outline.beginning(prefix):
            for block in self._blocks(range(n, n + 1)):
                yield from block.counted(prefix)
            pause()

    def entries(self, pause: Pause = lambda: None) -> Iterator[tuple[str, array[int]]]:
        """Every label, in order, and where it stands."""
        for label, parts in groupby(self._parts(pause), itemgetter(0)):
            positions = array("I")
            for _, part in parts:
                positions += part
            yield label, positions

    def _parts(self, pause: Pause) -> Iterator[tuple[str, array[int]]]:
        for n in range(self._outline.blocks):
            for block in self._blocks(range(n, n + 1)):
                yield from block.entries()
            pause()

    def check(self, pause: Pause = lambda: None) -> None:
        """Read the whole table. Raises Damage where it does not check, or where its parts do not fit each other."""
        labels = postings = 0
        before = ""
        for label, positions in self.entries(pause):
            ascending = all(map(lt, positions, positions[1:]))
            if label <= before or not positions or not ascending or positions[-1] >= self._records:
                raise Damage(f"the index {self.path} is not in order")
            before = label
            labels += 1
            postings += len(positions)
        if (labels, postings) != (self.labels, self.postings):
            raise Damage(f"the index {self.path} holds more or less than it says")

    def _blocks(self, numbers: range) -> Iterator[Block]:
        """Some blocks, one behind another. The file is closed before the first of them is given."""
        outline = self._outline
        start, end = outline.offsets[numbers.start], outline.offsets[numbers.stop]
        with opened(self._disk, self.path) as descriptor:
            data = self._disk.read(descriptor, end - start, start)
        for n in numbers:
            at = outline.offsets[n] - start
            yield outline.block(n, data[at : at + outline.sizes[n]], self._seed)


# building


def build(disk: Disk, extent: Extent, pause: Pause = lambda: None, progress: Progress = lambda size: None) -> None:
    """Write the table of a sealed segment, in place of any that is there.

    It gets its name when all of it is on the disk. ``pause`` is called each time that about 0.3 ms of work is done; the
    caller may sleep there, and what it raises ends the build. ``progress`` hears of bytes read, in each pass. After any
    error nothing of the new table is left, unless only its name could not be made durable.

    Raises CorruptionError or UnsupportedFormatError where the segment does not check, OSError or OutcomeUnknown, and
    OverflowError for a segment of more than 2^32 records.
    """
    pace = Pace(pause)
    with opened(disk, extent.path) as descriptor:
        contents = _sealed(disk, descriptor, extent)
        outline = Outline(contents.next_sequence, contents.link)
        blocks = encode_blocks(_entries(disk, descriptor, extent, contents, pace, progress))
        write_table(disk, table_path(extent), _pieces(blocks, outline, extent.header.seed, pace))


def compare(
    disk: Disk, extent: Extent, table: Table, pause: Pause = lambda: None, progress: Progress = lambda size: None
) -> None:
    """Read the segment again and see whether the table says just what stands there. Raises Damage when it does not.

    Also raises what `build` raises when it reads.
    """
    pace = Pace(pause)
    with opened(disk, extent.path) as descriptor:
        entries = _entries(disk, descriptor, extent, _sealed(disk, descriptor, extent), pace, progress)
        for said, found in zip_longest(table.entries(pause), entries):
            if said is None or found is None or said != (found[0], as_array(found[1])):
                raise Damage(f"the index {table.path} does not say what stands in the segment")


def _sealed(disk: Disk, descriptor: int, extent: Extent) -> Contents:
    contents = read_footer(disk, descriptor, extent.path, extent.header.seed)
    if contents is None:
        raise CorruptionError(extent.path, disk.size(descriptor), "the footer of a sealed segment is missing")
    return contents


def _entries(
    disk: Disk, descriptor: int, extent: Extent, contents: Contents, pace: Pace, progress: Progress
) -> Iterator[tuple[str, Held]]:
    """Each label of the segment, in order, and where it stands. Reads the segment once, or for very many labels again."""
    floor: str | None = ""
    while floor is not None:
        gathering = Gathering(extent.first_sequence, floor=floor, bytes_max=GATHERED_BYTES_MAX)
        _gather(disk, descriptor, extent, contents, gathering, pace, progress)
        floor = gathering.ceiling
        yield from gathering.drain(pace)


def _gather(
    disk: Disk,
    descriptor: int,
    extent: Extent,
    contents: Contents,
    gathering: Gathering,
    pace: Pace,
    progress: Progress,
) -> None:
    """Let the gathering take every frame of the segment, which ends just as its footer says."""
    header = extent.header
    walk = Walk(seed=header.seed, offset=SEGMENT_HEADER_BYTES, sequence=header.first_sequence, link=header.link)
    for offset, frame, body in walk_frames(disk, descriptor, walk, contents.end, progress):
        try:
            gathering.take(frame, body, pace)
        except ValueError as error:
            raise CorruptionError(extent.path, offset, str(error)) from None
    if walk.offset != contents.end:
        raise what_stopped(extent.path, walk)
    if (walk.sequence, walk.link) != (contents.next_sequence, contents.link):
        raise CorruptionError(extent.path, contents.end, "the footer does not fit the frames")


def _pieces(blocks: Iterable[EncodedBlock], outline: Outline, seed: int, pace: Pace) -> Iterator[list[bytes]]:
    """The bytes of a table, in pieces that are written one behind another."""
    piece: list[bytes] = []
    size = 0
    for block in blocks:
        outline.note(block, seed)
        piece.append(block.data)
        size += len(block.data)
        if size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
        pace.spend(Pace.SLICE)
    yield [*piece, outline.encode(seed)]


def write_table(disk: Disk, path: str, pieces: Iterable[list[bytes]]) -> None:
    """A file that gets its name when all of its bytes are on the disk. After an error nothing of it is left.

    The name is not made durable: a table that a power cut took is built again, and a sync of the directory that failed
    here would be one that the journal must hear of.
    """
    unnamed = path + UNNAMED
    descriptor = disk.create(unnamed)
    try:
        try:
            offset = 0
            for piece in pieces:
                disk.write(descriptor, piece, offset)
                sync(disk, descriptor)
                offset += sum(map(len, piece))
        finally:
            disk.close(descriptor)
        disk.rename(unnamed, path)
    except BaseException:
        with suppress(OSError):
            disk.remove(unnamed)
        raise
