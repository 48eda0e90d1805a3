"""The command that shows a store to people: a page, and its API."""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING, Annotated, NamedTuple

import anyio
import typer

from aquipu.cli.app import EPILOG, SIGNALLED, WELL, Purpose, app, exit_codes, usage
from aquipu.cli.arguments import (
    LogArgument,
    OptionsOption,
    absolute,
    check_no_options,
    connecting,
    database_of,
    opened_for_reading,
)
from aquipu.cli.streams.console import say, until_signalled
from aquipu.cli.streams.missing import MissingPackageError
from aquipu.errors import StoreUnavailableError
from aquipu.local.disk.paths import address_in, is_archive, is_shared
from aquipu.reader import Reader
from aquipu.store import Store

if TYPE_CHECKING:
    from aquipu.remote.store import RemoteStore

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PORT_MAX = 65_535


class _Wish(NamedTuple):
    """What the options ask for."""

    host: str
    port: int
    token: str | None
    write: bool
    hosts: Collection[str] | None


@app.command("web", epilog=EPILOG, rich_help_panel=Purpose.SERVE)
def web_command(
    store: LogArgument,
    host: Annotated[
        str,
        typer.Option(
            metavar="HOST", help="Where to answer; anything but this machine needs a token."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=_PORT_MAX)] = 8765,
    token_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            envvar="AQUIPU_WEB_TOKEN_FILE",
            help="A file that holds the token which requests must carry.",
        ),
    ] = None,
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            help="Let records be appended, too; for a store that is shared, served, or in a"
            " database.",
        ),
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Answer to this name only; repeated: to all of them."),
    ] = None,
    option: OptionsOption = None,
) -> None:
    """Show a store in a browser.

    What it is at, its log, searched and live, and who reads it. It works beside the process that
    writes the store, and costs that next to nothing. The address is said on standard error. The
    same as an API: GET /api/openapi.json describes it.

    On this machine alone, no token is needed. Elsewhere the token is asked for, and belongs into a
    file that only you can read; a proxy in front should speak HTTPS.

    Ctrl-C, SIGTERM and SIGHUP end it; after SIGTERM the exit code is 0.
    """
    with usage("--token-file"):
        token = _token(token_file)
    if host not in _LOOPBACK and token is None:
        raise typer.BadParameter(
            f"{host} is not this machine alone: give a --token-file",
            param_hint="--host",
        )
    wish = _Wish(host, port, token, write, allow_host or None)
    with exit_codes():
        number = anyio.run(
            _show, store, option, wish, backend_options={"use_uvloop": _has_uvloop()}
        )
        raise typer.Exit(WELL if number == SIGTERM else SIGNALLED + number)


def _has_uvloop() -> bool:
    """Return whether there is the faster loop."""
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return False
    return True


def _token(file: str | None) -> str | None:
    """Return the token; ValueError for a file without one."""
    if file is None:
        return None
    try:
        text = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    if not text:
        raise ValueError(f"{file} is empty")
    return text


async def _show(store: str, option: list[str] | None, wish: _Wish) -> int:
    """Show a store until a signal comes; return its number."""
    try:
        from aquipu.contrib.web.app import app as page_of
        from aquipu.contrib.web.server import address_of, listening, serve
    except ModuleNotFoundError as error:
        raise MissingPackageError("the page needs", error.name, "web") from None
    stopped: Future[int] = get_running_loop().create_future()
    async with _opened(store, option, write=wish.write) as log:
        with usage():
            page = page_of(log, token=wish.token, write=wish.write, hosts=wish.hosts)
        try:
            place = listening(wish.host, wish.port)
        except OSError as error:
            raise StoreUnavailableError(
                f"{wish.host}:{wish.port}", "answer at", error.strerror or str(error)
            ) from error
        with place, until_signalled(stopped.set_result):
            say(f"aquipu: {log.path} is shown at {address_of(wish.host, place)}")
            await serve(page, place, stopped)
    return stopped.result()


def _opened(
    store: str, option: list[str] | None, *, write: bool
) -> AbstractAsyncContextManager[Reader | RemoteStore | Store]:
    """Return what opens the store: to be read, or as one of those that write it."""
    if not write:
        return opened_for_reading(store, option)
    check_no_options(option)
    if address_in(store) is not None:
        return connecting(store)
    if not is_archive(store) and database_of(store) is not None:
        return Store.open(store)
    path = absolute(store)
    if is_archive(store) or not is_shared(path):
        raise typer.BadParameter(
            "writes through the process that has the store: one that is shared (shared=True), or"
            " that of `aquipu serve`, by its address",
            param_hint="--write",
        )
    return Store.open(path, shared=True)
