"""Which keys are known, and what becomes of one that is given again. Pure.

The numbers of a producer grow with the sequences of their records, so its last number says of every
higher one that it is new. What is kept here of a producer is that number, the numbers under way,
and of the numbers that came last where their records are. All else stands in the log, which is
searched for a producer that is not, or not any more, kept here, and for an older number::

                    under way?  ──▶ SHARE     wait for the outcome of the first
    number ─────────located?    ──▶ REPEAT    its receipts once more
                    below one under way  ──▶ WAIT      until it is decided which is the last
                    above the last       ──▶ ACCEPT
                    else, or not kept    ──▶ SEARCH    the log; then it is located, new or stale

A number that was accepted and is then refused, or leaves the line, is dropped: it may come again.
A producer with numbers under way, or that is being searched for, is always kept, so what the search
has found is never behind what was stored meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum, auto
from typing import Generic, NamedTuple, TypeVar

from aquipu.record import Known, Located

Shared = TypeVar("Shared")

PRODUCERS_MAX = 16_384
"""Producers that are kept."""
LOCATED_MAX = 16_384
"""Numbers of which it is kept where their records are."""


class Do(Enum):
    """What to do with an append that has a key."""

    ACCEPT = auto()
    SHARE = auto()
    WAIT = auto()
    REPEAT = auto()
    SEARCH = auto()


class Decision(NamedTuple, Generic[Shared]):
    """What to do, and with what."""

    do: Do
    shared: Shared | None = None
    """The append under way to share the outcome of, or to wait for."""
    located: Located | None = None
    """Where the records are whose receipts are given again."""


class _Producer(Generic[Shared]):
    __slots__ = ("last", "searches", "under_way")

    def __init__(self) -> None:
        self.last: int | None = None
        """Highest number in the log; -1: none is; None: that is not known."""
        self.under_way: dict[int, Shared] = {}
        """By their numbers, ascending."""
        self.searches = 0
        """Searches for it in the log that are under way."""


class Keys(Generic[Shared]):
    """What is known of the producers of a log.

    ``Shared`` stands for whatever those wait for that append under a key that is under way.
    """

    def __init__(
        self, *, producers_max: int = PRODUCERS_MAX, located_max: int = LOCATED_MAX
    ) -> None:
        """Begin with nothing known."""
        self._producers_max = producers_max
        self._located_max = located_max
        self._producers: OrderedDict[bytes, _Producer[Shared]] = OrderedDict()
        self._located: OrderedDict[tuple[bytes, int], Located] = OrderedDict()

    def decide(self, writer: bytes, number: int) -> Decision[Shared]:
        """Return what to do with an append that is given this key."""
        located = self._located.get((writer, number))
        if located is not None:
            return Decision(Do.REPEAT, located=located)
        producer = self._producers.get(writer)
        if producer is None or producer.last is None:
            return Decision(Do.SEARCH)
        self._producers.move_to_end(writer)
        under_way = producer.under_way
        if number in under_way:
            return Decision(Do.SHARE, under_way[number])
        if number <= producer.last:
            return Decision(Do.SEARCH)
        highest = next(reversed(under_way), -1)
        if number < highest:
            return Decision(Do.WAIT, under_way[highest])
        return Decision(Do.ACCEPT)

    # the log is searched

    def seek(self, writer: bytes) -> None:
        """Keep a producer from now on until it is `learnt`: the log is searched for it."""
        self._kept(writer).searches += 1
        self._drop_oldest()

    def learnt(self, writer: bytes, number: int, known: Known | None) -> bool:
        """Take what a search for a number has found; None when it has failed.

        Return whether the number is stale: it is neither in the log nor new.
        """
        producer = self._kept(writer)
        producer.searches -= 1
        if known is None:
            return False
        producer.last = known.last if producer.last is None else max(producer.last, known.last)
        if known.found is not None:
            self._locate(writer, number, known.found)
        return known.found is None and number <= producer.last

    def last(self, writer: bytes) -> int:
        """Return the highest number of a producer that is known to be in the log; -1: none."""
        producer = self._producers.get(writer)
        return -1 if producer is None or producer.last is None else producer.last

    # on the way of an append

    def begin(self, writer: bytes, number: int, shared: Shared) -> None:
        """Keep a number that is about to be accepted: it was decided to `Do.ACCEPT` it."""
        self._kept(writer).under_way[number] = shared

    def drop(self, writer: bytes, number: int, shared: Shared) -> None:
        """Drop a number again: nothing was written. Does nothing the second time."""
        under_way = self._kept(writer).under_way
        if under_way.get(number) is shared:
            del under_way[number]

    def complete(self, writer: bytes, number: int, located: Located) -> None:
        """Keep where the records of a number are: it is in the log. It may be called again."""
        producer = self._kept(writer)
        producer.last = max(-1 if producer.last is None else producer.last, number)
        self._locate(writer, number, located)
        producer.under_way.pop(number, None)

    # within bounds

    def _kept(self, writer: bytes) -> _Producer[Shared]:
        producer = self._producers.get(writer)
        if producer is None:
            producer = self._producers[writer] = _Producer()
        return producer

    def _locate(self, writer: bytes, number: int, located: Located) -> None:
        self._located[writer, number] = located
        while len(self._located) > self._located_max:
            self._located.popitem(last=False)

    def _drop_oldest(self) -> None:
        """Drop the producers that came longest ago, but for those that must be kept."""
        for _ in range(len(self._producers) - self._producers_max):
            writer, producer = self._producers.popitem(last=False)
            if producer.under_way or producer.searches:
                self._producers[writer] = producer
