"""The trace that a request belongs to, and how its entry says so."""

from __future__ import annotations

import pytest

from aquipu.contrib.shared.entry import REDACTED_HEADERS, Exchange, Redaction
from aquipu.contrib.shared.trace import Trace, trace_in

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def traced(*values: str) -> Trace | None:
    return trace_in([("host", "example.org"), *(("Traceparent", value) for value in values)])


@pytest.mark.parametrize(
    "value",
    [
        f"00-{TRACE}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-00 ",
        f"01-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-what-will-be-the-future",
    ],
)
def test_a_traceparent_of_the_standard(value: str) -> None:
    """It is read whatever its flags and, of a later version, whatever follows."""
    assert traced(value) == Trace(TRACE, SPAN)


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}\u0665-{SPAN}-01",
    ],
)
def test_a_traceparent_that_is_none(value: str) -> None:
    """It is ignored, as the standard demands."""
    assert traced(value) is None


def test_several_traceparents() -> None:
    """Which of them is meant cannot be known, so none is."""
    assert traced() is None
    assert traced(f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01") is None


@pytest.mark.parametrize("headers", [True, False])
def test_the_entry_of_a_request_of_a_trace(headers: bool) -> None:
    """It names the trace and the span of the caller, also when headers are not asked for."""
    redaction = Redaction(REDACTED_HEADERS, ())
    for value, named in ((f"00-{TRACE}-{SPAN}-01", (TRACE, SPAN)), ("none", (None, None))):
        made = Exchange("GET", "/", "", None, [("traceparent", value)])
        entry = made.entry(redaction, headers=headers, at_end=False)
        assert (entry.get("trace_id"), entry.get("span_id")) == named
