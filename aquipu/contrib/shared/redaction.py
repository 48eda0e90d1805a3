"""What is left out of an entry because it may be a secret. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from json.encoder import encode_basestring as quoted
from typing import TypeAlias
from urllib.parse import unquote_plus

Header: TypeAlias = tuple[str, str] | tuple[bytes, bytes]
"""Name and value, as text or as Latin-1."""

REDACTED = "[redacted]"
REDACTED_HEADERS = frozenset(
    {
        *(
            "*auth*",
            "*token*",
            "*secret*",
            "*pass*",
            "*pwd*",
            "*cred*",
            "*key*",
            "*session*",
            "*cookie*",
            "*csrf*",
            "*xsrf*",
        ),
        *(
            "*jwt*",
            "*jws*",
            "*assertion*",
            "*saml*",
            "*oidc*",
            "*signature*",
            "*hmac*",
            "*otp*",
            "*mfa*",
            "*2fa*",
            "*verification-code*",
            "*bearer*",
            "*ticket*",
        ),
        *("*-sid", "sid", "*-sig", "sig", "*-pin", "*wsse*", "*userinfo*", "*client-principal*"),
        *(
            "dpop",
            "sec-websocket-protocol",
        ),  # which has proofs of possession, and where browsers can put a token
    }
)
"""Names of headers, in which ``*`` stands for any characters, whose values stand in no entry by
default; add to them with ``REDACTED_HEADERS | {"x-license"}``.
"""
KEPT_HEADERS = frozenset(
    {
        "access-control-*",
        "idempotency-key",
        "x-idempotency-key",
        "sec-websocket-key",
        "surrogate-key",
        "x-cache-key",
    }
)
"""Those that only look so."""

# Names and values come from whoever likes to send them, so each of these takes a time that grows
# with their length alone.
_ADDRESSES = re.compile(
    "link|refresh|origin|destination|ping-(from|to)"
    "|.*(location|referr?er|redirect|ur[il]|sourcemap).*"
)
"""Names of headers that hold an address, or several."""
_ADDRESS = re.compile(r"\s*([a-z][a-z0-9+.-]*:|[/\\?])|.*://", re.IGNORECASE | re.DOTALL)
_BETWEEN_SEGMENTS = re.compile(r"([/\\\s]+)")
_PATH_PARAMETER = re.compile(r";([^=;/?#]+)=[^;/?#]*")
_CREDENTIAL = re.compile(
    r"^\s*(basic|bearer|digest|negotiate|ntlm|token|apikey|hawk|aws4-hmac-sha256)\s+\S"
    r"|(?<![\w-])eyJ[\w-]+\.[\w-]+\.",
    re.IGNORECASE,
)
_NAMES_MAX = 256  # of headers, about which is remembered what they are
_HEADERS_MAX = 1024  # with their values, of which is remembered that they are shown as they are
_REMEMBERED_MAX = 256  # characters of name and value
_DEPTH_MAX = 16  # of values in values; what is deeper, or holds itself, is not shown


class Redaction:
    """What is left out of an entry."""

    def __init__(
        self,
        headers: Collection[str],
        query_values: Collection[str],
        kept_headers: Collection[str] = KEPT_HEADERS,
    ) -> None:
        """Make the rules by which values are left out.

        ``headers``: names, with ``*``, whose values are left out; ``kept_headers``: those among
        them whose values are not; ``query_values``: names of the parameters whose values are not.
        """
        redacted, self._is_kept = _named(headers), lru_cache(_NAMES_MAX)(_named(kept_headers))
        self._is_redacted = lru_cache(_NAMES_MAX)(
            lambda name: redacted(name) and not self._is_kept(name)
        )
        self._query_values = frozenset(query_values)
        self._known: dict[Header, tuple[str, str]] = {}

    def shown(self, header: Header) -> tuple[str, str]:
        """Return a header as JSON: its name, in lower case; and with its value, as it is shown.

        Most headers are the same in many requests, so those that are shown as they are given are
        remembered; never a value of which something is left out.
        """
        try:
            return self._known.get(header) or self._look(header)
        except TypeError:  # a bytearray, which some applications give
            return self._look((as_text(header[0]), as_text(header[1])))

    def _look(self, header: Header) -> tuple[str, str]:
        name, given = as_text(header[0]).lower(), as_text(header[1])
        value = self.header(name, given)
        shown = quoted(name), f"{quoted(name)}:{quoted(value)}"
        if value == given and len(name) + len(value) <= _REMEMBERED_MAX:
            if len(self._known) >= _HEADERS_MAX:
                self._known.clear()
            self._known[header] = shown
        return shown

    def header(self, name: str, value: str) -> str:
        """Return the value of a header as it is shown."""
        if self._is_redacted(name) or (_CREDENTIAL.search(value) and not self._is_kept(name)):
            return REDACTED
        if name == "link":
            return "".join(map(self._address, re.split("([<>])", value)))
        if _is_of_addresses(name) or _ADDRESS.match(value):
            return self._address(value)
        address, mark, query = value.partition("?")
        return address + mark + self.query(query) if mark else value

    def detail(self, name: str, value: object, depth: int = 0) -> object:
        """Return what a service says of an action as it is shown, and what is inside of it."""
        is_secret = self._is_redacted(name.lower()) or (
            isinstance(value, str) and _CREDENTIAL.search(value)
        )
        if is_secret and not self._is_kept(name.lower()):
            return REDACTED
        if not isinstance(value, Mapping | list | tuple):
            return value
        if depth == _DEPTH_MAX:
            return REDACTED
        if isinstance(value, Mapping):
            return {
                key: self.detail(key if isinstance(key, str) else "", inner, depth + 1)
                for key, inner in value.items()
            }
        return [self.detail(name, inner, depth + 1) for inner in value]

    def query(self, query: str) -> str:
        """Return the parameters of an address as they are shown."""
        return "&".join([self._parameter(part) for part in query.split("&")])

    def _address(self, address: str) -> str:
        address, sharp, fragment = address.partition("#")
        path, mark, query = address.partition("?")
        path = _PATH_PARAMETER.sub(_path_parameter, _without_user(path))
        return (
            path
            + mark
            + (self.query(query) if mark else "")
            + sharp
            + (REDACTED if fragment else "")
        )

    def _parameter(self, part: str) -> str:
        name, equals, _ = part.partition("=")
        if not equals:  # a value without a name, for all we know
            return REDACTED if part else ""
        return part if unquote_plus(name) in self._query_values else f"{name}={REDACTED}"


def headers_of(given: Iterable[Iterable[bytes]]) -> tuple[Header, ...]:
    """Return headers as ASGI has them, in a form that nobody changes."""
    return tuple(map(tuple, given))  # type: ignore[arg-type]  # pairs


def as_text(given: str | bytes) -> str:
    """Return the name or the value of a header as text; as bytes it is Latin-1."""
    return given if isinstance(given, str) else given.decode("latin-1")


def _named(names: Collection[str]) -> Callable[[str], bool]:
    """Return a check whether a name, in lower case, is one of these; ``*`` is any characters."""
    patterns = [".*".join(map(re.escape, name.lower().split("*"))) for name in names]
    fits = re.compile(
        "|".join(patterns) or r"\b\B", re.DOTALL
    ).fullmatch  # what never fits, for none
    return lambda name: fits(name) is not None


_is_secret = _named(REDACTED_HEADERS)


@lru_cache(_NAMES_MAX)
def _is_of_addresses(name: str) -> bool:
    return _ADDRESSES.fullmatch(name) is not None


def _path_parameter(found: re.Match[str]) -> str:
    """``;jsessionid=...``, but not ``; url=...``."""
    return f";{found[1]}={REDACTED}" if _is_secret(found[1].strip().lower()) else found[0]


def _without_user(path: str) -> str:
    """Return an address without the user and the password before its host.

    They are looked for at its beginning, and behind ``//`` or a scheme.
    """
    if "@" not in path:
        return path
    pieces = _BETWEEN_SEGMENTS.split(path)
    for index in range(0, len(pieces), 2):
        begins = not index or len(pieces[index - 1].strip()) > 1 or pieces[index - 2].endswith(":")
        user, at, host = pieces[index].rpartition("@")
        if begins and user:
            pieces[index] = REDACTED + at + host
    return "".join(pieces)
