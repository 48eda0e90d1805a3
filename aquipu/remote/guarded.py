"""Appends that a daemon decides on: with a key, or at one sequence only. Requests of their own.

Each may be asked again when the connection was lost, as often as it takes: a key says by itself
what was stored. An append without one is given a key of this client, with a number that no other
has; asked again, it also says below which sequence it cannot be, and the daemon searches its log
from there on, as it does for a commit. So it gets its receipt, and not the conflict with itself.

They are sent in the order in which they came, also again: the numbers of a producer ascend.

As many as `UNDER_WAY_MAX` are under way at a time, so that the daemon has hands left for the
commits and the readers of this client. What waits here is what its callers hold in any case.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, Semaphore, Task
from collections.abc import Callable
from functools import partial
from itertools import count

from aquipu.engine import Progress
from aquipu.errors import (
    AquipuError,
    ConflictError,
    OutcomeUnknownError,
    StoreUnavailableError,
    copy_error,
)
from aquipu.local.disk.system import random_bytes
from aquipu.record import Guarded, Receipt
from aquipu.remote.connection import Connection
from aquipu.remote.protocol import (
    Head,
    Message,
    WireError,
    number_in,
    raise_if_error,
    records_of_commit,
    stored_in,
)

UNDER_WAY_MAX = 12
"""Requests of one client at a time; a daemon takes 16 of all kinds."""
_EXPECTED_MAX = (1 << 64) - 1
"""What a message has room for; no record ever gets this sequence, nor a higher one."""


class GuardedAppends:
    """Those of one client."""

    def __init__(
        self, connection: Connection, loop: AbstractEventLoop, progress: Callable[[], Progress]
    ) -> None:
        """``progress``: how far the log reaches, as the daemon said last."""
        self._connection = connection
        self._loop = loop
        self._progress = progress
        self._writer = random_bytes(16)
        self._numbers = count()
        self._permits = Semaphore(UNDER_WAY_MAX)
        self._requests: list[_Request] = []  # in the order in which they came
        self._reaching: Task[None] | None = None

    async def append(self, batch: Guarded) -> list[Receipt]:
        """Have the daemon store a batch, and return the receipts of the first time.

        Raises OutcomeUnknownError when it was sent and the daemon could not be asked again.
        """
        expected = None if batch.expected is None else min(batch.expected, _EXPECTED_MAX)
        head: Head = {"do": "append", "stage": batch.stage, "expect": expected}
        writer, head["number"] = batch.key or (self._writer, next(self._numbers))
        head["producer"] = writer.hex() if batch.key is not None else None
        head["client"] = writer.hex() if batch.key is None else None
        labels = dict.fromkeys(range(len(batch.payloads)), batch.labels) if batch.labels else {}
        tail = records_of_commit(batch.payloads, [0] * len(batch.payloads), labels)
        async with self._permits:
            message = await self._ask(head, tail)
        address = self._connection.address
        try:
            raise_if_error(message.head, address)
            stored, records = stored_in(message.head), number_in(message.head, "records")
        except WireError as error:
            raise OutcomeUnknownError(
                address, f"the daemon's answer cannot be understood, {error}"
            ) from error
        except ConflictError as error:
            if batch.expected is not None and batch.expected != expected:
                raise ConflictError(error.path, batch.expected, error.next_sequence) from None
            raise
        except AquipuError:
            raise
        except (TypeError, ValueError) as error:  # what the daemon refuses
            raise StoreUnavailableError(address, "append to", str(error)) from error
        first, time, stage = stored
        return [Receipt(sequence, time, stage) for sequence in range(first, first + records)]

    async def _ask(self, head: Head, tail: list[bytes]) -> Message:
        """Ask the daemon, and again as often as the connection is lost before it has answered."""
        request = _Request(head, tail, self._loop.create_future())
        self._requests.append(request)
        try:
            self._send()
            return await request.answer
        finally:
            self._requests.remove(request)

    def _send(self) -> None:
        """Send what is not on its way, in the order in which it came; or have the way made."""
        for request in self._requests:
            if request.is_on_its_way or request.answer.done():
                continue
            if not self._connection.is_up:
                if self._reaching is None or self._reaching.done():
                    self._reaching = self._loop.create_task(self._reach())
                return
            again = request.was_sent
            if not again:
                request.head["floor"] = self._progress().next_sequence
            # an interrupt between these steps has it sent twice at most, and asked again
            request.was_sent = True
            head = request.head | {"again": again}
            self._connection.send(head, request.tail, partial(self._heard, request))
            request.is_on_its_way = True

    async def _reach(self) -> None:
        """Wait for the connection and send; fail what waits when the daemon cannot be reached."""
        try:
            await self._connection.reached()
        except AquipuError as error:
            for request in self._requests:
                request.fail(error, self._connection.address)
        else:
            self._send()

    def _heard(self, request: _Request, message: Message | None) -> None:
        """Take an answer; None: the connection was lost before it came."""
        request.is_on_its_way = False
        if message is None:
            self._send()
        elif not request.answer.done():
            request.answer.set_result(message)


class _Request:
    """One append, until its answer is there."""

    def __init__(self, head: Head, tail: list[bytes], answer: Future[Message]) -> None:
        self.head = head
        self.tail = tail
        self.answer = answer
        self.is_on_its_way = False
        self.was_sent = False
        """Perhaps through a connection that was lost."""

    def fail(self, error: AquipuError, address: str) -> None:
        """Take note that the daemon cannot be reached."""
        if self.was_sent:
            unknown = OutcomeUnknownError(address, str(error))
            unknown.__cause__ = error
            error = unknown
        if not self.answer.done() and not self.is_on_its_way:
            self.answer.set_exception(copy_error(error))
