"""Commits as rows, and rows as records."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu import CorruptionError, Record
from aquipu.postgres.batches import BATCH_BYTES, BATCH_RECORDS, Group, Rows, records_in

COLUMNS = ("first", "records", "floor", "data", "lengths", "times", "labels", "places", "sum")


def rows_of(group: Group, floor: int = 0) -> list[list[Any]]:
    """The rows that the database makes of a group, from sequence 7 on."""
    rows, made, at, label, first = Rows([group]), [], 0, 0, 7
    for index, count in enumerate(rows.records):
        labelled = rows.labelled[index]
        times = rows.times[at : at + count]
        row = [first, count, floor, rows.data[index], rows.lengths[at : at + count]]
        row += [times[:1] if times[0] == times[-1] else times]
        row += [rows.labels[label : label + labelled], rows.places[label : label + labelled]]
        made.append([*row, rows.checksums[index], len(rows.data[index])])
        at, label, first = at + count, label + labelled, first + count
    return made


groups = st.lists(
    st.tuples(
        st.binary(max_size=50),
        st.integers(0, 1 << 62),
        st.lists(st.text("abcä", min_size=1, max_size=3), max_size=3),
    ),
    min_size=1,
    max_size=20,
).map(
    lambda records: Group(
        [data for data, _, _ in records],
        sorted(time for _, time, _ in records),
        {index: tuple(labels) for index, (_, _, labels) in enumerate(records) if labels},
    )
)


@given(groups, st.integers(0, 1 << 62))
def test_records_come_back_as_they_were(group: Group, floor: int) -> None:
    """With their data, labels and times; none is earlier than the floor."""
    found = [record for row in rows_of(group, floor) for record in records_in(row, "x")]
    assert found == [
        Record(7 + index, max(time, floor), data, group.labels.get(index, ()))
        for index, (data, time) in enumerate(zip(group.payloads, group.times, strict=True))
    ]


@given(groups, st.data())
def test_what_was_altered_does_not_check(group: Group, data: st.DataObject) -> None:
    """Whatever of a row is changed, it is noticed."""
    row = rows_of(group)[0]
    column = data.draw(st.sampled_from([3, 4, 5, 6, 7, 8]))
    value = row[column]
    if isinstance(value, int):
        row[column] ^= 1 << data.draw(st.integers(0, 31))
    elif isinstance(value, bytes):
        row[column] = value + b"x" if not value else bytes([value[0] ^ 1]) + value[1:]
    elif value and isinstance(value[0], int):
        row[column] = [value[0] ^ 1, *value[1:]]
    else:
        row[column] = [*value, "x"]
    with pytest.raises(CorruptionError) as damaged:
        records_in(row, "postgresql://host/db?log=a")
    assert damaged.value.path == "postgresql://host/db?log=a"


def test_a_row_has_bounds() -> None:
    """So many records, so many bytes; a larger record has one of its own."""
    small = Rows([Group([b"x"] * (2 * BATCH_RECORDS + 1), range(2 * BATCH_RECORDS + 1), {})])
    assert small.records == [BATCH_RECORDS, BATCH_RECORDS, 1]
    half = bytes(BATCH_BYTES // 2)
    large = Rows([Group([half, half, half, bytes(10 * BATCH_BYTES), b"x"], [1] * 5, {})])
    assert large.records == [2, 1, 1, 1]
    assert large.group_rows == [4]
