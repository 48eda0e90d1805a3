"""What is done to the bytes of a store: every change that there is, and the places where it is
made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, pairwise, permutations
from random import Random
from typing import NamedTuple

from aquipu.local.format.frame import HEADER_BYTES
from aquipu.local.format.names import segment_name
from tests.faults.fixture import Fixture, first_of
from tests.faults.image import Image

_RANDOM_PLACES = 3000  # in each store, of the kinds that could go on for ever


class Case(NamedTuple):
    """One change to one store; `FAULTS` says what the numbers mean."""

    kind: str
    fixture: int
    name: str
    """Of the file."""
    numbers: tuple[int, ...]

    def told(self, stores: Sequence[Fixture]) -> str:
        """For the line of a violation."""
        return f"{self.kind}: {stores[self.fixture].title}, {self.name} {self.numbers}"


def damaged(stores: Sequence[Fixture], case: Case) -> Image:
    """The directory after the change."""
    image = stores[case.fixture].image
    if case.kind in FAULTS:
        return {**image, case.name: FAULTS[case.kind](image[case.name], *case.numbers)}
    return _EXCHANGES[case.kind](stores, case)


def _flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit >> 3] ^= 1 << (bit & 7)
    return bytes(changed)


def _cut(data: bytes, start: int, end: int) -> bytes:
    return data[:start] + data[end:]


def _double(data: bytes, start: int, end: int, over: int) -> bytes:
    """The piece once more behind itself, in front of what followed or ``over`` it."""
    return data[:end] + data[start:end] + data[end + over * (end - start) :]


def _swap(data: bytes, first: int, first_end: int, second: int, second_end: int) -> bytes:
    between = data[first_end:second]
    return (
        data[:first] + data[second:second_end] + between + data[first:first_end] + data[second_end:]
    )


def _zero(data: bytes, start: int, end: int) -> bytes:
    return data[:start] + bytes(end - start) + data[end:]


def _older(data: bytes, end: int, zeros: int) -> bytes:
    """The segment as it was when its frames ended there, with so much space written ahead."""
    return data[:end] + bytes(zeros)


FAULTS: dict[str, Callable[..., bytes]] = {
    "flips": _flip,
    "cuts": _cut,
    "doublings": _double,
    "swaps": _swap,
    "zeroings": _zero,
    "older copies": _older,
}
"""Changes to the bytes of one file."""


def _remove(stores: Sequence[Fixture], case: Case) -> Image:
    image = dict(stores[case.fixture].image)
    del image[case.name]
    return image


def _rename(stores: Sequence[Fixture], case: Case) -> Image:
    """To the name of another sequence; a segment that has that name is lost, or gets this one's
    (number 1).
    """
    image = dict(stores[case.fixture].image)
    first_sequence, exchange = case.numbers
    moved, name = image.pop(case.name), segment_name(first_sequence)
    if exchange:
        image[case.name] = image[name]
    image[name] = moved
    return image


def _foreign(stores: Sequence[Fixture], case: Case) -> Image:
    """The file of the same name of another store."""
    image, other = stores[case.fixture].image, stores[case.numbers[0]].image
    return {**image, case.name: other[case.name]}


def _mix_up(stores: Sequence[Fixture], case: Case) -> Image:
    """Under its name another file of the same kind: the table of another segment, the bookmark of
    another name.
    """
    image, (other,) = stores[case.fixture].image, case.numbers
    return {**image, case.name: image[sorted(image)[other]]}


def _graft(stores: Sequence[Fixture], case: Case) -> Image:
    """From one place to another the bytes that stand there in another store, which was written in
    just the same way.
    """
    image, (other, start, end) = stores[case.fixture].image, case.numbers
    own, its = image[case.name], stores[other].image[case.name]
    return {**image, case.name: own[:start] + its[start:end] + own[end:]}


def _unchanged(stores: Sequence[Fixture], case: Case) -> Image:
    """For comparison: the store itself must open as what it was."""
    return stores[case.fixture].image


_EXCHANGES: dict[str, Callable[[Sequence[Fixture], Case], Image]] = {
    "unchanged": _unchanged,
    "removals": _remove,
    "renamings": _rename,
    "foreign files": _foreign,
    "mix-ups": _mix_up,
    "grafts": _graft,
}

KINDS = (*FAULTS, *_EXCHANGES)


# the places


def few_cases(stores: Sequence[Fixture]) -> list[Case]:
    """Every change to a whole file or a whole frame."""
    cases: list[Case] = []
    for number, fixture in enumerate(stores):
        cases.append(Case("unchanged", number, "", ()))
        cases += (Case("removals", number, name, ()) for name in fixture.image)
        other = 1 if number == 0 else 0
        cases += (Case("foreign files", number, name, (other,)) for name in fixture.image)
        cases += (
            Case("mix-ups", number, name, (other,))
            for name, other in _of_one_kind(sorted(fixture.image))
        )
        for name in fixture.segments:
            cases += (
                Case("renamings", number, name, numbers) for numbers in _new_names(fixture, name)
            )
            cases += (
                Case(kind, number, name, numbers) for kind, numbers in _whole_frames(fixture, name)
            )
            for start, end, _ in fixture.frames[name]:
                cases += (
                    Case("grafts", number, name, (other, start, stop))
                    for stop in (end, len(fixture.image[name]))
                )
    return cases


def many_cases(stores: Sequence[Fixture], rng: Random) -> dict[str, list[Case]]:
    """By kind: every bit flipped and every length that a file can be cut to; random places for what
    has no end.
    """
    cases: dict[str, list[Case]] = {
        kind: [] for kind in ("flips", "cuts", "doublings", "swaps", "zeroings")
    }
    for number, fixture in enumerate(stores):
        for name, data in fixture.image.items():
            cases["flips"] += (Case("flips", number, name, (bit,)) for bit in range(8 * len(data)))
            cases["cuts"] += (
                Case("cuts", number, name, (length, len(data))) for length in range(len(data))
            )
        for _ in range(_RANDOM_PLACES):
            name = rng.choice([name for name, data in fixture.image.items() if data])
            for kind, numbers in _random_places(len(fixture.image[name]), rng):
                cases[kind].append(Case(kind, number, name, numbers))
    return cases


Change = tuple[str, tuple[int, ...]]
"""Kind and numbers."""


def _whole_frames(fixture: Fixture, name: str) -> Iterator[Change]:
    places, size = fixture.frames[name], len(fixture.image[name])
    for start, end, _ in places:
        yield "zeroings", (start, end)
        yield "zeroings", (start + HEADER_BYTES, end)  # the header stays
        yield "cuts", (start, end)
        yield "doublings", (start, end, 0)
        yield from (("older copies", (start, zeros)) for zeros in (0, 1, size))
    for one, two in pairwise(places):
        yield "swaps", (one.start, one.end, two.start, two.end)
    for one, two in combinations(places[-6:], 2):
        yield "swaps", (one.start, one.end, two.start, two.end)


def _new_names(fixture: Fixture, name: str) -> Iterator[tuple[int, int]]:
    first = first_of(name)
    yield from (
        (sequence, 0)
        for sequence in (0, first + 1, 2**63, 2**64 - 1, 10**20 - 1)
        if sequence != first
    )
    for other in fixture.segments:
        if other != name:
            yield from ((first_of(other), exchange) for exchange in (0, 1))


def _of_one_kind(names: list[str]) -> Iterator[tuple[str, int]]:
    """A name, and the place of another name that may be mixed up with it."""
    for kind in ((".relations",), (".hold", ".cursor")):
        some = [place for place, name in enumerate(names) if name.endswith(kind)]
        yield from ((names[one], other) for one, other in permutations(some, 2))


def _random_places(size: int, rng: Random) -> Iterator[Change]:
    """One of each kind."""
    yield "cuts", _piece(size, rng, rng.randrange(1, 64))
    yield (
        "doublings",
        (*_piece(size, rng, rng.choice((1, 4, 52, 512, rng.randrange(1, 64)))), rng.randrange(2)),
    )
    yield "zeroings", _piece(size, rng, rng.choice((1, 16, 512)))
    length = rng.choice((1, 4, 8, 16, 64, 512))
    if 2 * length <= size:
        first = rng.randrange(size - 2 * length + 1)
        second = rng.randrange(first + length, size - length + 1)
        yield "swaps", (first, first + length, second, second + length)


def _piece(size: int, rng: Random, length: int) -> tuple[int, int]:
    start = rng.randrange(size)
    return start, min(start + length, size)
