"""A record as people see it on a terminal: one line, in colour, that nothing in it can break.

What is no printable character (control characters and the escape sequences that begin with them,
marks that turn the direction of the text, invisible ones, bytes that are no UTF-8) is shown as an
escape, such as ``\\x1b`` or ``\\u202e``: so no record moves the cursor, hides another, or looks
like one. Long data is cut, and its size stands there; the forms for programs give all of it.

Downside: an escape and the text that looks like it are told apart by their colour alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

from aquipu.record import Record

CHARACTERS_MAX = 400
"""How much of the data of a record stands in a line: about five lines of a terminal."""
_BYTES_MAX = 4 * CHARACTERS_MAX


class Style(StrEnum):
    """What the parts of a line look like: the numbers of SGR."""

    TIME = "2"
    SEQUENCE = "33"
    LABELS = "36"
    ESCAPE = "35"
    CUT = "2"


Paint = Callable[[str, str], str]
"""Gives a text a style."""


def plain(text: str, style: str) -> str:
    """Return the text as it is: for a terminal without colours."""
    return text


def coloured(text: str, style: str) -> str:
    """Return the text in a style."""
    return f"\x1b[{style}m{text}\x1b[0m" if text else text


def line(record: Record, width: int, paint: Paint) -> str:
    """Return the line of a record: time, sequence in at least ``width`` columns, labels, data."""
    parts = [
        paint(local_time(record.timestamp), Style.TIME),
        paint(f"{record.sequence:>{width}}", Style.SEQUENCE),
    ]
    if record.relations:
        parts.append(" ".join(paint(escaped(label), Style.LABELS) for label in record.relations))
    parts.append(_data(record.data, paint))
    return "  ".join(parts)


def page(record: Record, paint: Paint) -> str:
    """Return all of one record, its fields below each other; JSON is folded out."""
    fields = {
        "sequence": str(record.sequence),
        "time": local_time(record.timestamp, "nanoseconds"),
        "labels": " ".join(map(escaped, record.relations)) or "none",
        "bytes": f"{len(record.data):,}",
    }
    head = [f"{paint(f'{name:<10}', Style.TIME)}{value}" for name, value in fields.items()]
    body = _folded(record.data) or record.data.decode(errors="surrogateescape")
    lines = [escaped(part, paint) for part in body.removesuffix("\n").split("\n")]
    return "\n".join([*head, "", *lines])


def local_time(nanoseconds: int, precision: str = "milliseconds") -> str:
    """Write nanoseconds since the epoch as the time here; with nanoseconds, its zone as well."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    time = datetime.fromtimestamp(seconds).astimezone()
    if precision == "nanoseconds":
        return f"{time:%Y-%m-%d %H:%M:%S}.{rest:09d} {time:%z}"
    return f"{time:%Y-%m-%d %H:%M:%S}.{rest // 1_000_000:03d}"


def nanoseconds_of(iso: str) -> int:
    """Return the nanoseconds since the epoch that `iso_time` has written in UTC."""
    whole, _, rest = iso.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 1_000_000_000 + int(rest)


def escaped(text: str, paint: Paint = plain) -> str:
    """Return text of which all is printable; a byte that is no UTF-8 is a surrogate in ``text``."""
    if text.isprintable():
        return text
    parts = (one if one.isprintable() else paint(_escape(one), Style.ESCAPE) for one in text)
    return "".join(parts)


def _escape(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is no UTF-8
        number -= 0xDC00
    elif number > 0x7F:
        return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(number, f"\\x{number:02x}")


def _data(data: bytes, paint: Paint) -> str:
    text = data[:_BYTES_MAX].decode(errors="surrogateescape")
    if len(data) <= _BYTES_MAX and len(text.removesuffix("\n")) <= CHARACTERS_MAX:
        return escaped(text.removesuffix("\n"), paint)
    return escaped(text[:CHARACTERS_MAX], paint) + paint(f"… ({len(data):,} bytes)", Style.CUT)


def _folded(data: bytes) -> str | None:
    """Return JSON with its parts below each other; None for what is no object and no list."""
    if not data.lstrip().startswith((b"{", b"[")):
        return None
    try:
        return json.dumps(json.loads(data), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
