"""The end of a program that writes to a daemon: what was accepted is sent without a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from logging import getLogger
from socket import AF_UNIX, SOCK_STREAM, socket
from threading import Thread
from time import monotonic
from weakref import WeakSet

from aquipu.errors import OutcomeUnknownError
from aquipu.local.disk.sockets import short
from aquipu.local.disk.system import at_fork
from aquipu.remote.connection import ANSWER_BYTES_MAX, PURGED
from aquipu.remote.protocol import (
    Head,
    Message,
    Messages,
    WireError,
    encoded,
    raise_if_error,
    welcome_in,
)
from aquipu.runtime.exit import EXIT_SECONDS, at_exit, is_ending

_RECEIVED_BYTES = 64 * 1024
_SECONDS_MIN = 0.01  # left of a deadline that is over

Sent = tuple[Head, list[bytes]]
"""A commit as a message: its head, and its records."""

_log = getLogger(__name__)

_threads: WeakSet[Thread] = WeakSet()
_undelivered: list[Callable[[float], None]] = []


def leave(deliver: Callable[[float], None]) -> None:
    """Deliver in the background; at the exit, where Python starts no thread, when it waits."""
    if is_ending():
        _undelivered.append(deliver)
        return
    thread = Thread(
        target=deliver, args=(monotonic() + EXIT_SECONDS,), name="aquipu-leave", daemon=True
    )
    thread.start()
    _threads.add(thread)


def _wait(deadline: float) -> None:
    while _undelivered:
        _undelivered.pop()(deadline)
    for thread in list(_threads):
        thread.join(max(deadline - monotonic(), 0))


def deliver_or_say(
    address: str, path: str, hello: Head, commits: list[Sent], deadline: float
) -> None:
    """Deliver commits to the daemon at the path of a socket, or log that it did not take them."""
    try:
        deliver(address, path, hello, commits, deadline)
    except Exception as error:
        _log.error(
            "%s was not closed, and its daemon did not take what was accepted before the exit: "
            "records that were accepted and not yet acknowledged may be missing; "
            "use aclose() or `async with`: %s",
            address,
            error,
        )


def deliver(address: str, path: str, hello: Head, commits: Sequence[Sent], deadline: float) -> None:
    """Send commits to the daemon at the end of a program, when there is no loop. Blocking.

    The first one may have been sent before; ``hello`` asks what has become of it then. Raises
    OSError, WireError, or what the daemon says.
    """
    with socket(AF_UNIX, SOCK_STREAM) as line:
        line.settimeout(_seconds_left(deadline))
        with short(path) as name:
            line.connect(name)
        messages = _received(line, deadline)
        line.sendall(encoded(hello))
        outcome = welcome_in(_heard(messages, address)).outcome
        known = outcome not in (None, "absent")
        for request, tail in commits[known:]:
            line.settimeout(_seconds_left(deadline))
            line.sendall(encoded({"id": 1, **request}, tail))
            _heard(messages, address)
    if outcome == "unknown":
        raise OutcomeUnknownError(address, PURGED)


def _received(line: socket, deadline: float) -> Iterator[Message]:
    messages = Messages(ANSWER_BYTES_MAX)
    while True:
        line.settimeout(_seconds_left(deadline))
        piece = line.recv(_RECEIVED_BYTES)
        if not piece:
            return
        yield from messages.feed(piece)


def _seconds_left(deadline: float) -> float:
    return max(deadline - monotonic(), _SECONDS_MIN)


def _heard(messages: Iterator[Message], address: str) -> Head:
    message = next(messages, None)
    if message is None:
        raise WireError("it hung up")
    raise_if_error(message.head, address)
    return message.head


at_exit(_wait)
at_fork(_threads.clear)
