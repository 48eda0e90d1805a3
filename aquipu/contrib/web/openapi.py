"""The OpenAPI document of the API, written by hand; a test holds it against the routes."""

from __future__ import annotations

from typing import Any

from aquipu.contrib.web.queries import (
    BUCKETS_MAX,
    DATA_BYTES,
    DATA_BYTES_MAX,
    LIMIT,
    LIMIT_MAX,
    SEQUENCE_MAX,
)

Json = dict[str, Any]


def document() -> Json:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "aquipu",
            "version": "1",
            "description": "A durable log: its records are read, found, followed and appended."
            " Each answer is bounded: see the limits of the parameters.",
        },
        "paths": _paths(),
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "Error": _answer("What was wrong, in a sentence.", "Error"),
            },
        },
        "security": [{"token": []}, {}],
    }


def _number(least: int, most: int, default: int | None = None) -> Json:
    found: Json = {"type": "integer", "minimum": least, "maximum": most}
    return found if default is None else {**found, "default": default}


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _answer(description: str, schema: str) -> Json:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


def _text(description: str, kind: str = "text/plain") -> Json:
    return {"description": description, "content": {kind: {"schema": {"type": "string"}}}}


def _asked(
    id: str, summary: str, answer: Json, *parameters: Json, status: int = 200, **more: Any
) -> Json:
    return {
        "operationId": id,
        "summary": summary,
        **({"parameters": list(parameters)} if parameters else {}),
        **more,
        "responses": {
            str(status): answer,
            "4XX": {"$ref": "#/components/responses/Error"},
            "5XX": {"$ref": "#/components/responses/Error"},
        },
    }


_SEQUENCE = _number(0, SEQUENCE_MAX)
_TEXTS: Json = {"type": "array", "items": {"type": "string"}, "maxItems": 16}
_TIME: Json = {"type": "string", "examples": ["2026-01-31T12:00:00Z"]}
_RELATION = _query("relation", "Only records with this label; repeated: with all.", _TEXTS)
_ANY_OF = _query("any_of", "Only records with at least one of these labels.", _TEXTS)
_IN_PATH: Json = {"name": "sequence", "in": "path", "required": True, "schema": _SEQUENCE}
_LAST_EVENT_ID: Json = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event that was seen: the stream goes on behind it.",
    "schema": _SEQUENCE,
}
_STREAM = "text/event-stream"


def _paths() -> Json:
    return {
        "/api/records": {"get": _list(), "post": _append()},
        "/api/records/{sequence}": {
            "get": _asked(
                *("getRecord", "One record.", _answer("The record.", "Record"), _IN_PATH),
                _query("bytes", "How much of its data.", _number(0, DATA_BYTES_MAX)),
            )
        },
        "/api/records/{sequence}/data": {"get": _data()},
        "/api/labels": {
            "get": _asked(
                *("listLabels", "Labels by their beginning.", _answer("The labels.", "Labels")),
                {**_query("prefix", "How they begin.", {"type": "string"}), "required": True},
                _query("limit", "How many; the most frequent first.", _number(1, 100, 20)),
            )
        },
        "/api/events": {"get": _follow()},
        "/api/live": {
            "get": _asked(
                *("watch", "Where the store stands, twice a second, and the newest records."),
                *(_text("Events, for the page.", _STREAM), _RELATION, _LAST_EVENT_ID),
            )
        },
        "/api/status": {
            "get": _asked("status", "What is known of the store.", _answer("That.", "Status"))
        },
        "/api/rate": {"get": _rate()},
        "/api/openapi.json": {
            "get": _asked("openapi", "This document.", _text("It.", "application/json"))
        },
        "/metrics": {"get": _asked("metrics", "For Prometheus.", _text("The metrics."))},
        "/healthz": {"get": _asked("healthz", "Whether the service lives.", _text("ok"))},
        "/readyz": {"get": _asked("readyz", "Whether the store can be used.", _text("ok"))},
    }


