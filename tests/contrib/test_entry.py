"""What an entry holds, and what it does not."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any
from uuid import UUID

import pytest

from aquipu.contrib.shared.entry import (
    REDACTED,
    REDACTED_HEADERS,
    Body,
    Exchange,
    Redaction,
    as_json,
)

CAUTIOUS = Redaction(REDACTED_HEADERS, frozenset())


def exchange(query: str = "", headers: tuple[tuple[str, str], ...] = ()) -> Exchange:
    return Exchange("POST", "/documents/42", query, "192.0.2.1", headers)


def entry_of(
    made: Exchange, redaction: Redaction = CAUTIOUS, *, headers: bool = True, at_end: bool = False
) -> Any:
    """What a reader of the record finds."""
    return json.loads(as_json(made.entry(redaction, headers=headers, at_end=at_end)))


def fed(*pieces: bytes, limit: int = 8, whole: bool = True) -> Any:
    body = Body(limit)
    for piece in pieces:
        body.feed(piece)
    body.is_whole = whole
    return body.entry()


def test_a_body_whose_end_nobody_saw() -> None:
    """As far as anybody knows it is cut, until its end has been seen."""
    body = Body(8)
    body.feed(b"abc")
    assert body.entry() == {"bytes": 3, "truncated": True, "text": "abc"}


# its fields


def test_an_ordinary_request() -> None:
    """Only what is true, known or asked for is there."""
    made = exchange()
    made.respond(201, [("Content-Type", "text/plain")])
    made.is_complete = True
    entry = entry_of(made)
    assert entry.pop("duration") >= 0
    assert len(entry.pop("id")) == 16
    assert entry == {
        "method": "POST",
        "path": "/documents/42",
        "status": 201,
        "actor": None,
        "client": "192.0.2.1",
        "request_headers": {},
        "response_headers": {"content-type": "text/plain"},
    }


def test_without_headers() -> None:
    """They are left out when they are not asked for."""
    assert not {"request_headers", "response_headers"} & set(entry_of(exchange(), headers=False))


def test_two_requests_have_two_ids() -> None:
    """Entries of one request are told from those of another."""
    assert exchange().id != exchange().id


def test_an_error_is_named_and_not_quoted() -> None:
    """The message of an exception may hold anything; its class is enough."""
    made = exchange()
    made.error = ValueError("the password is hunter2")
    assert entry_of(made, at_end=True)["error"] == "ValueError"
    assert b"hunter2" not in as_json(made.entry(CAUTIOUS, headers=True, at_end=True))


@pytest.mark.parametrize("flag", ["disconnected", "cancelled"])
def test_how_it_ended(flag: str) -> None:
    """What went otherwise than it should is said."""
    made = exchange()
    made.is_complete = True
    setattr(made, flag, True)
    assert entry_of(made, at_end=True)[flag] is True


def test_half_a_response_is_incomplete_only_at_the_end() -> None:
    """While a handler is at work, nothing is missing yet; and an error says more than that
    something is missing.
    """
    made = exchange()
    made.respond(200, ())
    assert "incomplete" not in entry_of(made)
    assert entry_of(made, at_end=True)["incomplete"] is True
    made.error = ValueError()
    assert "incomplete" not in entry_of(made, at_end=True)


@pytest.mark.parametrize(
    "text", ["käse", "\ud800 half a pair", 'quotes " and \\', "\x00\x1b[31m", "\u2028"]
)
def test_any_text_is_json(text: str) -> None:
    """Whatever a path or an actor holds, the record is valid UTF-8 and valid JSON that gives it
    back.
    """
    assert json.loads(as_json({"actor": text}).decode("utf-8")) == {"actor": text}


def test_an_actor_that_json_does_not_know() -> None:
    """It is written as its str."""
    assert as_json({"actor": UUID(int=7)}) == b'{"actor":"00000000-0000-0000-0000-000000000007"}'


# secrets


@pytest.mark.parametrize(
    "name", ["Authorization", "cookie", "SET-COOKIE", "X-Api-Key", "proxy-authorization"]
)
def test_headers_that_hold_secrets(name: str) -> None:
    """By default their values are not kept, however their name is written, in neither direction."""
    made = exchange(headers=((name, "secret"),))
    made.respond(200, ((name, "secret"), (name, "secret too")))
    entry = entry_of(made)
    assert entry["request_headers"] == {name.lower(): REDACTED}
    assert entry["response_headers"] == {name.lower(): f"{REDACTED}, {REDACTED}"}
    assert "secret" not in json.dumps(entry)


# From the lists of proxies, clouds, frameworks and error trackers.
SECRET_NAMES = """
    authorization proxy-authorization www-authenticate authentication-info x-authorization
    x-forwarded-authorization x-original-authorization x-auth x-auth-token x-auth-key
    x-auth-request-access-token x-access-token x-refresh-token x-id-token x-session-token
    x-session-id x-session x-csrf-token x-csrftoken x-xsrf-token csrf-token cookie cookie2
    set-cookie set-cookie2 x-api-key api-key apikey x-apikey x-rapidapi-key x-goog-api-key
    ocp-apim-subscription-key x-functions-key x-ms-token-aad-access-token x-ms-token-aad-id-token
    x-ms-client-principal x-amz-security-token x-amzn-oidc-data x-amzn-oidc-accesstoken
    x-goog-iap-jwt-assertion cf-access-jwt-assertion cf-access-client-secret
    x-forwarded-access-token x-vault-token x-consul-token private-token x-gitlab-token job-token
    x-shopify-access-token x-hasura-admin-secret x-parse-master-key x-plex-token x-user-password
    x-password x-passphrase x-pwd x-credential x-client-secret x-jwt x-jwt-payload x-saml-response
    x-endpoint-api-userinfo x-wsse x-sid x-otp x-user-pin dpop signature signature-input
    x-hub-signature x-hub-signature-256 stripe-signature x-slack-signature x-sig x-ticket
    sec-websocket-protocol x-pomerium-jwt-assertion x-encryption-key
    x-amz-server-side-encryption-customer-key x-mfa x-mfa-code x-2fa-code x-verification-code
