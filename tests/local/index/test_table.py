"""relations: the table of a sealed segment is the truth of its log, or damage, or not there;
whatever happens meanwhile.
"""

from __future__ import annotations

import errno
import tempfile
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aquipu.errors import CorruptionError, UnsupportedFormatError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.durable import OutcomeUnknown
from aquipu.local.format.frame import HEADER_BYTES, Header
from aquipu.local.format.names import (
    UNNAMED,
    first_sequence_of,
    is_ours,
    is_unnamed,
    relations_name,
)
from aquipu.local.format.postings import BlockIndex, encode_blocks
from aquipu.local.format.segment import FOOTER_BYTES, SEGMENT_HEADER_BYTES, SegmentSummary
from aquipu.local.format.structure import Damage, extend
from aquipu.local.index.postings import add_counts
from aquipu.local.index.table import Table, build, compare, table_path
from aquipu.local.read.segment_reader import SegmentRef
from aquipu.local.write.journal import Journal
from aquipu.record import Record
from tests.disk import ANY, Call, Crash, FailingDisk
from tests.support import commit, flip, frames_in, open_log, records_in, segment_in

Labels = tuple[str, ...]
Postings = Mapping[str, Sequence[int]]

# three segments: the table of the middle one is looked at most, because it does not begin with
# sequence 0
COMMITS: list[list[Labels]] = [
    [("user:7", "document:42"), ()],
    [("user:8",), ("user:7", "user:7"), ("\u00e4\u4e16",)],
    [("document:42", "user:8")],
    [("user:7",), ("user:9", "document:43"), ()],
    [("user:8", "b"), ("a",)],
    [("user:7", "a", "b")],
    [()],
    [("user:7",)],
]
EVERY_LABEL = sorted({label for labels in COMMITS for of_record in labels for label in of_record})


def write(journal: Journal, labels: Sequence[Labels]) -> None:
    """Write a commit of records with these labels, and maintain behind it, as the worker does."""
    given = {index: of_record for index, of_record in enumerate(labels) if of_record}
    journal.write(journal.prepare(commit(*[b"data"] * len(labels), labels=given)))
    journal.maintain()


def log_of(
    path: Path,
    commits: Iterable[Sequence[Labels]],
    disk: Disk | None = None,
    *,
    max_segment_bytes: int = 500,
) -> list[SegmentRef]:
    """A log of these commits in a directory; its segments, of which the last one is empty and not
    sealed.
    """
    journal, _ = open_log(path, disk, max_segment_bytes=max_segment_bytes)
    for labels in commits:
        write(journal, labels)
    journal.close()
    if journal.next_sequence > journal.segments[-1].first_sequence:
        journal, _ = open_log(path, disk, max_segment_bytes=1)
        journal.maintain()
        journal.close()
    return list(journal.segments)


def middle(segments: Sequence[SegmentRef]) -> tuple[SegmentRef, SegmentRef]:
    """The second segment, and the one behind it."""
    assert len(segments) >= 4, "the log should have several segments"
    return segments[1], segments[2]


def opened(segment: SegmentRef, behind: SegmentRef, disk: Disk | None = None) -> Table:
    """The table of a segment, with what the one behind it says of its end."""
    return Table.open(disk or Disk(), segment, behind.first_sequence, behind.header.link)


def expected(path: Path, segment: SegmentRef, behind: SegmentRef) -> dict[str, list[int]]:
    """Where each label stands in a segment, in order, from its records."""
    found: dict[str, list[int]] = {}
    for record in within(records_in(path), segment, behind):
        for label in set(record.relations):
            found.setdefault(label, []).append(record.sequence - segment.first_sequence)
    return dict(sorted(found.items()))


def within(records: Iterable[Record], segment: SegmentRef, behind: SegmentRef) -> list[Record]:
    return [
        record
        for record in records
        if segment.first_sequence <= record.sequence < behind.first_sequence
    ]


def counts_of(table: Table, prefix: str = "") -> dict[str, int]:
    """The labels with a prefix, as the table tells, and how many records carry each."""
    total: dict[str, int] = {}
    for counted in table.counts(prefix):
        add_counts(total, counted)
    return total


