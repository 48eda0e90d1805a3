"""A diagnosis as a page of HTML: whole in itself, without a script, for browsers and mail. Pure.

Every text in it comes through `_text`: what is not printable becomes an escape that can be read,
and what means something to HTML is written as HTML writes it. A policy in the page allows nothing
but its own style sheet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from aquipu.cli.forms.diagnosis.style import STYLE
from aquipu.cli.forms.diagnosis.words import (
    counted,
    facts_of,
    notable,
    sequences_of,
    size,
    verdict,
)
from aquipu.cli.forms.shown import escaped
from aquipu.local.check.diagnosis.facts import Diagnosis, Kind, SegmentFacts, State, Stretch

_NEWEST, _OTHERS = 12, 100  # segments that have a line
_STRIP_MAX = 5000
_ROWS_MAX = 500
_MAP_WIDTH = 1000
_MAP_LEAST = 4
"""Width of a stretch that matters, however small it is."""
_CLASSES = {
    Kind.HEADER: "header",
    Kind.FRAMES: "frames",
    Kind.FOOTER: "footer",
    Kind.DAMAGE: "damage",
    Kind.TORN: "torn",
    Kind.BEHIND: "behind",
    Kind.UNWRITTEN: "unwritten",
}
_KEY = (
    ("frames", "frames", "var(--frames)"),
    ("header", "header and footer", "var(--edge)"),
    ("damage", "damage, or a file that is missing", "var(--bad)"),
    ("torn", "torn tail", "var(--doubt)"),
    ("unwritten", "space written ahead, or not yet acknowledged", "var(--ahead)"),
)


def page_of(found: Diagnosis) -> str:
    """Return the page."""
    name = found.path.rpartition("/")[2] or found.path
    kind = "bad" if found.is_damaged else "doubt" if found.torn_tail else "good"
    return "".join(
        (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n',
            (
                '<meta http-equiv="Content-Security-Policy" '
                "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
            ),
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f"<title>{_text(name)}: {_text(verdict(found))}</title>\n",
            f"<style>{STYLE}</style></head>\n<body>\n",
            f"<h1>{_text(name)}</h1>\n",
            f'<div class="verdict {kind}">{_text(verdict(found))}</div>\n',
            _cards(found),
            _list("What to look at", _remarks(found)),
            _list("What opening would do", _opening(found)),
            _damages(found),
            _repair(found),
            _facts(found),
            _map(found),
            (
                f'<p class="faint">Seen {_text(found.seen_at)} by aquipu doctor, which changed '
                "nothing.</p>\n</body></html>\n"
            ),
        )
    )


def _text(text: object) -> str:
    return escape(escaped(str(text)))


def _cards(found: Diagnosis) -> str:
    unknown = "not known"
    free = found.place.free_bytes
    cards = (
        ("records", unknown if found.records is None else f"{found.records:,}"),
        ("segments", f"{len(found.segments):,}"),
        ("in all files", size(found.bytes)),
        ("free", unknown if free is None else size(free)),
        ("places that do not check", f"{len(found.damages):,}"),
        (
            "writer",
            "nobody"
            if found.writer is None
            else "at work"
            if found.writer.pid is None
            else f"pid {found.writer.pid}",
        ),
    )
    bad = ' class="bad"' if found.damages else ""
    shown = (
        f'<div class="card"><b{bad if "check" in name else ""}>{_text(value)}</b>'
        f"<span>{_text(name)}</span></div>"
        for name, value in cards
    )
    return f'<div class="cards">{"".join(shown)}</div>\n'


def _list(title: str, items: Iterable[str]) -> str:
    shown = "".join(f"<li>{item}</li>\n" for item in items)
    return f"<h2>{_text(title)}</h2>\n<ul>{shown}</ul>\n" if shown else ""


def _remarks(found: Diagnosis) -> Iterator[str]:
    for remark in found.remarks:
        weight = _text(remark.weight)
        yield f'<span class="weight-{weight}">{weight}</span> {_text(remark.text)}'


def _opening(found: Diagnosis) -> Iterator[str]:
    yield from map(_text, found.opening)
    if found.refusal is not None:
        yield f"<code>{_text(found.refusal)}</code>"


def _facts(found: Diagnosis) -> str:
    rows = "".join(
        f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>\n" for name, value in facts_of(found)
    )
    return f"<h2>The store</h2>\n<dl>{rows}</dl>\n"


# the map


def _map(found: Diagnosis) -> str:
    largest = max((one.bytes for one in found.segments), default=0)
    rows = "".join(
        f'<tr><td colspan="6" class="faint">{_text(counted(one, "segment"))} more, all of them '
        "sealed and whole</td></tr>\n"
        if isinstance(one, int)
        else _row(one, largest)
        for one in notable(found.segments, _NEWEST, _OTHERS)
    )
    key = "".join(
        f'<span><i style="background: {colour}"></i>{_text(what)}</span>'
        for _, what, colour in _KEY
    )
    return (
        f"<h2>Segments, the oldest first</h2>\n{_strip(found)}"
        f'<div class="key">{key}</div>\n<div class="scroll"><table><thead><tr>'
        '<th>state</th><th>sequences</th><th class="number">frames</th>'
        '<th class="number">size</th><th>label index</th><th>map</th></tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>\n"
    )


def _strip(found: Diagnosis) -> str:
    """Return a small square for each segment, so that one that is damaged is seen among many."""
    if len(found.segments) < 2:
        return ""
    squares = "".join(
        f'<i class="{_square(one)}" title="{_text(one.name)}: {_text(one.state)}"></i>'
        for one in found.segments[-_STRIP_MAX:]
    )
    return f'<div class="strip">{squares}</div>\n'


def _square(one: SegmentFacts) -> str:
    if one.state in (State.ACTIVE, State.SEALED):
        torn = any(stretch.kind is Kind.TORN for stretch in one.stretches)
        return "torntail" if torn else str(one.state)
    return str(one.state).partition(" ")[0]


def _row(one: SegmentFacts, largest: int) -> str:
    frames = "?" if one.frames is None else f"{one.frames:,}"
    index = "" if one.index == "none" else str(one.index)
    return (
        f'<tr title="{_text(one.name)}, mode {_text(one.mode or "unknown")}">'
        f'<td class="state-{str(one.state).partition(" ")[0]}">{_text(one.state)}</td>'
        f'<td>{_text(sequences_of(one))}</td><td class="number">{frames}</td>'
        f'<td class="number">{_text(size(one.bytes))}</td><td>{_text(index)}</td>'
        f'<td class="map">{_bar(one, largest)}</td></tr>\n'
    )


def _bar(one: SegmentFacts, largest: int) -> str:
    whole = max(one.bytes, 1)
    share = max(100 * one.bytes / largest, 5) if one.bytes and largest else 100
    if not one.bytes:
        parts = f'<rect class="damage" width="{_MAP_WIDTH}" height="10"></rect>'
    else:
        # what matters is drawn last, so that nothing hides it
        ordered = sorted(one.stretches, key=lambda part: part.kind in (Kind.TORN, Kind.DAMAGE))
        parts = "".join(_rect(part, whole) for part in ordered)
    return (
        f'<svg style="width: {share:.1f}%" viewBox="0 0 {_MAP_WIDTH} 10" '
        f'preserveAspectRatio="none" role="img" aria-label="{_text(_spoken(one))}">{parts}</svg>'
    )


def _rect(part: Stretch, whole: int) -> str:
    start, width = part.offset * _MAP_WIDTH / whole, part.bytes * _MAP_WIDTH / whole
    if part.kind in (Kind.TORN, Kind.DAMAGE):
        width = max(width, _MAP_LEAST)
        start = min(start, _MAP_WIDTH - width)
    title = f"{part.kind}: {part.bytes:,} bytes from offset {part.offset:,}"
    return (
        f'<rect class="{_CLASSES[part.kind]}" x="{start:.2f}" width="{width:.2f}" height="10">'
        f"<title>{_text(title)}</title></rect>"
    )


def _spoken(one: SegmentFacts) -> str:
    parts = "; ".join(f"{part.kind} {size(part.bytes)}" for part in one.stretches)
    return parts or "the file is missing"


# damage


def _damages(found: Diagnosis) -> str:
    rows = (
        (_file(found, one.path), f"{one.offset:,}", _text(one.reason))
        for one in found.damages[:_ROWS_MAX]
    )
    return _table("Damage", ("file", "offset", "reason"), rows)


def _repair(found: Diagnosis) -> str:
    refused = (
        f"<h2>What repair would do</h2><p>Refuse: {_text(found.repair_refusal)}</p>\n"
        if found.repair_refusal is not None
        else ""
    )
    rows = (
        (
            _file(found, one.path),
            _text(one.action),
            f"{one.bytes:,}",
            f"{one.lost:,}" if one.lost else "none",
        )
        for one in found.repair[:_ROWS_MAX]
    )
    heads = ("file", "what is done", "bytes kept aside", "records lost")
    return refused + _table("What repair would do", heads, rows)


def _file(found: Diagnosis, path: str) -> str:
    return f"<code>{_text(path.removeprefix(f'{found.path}/'))}</code>"


def _table(title: str, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    shown = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    head = "".join(f"<th>{_text(one)}</th>" for one in heads)
    if not shown:
        return ""
    return (
        f'<h2>{_text(title)}</h2>\n<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{shown}</tbody></table></div>\n"
    )
