"""The forms in which records are written one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from aquipu.cli.forms.exporter import ndjson
from aquipu.record import Record

Form = Callable[[Record], bytes]
"""Gives the bytes of one record, with what ends them."""


class Wish(NamedTuple):
    """What the options say of the form; at most one of them."""

    json: bool = False
    nul: bool = False
    raw: bool = False

    def form(self, shown: Callable[[Record], str] | None) -> Form:
        """Return the form: without a wish what is ``shown``, or else the data and a line end."""
        if self.json:
            return ndjson
        if self.raw:
            return lambda record: record.data
        if self.nul:
            return lambda record: record.data + b"\0"
        if shown is not None:
            return lambda record: f"{shown(record)}\n".encode()
        return lambda record: record.data + b"\n"