def everything(table: Table) -> dict[str, list[int]]:
    """Where each label stands, as the table tells when it is asked for one after another."""
    return {label: list(table.positions(label)) for label in counts_of(table)}


def names_in(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}


class Interrupted(Exception):
    """Raised by a pause."""


class Pauses:
    """A pause that counts how often it was called, and raises at one of the times."""

    def __init__(self, last: int | None = None) -> None:
        self.count = 0
        self._last = last

    def __call__(self) -> None:
        self.count += 1
        if self.count == self._last:
            raise Interrupted


@pytest.fixture
def disk() -> FailingDisk:
    return FailingDisk()


@pytest.fixture
def segments(tmp_path: Path) -> list[SegmentRef]:
    return log_of(tmp_path, COMMITS, max_segment_bytes=300)


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of the work is a slice of its own, tables have small blocks, and are written in
    small pieces.
    """
    monkeypatch.setattr("aquipu.local.index.meter.Meter.SLICE", 1)
    monkeypatch.setattr("aquipu.local.format.postings.BLOCK_BYTES", 40)
    monkeypatch.setattr("aquipu.local.format.postings.RUN_POSITIONS", 2)
    monkeypatch.setattr("aquipu.local.index.table._PIECE_BYTES", 100)


# names


@pytest.mark.parametrize("first_sequence", [0, 262144, 2**64 - 1])
def test_the_name_of_a_table(first_sequence: int) -> None:
    """It is named as its segment, is a file of the store, and is never taken for a segment."""
    name = relations_name(first_sequence)
    assert name == f"{first_sequence:020}.relations"
    assert is_ours(name)
    assert not is_unnamed(name)
    assert first_sequence_of(name) is None
    assert is_unnamed(name + UNNAMED)


@pytest.mark.parametrize(
    "name",
    [
        "0.relations",
        "00000000000000000000.relation",
        "00000000000000000000.relations.bak",
        "x.relations",
    ],
)
def test_a_name_of_something_else(name: str) -> None:
    """No other file is taken for a table."""
    assert not is_ours(name)


def test_a_table_stands_beside_its_segment(tmp_path: Path, segments: list[SegmentRef]) -> None:
    """In the same directory, under the same sequence."""
    assert table_path(segments[1]) == f"{tmp_path}/{relations_name(segments[1].first_sequence)}"


# building and asking


def test_every_segment_of_a_log(tmp_path: Path, segments: list[SegmentRef]) -> None:
    """Each table says just where each label stands in its segment."""
    for segment, behind in pairwise(segments):
        build(Disk(), segment)
        table = opened(segment, behind)
        found = expected(tmp_path, segment, behind)
        assert everything(table) == found
        assert (table.labels, table.postings) == (len(found), sum(map(len, found.values())))
        assert [list(table.positions(label)) for label in EVERY_LABEL] == [
            found.get(label, []) for label in EVERY_LABEL
        ]
        table.check()
        compare(Disk(), segment, table)


printable = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)
commits = st.lists(
    st.lists(
        st.lists(printable | st.sampled_from(["a", "ab", "b"]), max_size=3).map(tuple), max_size=12
    )
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(commits)
@example([[("many",)] * 9000])
def test_any_log(commits: list[list[Labels]]) -> None:
    """Whatever the labels and the commits, tables and log say the same."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        segments = log_of(
            path, [labels for labels in commits if labels], FailingDisk(), max_segment_bytes=400
        )
        for segment, behind in pairwise(segments):
            build(FailingDisk(), segment)
            assert everything(opened(segment, behind)) == expected(path, segment, behind)


def test_the_same_table_again(segments: list[SegmentRef]) -> None:
    """A table is made of its segment and of nothing else: built twice, it has the same bytes."""
    build(Disk(), segments[1])
    first = Path(table_path(segments[1])).read_bytes()
    build(Disk(), segments[1])
    assert Path(table_path(segments[1])).read_bytes() == first


