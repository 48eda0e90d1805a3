"""A log record as one line of JSON, whole or as far as it can be."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aquipu.contrib.shared.altered import Labels, altered, as_record, failed, shown


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON.

    ``time`` (ISO 8601, UTC, microseconds), ``level`` (its name), ``logger``, ``message``;
    ``exception`` and ``stack`` as text, where there are any; and whatever was given as ``extra`` or
    added by a filter, under its own name, or with an underscore behind it where that is one of
    these. A value that JSON does not know is given as ``str()`` gives it.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line[f"{name}_" if name in line else name] = value
        return _json(line)


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _json(line: Mapping[str, object]) -> str:
    try:
        return json.dumps(line, ensure_ascii=False, allow_nan=False, default=str)
    except Exception:  # no number, a key that is no text, a value that holds itself or has no text
        return json.dumps({name: shown(value) for name, value in line.items()}, ensure_ascii=False)


def said_of(given: Labels) -> dict[str, Any]:
    """Return the fields that name what is not as it was given."""
    said: dict[str, Any] = {}
    if given.is_altered:
        said = altered(said, "relations")
    return said if given.error is None else failed(said, "relations", given.error)


def unformatted(record: logging.LogRecord, given: Labels, error: Exception) -> bytes:
    """Return what is known of a log call whose formatter, or an argument of its message, raised."""
    line: dict[str, object] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
        "level": record.levelname,
        "logger": record.name,
        "message": shown(record.msg),
        "arguments": shown(record.args),
    }
    extra = {
        name: value
        for name, value in vars(record).items()
        if name not in _STANDARD and name not in line
    }
    return as_record(
        failed(altered({**extra, **line, **said_of(given)}, "message"), "format", error)
    )


def cut_to(data: bytes, bytes_max: int) -> bytes:
    """Cut to what a record may hold: the largest fields of a JSON object, the end of other text."""
    try:
        line = json.loads(data)
        if isinstance(line, dict):
            return as_record(line, bytes_max)
    except (ValueError, RecursionError):
        pass
    said = f" [cut: {len(data)} bytes]".encode()
    room = max(bytes_max - len(said), 0)
    return data[:room].decode("utf-8", "ignore").encode() + said


def encoded(text: str) -> bytes:
    """Return the text in UTF-8; half a surrogate pair is escaped, as JSON has it."""
    return text.encode("utf-8", "backslashreplace")
