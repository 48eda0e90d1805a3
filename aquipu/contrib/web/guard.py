"""Who may ask: the one door that every request comes through, before anything else looks at it.

A page on the same machine is open to every program of it, and to every web page that its user has
open in a browser. So the guard refuses

==================  ================================================================================
without a token     whoever does not come from this machine, by whatever proxy, and whoever calls it
                    by another name than those of the loopback: that is how DNS rebinding gets in
with a token        whoever does not send it (``Authorization: Bearer ...``). It is never in an
                    address and never a cookie, so a browser sends it for nobody else
in either case      what another site has made a browser ask for (``Origin``, ``Sec-Fetch-Site``),
                    but for a link to the page itself; a host that is not among ``hosts``
==================  ================================================================================

The token is compared in constant time, and stands in no log and no answer. The files of the page,
``/healthz`` and ``/readyz`` need none: they say nothing of the store.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256
from hmac import compare_digest
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_CHARACTERS_MIN = 16
"""The shortest token that is taken."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""The names of this machine on itself."""
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_OWN_SITE = ("same-origin", "none")  # none: typed by the user, or followed from a bookmark
_READING = ("GET", "HEAD")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Refusal(NamedTuple):
    """Why a request is not answered."""

    status: int
    error: str


class Access(NamedTuple):
    """Who may come in."""

    token: str | None = None
    hosts: frozenset[str] | None = None
    """The names by which it may be called; None: those of the loopback, or with a token any."""
    protected_elsewhere: bool = False
    """Whether a service around it decides on who may come."""

    @classmethod
    def checked(
        cls, token: str | None, hosts: Collection[str] | None, protected_elsewhere: bool
    ) -> Access:
        """Return them together; TypeError or ValueError for what cannot be."""
        if token is not None and not isinstance(token, str):
            raise TypeError(f"a token is a str, not {type(token).__name__}")
        if token is not None and (len(token) < TOKEN_CHARACTERS_MIN or not token.isprintable()):
            raise ValueError(
                f"a token has at least {TOKEN_CHARACTERS_MIN} printable characters: make one with "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        if isinstance(hosts, str):
            raise TypeError("hosts takes a collection of names: ('audit.example.org',)")
        if token is not None and protected_elsewhere:
            raise ValueError("with protected_elsewhere the service around it has its own token")
        names = None if hosts is None else frozenset(host.lower().rstrip(".") for host in hosts)
        return cls(token, names, bool(protected_elsewhere))

    def refusal(self, scope: Scope, *, is_open: bool, is_page: bool) -> Refusal | None:
        """Return why this request is refused, if it is.

        ``is_open``: it asks for what needs no token; ``is_page``: for the page itself, to which a
        link of another site may lead.
        """
        headers = Headers(scope=scope)
        return (
            self._wrong_host(headers)
            or _from_another_site(scope["method"], headers, is_page=is_page)
            or (None if is_open and self.token is not None else self._stranger(scope, headers))
        )

    def _wrong_host(self, headers: Headers) -> Refusal | None:
        given = headers.getlist("host")
        if len(given) != 1:
            return Refusal(400, "a request names one host")
        hosts = self.hosts
        if hosts is None:
            if self.token is not None or self.protected_elsewhere:
                return None
            hosts = LOOPBACK
        if host_in(given[0]) in hosts:
            return None
        return Refusal(
            421, "this host is not known here: ask by localhost, or allow the name (hosts)"
        )

    def _stranger(self, scope: Scope, headers: Headers) -> Refusal | None:
        if self.protected_elsewhere:
            return None
        if self.token is None:
            if _is_loopback(scope) and not any(name in headers for name in _FORWARDED):
                return None
            return Refusal(403, "without a token only this machine itself is answered, directly")
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _is_same(given.strip(), self.token):
            return None
        return Refusal(401, "this needs the token: Authorization: Bearer TOKEN")


def host_in(given: str) -> str:
    """Return the name in a Host header, without its port; an empty one for what is none."""
    try:
        return (urlsplit(f"//{given}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _from_another_site(method: str, headers: Headers, *, is_page: bool) -> Refusal | None:
    """Return a refusal of what another site has made a browser ask for."""
    if method in _READING and is_page and headers.get("sec-fetch-mode") == "navigate":
        return None
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site")
    host = headers.get("host", "").lower()
    if origin is not None and origin.lower().partition("://")[2] != host:
        return Refusal(403, "this was asked for by another site")
    if site is not None and site not in _OWN_SITE:
        return Refusal(403, "this was asked for by another site")
    return None


def _is_loopback(scope: Scope) -> bool:
    client = scope.get("client")
    try:
        return client is not None and ip_address(client[0]).is_loopback
    except ValueError:
        return False


def _is_same(given: str, token: str) -> bool:
    """Compare in a time that says nothing of where they differ, nor of how long they are."""
    one, other = (sha256(text.encode("utf-8", "surrogateescape")) for text in (given, token))
    return compare_digest(one.digest(), other.digest())


class Guard:
    """Pure ASGI middleware: answers whoever may not come in, and sets the headers that protect."""

    def __init__(self, app: ASGIApp, access: Access, open_paths: Collection[str]) -> None:
        self._app = app
        self._access = access
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        path = scope["path"].removeprefix(scope.get("root_path", ""))
        refusal = self._access.refusal(
            scope, is_open=self._is_open(path), is_page=path in ("", "/")
        )
        if refusal is None:
            return await self._app(scope, receive, protected)
        asked = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else None
        answer = JSONResponse({"error": refusal.error}, refusal.status, asked)
        return await answer(scope, receive, protected)

    def _is_open(self, path: str) -> bool:
        return path in self._open_paths
