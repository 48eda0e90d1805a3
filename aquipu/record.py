"""What goes in and what comes out: Record and Receipt, and the rules for data and labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, cast

from aquipu.policy import Stage

LABEL_BYTES_MAX = 1024
"""The longest label of a relation, in bytes of UTF-8."""
LABELS_MAX = 255
"""The most labels that one record may carry."""


class Receipt(NamedTuple):
    """What ``append`` gives back."""

    sequence: int
    """The record's place in the log: dense, from 0, in the order in which ``append`` was called."""
    timestamp: int
    """Nanoseconds since the epoch when the record was accepted; never decreasing within a store."""
    stage: Stage
    """How far the record had come when its caller was told: at least what its policy or it itself asked for."""


class Record(NamedTuple):
    """One record as it was stored."""

    sequence: int
    timestamp: int
    """Nanoseconds since the epoch when the record was accepted."""
    data: bytes
    relations: tuple[str, ...] = ()
    """The labels that were given with it, in their order."""


def checked_data(data: object) -> bytes:
    """``data`` as bytes of its own, so that the caller may reuse its buffer. TypeError for what is no bytes-like."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"a record is bytes, bytearray or memoryview, not {type(data).__name__}")


def checked_batch(items: Iterable[object]) -> list[bytes]:
    """Each of them as `checked_data` gives it."""
    batch = list(items)
    if set(map(type, batch)) <= {bytes}:
        return cast("list[bytes]", batch)
    return [checked_data(item) for item in batch]


def labels_size(labels: tuple[str, ...]) -> int:
    """Bytes of the labels in UTF-8."""
    return sum(len(label.encode()) for label in labels)


def checked_relations(relations: Iterable[str]) -> tuple[str, ...]:
    """The labels as a tuple; TypeError or ValueError for one that cannot be stored."""
    if isinstance(relations, (str, bytes)):
        raise TypeError("relations takes a collection of labels; one label is written as a tuple: ('user:7',)")
    labels = tuple(relations)
    if len(labels) > LABELS_MAX:
        raise ValueError(f"a record carries at most {LABELS_MAX} labels, not {len(labels)}")
    for label in labels:
        if not isinstance(label, str):
            raise TypeError(f"a label of relations is a str, not {type(label).__name__}")
        if not label:
            raise ValueError("a label of relations is not empty")
        if not label.isprintable():
            raise ValueError("a label of relations holds printable characters and spaces only")
        if len(label.encode()) > LABEL_BYTES_MAX:
            raise ValueError(f"a label of relations has at most {LABEL_BYTES_MAX} bytes of UTF-8")
    return labels
