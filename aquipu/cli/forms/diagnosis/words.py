"""The words that the text and the page of a diagnosis share. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aquipu.cli.forms.shown import local_time, nanoseconds_of
from aquipu.local.check.diagnosis.facts import (
    Consumer,
    Diagnosis,
    IndexState,
    Kind,
    SegmentFacts,
    State,
)

SIGNS = {
    Kind.HEADER: "=",
    Kind.FRAMES: "=",
    Kind.FOOTER: "=",
    Kind.DAMAGE: "X",
    Kind.TORN: "~",
    Kind.BEHIND: "+",
    Kind.UNWRITTEN: ".",
}
"""The sign of each kind of stretch in a map of text."""
_WEIGHTY = (Kind.DAMAGE, Kind.TORN)


def verdict(found: Diagnosis) -> str:
    """Return what a diagnosis comes to, in a few words."""
    if found.is_damaged:
        return "damaged: opening refuses it" if found.refusal else "damaged"
    if found.torn_tail is not None:
        return "sound, with a torn tail that opening cuts off"
    return "sound"


def facts_of(found: Diagnosis) -> Iterator[tuple[str, str]]:
    """Yield the facts about a store as a whole, each with its name."""
    place = found.place
    yield "path", found.path
    yield "store id", found.store_id or "not known"
    yield "generation", found.generation or "none"
    yield "records", _records(found)
    if found.first_time and found.last_time:
        yield "first commit", _here(found.first_time)
        yield "last commit", f"{_here(found.last_time)}, {_ago(found)}"
    yield "proven on disk", _proven(found)
    yield "written by", _writer(found)
    yield (
        "files",
        f"{counted(len(found.segments), 'segment')}, {size(found.bytes)} in all; {_indexes(found)}",
    )
    compressed = [one for one in found.segments if one.plain_bytes]
    if compressed:
        now, before = (
            sum(one.bytes for one in compressed),
            sum(one.plain_bytes for one in compressed),
        )
        yield "compressed", f"{counted(len(compressed), 'segment')}, {size(before)} to {size(now)}"
    free = "free space not known" if place.free_bytes is None else f"{size(place.free_bytes)} free"
    yield "file system", f"{place.file_system or 'not known'}, {free}"
    modes = sorted({one.mode for one in found.segments if one.mode})
    yield (
        "rights",
        (
            f"directory {place.mode}, segments {' '.join(modes) or 'none'}; "
            f"owner {place.owner}, group {place.group}"
        ),
    )
    yield "holds", _consumers(found.holds)
    yield "cursors", _consumers(found.cursors)
    yield "checked", found.checked


def _records(found: Diagnosis) -> str:
    if found.records is None or found.next_sequence is None:
        return "not known: damage hides where the log ends"
    if not found.records:
        return f"none; the next has sequence {found.next_sequence}"
    return f"{found.records:,}, sequences {found.first_sequence} to {found.next_sequence - 1}"


def _proven(found: Diagnosis) -> str:
    if found.writer is not None:
        return "only the writer knows, while it writes"
    if found.synced_sequence is None:
        return "not known"
    if found.synced_sequence == found.next_sequence:
        return "every record"
    return f"up to sequence {found.synced_sequence - 1}" if found.synced_sequence else "nothing yet"


def _writer(found: Diagnosis) -> str:
    if found.writer is not None:
        pid = found.writer.pid
        who = "a process that is not seen from here" if pid is None else f"process {pid}"
        return f"{who}, and by others through it" if found.writer.shared else who
    left = {
        "closed": "the last writer closed it",
        "not closed": "the last writer did not close it",
        "repaired": "it was repaired since",
    }.get(found.ending or "")
    return f"nobody; {left}" if left else "nobody"


def _indexes(found: Diagnosis) -> str:
    sealed = [one for one in found.segments if one.index is not IndexState.NONE]
    there = sum(one.index is IndexState.THERE for one in sealed)
    return f"label indexes {there} of {len(sealed)}"


def _consumers(ones: Sequence[Consumer]) -> str:
    shown = [
        f"{one.name} at {one.sequence}"
        + (f" ({one.records:,} to go)" if one.records is not None else "")
        for one in ones
    ]
    return "; ".join(shown) or "none"


def _here(iso: str) -> str:
    return local_time(nanoseconds_of(iso))


def _ago(found: Diagnosis) -> str:
    assert found.last_time is not None
    seconds = (nanoseconds_of(found.seen_at) - nanoseconds_of(found.last_time)) // 1_000_000_000
    return f"{duration(seconds)} ago" if seconds > 0 else "just now"


def duration(seconds: int) -> str:
    """Return how long that is, in one unit: 90 s, 15 min, 3 h, 12 days."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:,} {unit}"
    return f"{seconds} s"


def size(number: int) -> str:
    """Return a number of bytes as people read it: 812 B, 4.0 KiB, 64.0 MiB."""
    value, units = float(number), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{number:,} B" if units[0] == "B" else f"{value:,.1f} {units[0]}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 segment, 2,000 segments."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


# a map


def sequences_of(one: SegmentFacts) -> str:
    """Return which sequences a segment holds."""
    if one.state is State.MISSING or one.next_sequence is None:
        return f"{one.first_sequence} to ?"
    if one.next_sequence == one.first_sequence:
        return "none yet"
    return f"{one.first_sequence} to {one.next_sequence - 1}"


def bar_of(one: SegmentFacts, width: int) -> str:
    """Return the map of a segment in so many characters; what is damaged always shows."""
    if not one.bytes:
        return "?" * width if one.state is State.MISSING else ""
    signs = []
    for column in range(width):
        begin = column * one.bytes // width
        end = max((column + 1) * one.bytes // width, begin + 1)
        within = [part for part in one.stretches if part.offset < end and begin < part[1] + part[2]]
        heavy = [part for part in within if part.kind in _WEIGHTY]
        most = max(
            heavy or within,
            key=lambda part: min(part.offset + part.bytes, end) - max(part.offset, begin),
        )
        signs.append(SIGNS[most.kind])
    return "".join(signs)


def notable(segments: Sequence[SegmentFacts], newest: int, others: int) -> list[SegmentFacts | int]:
    """Return the segments that are worth a line; a number says how many are left out there.

    These are the newest ones, and so many others at most that are not plainly sealed and whole.
    """
    shown: list[SegmentFacts | int] = []
    for place, one in enumerate(segments):
        is_plain = one.state is State.SEALED and one.index is IndexState.THERE
        if place >= len(segments) - newest:
            shown.append(one)
        elif not is_plain and others > 0:
            others -= 1
            shown.append(one)
        elif shown and isinstance(shown[-1], int):
            shown[-1] += 1
        else:
            shown.append(1)
    return shown