def test_labels_by_prefix(tmp_path: Path, segments: list[SegmentRef], busy: None) -> None:
    """Those that begin so come in order, with their counts, also where one of them fills several
    blocks.
    """
    segment, behind = middle(segments)
    build(Disk(), segment)
    table = opened(segment, behind)
    found = expected(tmp_path, segment, behind)
    for prefix in ("", "u", "user:", "user:7", "user:77", "document:4", "z", "\u00e4", "a"):
        counted = [(label, len(at)) for label, at in found.items() if label.startswith(prefix)]
        assert list(counts_of(table, prefix).items()) == counted


def test_a_segment_without_labels(tmp_path: Path) -> None:
    """Its table says that there are none, which is more than no table says."""
    segment, behind, *_ = log_of(tmp_path, [[(), ()], [()]])
    build(Disk(), segment)
    table = opened(segment, behind)
    table.check()
    compare(Disk(), segment, table)
    assert list(table.counts()) == []
    assert list(table.positions("a")) == []


def test_a_label_on_very_many_records(tmp_path: Path) -> None:
    """It is found on all of them, and its neighbours are found beside it."""
    labels = [("all", f"order:{n}") for n in range(10_000)]
    segment, behind, *_ = log_of(
        tmp_path, [labels, [("about",), ("always",)]], max_segment_bytes=2**20
    )
    build(Disk(), segment)
    table = opened(segment, behind)
    assert list(table.positions("all")) == list(range(10_000))
    assert [list(table.positions(label)) for label in ("about", "always", "order:0")] == [
        [10_000],
        [10_001],
        [0],
    ]
    assert list(counts_of(table, "a").items()) == [("about", 1), ("all", 10_000), ("always", 1)]
    assert table.labels == 10_003


def test_the_footer_says_how_the_segment_ends(tmp_path: Path, segments: list[SegmentRef]) -> None:
    """A table may be opened by the footer as well as by the header of the next segment."""
    segment, behind = middle(segments)
    build(Disk(), segment)
    data = segment_in(tmp_path, segment.first_sequence).read_bytes()
    contents = footer_of(data, segment)
    assert (contents.next_sequence, contents.link) == (behind.first_sequence, behind.header.link)
    assert everything(Table.open(Disk(), segment, contents.next_sequence, contents.link))


def test_the_progress_of_a_build(tmp_path: Path, segments: list[SegmentRef]) -> None:
    """It hears of every byte of the frames."""
    heard: list[int] = []
    build(Disk(), segments[1], progress=heard.append)
    data = segment_in(tmp_path, segments[1].first_sequence).read_bytes()
    assert sum(heard) == footer_of(data, segments[1]).end - SEGMENT_HEADER_BYTES


