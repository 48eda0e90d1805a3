"""A view as the lines of a terminal: 80 columns and 24 lines are enough. Pure.

Nothing depends on colour, and nothing that comes from a store can be more than text: names and
reasons are shown with escapes for all that is not printable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from aquipu.cli.forms.diagnosis.words import counted, size
from aquipu.cli.forms.shown import escaped
from aquipu.cli.top.view import COLUMNS, Line, View, joined

_BLOCKS = " ▁▂▃▄▅▆▇"
_PLAIN_BLOCKS = " .:-=+*#"
_NAME = 14
_NOW = 12
_PEAK = 11
_UNKNOWN = "-"


class Part(NamedTuple):
    """A piece of a line, and what it is: the drawing has the colours for that."""

    text: str
    role: str = ""
    """``title``, ``name``, ``good``, ``doubt``, ``bad``, ``faint`` or nothing."""


Row = tuple[Part, ...]


class Frame(NamedTuple):
    """Where a view is drawn."""

    width: int = 80
    height: int = 24
    unicode: bool = True
    clock: str = ""
    """Time to show."""


def rows(name: str, view: View, frame: Frame) -> list[Row]:
    """Return the lines of a view, no more and none longer than the frame takes."""
    drawn = [
        *_head(name, view, frame),
        (),
        *_activity(view, frame),
        (),
        *_state(view),
        (),
    ]
    room = frame.height - len(drawn) - 1
    drawn += _consumers(view, max(room, 0))
    drawn = drawn[: frame.height - 1]
    drawn += [()] * (frame.height - 1 - len(drawn))
    drawn.append(_foot(view, frame))
    return [_cut(row, frame.width) for row in drawn]


def _cut(row: Row, width: int) -> Row:
    """Return a line that fits: the last character shows where it was cut."""
    left, kept = width, []
    for part in row:
        if len(part.text) > left:
            kept.append(part._replace(text=part.text[: max(left - 1, 0)] + "…"[:left]))
            break
        kept.append(part)
        left -= len(part.text)
    return tuple(kept)


# the head


_ROLES = {"ok": "good", "degraded": "doubt", "at rest": "faint"}


def _head(name: str, view: View, frame: Frame) -> Iterator[Row]:
    title = f"aquipu top  {escaped(name)}"
    room = max(frame.width - len(frame.clock) - 2, 1)
    if len(title) > room:
        title = title[: max(room - 1, 0)] + "…"
    yield Part(f"{title:<{room}}  ", "title"), Part(frame.clock, "faint")
    role = _ROLES.get(view.health, "bad")
    head = f"{view.health:<{_NAME}}"
    text = escaped(joined(view.reasons))
    lines = _in_lines(f"{text}{'; ' * bool(text)}{_writer(view)}", frame.width - _NAME, 2)
    yield Part(head, role), Part(lines[0])
    for line in lines[1:]:
        yield Part(" " * _NAME), Part(line)


def _in_lines(text: str, width: int, most: int) -> list[str]:
    """Return a text broken at spaces, in so many lines at most."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width and len(lines) < most:
            lines.append(word)
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _writer(view: View) -> str:
    writer = view.writer
    if writer is None:
        return "no writer"
    if writer.pid is None:
        return "written by the daemon" if view.measured else "who writes it is not seen from here"
    state = {"stopped": ", which is stopped", "gone": ", which is gone"}
    return f"written by process {writer.pid}{state.get(writer.state or '', '')}"


# what goes on


def _activity(view: View, frame: Frame) -> Iterator[Row]:
    width = _spark_width(frame)
    title = f"{'':<{_NAME}}{'now':>{_NOW}}  {'last 5 minutes':<{width}}{'highest':>{_PEAK}}"
    yield (Part(title, "faint"),)
    yield _line("appends/s", view.appends, _number, frame)
    if not view.measured:
        yield (
            Part(f"{'latency':<{_NAME}}", "name"),
            Part("the writer alone knows: ask it, by unix:PATH or its /metrics"),
        )
        return
    yield _line("records/commit", view.records_per_commit, _decimal, frame)
    yield _line("append p50", view.append_p50, _time, frame)
    yield _line("append p99", view.append_p99, _time, frame)
    yield _line("sync p50", view.sync_p50, _time, frame)
    yield _line("sync p99", view.sync_p99, _time, frame)


def _line(name: str, line: Line, shown: Callable[[float], str], frame: Frame) -> Row:
    now = _UNKNOWN if line.now is None else shown(line.now)
    highest = "" if line.highest is None else shown(line.highest)
    width = _spark_width(frame)
    spark = sparkline(line.history, width, unicode=frame.unicode)
    return (
        Part(f"{name:<{_NAME}}", "name"),
        Part(f"{now:>{_NOW}}  "),
        Part(f"{spark:>{width}}", "good"),
        Part(f"{highest:>{_PEAK}}", "faint"),
    )


