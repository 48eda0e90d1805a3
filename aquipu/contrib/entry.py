"""The entries of an audit, under the name that they had before they moved to ``shared``."""

from aquipu.contrib.shared.entry import (
    REDACTED,
    REDACTED_HEADERS,
    Body,
    Entry,
    Exchange,
    Headers,
    Redaction,
    as_json,
)

__all__ = [
    "REDACTED",
    "REDACTED_HEADERS",
    "Body",
    "Entry",
    "Exchange",
    "Headers",
    "Redaction",
    "as_json",
]
