"""What a query may say: anything at all is a wish within its bounds, or a BadQuery."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from aquipu.contrib.web.queries import (
    BUCKETS_MAX,
    DATA_BYTES_MAX,
    LIMIT_MAX,
    RECORDS,
    SEQUENCE_MAX,
    BadQuery,
    range_of,
    span_of,
    wish_of,
)

NOW = 1_700_000_000_000_000_000
VALUES = st.one_of(
    st.text(max_size=30),
    st.integers(-(10**25), 10**25).map(str),
    st.datetimes().map(lambda time: f"{time.isoformat()}Z"),
    st.sampled_from(["newest", "oldest", "", "0", "1", "²", "٣", "+1", " 1", "1_0"]),
)
PAIRS = st.lists(st.tuples(st.sampled_from([*RECORDS, "step", "count", "x"]), VALUES), max_size=5)


@given(PAIRS)
def test_whatever_is_asked_for_is_bounded(pairs: list[tuple[str, str]]) -> None:
    """No number is beyond its bounds, and nothing but a BadQuery is raised."""
    with suppress(BadQuery):
        wish = wish_of(pairs)
        assert 1 <= wish.limit <= LIMIT_MAX
        assert 0 <= wish.data_bytes <= DATA_BYTES_MAX
        for sequence in (wish.start, wish.stop):
            assert sequence is None or 0 <= sequence <= SEQUENCE_MAX


@given(PAIRS)
def test_parts_of_a_time_are_bounded(pairs: list[tuple[str, str]]) -> None:
    """So many edges, in order, on multiples of the step, and the last one holds the end."""
    with suppress(BadQuery):
        span = span_of([pair for pair in pairs if pair[0] in ("step", "count", "until")], NOW)
        assert 1 <= span.parts <= BUCKETS_MAX
        assert span.begin >= 0
        assert span.begin % span.step == 0
        assert span.edges == sorted(set(span.edges))


@given(
    st.one_of(
        st.text(max_size=20),
        st.tuples(st.integers(0, 30), st.integers(0, 30)).map(
            lambda two: f"bytes={two[0]}-{two[1]}"
        ),
        st.integers(0, 30).map(lambda one: f"bytes={one}-"),
        st.integers(0, 30).map(lambda one: f"bytes=-{one}"),
    ),
    st.integers(0, 20),
)
def test_a_range_lies_within_the_data(text: str, size: int) -> None:
    """Whatever was sent, a part that is given is there, and is not empty."""
    with suppress(BadQuery):
        piece = range_of(text, size)
        assert piece is not None
        assert 0 <= piece.begin < piece.end <= size
