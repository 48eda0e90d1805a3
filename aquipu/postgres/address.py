"""The address of a log in a database, and what of it may be shown. Pure.

``postgresql://user:password@host:5432,other:5433/database?log=audit``: an address as libpq and
asyncpg take it, with several hosts if there are several, and some parameters of ours, which the
server does not get:

* ``log``: the name of the log, which must be there;
* ``readers``: hosts (``host:port``, with commas between) of standbys that are read from;
* ``commit``: ``remote_apply`` has what is synced wait until standbys show it to readers, too;
* ``unsafe``: ``yes`` lets a server with ``fsync=off`` be written under `Always` all the same.

A password is never shown: `Address.shown` is what errors, logs and ``repr`` have.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}"
"""What names a log, a hold or a cursor."""
_OURS = {"log", "readers", "unsafe", "commit"}
_MODES = ("on", "remote_apply")
_SECRET = {"password", "sslpassword", "passfile"}


class Address(NamedTuple):
    """A log in a database."""

    dsn: str
    """What asyncpg connects to; it may hold a password."""
    readers: str | None
    """What it connects to for reading, if that is another server."""
    log: str
    shown: str
    """The address without a password."""
    is_unsafe: bool
    """Whether a server that does not sync is accepted."""
    mode: str
    """The ``synchronous_commit`` of what is to be synced."""


def checked_log(name: str | None) -> str:
    """Return the name of a log; ValueError for what is none."""
    if name is None:
        raise ValueError("the address of a database names its log: postgresql://…/db?log=audit")
    if not re.fullmatch(NAME, name):
        raise ValueError(
            "the name of a log is 1 to 100 of A-Z a-z 0-9 . _ - and begins with neither a dot nor "
            f"a dash, not {name[:100]!r}"
        )
    return name


def address_of(text: str, *, needs_log: bool = True) -> Address:
    """Return what an address says; ValueError for one that cannot be, without its password.

    ``needs_log``: whether it names a log; without, it is a database.
    """
    try:
        parts = urlsplit(text)
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError(
            "an address is written postgresql://USER:PASSWORD@HOST:PORT/DATABASE?log=NAME; this "
            "one cannot be read (a special character in a password is written %XX)"
        ) from None
    ours = {name: value for name, value in given if name in _OURS}
    theirs = [(name, value) for name, value in given if name not in _OURS]
    unsafe = ours.get("unsafe", "no")
    if unsafe not in ("yes", "no"):
        raise ValueError("unsafe in the address of a database is yes or no")
    mode = ours.get("commit", "on")
    if mode not in _MODES:
        raise ValueError("commit in the address of a database is on or remote_apply")
    log = checked_log(ours.get("log")) if needs_log or "log" in ours else ""
    query = urlencode(theirs, quote_via=quote, safe="/:,")
    dsn = urlunsplit(parts._replace(query=query))
    readers = None
    if ours.get("readers"):
        user, at, _ = parts.netloc.rpartition("@")
        netloc = f"{user}{at}{ours['readers']}"
        kept = [(name, value) for name, value in theirs if name not in ("host", "port")]
        query = urlencode(kept, quote_via=quote, safe="/:,")
        readers = urlunsplit(parts._replace(netloc=netloc, query=query))
    return Address(dsn, readers, log, _shown(text), unsafe == "yes", mode)


def _shown(text: str) -> str:
    """Return an address without what is secret in it."""
    parts = urlsplit(text)
    user, at, hosts = parts.netloc.rpartition("@")
    netloc = user.partition(":")[0] + at + hosts
    fields = parts.query.split("&") if parts.query else []
    query = "&".join(field for field in fields if field.partition("=")[0] not in _SECRET)
    return urlunsplit(parts._replace(netloc=netloc, query=query))
