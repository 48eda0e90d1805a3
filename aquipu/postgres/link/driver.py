"""The one door to asyncpg: making a connection, and what its errors mean.

asyncpg is imported when the first connection is made, so that a program without one needs none.
"""

from __future__ import annotations

from asyncio import CancelledError, Future, ensure_future, get_running_loop, shield, wait
from collections.abc import Callable
from typing import Any

from aquipu.errors import AquipuError, StoreFullError, StoreUnavailableError, needed

_SETTINGS = {
    "application_name": "aquipu",
    "synchronous_commit": "on",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "search_path": "pg_catalog",
}
_SETTLING_SECONDS = 1.0
_connecting: set[Future[Any]] = set()
CONNECT_SECONDS = 5.0
"""Seconds until an attempt to connect is given up."""

_AGAIN = frozenset(
    # class 08: the connection; 57P01, 57P02, 57P03: the server ends or starts; 57014: cancelled;
    # 40: a deadlock, or serialization; 53300: too many connections; 25006: it only reads by now
    {"57P01", "57P02", "57P03", "57P05", "57014", "40001", "40P01", "53300", "25006", "55P03"}
)
_NO_SPACE = frozenset({"53100"})


def module() -> Any:
    """Return asyncpg; ImportError that names the extra when it is not installed."""
    try:
        import asyncpg
    except ImportError as error:
        raise ImportError(
            f"a log in PostgreSQL needs {needed('asyncpg', 'postgres')}", name="asyncpg"
        ) from error
    return asyncpg


async def connect(dsn: str, session: str, notice: Callable[[Any, Any], None] | None = None) -> Any:
    """Return a new connection; raises what asyncpg raises, ValueError for what is no address.

    ``session``: ``read-write``, ``any`` or ``prefer-standby``. ``notice``: called with each warning
    of the server.
    """
    asyncpg = module()
    connecting = ensure_future(
        asyncpg.connect(
            dsn,
            timeout=CONNECT_SECONDS,
            target_session_attrs=session,
            server_settings=_SETTINGS,
        )
    )
    _connecting.add(connecting)
    connecting.add_done_callback(_connecting.discard)
    try:
        connection = await shield(connecting)
    except CancelledError:
        # cut short, asyncpg leaves a future of its own that nobody asks for its error
        connecting.add_done_callback(_drop)
        raise
    if notice is not None:
        connection.add_log_listener(notice)
    return connection


async def settled() -> None:
    """Wait for connections that nobody wants any more, which are about to be let go of.

    A loop that ends before would cut them short, and asyncpg leaves a future of its own then.
    """
    loop = get_running_loop()
    under_way = [one for one in _connecting if one.get_loop() is loop]
    if under_way:
        await wait(under_way, timeout=_SETTLING_SECONDS)


def _drop(connecting: Future[Any]) -> None:
    """Let go of a connection that nobody waits for any more."""
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().terminate()


def is_passing(error: BaseException) -> bool:
    """Return whether an error may be gone the next time: of a connection, or a server restart."""
    if isinstance(error, (OSError, TimeoutError, EOFError)):
        return True
    asyncpg = module()
    if isinstance(error, asyncpg.exceptions.TargetServerAttributeNotMatched):
        return True
    if isinstance(error, asyncpg.InternalClientError):
        return True  # the driver is confused: a backend was ended between two messages, perhaps
    if isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError):
        return True  # the connection was closed under the call
    code = getattr(error, "sqlstate", None) or ""
    return code.startswith("08") or code in _AGAIN


def is_connection_lost(error: BaseException, connection: Any) -> bool:
    """Return whether a connection is of no use any more after this error."""
    asyncpg = module()
    code = getattr(error, "sqlstate", None) or ""
    return (
        not isinstance(error, asyncpg.PostgresError)
        or code.startswith("08")
        or code in ("57P01", "57P02", "57P03", "25006")
        or connection.is_closed()
    )


def translated(error: BaseException, path: str, action: str, following: int | None) -> AquipuError:
    """Return what an error of asyncpg means to a caller.

    ``following``: the sequence that a refused commit would have had, if it was one.
    """
    code = getattr(error, "sqlstate", None) or ""
    reason = reason_of(error)
    translated: AquipuError
    if code in _NO_SPACE:
        translated = StoreFullError(path, following, f"the server has none: {reason}")
    else:
        translated = StoreUnavailableError(path, action, reason)
    translated.__cause__ = error
    return translated


def reason_of(error: BaseException) -> str:
    """Return why something did not go, in one line, without what is secret."""
    code = getattr(error, "sqlstate", None) or ""
    if code in ("28P01", "28000"):
        return "the server refuses the user or the password"
    if isinstance(error, TimeoutError):
        return "the server does not answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
