"""What changes the bytes of a store is noticed: a sample of every kind of change, and the fuzz
targets with it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aquipu import CorruptionError, RecoveryReport, StoreFailedError
from aquipu.local.format.names import LOCK, MANIFEST
from tests.faults import fuzz
from tests.faults.damage import KINDS, Case, damaged
from tests.faults.fixture import SEGMENT_BYTES, Fixture, fixtures
from tests.faults.flips import FLIPS_SHARE, HangError, run
from tests.faults.index import carried
from tests.faults.outcome import Outcome, judge
from tests.faults.tally import Tally

pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]

SIZE = 12_500
FUZZ = settings(max_examples=400, deadline=None, derandomize=True, database=None)

ticks: list[int] = []


@pytest.fixture(scope="module")
def tally() -> Tally:
    return run(SIZE, 3, ticks.append)


@pytest.fixture(scope="module")
def stores() -> list[Fixture]:
    return fixtures()


@pytest.mark.parametrize("kind", KINDS)
def test_no_change_to_the_bytes_goes_unnoticed(tally: Tally, kind: str) -> None:
    """Changed bytes come back as an error of the tree or not at all: never as other records, nor as
    missing ones.
    """
    unnoticed = [line for line in tally.violations if line.startswith(f"{kind}:")]
    assert not unnoticed, "\n".join([f"{len(unnoticed)} violations, among them", *unnoticed[:10]])


def test_every_violation_belongs_to_a_kind(tally: Tally) -> None:
    """The sample is judged as a whole: no line is left over by the test above."""
    assert [line for line in tally.violations if line.partition(":")[0] not in KINDS] == []


def test_the_sample_is_as_large_as_promised(tally: Tally) -> None:
    """At least 10,000 bits are flipped, and some of every other kind of change is made."""
    assert tally.counts["bit flips"] == int(SIZE * FLIPS_SHARE) >= 10_000
    assert all(tally.counts[kind] for kind in KINDS if kind != "flips")
    assert tally.counts["cases after which all was found by relation"] > 500
    assert sum(ticks) == tally.counts["bit flips"] + sum(tally.counts[kind] for kind in KINDS)


def test_every_way_of_noticing_is_seen(tally: Tally) -> None:
    """The sample reaches what is checked at opening, what is checked when read, and the torn tail
    of a killed store.
    """
    for verdict in (
        "noticed at opening",
        "noticed when read",
        "named as a torn tail",
        "without effect",
    ):
        assert tally.counts[f"flips {verdict}"]


def test_the_public_store_gives_the_same_answers(tally: Tally) -> None:
    """What is judged with the blocking rooms is opened through Store too, some hundred times."""
    assert tally.counts["opened through Store as well"] >= 300


# the judge


def test_the_specimens_have_sealed_segments_and_an_active_one(stores: list[Fixture]) -> None:
    """Each store holds at least two sealed segments, labels, and commits of one and of several
    records.
    """
    for fixture in stores:
        *sealed, _ = fixture.segments
        assert len(sealed) >= 2
        assert all(len(fixture.image[name]) >= SEGMENT_BYTES for name in sealed)
        assert {len(record.relations) for record in fixture.records} == {0, 1, 2}
        assert sum(map(len, fixture.frames.values())) < len(fixture.records)


def test_other_records_are_a_violation(stores: list[Fixture]) -> None:
    """A record with other bytes, another time or other labels than it was written with is never
    right.
    """
    for fixture in stores:
        last = fixture.records[-1]
        for other in (
            last._replace(data=last.data + b"x"),
            last._replace(timestamp=last.timestamp + 1),
            last._replace(relations=("other",)),
        ):
            for error in (None, CorruptionError("s", 0, "r")):
                outcome = Outcome(error, _report(), [*fixture.records[:-1], other])
                assert not judge(fixture, fixture.image, outcome, fixture.image)[1]


def test_a_missing_record_is_a_violation(stores: list[Fixture]) -> None:
    """Nothing changed, one record missing, no error: never right, with or without a torn tail in
    the report.
    """
    for fixture in stores:
        outcome = Outcome(None, _report(), fixture.records[:-1])
        assert not judge(fixture, fixture.image, outcome, fixture.image)[1]
        outcome = Outcome(None, _cut(fixture, 100, 10), fixture.records[:-1])
        left = {**fixture.image, "kept": fixture.image[fixture.tail][100:110]}
        assert not judge(fixture, fixture.image, outcome, left)[1]


@pytest.mark.parametrize(
    ("file", "place"),
    [(MANIFEST, 20), (MANIFEST, -1), (-1, 0), (-1, 45), (0, 50), (0, -1), (0, -20), (1, -60)],
    ids=str,
)
def test_a_damaged_structure_is_refused_even_if_no_record_is_harmed(
    stores: list[Fixture], file: str | int, place: int
) -> None:
    """A flip in the manifest, in a header or in the footer of a sealed segment is an error, also
    with all records there.
    """
    closed = stores[0]
    name = file if isinstance(file, str) else closed.segments[file]
    image = damaged(stores, Case("flips", 0, name, (8 * (place % len(closed.image[name])),)))
    assert not judge(closed, image, Outcome(None, _report(), closed.records), image)[1]
    assert judge(closed, image, Outcome(CorruptionError("s", 0, "r"), None, []), image)[1]


def test_another_hold_is_a_violation(stores: list[Fixture]) -> None:
    """A hold that is changed comes back as an error, never as another hold or as none; one that was
    removed is gone.
    """
    for fixture in stores:
        there = Outcome(None, _report(), fixture.records, {"backup": 10})
        assert judge(fixture, fixture.image, there, fixture.image) == ("without effect", True)
        for holds in ({}, {"backup": 11}, {"backup": 10, "another": 1}):
            assert not judge(fixture, fixture.image, there._replace(holds=holds), fixture.image)[1]
        image = {name: data for name, data in fixture.image.items() if name != "backup.hold"}
        assert judge(fixture, image, there._replace(holds={}), image)[1]
        assert not judge(fixture, image, there, image)[1]


def test_another_cursor_is_a_violation(stores: list[Fixture]) -> None:
    """So it is with cursors: an error, or what was saved."""
    for fixture in stores:
        there = Outcome(None, _report(), fixture.records, cursors={"billing": 20, "search": 30})
        assert judge(fixture, fixture.image, there, fixture.image) == ("without effect", True)
        for cursors in ({}, {"billing": 20}, {"billing": 30, "search": 20}):
            assert not judge(
                fixture, fixture.image, there._replace(cursors=cursors), fixture.image
            )[1]
        image = {name: data for name, data in fixture.image.items() if name != "billing.cursor"}
        assert judge(fixture, image, there._replace(cursors={"search": 30}), image)[1]


def test_other_records_found_by_relation_are_a_violation(stores: list[Fixture]) -> None:
    """By each label just those records that carry it; and a table that was damaged is in the end
    what it was.
    """
    for fixture in stores:
        found = carried(fixture.records)
        counts = {label: len(sequences) for label, sequences in found.items()}
        right = Outcome(None, _report(), fixture.records, found=found, counts=counts)
        assert judge(fixture, fixture.image, right, fixture.image) == ("without effect", True)
        one_less = {**found, "user:3": found["user:3"][1:]}
        assert not judge(fixture, fixture.image, right._replace(found=one_less), fixture.image)[1]
        assert not judge(
            fixture, fixture.image, right._replace(counts={**counts, "user:3": 1}), fixture.image
        )[1]
        left = {**fixture.image, fixture.tables[0]: b"damaged"}
        assert not judge(fixture, left, right, left)[1]
        assert judge(fixture, left, right, fixture.image)[1]


def test_a_closed_store_has_no_torn_tail(stores: list[Fixture]) -> None:
    """The last commit of a killed store may be named as torn when it is damaged, that of a closed
    store may not.
    """
    killed = stores[1]
    place = killed.frames[killed.tail][-1]
    image = damaged(stores, Case("flips", 1, killed.tail, (8 * place.start,)))
    left = {**image, "kept": image[killed.tail][place.start :]}
    report = _cut(killed, place.start, len(left["kept"]))
    outcome = Outcome(None, report, killed.records[: place.first_sequence])
    assert judge(killed, image, outcome, left) == ("named as a torn tail", True)
    assert not judge(replace(killed, closed=True), image, outcome, left)[1]
    assert not judge(killed, image, outcome._replace(report=_report()), left)[1], "not named"
    assert not judge(killed, image, outcome, {**left, "kept": b"other"})[1], "not kept"
    assert not judge(
        killed, image, outcome._replace(records=killed.records[: place.first_sequence - 1]), left
    )[1]


@pytest.mark.parametrize(
    "error", [ValueError("v"), HangError("h"), StoreFailedError("s", "r"), OSError(5, "o")]
)
def test_an_error_that_is_not_of_the_tree_is_a_violation(
    stores: list[Fixture], error: Exception
) -> None:
    """Only those errors that tell of changed bytes are an answer to changed bytes."""
    assert not judge(stores[0], stores[0].image, Outcome(error, None, []), stores[0].image)[1]


def test_a_refusal_that_changes_the_directory_is_a_violation(stores: list[Fixture]) -> None:
    """An opening that refuses leaves every byte and every name as it was."""
    image = stores[0].image
    refused = Outcome(CorruptionError("s", 0, "r"), None, [])
    assert judge(stores[0], image, refused, dict(image)) == ("noticed at opening", True)
    assert not judge(stores[0], image, refused, {**image, LOCK: b"1"})[1]
    assert not judge(stores[0], image, refused, {**image, "new": b""})[1]
    assert not judge(
        stores[0], image, refused, {name: image[name] for name in image if name != MANIFEST}
    )[1]


def _report() -> RecoveryReport:
    return RecoveryReport(created=False, clean=True, first_sequence=0, next_sequence=0, segments=1)


def _cut(fixture: Fixture, offset: int, size: int) -> RecoveryReport:
    return _report()._replace(
        cut_bytes=size, cut_from=f"s/{fixture.tail}", cut_offset=offset, cut_kept_in="s/kept"
    )


# the fuzz targets


@FUZZ
@given(data=st.binary(max_size=400))
def test_the_decoder_takes_anything(data: bytes) -> None:
    """Whole or in pieces, the frames are the same; what is no frame is a fault, and what fits no
    column a ValueError.
    """
    fuzz.decode(data)


@FUZZ
@given(data=st.binary(max_size=400))
def test_opening_takes_anything(data: bytes) -> None:
    """Files that lie with sound checksums, and files of noise, open or are refused; nothing else
    comes out.
    """
    fuzz.open_store(data)
