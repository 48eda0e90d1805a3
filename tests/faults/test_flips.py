"""What changes the bytes of a store is noticed: a sample of every kind of change, and the fuzz targets with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aquipu import CorruptionError, RecoveryReport, StoreFailedError
from aquipu.layout import LOCK, MANIFEST
from tests.faults import fuzz
from tests.faults.damage import KINDS, Case, damaged
from tests.faults.flips import FLIPS_SHARE, HangError, run
from tests.faults.index import carried
from tests.faults.outcome import Outcome, judge
from tests.faults.specimen import SEGMENT_BYTES, Specimen, specimens
from tests.faults.tally import Tally

SIZE = 25_000
FUZZ = settings(max_examples=400, deadline=None, derandomize=True, database=None)

ticks: list[int] = []


@pytest.fixture(scope="module")
def tally() -> Tally:
    return run(SIZE, 3, ticks.append)


@pytest.fixture(scope="module")
def stores() -> list[Specimen]:
    return specimens()


@pytest.mark.parametrize("kind", KINDS)
def test_no_change_to_the_bytes_goes_unnoticed(tally: Tally, kind: str) -> None:
    """Changed bytes come back as an error of the tree or not at all: never as other records, nor as missing ones."""
    unnoticed = [line for line in tally.violations if line.startswith(f"{kind}:")]
    assert not unnoticed, "\n".join([f"{len(unnoticed)} violations, among them", *unnoticed[:10]])


def test_every_violation_belongs_to_a_kind(tally: Tally) -> None:
    """The sample is judged as a whole: no line is left over by the test above."""
    assert [line for line in tally.violations if line.partition(":")[0] not in KINDS] == []


def test_the_sample_is_as_large_as_promised(tally: Tally) -> None:
    """At least 20,000 bits are flipped, and some of every other kind of change is made."""
    assert tally.counts["bit flips"] == int(SIZE * FLIPS_SHARE) >= 20_000
    assert all(tally.counts[kind] for kind in KINDS if kind != "flips")
    assert tally.counts["cases after which all was found by relation"] > 1000
    assert sum(ticks) == tally.counts["bit flips"] + sum(tally.counts[kind] for kind in KINDS)


def test_every_way_of_noticing_is_seen(tally: Tally) -> None:
    """The sample reaches what is checked at opening, what is checked when read, and the torn tail of a killed store."""
    for verdict in ("noticed at opening", "noticed when read", "named as a torn tail", "without effect"):
        assert tally.counts[f"flips {verdict}"]


def test_the_public_store_gives_the_same_answers(tally: Tally) -> None:
    """What is judged with the blocking rooms is opened through Store as well, some hundred times."""
    assert tally.counts["opened through Store as well"] >= 300


# the judge


def test_the_specimens_have_sealed_segments_and_an_active_one(stores: list[Specimen]) -> None:
    """Each store holds at least two sealed segments, labels, and commits of one and of several records."""
    for specimen in stores:
        *sealed, _ = specimen.segments
        assert len(sealed) >= 2
        assert all(len(specimen.image[name]) >= SEGMENT_BYTES for name in sealed)
        assert {len(record.relations) for record in specimen.records} == {0, 1, 2}
        assert sum(map(len, specimen.frames.values())) < len(specimen.records)


def test_other_records_are_a_violation(stores: list[Specimen]) -> None:
    """A record with other bytes, another time or other labels than it was written with is never right."""
    for specimen in stores:
        last = specimen.records[-1]
        for other in (
            last._replace(data=last.data + b"x"),
            last._replace(timestamp=last.timestamp + 1),
            last._replace(relations=("other",)),
        ):
            for error in (None, CorruptionError("s", 0, "r")):
                outcome = Outcome(error, _report(), [*specimen.records[:-1], other])
                assert not judge(specimen, specimen.image, outcome, specimen.image)[1]


def test_a_missing_record_is_a_violation(stores: list[Specimen]) -> None:
    """Nothing changed, one record missing, no error: never right, with or without a torn tail in the report."""
    for specimen in stores:
        outcome = Outcome(None, _report(), specimen.records[:-1])
        assert not judge(specimen, specimen.image, outcome, specimen.image)[1]
        outcome = Outcome(None, _cut(specimen, 100, 10), specimen.records[:-1])
        left = {**specimen.image, "kept": specimen.image[specimen.tail][100:110]}
        assert not judge(specimen, specimen.image, outcome, left)[1]


@pytest.mark.parametrize(
    ("file", "place"),
    [(MANIFEST, 20), (MANIFEST, -1), (-1, 0), (-1, 45), (0, 50), (0, -1), (0, -20), (1, -60)],
    ids=str,
)
def test_a_damaged_structure_is_refused_even_if_no_record_is_harmed(
    stores: list[Specimen], file: str | int, place: int
) -> None:
    """A flip in the manifest, in a header or in the footer of a sealed segment is an error, also with all records there."""
    closed = stores[0]
    name = file if isinstance(file, str) else closed.segments[file]
    image = damaged(stores, Case("flips", 0, name, (8 * (place % len(closed.image[name])),)))
    assert not judge(closed, image, Outcome(None, _report(), closed.records), image)[1]
    assert judge(closed, image, Outcome(CorruptionError("s", 0, "r"), None, []), image)[1]


def test_another_hold_is_a_violation(stores: list[Specimen]) -> None:
    """A hold that is changed comes back as an error, never as another hold or as none; one that was removed is gone."""
    for specimen in stores:
        there = Outcome(None, _report(), specimen.records, {"backup": 10})
        assert judge(specimen, specimen.image, there, specimen.image) == ("without effect", True)
        for holds in ({}, {"backup": 11}, {"backup": 10, "another": 1}):
            assert not judge(specimen, specimen.image, there._replace(holds=holds), specimen.image)[1]
        image = {name: data for name, data in specimen.image.items() if name != "backup.hold"}
        assert judge(specimen, image, there._replace(holds={}), image)[1]
        assert not judge(specimen, image, there, image)[1]


def test_another_cursor_is_a_violation(stores: list[Specimen]) -> None:
    """So it is with cursors: an error, or what was saved."""
    for specimen in stores:
        there = Outcome(None, _report(), specimen.records, cursors={"billing": 20, "search": 30})
        assert judge(specimen, specimen.image, there, specimen.image) == ("without effect", True)
        for cursors in ({}, {"billing": 20}, {"billing": 30, "search": 20}):
            assert not judge(specimen, specimen.image, there._replace(cursors=cursors), specimen.image)[1]
        image = {name: data for name, data in specimen.image.items() if name != "billing.cursor"}
        assert judge(specimen, image, there._replace(cursors={"search": 30}), image)[1]


def test_other_records_found_by_relation_are_a_violation(stores: list[Specimen]) -> None:
    """By each label just those records that carry it; and a table that was damaged is in the end what it was."""
    for specimen in stores:
        found = carried(specimen.records)
        counts = {label: len(sequences) for label, sequences in found.items()}
        right = Outcome(None, _report(), specimen.records, found=found, counts=counts)
        assert judge(specimen, specimen.image, right, specimen.image) == ("without effect", True)
        one_less = {**found, "user:3": found["user:3"][1:]}
        assert not judge(specimen, specimen.image, right._replace(found=one_less), specimen.image)[1]
        assert not judge(specimen, specimen.image, right._replace(counts={**counts, "user:3": 1}), specimen.image)[1]
        left = {**specimen.image, specimen.tables[0]: b"damaged"}
        assert not judge(specimen, left, right, left)[1]
        assert judge(specimen, left, right, specimen.image)[1]


def test_a_closed_store_has_no_torn_tail(stores: list[Specimen]) -> None:
    """The last commit of a killed store may be named as torn when it is damaged, that of a closed store may not."""
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
    assert not judge(killed, image, outcome._replace(records=killed.records[: place.first_sequence - 1]), left)[1]


@pytest.mark.parametrize("error", [ValueError("v"), HangError("h"), StoreFailedError("s", "r"), OSError(5, "o")])
def test_an_error_that_is_not_of_the_tree_is_a_violation(stores: list[Specimen], error: Exception) -> None:
    """Only those errors that tell of changed bytes are an answer to changed bytes."""
    assert not judge(stores[0], stores[0].image, Outcome(error, None, []), stores[0].image)[1]


def test_a_refusal_that_changes_the_directory_is_a_violation(stores: list[Specimen]) -> None:
    """An opening that refuses leaves every byte and every name as it was."""
    image = stores[0].image
    refused = Outcome(CorruptionError("s", 0, "r"), None, [])
    assert judge(stores[0], image, refused, dict(image)) == ("noticed at opening", True)
    assert not judge(stores[0], image, refused, {**image, LOCK: b"1"})[1]
    assert not judge(stores[0], image, refused, {**image, "new": b""})[1]
    assert not judge(stores[0], image, refused, {name: image[name] for name in image if name != MANIFEST})[1]


def _report() -> RecoveryReport:
    return RecoveryReport(created=False, clean=True, first_sequence=0, next_sequence=0, segments=1)


def _cut(specimen: Specimen, offset: int, size: int) -> RecoveryReport:
    return _report()._replace(cut_bytes=size, cut_from=f"s/{specimen.tail}", cut_offset=offset, cut_kept_in="s/kept")


# the fuzz targets


@FUZZ
@given(data=st.binary(max_size=400))
def test_the_decoder_takes_anything(data: bytes) -> None:
    """Whole or in pieces, the frames are the same; what is no frame is a fault, and what fits no column a ValueError."""
    fuzz.decode(data)


@FUZZ
@given(data=st.binary(max_size=400))
def test_opening_takes_anything(data: bytes) -> None:
    """Files that lie with sound checksums, and files of noise, open or are refused; nothing else comes out."""
    fuzz.open_store(data)