def _spark_width(frame: Frame) -> int:
    return max(min(frame.width - _NAME - _NOW - 2 - _PEAK, COLUMNS), 0)


def sparkline(points: Sequence[float | None], width: int, *, unicode: bool = True) -> str:
    """Return the newest points as blocks from nothing to the largest; unknown ones are spaces."""
    blocks = _BLOCKS if unicode else _PLAIN_BLOCKS
    shown = points[-width:] if width else ()
    most = max((point for point in shown if point is not None), default=0)
    return "".join(_block(point, most, blocks) for point in shown)


def _block(point: float | None, most: float, blocks: str) -> str:
    if point is None:
        return " "
    if point <= 0 or most <= 0:
        return blocks[1]
    return blocks[max(round(point / most * (len(blocks) - 1)), 1)]


# where it stands


def _state(view: View) -> Iterator[Row]:
    synced = "only the writer knows" if view.synced is None else f"{view.synced:,}"
    yield _fact("acknowledged", f"{view.acknowledged:,}")
    yield _fact("synced", f"{synced}; the log begins with {view.first:,}")
    yield _risk(view)
    if view.archived is not None:
        behind = f"; {_time(view.archive_seconds)} behind" if view.unarchived else ""
        left = counted(view.unarchived or 0, "record")
        yield _fact("archived", f"{view.archived:,}; {left} not yet{behind}")
    if view.measured:
        callers = "1 caller waits" if view.waiting == 1 else f"{view.waiting or 0:,} callers wait"
        yield _fact(
            "buffer",
            f"{view.buffered or 0:,} records, {size(view.buffered_bytes or 0)}; {callers} for room",
        )
    free = "free space not known" if view.free_bytes is None else f"{size(view.free_bytes)} free"
    segments = (
        "segments not known"
        if view.segments is None
        else f"{counted(view.segments, 'segment')}, {size(view.disk_bytes or 0)}"
    )
    busy = view.under_way_seconds or 0.0
    yield _fact("disk", f"{segments}; {free}" + (f"; busy for {_time(busy)}" if busy else ""))


def _risk(view: View) -> Row:
    if view.at_risk is None:
        return _fact("a power cut", "how many records it would take now, only the writer knows")
    if not view.at_risk:
        return _fact("a power cut", "would take no record now", "good")
    oldest = f", the oldest {_time(view.at_risk_seconds)} old" if view.at_risk_seconds else ""
    records = counted(view.at_risk, "record")
    return _fact("a power cut", f"would take {records} now{oldest}", "doubt")


def _fact(name: str, text: str, role: str = "") -> Row:
    return Part(f"{name:<{_NAME}}", "name"), Part(text, role)


def _consumers(view: View, room: int) -> Iterator[Row]:
    if not view.consumers:
        if room:
            yield _fact("consumers", "none with a cursor")
        return
    ordered = sorted(view.consumers.items(), key=lambda one: (-one[1].records, one[0]))
    hidden = len(ordered) - (room - 1)
    shown = ordered if hidden <= 0 else ordered[: max(room - 2, 0)]
    if room:
        yield (
            Part(f"{'consumers':<{_NAME}}", "name"),
            Part(f"{'behind':>{_NOW}}  {'oldest':>9}  cursor", "faint"),
        )
    for name, behind in shown:
        seconds = "?" if behind.seconds is None else _time(behind.seconds) if behind.records else ""
        yield (
            Part(" " * _NAME),
            Part(f"{behind.records:>{_NOW},}", "doubt" if behind.records else "good"),
            Part(f"  {seconds:>9}  {escaped(name)}"),
        )
    if len(shown) < len(ordered):
        yield Part(" " * (_NAME + 5)), Part(f"and {len(ordered) - len(shown):,} more", "faint")


def _foot(view: View, frame: Frame) -> Row:
    seen = "as the daemon counts" if view.measured else "seen from outside, by its files"
    return (Part(f"q quits; {seen}", "faint"),)


# numbers


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def _decimal(value: float) -> str:
    return f"{value:,.1f}"


def _time(seconds: float | None) -> str:
    """Return a time with its unit: 420 us, 1.6 ms, 12 s, 5 min."""
    if seconds is None:
        return _UNKNOWN
    for unit, length in (("us", 1e-6), ("ms", 1e-3), ("s", 1.0)):
        if seconds < 1000 * length and (unit != "s" or seconds < 120):
            value = seconds / length
            return f"{value:.0f} {unit}" if value >= 100 or unit == "us" else f"{value:.1f} {unit}"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
