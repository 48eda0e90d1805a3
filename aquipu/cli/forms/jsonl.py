"""JSON lines as records: each is checked, labels and time are read from its fields. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from re import fullmatch
from typing import Any, NamedTuple

from aquipu.cli.forms.jsontime import ExactFloat, TimePlace
from aquipu.labels import label
from aquipu.record import checked_relations


class BadLineError(ValueError):
    """The line of this number, counted from 1, cannot be stored; ``outcome`` says what was."""

    def __init__(self, source: str, number: int, reason: str, outcome: str) -> None:
        super().__init__(source, number, reason, outcome)
        self.source, self.number, self.reason, self.outcome = source, number, reason, outcome

    def __str__(self) -> str:
        return f"line {self.number} of {self.source}: {self.reason}; {self.outcome}"


class LabelPlace(NamedTuple):
    """Where in a line a label is: ``actor=.user.name``."""

    name: str
    path: tuple[str, ...]

    @classmethod
    def parsed(cls, text: str) -> LabelPlace:
        """Return the place that a text means; ValueError for anything else."""
        match = fullmatch(r"([^=]+)=((?:\.[^.=]+)+)", text)
        if match is None:
            raise ValueError(f"{text!r} is not NAME=.FIELD, such as actor=.user.name")
        return cls(match[1], tuple(match[2][1:].split(".")))

    def labels_in(self, value: Any) -> Iterator[str]:
        """Yield its labels: one for a value, one for each in a list, none where there is nothing.

        Raises ValueError for an object.
        """
        for part in self.path:
            value = value.get(part) if isinstance(value, dict) else None
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, (dict, list)):
                raise ValueError(f".{'.'.join(self.path)} is an object or a list in a list")
            if one is not None:
                yield label(f"{self.name}:{one if isinstance(one, str) else json.dumps(one)}")


class Entry(NamedTuple):
    """What a line is stored with."""

    labels: tuple[str, ...]
    time: int | None
    """The time that it says, in nanoseconds since the epoch, if it is asked for."""


def entry_of(line: bytes, places: Sequence[LabelPlace], time: TimePlace | None = None) -> Entry:
    """Return the labels of a line, each once, and its time; ValueError for what is no JSON.

    Also for labels that no record carries, and for what is no time.
    """
    exact = None if time is None else ExactFloat
    try:
        value = json.loads(line, parse_constant=_refuse, parse_float=exact)
        found = dict.fromkeys(one for place in places for one in place.labels_in(value))
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error.msg} at column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 from its byte {error.start + 1} on") from None
    except RecursionError:
        raise ValueError("its parts stand too deep in each other") from None
    labels = checked_relations(tuple(found))
    return Entry(labels, None if time is None else time.time_in(value))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