"""
PLAIN_NAMES = """
    accept accept-encoding accept-language age allow cache-control connection content-encoding
    content-length content-type content-security-policy date etag expect expires forwarded from host
    if-match if-modified-since if-none-match keep-alive last-modified max-forwards origin pragma
    range retry-after sec-fetch-mode sec-fetch-site server te trailer transfer-encoding upgrade
    user-agent vary via warning x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip
    x-request-id x-correlation-id traceparent tracestate x-frame-options x-robots-tag
    access-control-allow-credentials access-control-request-headers idempotency-key
    sec-websocket-key x-cache x-powered-by strict-transport-security
"""


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_names_that_look_as_if_they_held_a_secret(name: str) -> None:
    """By default their values are not kept, whoever invented the name."""
    assert CAUTIOUS.header(name, "s3cret") == REDACTED


@pytest.mark.parametrize("name", PLAIN_NAMES.split())
def test_names_that_do_not(name: str) -> None:
    """What every request has is there to be read."""
    assert CAUTIOUS.header(name, "plain") == "plain"


@pytest.mark.parametrize(
    "value",
    [
        "Bearer s3cret",
        " basic czNjcmV0",
        "Negotiate YII=",
        "token s3cret",
        "AWS4-HMAC-SHA256 Credential=s3cret",
        "eyJhbGciOiJIUzI1NiJ9.eyJzM2NyZXQiOjF9.c2ln",
        "user=1; jwt=eyJhbGciOiJIUzI1NiJ9.eyJzM2NyZXQiOjF9.c2ln",
    ],
)
def test_a_value_that_is_a_credential(value: str) -> None:
    """It is not kept, in whatever header it comes."""
    assert CAUTIOUS.header("x-custom", value) == REDACTED


def test_what_to_keep_as_a_list() -> None:
    """``kept_headers`` wins: against the patterns, or against all, and then only what it names is
    kept.
    """
    some = Redaction(REDACTED_HEADERS, (), {"X-License-Key", "x-trace-*"})
    assert [
        some.header(name, "v") for name in ("x-license-key", "x-trace-key", "x-key", "accept")
    ] == [
        *("v", "v", REDACTED, "v"),
    ]
    only = Redaction({"*"}, (), {"accept", "location"})
    assert [only.header(name, "v") for name in ("accept", "accept-language", "x-key")] == [
        "v",
        REDACTED,
        REDACTED,
    ]
    assert only.header("location", "/a?b=s3cret#s3cret") == "/a?b=[redacted]#[redacted]"
    assert Redaction((), (), {"authorization"}).header("authorization", "Bearer v") == "Bearer v"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("location", "https://app/cb#access_token=s3cret&type=bearer", "https://app/cb#[redacted]"),
        ("location", "/cb#s3cret?x=s3cret", "/cb#[redacted]"),
        ("location", "/cb?code=s3cret#s3cret", "/cb?code=[redacted]#[redacted]"),
        ("location", "/cb#", "/cb#"),
        ("location", "//ada:s3cret@host/x", "//[redacted]@host/x"),
        ("location", "https:\\\\ada:s3cret@host/x", "https:\\\\[redacted]@host/x"),
        ("location", "https:/ada:s3cret@host/x", "https:/[redacted]@host/x"),
        ("location", "https:ada:s3cret@host/x", "[redacted]@host/x"),
        ("location", "https://ada:s3cret@s3cret@host/x", "https://[redacted]@host/x"),
        ("location", "https://s3cret@host", "https://[redacted]@host"),
        ("location", "/docs;jsessionid=s3cret;v=1/x", "/docs;jsessionid=[redacted];v=1/x"),
        ("location", "https://medium.example/@ada/1", "https://medium.example/@ada/1"),
        ("location", "/people/ada@example.org/edit", "/people/ada@example.org/edit"),
        ("content-location", "https://u:s3cret@h/x", "https://[redacted]@h/x"),
        ("referer", "https://app.example/#id_token=s3cret", "https://app.example/#[redacted]"),
        (
            "referer",
            "https://u:s3cret@app.example/?q=s3cret",
            "https://[redacted]@app.example/?q=[redacted]",
        ),
        ("origin", "https://u:s3cret@app.example", "https://[redacted]@app.example"),
        ("link", "</a?t=s3cret>; rel=next", "</a?t=[redacted]>; rel=next"),
        ("link", "</a#s3cret>; rel=x, <//u:s3cret@h>", "</a#[redacted]>; rel=x, <//[redacted]@h>"),
        ("refresh", "0; url=/x?token=s3cret", "0; url=/x?token=[redacted]"),
        (
            "refresh",
            "0; url=https://u:s3cret@h/x#s3cret",
            "0; url=https://[redacted]@h/x#[redacted]",
        ),
        ("x-original-url", "/a#s3cret", "/a#[redacted]"),
        ("x-forwarded-uri", "/a?s3cret", "/a?[redacted]"),
        ("hx-current-url", "http://h/a?b=s3cret#s3cret", "http://h/a?b=[redacted]#[redacted]"),
        ("x-backend", "postgres://u:s3cret@db/x", "postgres://[redacted]@db/x"),
        ("x-note", "see https://h/#s3cret", "see https://h/#[redacted]"),
        ("x-color", "#fff", "#fff"),
        ("user-agent", "Bot/1 (C#; bot@example.org)", "Bot/1 (C#; bot@example.org)"),
    ],
)
def test_an_address_in_a_header(name: str, value: str, shown: str) -> None:
    """User and password, the values of the query, the fragment and a session in the path are not
    kept; the rest is.
    """
    assert CAUTIOUS.header(name, value) == shown


@pytest.mark.parametrize(
    "piece",
    ["eyJ", "-eyJ", ".eyJa", "//", ":", "@", ":@", ";a", ";a=", "a", "?", "#", "<", "\\", " "],
)
@pytest.mark.parametrize("name", ["location", "x-custom", "link"])
def test_a_value_that_would_take_long_to_read(name: str, piece: str) -> None:
    """Whatever stands in a header, and however often, it is read in a time that grows with its
    length.
    """
    CAUTIOUS.header(name, piece * 200_000)
    CAUTIOUS.header(piece * 200_000, "value")


def test_headers_of_one_name_are_joined() -> None:
    """In their order."""
    assert entry_of(exchange(headers=(("Accept", "a"), ("accept", "b"))))["request_headers"] == {
        "accept": "a, b"
    }


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("page=2", "page=[redacted]"),
        ("page=2&token=s3cret", "page=[redacted]&token=[redacted]"),
        ("s3cret", "[redacted]"),
        ("s3cret&page=2", "[redacted]&page=[redacted]"),
        ("token=a=s3cret", "token=[redacted]"),
        ("token=", "token=[redacted]"),
        ("&&a=1", "&&a=[redacted]"),
    ],
)
def test_a_query(query: str, shown: str) -> None:
    """Of a query only the names of its parameters are kept; what has no name is a value."""
    assert entry_of(exchange(query))["query"] == shown


def test_values_of_a_query_that_are_wanted() -> None:
    """Those of the parameters that are named, however they are escaped; no other."""
    redaction = Redaction(frozenset(), {"page", "sort order"})
    entry = entry_of(exchange("page=2&sort+order=up&sort%20order=down&pages=s3cret"), redaction)
    assert entry["query"] == "page=2&sort+order=up&sort%20order=down&pages=[redacted]"


def test_a_header_that_quotes_an_address() -> None:
    """A query in a header (referer, location) holds the same secrets, and is treated as that of the
    request.
    """
    made = exchange(headers=(("Referer", "https://example.org/reset?token=s3cret"),))
    made.respond(302, (("Location", "/done?code=s3cret"),))
    entry = entry_of(made)
    assert entry["request_headers"] == {"referer": "https://example.org/reset?token=[redacted]"}
    assert entry["response_headers"] == {"location": "/done?code=[redacted]"}


# bodies


def test_a_body_as_text() -> None:
    """UTF-8 is readable in the record."""
    assert fed("kä".encode(), b"se") == {"bytes": 5, "truncated": False, "text": "käse"}


def test_a_body_that_is_no_text() -> None:
    """Other bytes stand there in base64."""
    assert fed(b"\xff\x00") == {"bytes": 2, "truncated": False, "base64": "/wA="}


@pytest.mark.parametrize(
    "pieces",
    [
        (b"0123456789",),
        (b"01234567", b"89"),
        (b"0123", b"4567", b"89"),
        tuple(b"%d" % n for n in range(10)),
    ],
)
def test_a_body_over_the_limit(pieces: tuple[bytes, ...]) -> None:
    """It is counted to its end and kept to the limit, however it comes in pieces."""
    assert fed(*pieces) == {"bytes": 10, "truncated": True, "text": "01234567"}


def test_a_body_of_exactly_the_limit() -> None:
    """It is whole."""
    assert fed(b"01234567") == {"bytes": 8, "truncated": False, "text": "01234567"}


def test_a_body_whose_end_was_not_seen() -> None:
    """What may not be all is called truncated, also below the limit."""
    assert fed(b"01", whole=False) == {"bytes": 2, "truncated": True, "text": "01"}


def test_a_character_that_is_cut_by_the_limit() -> None:
    """The half of it is left out, and the rest is still text."""
    assert fed("0123456ä".encode()) == {"bytes": 9, "truncated": True, "text": "0123456"}


def test_half_a_character_at_the_end_of_a_whole_body() -> None:
    """That is no text, and nothing of it is left out."""
    seen = fed(b"ab\xc3")
    assert b64decode(seen["base64"]) == b"ab\xc3"


def test_a_limit_of_nothing() -> None:
    """Only the size is kept."""
    assert fed(b"01", limit=0) == {"bytes": 2, "truncated": True, "text": ""}


def test_memory_of_a_large_body() -> None:
    """Not more than the limit is held, whatever passes."""
    body = Body(1000)
    for _ in range(1000):
        body.feed(bytes(1 << 20))
    assert body.bytes == 1000 << 20
    assert len(b64decode(body.entry().get("base64", "")) or body.entry()["text"]) == 1000