def _list() -> Json:
    return _asked(
        *("listRecords", "Records, the newest first.", _answer("Some of them.", "Records")),
        _query("before", "Only smaller sequences: the `next` of the page before.", _SEQUENCE),
        _query("start", "Only this sequence and larger ones.", _SEQUENCE),
        _query("since", "Only those accepted then or later; ISO 8601 or nanoseconds.", _TIME),
        _query("until", "Only those accepted before.", _TIME),
        _RELATION,
        _ANY_OF,
        _query("limit", "How many.", _number(1, LIMIT_MAX, LIMIT)),
        _query("bytes", "How much data of each.", _number(0, DATA_BYTES_MAX, DATA_BYTES)),
        _query(
            "order",
            "With `oldest`, the next page begins with start= the `next` of the one before.",
            {"type": "string", "enum": ["newest", "oldest"], "default": "newest"},
        ),
    )


def _append() -> Json:
    body: Json = {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {"schema": {}},
        },
    }
    key: Json = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A text of the client's making: what is sent again with it is stored once.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    }
    stages = ["policy", "flushed", "synced"]
    return _asked(
        *("append", "Store the body as a record.", _answer("It is stored.", "Receipt")),
        key,
        _query("relation", "The labels of the record.", _TEXTS),
        _query("expect", "Only if it gets this sequence, else 409.", _SEQUENCE),
        _query("stage", "How safe it must be.", {"type": "string", "enum": stages}),
        requestBody=body,
        status=201,
    )


def _data() -> Json:
    schema = {"type": "string", "format": "binary"}
    content = {"application/octet-stream": {"schema": schema}}
    found = _asked(
        *("getData", "The bytes of one record.", {"description": "All.", "content": content}),
        _IN_PATH,
        {"name": "Range", "in": "header", "schema": {"type": "string"}},
    )
    found["responses"]["206"] = {"description": "The part.", "content": content}
    return found


def _follow() -> Json:
    return _asked(
        *("follow", "Each record as an event; `id` is its sequence."),
        _text("Events; the data of each is a Record.", _STREAM),
        _query("start", "A sequence, `earliest` or `latest`.", {"type": "string"}),
        _RELATION,
        _ANY_OF,
        _LAST_EVENT_ID,
    )


def _rate() -> Json:
    return _asked(
        *("rate", "How many records there are in each part of a time.", _answer("That.", "Rate")),
        _query("step", "Seconds of a part.", _number(1, 604_800, 1)),
        _query("count", "How many parts.", _number(1, BUCKETS_MAX, 60)),
        _query("until", "The end of the last one; without, now.", _TIME),
    )


def _object(properties: Json, *optional: str) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


_STRING: Json = {"type": "string"}
_INTEGER: Json = {"type": "integer"}
_MAYBE: Json = {"type": ["integer", "null"]}
_STRINGS: Json = {"type": "array", "items": _STRING}
_SOMETHING: Json = {"type": ["object", "null"]}

_SCHEMAS: Json = {
    "Error": _object({"error": _STRING, "reason": _STRING}, "reason"),
    "Record": _object(
        {
            "sequence": _INTEGER,
            "time": {**_STRING, "description": "ISO 8601 in UTC, nanoseconds."},
            "encoding": {"type": "string", "enum": ["utf-8", "base64"]},
            "data": _STRING,
            "relations": _STRINGS,
            "bytes": {**_INTEGER, "description": "Size of the whole data."},
            "cut": {"type": "boolean", "description": "Whether only its beginning is here."},
        }
    ),
    "Records": _object(
        {
            "records": {"type": "array", "items": {"$ref": "#/components/schemas/Record"}},
            "next": {**_MAYBE, "description": "`before` (or `start`) of the next page."},
            "first_sequence": _INTEGER,
            "next_sequence": _INTEGER,
        }
    ),
    "Receipt": _object({"sequence": _INTEGER, "time": _STRING, "stage": _STRING}),
    "Labels": _object(
        {
            "labels": {
                "type": "array",
                "items": _object({"label": _STRING, "records": _INTEGER}),
            },
            "more": {**_INTEGER, "description": "How many more labels begin so."},
        }
    ),
    "Rate": _object(
        {
            "since": _STRING,
            "until": _STRING,
            "step": _INTEGER,
            "counts": {"type": "array", "items": _INTEGER},
        }
    ),
    "Status": _object(
        {
            "store": _STRING,
            "kind": {"type": "string", "enum": ["store", "daemon", "reader"]},
            "writable": {"type": "boolean"},
            "first_sequence": _INTEGER,
            "next_sequence": _INTEGER,
            "synced_sequence": _MAYBE,
            "statistics": _SOMETHING,
            "health": _SOMETHING,
            "consumers": _SOMETHING,
            "unknown": _STRINGS,
        }
    ),
}
