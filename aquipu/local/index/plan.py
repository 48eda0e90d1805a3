"""How a search goes about one segment: which postings it reads, and which labels it looks at. Pure.

The records that carry every one of several labels are among those of the rarest. So its postings
are read, and of the others only those that are worth it: to read a posting and to compare it costs
about an eighth of what it costs to read a record and to find that it does not carry the label.
Where the postings to be read are several times as many as the segment has records, every frame is
looked through instead. How many postings a label has is known roughly, by the blocks that hold
them; a plan changes what a search costs, and never what it finds.

Which frames are read is no matter of the plan: those that hold candidates, and runs of them in one
piece. So a label that stands everywhere is read as a full scan is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from aquipu.options import Wanted

_WORTH = 8  # postings of another label that are read to spare one record
_CHEAP = 4096  # postings, in one block: always read
_POSTINGS_OF_RECORD = 4  # that cost as much as to look through one record


class Plan(NamedTuple):
    """What is looked up of a search; the candidates that it gives are looked at for the rest."""

    every: tuple[str, ...]
    """Labels of which every one must stand at a candidate, the rarest first."""
    any_of: tuple[str, ...]
    """Labels of which one must; none: they are not looked up."""

    @property
    def sure(self) -> Wanted:
        """What each candidate carries, unless the index is wrong."""
        return Wanted(self.every, self.any_of)


def plan(wanted: Wanted, sizes: Mapping[str, int], records: int) -> Plan | None:
    """Return what to look up in a segment of so many records; None: look through all of them.

    ``sizes`` says how many postings each label has there, about.
    """
    rarest = sorted(wanted.every, key=sizes.__getitem__)
    together = sum(sizes[label] for label in wanted.any_of)
    # labels of which one must stand there count as one label that is as frequent as all of them
    fewest = min([sizes[label] for label in rarest[:1]] + [together] * bool(wanted.any_of))
    bound = max(_WORTH * fewest, _CHEAP)
    every = tuple(label for label in rarest if sizes[label] <= bound)
    any_of = wanted.any_of if together <= bound else ()
    read = sum(sizes[label] for label in every) + together * bool(any_of)
    return None if read > _POSTINGS_OF_RECORD * records else Plan(every, any_of)
