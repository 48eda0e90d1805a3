"""The table of one sealed segment, its label index: built, opened, queried, checked. Blocking.

`build` reads the segment, every frame checked, and writes the table beside it. `Table.open` reads
only the table's end; after that a look-up reads one block. A `Table` holds no descriptor: keep as
many as there are segments.

The log is the truth. Whatever in a table does not check, or does not fit its segment, raises
`Damage`; the caller then reads the segment itself, and has the table built anew.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from itertools import groupby, zip_longest
from operator import itemgetter, lt

from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.durable import replace_file
from aquipu.local.format.names import relations_name
from aquipu.local.format.postings import (
    RUN_POSITIONS,
    TRAILER_BYTES,
    Block,
    BlockIndex,
    EncodedBlock,
    PackedPositions,
    block_index_at,
    encode_blocks,
)
from aquipu.local.format.segment import SegmentSummary
from aquipu.local.format.structure import Damage
from aquipu.local.index.meter import Meter, Pause
from aquipu.local.index.postings import Counted, PostingsBuilder, as_array
from aquipu.local.read.segment_reader import OnProgress, SegmentReader, SegmentRef

GATHERED_BYTES_MAX = 128 * 1024 * 1024
"""Memory that a build takes, about, in bytes.

A segment with more different labels than that is read more than once.
"""
_PIECE_BYTES = (
    1024 * 1024
)  # that are written and synced in one go: a long sync would hold up the log's own


def table_path(segment: SegmentRef) -> str:
    """Return the path of the table that belongs to this segment."""
    return f"{segment.path.rpartition('/')[0]}/{relations_name(segment.first_sequence)}"


# asking


class Table:
    """A table that was found to belong to its segment.

    Its end is in memory; each block is checked when it is read. Every method raises Damage for a
    block that does not check, and OSError. May be used from any thread.
    """

    def __init__(
        self, disk: Disk, path: str, seed: int, records: int, block_index: BlockIndex
    ) -> None:
        self.path = path
        self._disk = disk
        self._seed = seed
        self._records = records  # in the segment
        self._block_index = block_index

    @classmethod
    def open(cls, disk: Disk, segment: SegmentRef, next_sequence: int, link: int) -> Table:
        """Open the table of a sealed segment.

        The segment ends before ``next_sequence`` with the frame whose check is ``link``: its footer
        says that, and so does the header of the segment behind it. Raises
        FileNotFoundError when there is no table, Damage when it does not check or was made of
        something else.
        """
        path, seed = table_path(segment), segment.header.seed
        with opened(disk, path) as descriptor:
            size = disk.size(descriptor)
            start = block_index_at(
                disk.read(descriptor, TRAILER_BYTES, max(size - TRAILER_BYTES, 0)), size
            )
            block_index = BlockIndex.decode(disk.read(descriptor, size - start, start), seed)
        if (block_index.next_sequence, block_index.link) != (next_sequence, link):
            raise Damage("the index was made of another life of the segment")
        return cls(disk, path, seed, next_sequence - segment.first_sequence, block_index)

    @property
    def labels(self) -> int:
        """Number of different labels in the segment."""
        return self._block_index.labels

    @property
    def postings(self) -> int:
        """Number of records of each label, added up."""
        return self._block_index.postings

    def size(self, label: str) -> int:
        """Return at how many records this label stands, or somewhat more; nothing is read."""
        return len(self._block_index.holding(label)) * RUN_POSITIONS

    def positions(self, label: str, pause: Pause = lambda: None) -> array[int]:
        """Return the positions of this label in the segment, ascending.

        ``pause`` is called behind each block.
        """
        found = array("I")
        for block in self._blocks(self._block_index.holding(label)):
            found += block.positions(label)
            pause()
        return found

    def counts(self, prefix: str = "", pause: Pause = lambda: None) -> Iterator[Counted]:
        """Yield labels with this prefix, in order, and how many records each has.

        They come by block, so a label that has several comes several times.
        """
        for n in self._block_index.beginning(prefix):
            for block in self._blocks(range(n, n + 1)):
                yield block.counted(prefix)
            pause()

    def entries(self, pause: Pause = lambda: None) -> Iterator[tuple[str, array[int]]]:
        """Yield every label, in order, and its positions."""
        for label, parts in groupby(self._parts(pause), itemgetter(0)):
            positions = array("I")
            for _, part in parts:
                positions += part
            yield label, positions

    def _parts(self, pause: Pause) -> Iterator[tuple[str, array[int]]]:
        for n in range(self._block_index.blocks):
            for block in self._blocks(range(n, n + 1)):
                yield from block.entries()
            pause()

    def check(self, pause: Pause = lambda: None) -> None:
        """Read the whole table.

        Raises Damage where it does not check, or where its parts do not fit each other.
        """
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
        """Yield some blocks in order. The file is closed before the first of them is given."""
        block_index = self._block_index
        start, end = block_index.offsets[numbers.start], block_index.offsets[numbers.stop]
        with opened(self._disk, self.path) as descriptor:
            data = self._disk.read(descriptor, end - start, start)
        for n in numbers:
            at = block_index.offsets[n] - start
            yield block_index.block(n, data[at : at + block_index.sizes[n]], self._seed)


# building


def build(
    disk: Disk,
    segment: SegmentRef,
    pause: Pause = lambda: None,
    progress: OnProgress = lambda size: None,
) -> None:
    """Write the table of a sealed segment, in place of any that is there.

    It gets its name when all of it is on the disk. ``pause`` is called each time that about 0.3 ms
    of work is done; the caller may sleep there, and what it raises ends the build. ``progress``
    is called with the bytes read, in each pass. After any error nothing of the new table is left,
    unless only its name could not be made durable.

    Raises CorruptionError or UnsupportedFormatError where the segment does not check, OSError or
    OutcomeUnknown, and OverflowError for a segment of more than 2^32 records.
    """
    meter = Meter(pause)
    with segment.open(disk) as reader:
        contents = reader.footer()
        block_index = BlockIndex(contents.next_sequence, contents.link)
        blocks = encode_blocks(_entries(reader, contents, meter, progress))
        replace_file(
            disk, table_path(segment), _pieces(blocks, block_index, segment.header.seed, meter)
        )


def compare(
    disk: Disk,
    segment: SegmentRef,
    table: Table,
    pause: Pause = lambda: None,
    progress: OnProgress = lambda size: None,
) -> None:
    """Read the segment again and compare it with the table. Raises Damage when they differ.

    Also raises what `build` raises when it reads.
    """
    meter = Meter(pause)
    with segment.open(disk) as reader:
        entries = _entries(reader, reader.footer(), meter, progress)
        for said, found in zip_longest(table.entries(pause), entries):
            if said is None or found is None or said != (found[0], as_array(found[1])):
                raise Damage(f"the index {table.path} does not say what stands in the segment")


def _entries(
    reader: SegmentReader, contents: SegmentSummary, meter: Meter, progress: OnProgress
) -> Iterator[tuple[str, PackedPositions]]:
    """Yield each label of the segment, in order, and its positions.

    Reads the segment once, or for very many labels again.
    """
    floor: str | None = ""
    while floor is not None:
        first = reader.ref.first_sequence
        builder = PostingsBuilder(first, floor=floor, bytes_max=GATHERED_BYTES_MAX)
        _gather(reader, contents, builder, meter, progress)
        floor = builder.ceiling
        yield from builder.drain(meter)


def _gather(
    reader: SegmentReader,
    contents: SegmentSummary,
    builder: PostingsBuilder,
    meter: Meter,
    progress: OnProgress,
) -> None:
    """Add every frame of the segment, and check that it ends just as its footer says."""
    for frame in reader.all_frames(contents, progress):
        with frame.decoding():
            builder.take(frame.header, frame.body, meter)


def _pieces(
    blocks: Iterable[EncodedBlock], block_index: BlockIndex, seed: int, meter: Meter
) -> Iterator[list[bytes]]:
    """Yield the bytes of a table, in pieces that are written one behind another."""
    piece: list[bytes] = []
    size = 0
    for block in blocks:
        block_index.note(block, seed)
        piece.append(block.data)
        size += len(block.data)
        if size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
        meter.spend(Meter.SLICE)
    yield [*piece, block_index.encode(seed)]
