"""The trace that a request belongs to, as its ``traceparent`` header says it (W3C). Pure.

A header that is not as the standard has it is as good as none: whoever sends a request can write
anything there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from aquipu.contrib.shared.redaction import Header, as_text

_TRACEPARENT = re.compile("([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")

_NAME = "traceparent"


class Trace(NamedTuple):
    """Where a request stands in a trace."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits: the span of the caller."""


def trace_in(headers: Iterable[Header]) -> Trace | None:
    """Return the trace that the headers of a request name; None without a valid one."""
    given = [
        value
        for name, value in headers
        if len(name) == len(_NAME) and as_text(name).lower() == _NAME
    ]
    found = _TRACEPARENT.fullmatch(as_text(given[0]).strip()) if len(given) == 1 else None
    if found is None:
        return None
    version, trace_id, span_id, more = found.groups()
    is_valid = version != "ff" and (version != "00" or more is None)
    is_valid = is_valid and bool(trace_id.strip("0")) and bool(span_id.strip("0"))
    return Trace(trace_id, span_id) if is_valid else None