def test_in_little_memory(
    tmp_path: Path, segments: list[SegmentRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The segment is read several times, and the table is the same."""
    segment, behind = middle(segments)
    build(Disk(), segment)
    whole = Path(table_path(segment)).read_bytes()
    monkeypatch.setattr("aquipu.local.index.table.GATHERED_BYTES_MAX", 300)
    heard: list[int] = []
    build(Disk(), segment, progress=heard.append)
    assert Path(table_path(segment)).read_bytes() == whole
    assert len(heard) >= 2
    compare(Disk(), segment, opened(segment, behind))


# descriptors


def test_a_table_holds_no_descriptor(segments: list[SegmentRef], disk: FailingDisk) -> None:
    """None is open between two calls, nor after a listing that was left in the middle."""
    segment, behind = middle(segments)
    build(disk, segment)
    table = opened(segment, behind, disk)
    listing = table.counts()
    next(listing)
    assert disk.open_files == {}
    table.positions("user:7")
    table.check()
    compare(disk, segment, table)
    assert disk.open_files == {}


def test_a_look_up_reads_one_block(
    segments: list[SegmentRef], disk: FailingDisk, busy: None
) -> None:
    """A label that stands in one block costs one read, of no more than that block."""
    segment, behind = middle(segments)
    build(disk, segment)
    table = opened(segment, behind, disk)
    size = Path(table_path(segment)).stat().st_size
    disk.calls.clear()
    assert table.positions("user:9")
    assert [call.method for call in disk.calls] == ["open", "read", "close"]
    assert disk.calls[1].size < size / 2


def test_opening_reads_only_the_end(tmp_path: Path, disk: FailingDisk) -> None:
    """However large a table is, opening it reads its block_index and nothing before."""
    segment, behind, *_ = log_of(
        tmp_path, [[(f"order:{n}",) for n in range(20_000)]], max_segment_bytes=2**21
    )
    build(disk, segment)
    disk.calls.clear()
    opened(segment, behind, disk)
    assert disk.count("open", "close") == 2
    assert sum(call.size for call in disk.calls if call.method == "read") < 2000


# pauses


def test_the_caller_is_let_in(segments: list[SegmentRef], busy: None) -> None:
    """Building, listing, checking and comparing pause between the slices of their work."""
    segment, behind = middle(segments)
    pauses = [Pauses() for _ in range(5)]
    build(Disk(), segment, pauses[0])
    table = opened(segment, behind)
    list(table.counts("", pauses[1]))
    table.check(pauses[2])
    compare(Disk(), segment, table, pauses[3])
    table.positions("user:7", pauses[4])
    assert all(each.count for each in pauses)
    assert min(each.count for each in pauses[:4]) >= 3


def test_a_pause_behind_every_block(
    segments: list[SegmentRef], busy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoding a block is a slice of its own, however little work went before."""
    monkeypatch.setattr("aquipu.local.index.meter.Meter.SLICE", 1_000_000)
    pauses, blocks = Pauses(), Pauses()
    segment, behind = middle(segments)
    build(Disk(), segment, pauses)
    list(opened(segment, behind).counts("", blocks))
    assert pauses.count == blocks.count >= 3


def test_a_build_that_is_interrupted(
    tmp_path: Path, segments: list[SegmentRef], disk: FailingDisk, busy: None
) -> None:
    """In whatever pause it ends: nothing is left that could be taken for a table, nor any other
    file.
    """
    before = names_in(tmp_path)
    whole = Pauses()
    build(disk, segments[1], whole)
    Path(table_path(segments[1])).unlink()
    assert whole.count > 10
    for last in range(1, whole.count + 1):
        with pytest.raises(Interrupted):
            build(disk, segments[1], Pauses(last))
        assert names_in(tmp_path) == before
        assert disk.open_files == {}


def test_an_interrupted_build_beside_an_older_table(
    tmp_path: Path, segments: list[SegmentRef], disk: FailingDisk, busy: None
) -> None:
    """The older one stays as it was."""
    segment, behind = middle(segments)
    build(disk, segment)
    with pytest.raises(Interrupted):
        build(disk, segment, Pauses(5))
    assert everything(opened(segment, behind)) == expected(tmp_path, segment, behind)


# a disk that fails


def test_the_steps_of_a_build(segments: list[SegmentRef], disk: FailingDisk, busy: None) -> None:
    """The table has its name after all of its bytes are synced; the name may be lost, and the table
    built again.
    """
    build(disk, segments[1])
    name = relations_name(segments[1].first_sequence)
    steps = disk.steps("create", "write", "sync", "rename", "sync_directory")
    pieces = (len(steps) - 2) // 2
    assert pieces >= 2
    assert steps == [
        ("create", name + UNNAMED),
        *[("write", name + UNNAMED), ("sync", name + UNNAMED)] * pieces,
        ("rename", name),
    ]


def test_every_call_of_a_build_fails_once(
    tmp_path: Path, segments: list[SegmentRef], disk: FailingDisk, busy: None
) -> None:
    """The error comes out, no file is left open, and there is no table, or a whole one; never half
    of one.
    """
    segment, _ = middle(segments)
    before = names_in(tmp_path)
    build(disk, segment)
    whole = Path(table_path(segment)).read_bytes()
    Path(table_path(segment)).unlink()
    calls = list(disk.calls)
    for nth, call in enumerate(calls, 1):
        disk.fail(ANY, errno.EIO, nth=nth)
        with pytest.raises((OSError, OutcomeUnknown)):
            build(disk, segment)
        disk.mend()
        assert disk.open_files == {}
        if nth > calls.index(Call("rename", table_path(segment))) + 1:
            assert Path(table_path(segment)).read_bytes() == whole, call
            Path(table_path(segment)).unlink()
        assert names_in(tmp_path) == before, call


def test_no_space_for_a_table(
    tmp_path: Path, segments: list[SegmentRef], disk: FailingDisk
) -> None:
    """The error comes out, nothing is left, and the next build works."""
    before = names_in(tmp_path)
    disk.fail("write", errno.ENOSPC, written=20)
    with pytest.raises(OSError, match="No space left"):
        build(disk, segments[1])
    assert names_in(tmp_path) == before
    build(disk, segments[1])
    assert everything(opened(*middle(segments))) == expected(tmp_path, *middle(segments))


def test_a_failed_sync_is_not_repeated(
    segments: list[SegmentRef], disk: FailingDisk, busy: None
) -> None:
    """What a failed sync left is not known, so the table is given up at once."""
    disk.fail("sync", errno.EIO)
    with pytest.raises(OutcomeUnknown, match="fdatasync"):
        build(disk, segments[1])
    assert (disk.count("sync"), disk.count("rename")) == (1, 0)


def test_a_process_that_dies_while_building(
    tmp_path: Path, segments: list[SegmentRef], busy: None
) -> None:
    """Before whatever call it dies: there is no table, or a whole one, and opening removes what was
    not finished.
    """
    segment, behind = middle(segments)
    rehearsal = FailingDisk()
    build(rehearsal, segment)
    truth = expected(tmp_path, segment, behind)
    seen = set()
    for nth in range(1, len(rehearsal.calls) + 1):
        Path(table_path(segment)).unlink(missing_ok=True)
        disk = FailingDisk()
        disk.crash(nth)
        with pytest.raises(Crash):
            build(disk, segment)
        disk.end_process()
        left = [name for name in names_in(tmp_path) if name.endswith(UNNAMED)]
        assert all(map(is_unnamed, left))
        there = Path(table_path(segment)).exists()
        seen.add((bool(left), there))
        if there:
            assert everything(opened(segment, behind)) == truth
        open_log(tmp_path)[0].close()
        assert not any(name.endswith(UNNAMED) for name in names_in(tmp_path))
    assert seen == {(False, False), (True, False), (False, True)}


# damage of a table


@pytest.fixture
def fixture(
    tmp_path: Path, segments: list[SegmentRef], busy: None
) -> tuple[SegmentRef, SegmentRef, dict[str, list[int]]]:
    """A table of several blocks: its segment, the one behind, and the truth."""
    segment, behind = middle(segments)
    build(Disk(), segment)
    return segment, behind, expected(tmp_path, segment, behind)


Fixture = tuple[SegmentRef, SegmentRef, dict[str, list[int]]]


def damaged(action: Callable[[], object]) -> bool:
    """Whether there is Damage; any other error fails the test."""
    try:
        action()
    except Damage:
        return True
    return False


def test_every_bit_of_a_table(fixture: Fixture) -> None:
    """A flipped bit is found by the check, and nobody who asks gets a wrong or a missing answer."""
    segment, behind, truth = fixture
    file = Path(table_path(segment))
    size = file.stat().st_size
    answers = 0
    for bit in range(8 * size):
        flip(file, bit // 8, bit % 8)
        assert damaged(lambda: opened(segment, behind).check())
        if not damaged(lambda: opened(segment, behind)):
            answers += answers_of(opened(segment, behind), truth)
        flip(file, bit // 8, bit % 8)
    assert answers > 0, "damage in one block should leave the others readable"
    assert everything(opened(segment, behind)) == truth


def answers_of(table: Table, truth: dict[str, list[int]]) -> int:
    """How many labels the table still answers for; each answer is the truth."""
    answers = 0
    for label in (*truth, "absent"):
        try:
            found = list(table.positions(label))
        except Damage:
            continue
        assert found == truth.get(label, [])
        answers += 1
    return answers


def test_every_cut_of_a_table(fixture: Fixture) -> None:
    """A table that lost its end is damaged, and so is one that got something behind it."""
    segment, behind, _ = fixture
    file = Path(table_path(segment))
    data = file.read_bytes()
    for size in range(len(data)):
        for changed in (data[:size], data[:size].ljust(len(data), b"\0"), data + data[: size + 1]):
            file.write_bytes(changed)
            assert changed == data or damaged(lambda: opened(segment, behind))


def test_damage_behind_the_back_of_an_open_table(fixture: Fixture) -> None:
    """A block is checked each time that it is read, and the file may have become shorter, or be
    gone.
    """
    segment, behind, truth = fixture
    file = Path(table_path(segment))
    table = opened(segment, behind)
    assert everything(table) == truth
    data = file.read_bytes()
    file.write_bytes(bytes(len(data)))
    assert all(damaged(lambda label=label: table.positions(label)) for label in truth)  # type: ignore[misc]
    assert damaged(lambda: list(table.counts()))
    file.write_bytes(b"")
    assert all(damaged(lambda label=label: table.positions(label)) for label in truth)  # type: ignore[misc]
    file.unlink()
    with pytest.raises(FileNotFoundError):
        table.positions("a")


def test_no_table(segments: list[SegmentRef]) -> None:
    """That a segment has none yet is told apart from damage."""
    with pytest.raises(FileNotFoundError):
        opened(*middle(segments))


def test_the_table_of_another_segment(tmp_path: Path, segments: list[SegmentRef]) -> None:
    """Under the name of this one it is refused."""
    segment, behind = middle(segments)
    for other in (segments[0], segments[2]):
        build(Disk(), other)
        Path(table_path(other)).rename(table_path(segment))
        with pytest.raises(Damage):
            opened(segment, behind)


def test_the_table_of_another_store(tmp_path: Path, segments: list[SegmentRef]) -> None:
    """It is refused, also where that store holds the very same records."""
    other = tmp_path / "other"
    other.mkdir()
    journal, _ = open_log(other, max_segment_bytes=300, store_id=bytes(16))
    for labels in COMMITS:
        write(journal, labels)
    journal.close()
    segment, behind = middle(segments)
    assert journal.segments[1].first_sequence == segment.first_sequence
    build(Disk(), journal.segments[1])
    Path(table_path(journal.segments[1])).rename(table_path(segment))
    with pytest.raises(Damage, match="another segment"):
        opened(segment, behind)


@pytest.mark.parametrize(
    "commits",
    [
        pytest.param(
            [[("x", "document:42"), ()], *COMMITS[1:]], id="other labels on as many records"
        ),
        pytest.param([[("user:7", "document:42")], *COMMITS[1:]], id="fewer records"),
    ],
)
def test_the_table_of_another_life(tmp_path: Path, commits: list[list[Labels]]) -> None:
    """A table from before the log was restored and went on differently is refused, whatever its
    segment held.
    """
    lives = []
    for name, life in (("one", COMMITS), ("other", commits)):
        (tmp_path / name).mkdir()
        lives.append(log_of(tmp_path / name, life, max_segment_bytes=300))
        build(Disk(), lives[-1][0])
    Path(table_path(lives[1][0])).rename(table_path(lives[0][0]))
    with pytest.raises(Damage, match="another life"):
        opened(lives[0][0], lives[0][1])


@pytest.mark.parametrize("difference", [(1, 0), (-1, 0), (0, 1)])
def test_a_table_that_ends_elsewhere(fixture: Fixture, difference: tuple[int, int]) -> None:
    """A table fits its segment only if both the last sequence and the last frame are those that it
    was made of.
    """
    segment, behind, _ = fixture
    with pytest.raises(Damage, match="another life"):
        Table.open(
            Disk(),
            segment,
            behind.first_sequence + difference[0],
            behind.header.link + difference[1],
        )


def test_a_damaged_table_is_built_anew(fixture: Fixture) -> None:
    """What stood there is replaced, whatever it was."""
    segment, behind, truth = fixture
    flip(Path(table_path(segment)), 5)
    build(Disk(), segment)
    assert everything(opened(segment, behind)) == truth


# tables that are sound, and wrong: what only a check or a comparison can find


def forge(
    segment: SegmentRef,
    behind: SegmentRef,
    says: Iterable[tuple[str, Sequence[int]]],
    **changes: int,
) -> Table:
    """A table for this segment that says what it is told, with checks that are right."""
    block_index = BlockIndex(behind.first_sequence, behind.header.link)
    blocks = []
    for block in encode_blocks((label, array("I", at).tobytes()) for label, at in says):
        block_index.note(block, segment.header.seed)
        blocks.append(block.data)
    for name, value in changes.items():
        setattr(block_index, name, value)
    Path(table_path(segment)).write_bytes(
        b"".join((*blocks, block_index.encode(segment.header.seed)))
    )
    return opened(segment, behind)


def test_a_forged_table_that_is_right(fixture: Fixture) -> None:
    """What the next tests change is sound before."""
    segment, behind, truth = fixture
    table = forge(segment, behind, truth.items())
    table.check()
    compare(Disk(), segment, table)


@pytest.mark.parametrize("which", ["missing", "added", "renamed", "moved", "more", "fewer"])
def test_a_table_that_does_not_say_what_the_log_says(fixture: Fixture, which: str) -> None:
    """A comparison with the segment finds whatever is missing, added or changed."""
    segment, behind, truth = fixture
    label = max(truth, key=lambda label: len(truth[label]))
    at = truth.pop(label)
    free = min(set(range(behind.first_sequence - segment.first_sequence)) - set(at))
    truth |= {
        "missing": {},
        "added": {label: at, "zzz": [0]},
        "renamed": {label + "x": at},
        "moved": {label: sorted([*at[1:], free])},
        "more": {label: sorted([*at, free])},
        "fewer": {label: at[:-1]},
    }[which]
    table = forge(segment, behind, sorted(truth.items()))
    table.check()
    with pytest.raises(Damage, match="does not say what stands in the segment"):
        compare(Disk(), segment, table)


@pytest.mark.parametrize(
    "postings",
    [
        pytest.param([("b", [1]), ("a", [1])], id="labels not in order"),
        pytest.param([("a", [1]), ("b", [2]), ("b", [3])], id="a label twice"),
        pytest.param([("a", [2, 1])], id="positions not in order"),
        pytest.param([("a", [1, 1])], id="a position twice"),
        pytest.param([("a", [])], id="no positions"),
        pytest.param([("a", [0, 1000])], id="a position behind the segment"),
    ],
)
def test_a_table_that_is_not_in_order(
    fixture: Fixture, postings: list[tuple[str, list[int]]]
) -> None:
    """A check of the whole table finds it."""
    segment, behind, _ = fixture
    with pytest.raises(Damage):
        forge(segment, behind, postings).check()


@pytest.mark.parametrize(
    "changes", [{"labels": 1}, {"labels": 3}, {"postings": 2}, {"postings": 4}]
)
def test_a_table_that_miscounts(fixture: Fixture, changes: dict[str, int]) -> None:
    """A check of the whole table finds that it holds more or less than it says."""
    segment, behind, _ = fixture
    with pytest.raises(Damage, match="more or less than it says"):
        forge(segment, behind, [("a", [0]), ("b", [0, 1])], **changes).check()


# damage of the segment


def footer_of(data: bytes, segment: SegmentRef) -> SegmentSummary:
    """What the footer of a sealed segment says."""
    entries = int.from_bytes(data[-FOOTER_BYTES + 8 : -FOOTER_BYTES + 12], "little")
    return SegmentSummary.decode_footer(data[-FOOTER_BYTES - 24 * entries :], segment.header.seed)


def test_every_byte_of_a_damaged_segment(
    tmp_path: Path, segments: list[SegmentRef], disk: FailingDisk
) -> None:
    """No table is made of a segment that does not check, behind its header, wherever that is."""
    segment = segments[1]
    before = names_in(tmp_path)
    file = segment_in(tmp_path, segment.first_sequence)
    for offset in range(SEGMENT_HEADER_BYTES, file.stat().st_size):
        flip(file, offset, offset % 8)
        with pytest.raises(CorruptionError) as caught:
            build(disk, segment)
        flip(file, offset, offset % 8)
        assert caught.value.path == segment.path
        assert names_in(tmp_path) == before
        assert disk.open_files == {}
    build(disk, segment)


def test_a_segment_that_is_not_sealed(tmp_path: Path, segments: list[SegmentRef]) -> None:
    """No table is made of a segment that may still grow."""
    before = names_in(tmp_path)
    with pytest.raises(CorruptionError, match="footer of a sealed segment is missing"):
        build(Disk(), segments[-1])
    assert names_in(tmp_path) == before


@pytest.mark.parametrize("which", ["next_sequence", "link", "end"])
def test_a_footer_that_does_not_fit(tmp_path: Path, segments: list[SegmentRef], which: str) -> None:
    """No table is made when the frames do not end as the footer says, also where its check is
    right.
    """
    segment = segments[1]
    file = segment_in(tmp_path, segment.first_sequence)
    data = file.read_bytes()
    contents = footer_of(data, segment)
    frames = data[: contents.end]
    if which == "end":  # a frame is missing between the last one and the footer
        contents.end = frames_in(tmp_path, segment.first_sequence)[-1][0]
        frames = data[: contents.end]
    else:
        setattr(contents, which, getattr(contents, which) + 1)
    file.write_bytes(frames + contents.encode_footer(segment.header.seed))
    with pytest.raises(CorruptionError, match="the footer does not fit the frames"):
        build(Disk(), segment)
    assert not Path(table_path(segment)).exists()


def replace_frame(
    path: Path, segment: SegmentRef, change: Callable[[Header, bytes], tuple[Header, bytes]]
) -> int:
    """Put another frame in the place of the segment's last, with a footer and checks that fit; its
    offset.
    """
    file = segment_in(path, segment.first_sequence)
    data = file.read_bytes()
    contents = footer_of(data, segment)
    offset, header, body = frames_in(path, segment.first_sequence)[-1]
    header, body = change(header, body)
    head = b"".join(
        (
            data[offset : offset + 4],
            *(value.to_bytes(4, "little") for value in (header.flags, header.records, len(body))),
            *(
                value.to_bytes(8, "little")
                for value in (header.first_sequence, header.time, header.watermark)
            ),
            *(
                value.to_bytes(4, "little")
                for value in (header.link, extend(segment.header.seed, body))
            ),
        )
    )
    check = extend(segment.header.seed, head)
    frame = head + check.to_bytes(4, "little") + body
    contents.link = check
    contents.end = offset + HEADER_BYTES + len(body)
    file.write_bytes(data[:offset] + frame + contents.encode_footer(segment.header.seed))
    return offset


def test_a_frame_whose_columns_do_not_fit(tmp_path: Path, segments: list[SegmentRef]) -> None:
    """It is corruption, at its offset."""
    offset = replace_frame(tmp_path, segments[0], lambda header, body: (header, body[:10]))
    with pytest.raises(CorruptionError) as caught:
        build(Disk(), segments[0])
    assert (caught.value.path, caught.value.offset) == (segments[0].path, offset)


def test_a_frame_with_unknown_flags(tmp_path: Path, segments: list[SegmentRef]) -> None:
    """A segment of a later version is refused as that."""
    replace_frame(
        tmp_path,
        segments[0],
        lambda header, body: (header._replace(flags=header.flags | 0x8000), body),
    )
    with pytest.raises(UnsupportedFormatError, match="0x80"):
        build(Disk(), segments[0])
    assert not Path(table_path(segments[0])).exists()


def test_a_segment_that_is_gone(tmp_path: Path, segments: list[SegmentRef]) -> None:
    """There is nothing to build of, and no table is left for it."""
    Path(segments[1].path).unlink()
    before = names_in(tmp_path)
    with pytest.raises(FileNotFoundError):
        build(Disk(), segments[1])
    assert names_in(tmp_path) == before


def test_comparing_with_a_damaged_segment(tmp_path: Path, fixture: Fixture) -> None:
    """That is corruption of the log, not damage of the table."""
    segment, behind, _ = fixture
    table = opened(segment, behind)
    flip(segment_in(tmp_path, segment.first_sequence), SEGMENT_HEADER_BYTES + 5)
    with pytest.raises(CorruptionError):
        compare(Disk(), segment, table)
