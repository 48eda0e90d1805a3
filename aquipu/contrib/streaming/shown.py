"""A record as JSON has it, and as an event of a stream. Pure."""

from __future__ import annotations

import json
from base64 import b64encode
from codecs import getincrementaldecoder
from typing import Any

from aquipu import Record

DATA_BYTES_MAX = 16 * 1024
"""The most of a record's data that stands in an event, in bytes; the rest can be asked for."""


def shown(record: Record, data_bytes_max: int = DATA_BYTES_MAX) -> dict[str, Any]:
    """Return a record as JSON has it, as ``aquipu export`` writes it.

    ``data`` is text, or base64 for what is no UTF-8 (``encoding`` says which). Of data that is
    longer than ``data_bytes_max`` the beginning stands there, and ``cut`` is true; ``bytes`` is its
    whole size.
    """
    data = record.data
    is_cut = len(data) > data_bytes_max
    encoding, text = _text(data[:data_bytes_max] if is_cut else data, is_cut)
    return {
        "sequence": record.sequence,
        "time": iso_time(record.timestamp),
        "encoding": encoding,
        "data": text,
        "relations": record.relations,
        "bytes": len(data),
        "cut": is_cut,
    }


def iso_time(nanoseconds: int) -> str:
    """Return nanoseconds since the epoch as ISO 8601 in UTC, all of them."""
    time = Record(0, nanoseconds, b"").time
    return f"{time:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 1_000_000_000:09d}Z"


def _text(data: bytes, is_cut: bool) -> tuple[str, str]:
    """Return the encoding and the text; a character in which it was cut is left out."""
    try:
        return "utf-8", getincrementaldecoder("utf-8")().decode(data, not is_cut)
    except UnicodeDecodeError:
        return "base64", b64encode(data).decode()


def as_json(value: object) -> bytes:
    """Return a value as compact JSON in one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event(name: str | None, id: int | None, value: object) -> bytes:
    """Return one event as it travels."""
    head = b"" if name is None else b"event: %s\n" % name.encode()
    if id is not None and id >= 0:
        head += b"id: %d\n" % id
    return b"%sdata: %s\n\n" % (head, as_json(value))
