"""What can be read of a log, whoever writes it: the face that `Store` and readers in other processes share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial

from aquipu.errors import RecordNotWrittenError, RecordPurgedError
from aquipu.handoff import Handoff
from aquipu.record import Record
from aquipu.scan import Scan
from aquipu.view import View, find


class Readable(ABC):
    """A log that can be read while it is being written."""

    _path: str
    _handoff: Handoff

    @abstractmethod
    def _check_readable(self) -> None:
        """Raise unless it may be read from here and now."""

    @abstractmethod
    async def _seen(self) -> View:
        """Everything that may be seen now."""

    async def get(self, sequence: int) -> Record:
        """The record with this sequence.

        Raises RecordPurgedError or RecordNotWrittenError (both also LookupError), CorruptionError when it does not
        check, StoreUnavailableError when the file cannot be read.
        """
        _check_sequence(sequence, "sequence")
        self._check_readable()
        seen = await self._seen()
        if sequence < seen.start:
            raise RecordPurgedError(self._path, sequence, seen.start)
        if sequence >= seen.stop:
            raise RecordNotWrittenError(self._path, sequence, seen.stop)
        return await self._handoff.run(find, seen._replace(start=sequence, stop=sequence + 1))

    def scan(self, start: int | None = None, stop: int | None = None) -> Scan:
        """The records from ``start`` up to, not including, ``stop``, in order: ``async for record in store.scan()``.

        Without them: from the first one kept, up to the last one acknowledged when the scan takes its first step; what
        is appended later is not part of it. Raises TypeError or ValueError for a negative sequence or a start after
        the stop, RecordPurgedError (at its first step) for a start that is no longer kept.
        """
        for sequence, name in ((start, "start"), (stop, "stop")):
            if sequence is not None:
                _check_sequence(sequence, name)
        if start is not None and stop is not None and start > stop:
            raise ValueError(f"a scan's start ({start}) is not after its stop ({stop})")
        self._check_readable()
        return Scan(partial(self._between, start, stop), self._handoff)

    async def _between(self, start: int | None, stop: int | None) -> View:
        self._check_readable()
        seen = await self._seen()
        first = seen.start if start is None else start
        if first < seen.start:
            raise RecordPurgedError(self._path, first, seen.start)
        return seen._replace(start=first, stop=seen.stop if stop is None else min(stop, seen.stop))


def _check_sequence(sequence: object, name: str) -> None:
    if not isinstance(sequence, int) or isinstance(sequence, bool):
        raise TypeError(f"{name} is a sequence, a whole number, not {type(sequence).__name__}")
    if sequence < 0:
        raise ValueError(f"{name} is a sequence, from 0 on, not {sequence}")
