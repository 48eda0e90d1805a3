"""A diagnosis as text: what it comes to, the facts, a map of the segments, and what to do. Pure.

Names come from files that anybody may have made, so whatever is not printable is shown as escapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap

from aquipu.cli.forms.diagnosis.words import (
    SIGNS,
    bar_of,
    counted,
    facts_of,
    notable,
    sequences_of,
    size,
    verdict,
)
from aquipu.cli.forms.shown import Paint, escaped
from aquipu.local.check.actions import RepairAction
from aquipu.local.check.diagnosis.facts import Diagnosis, Kind, SegmentFacts, State, Weight

_BAR = 24
_NEWEST, _OTHERS = 8, 16  # segments that have a line
_DAMAGES_MAX = 20
_BAD, _DOUBTFUL, _GOOD, _FAINT, _BOLD = "31", "33", "32", "2", "1"
_COLOURS = {"X": _BAD, "~": _DOUBTFUL, "=": _GOOD, "?": _BAD}
_LEGEND = {
    Kind.FRAMES: "frames",
    Kind.DAMAGE: "damage",
    Kind.TORN: "torn tail",
    Kind.BEHIND: "not yet acknowledged, or space ahead",
    Kind.UNWRITTEN: "space written ahead",
}


def text_of(found: Diagnosis, paint: Paint, width: int = 100) -> str:
    """Return all of a diagnosis for a terminal, or a file; sentences are broken at this width."""
    colour = _BAD if found.is_damaged else _DOUBTFUL if found.torn_tail else _GOOD
    lines = [paint(verdict(found), f"{_BOLD};{colour}"), ""]
    lines += [f"{paint(f'{name:<15}', _FAINT)} {escaped(value)}" for name, value in facts_of(found)]
    lines += _section("SEGMENTS", _segments(found, paint), paint)
    for title, sentences in (
        ("DAMAGE", _damages(found)),
        ("REPAIR WOULD", _repair(found)),
        ("OPENING WOULD", _opening(found)),
    ):
        lines += _section(title, (_folded(one, width) for one in sentences), paint)
    lines += _section("REMARKS", _remarks(found, paint, width), paint)
    return "\n".join(lines)


def _section(title: str, lines: Iterable[str], paint: Paint) -> list[str]:
    held = list(lines)
    return ["", paint(title, _BOLD), *held] if held else []


def _folded(text: str, width: int) -> str:
    """Return a sentence in lines, all but the first one further in; long words are not broken."""
    parts = wrap(
        escaped(text),
        max(width, 40),
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(parts)


def _segments(found: Diagnosis, paint: Paint) -> Iterator[str]:
    head = f"  {'STATE':<9} {'SEQUENCES':<23} {'FRAMES':>9} {'SIZE':>10} INDEX   MAP"
    yield paint(head, _FAINT)
    for one in notable(found.segments, _NEWEST, _OTHERS):
        if isinstance(one, int):
            yield f"  … {one:,} more"
        else:
            yield _segment(one, paint)
    signs = {sign for one in found.segments for sign in bar_of(one, _BAR)}
    legend = [f"{SIGNS[kind]} {what}" for kind, what in _LEGEND.items() if SIGNS[kind] in signs]
    legend += ["? missing"] if "?" in signs else []
    yield paint("  " + "   ".join(legend), _FAINT)


def _segment(one: SegmentFacts, paint: Paint) -> str:
    state = f"{one.state:<9}"
    if one.state in (State.DAMAGED, State.MISSING):
        state = paint(state, _BAD)
    bar = "".join(paint(sign, _COLOURS.get(sign, _FAINT)) for sign in bar_of(one, _BAR))
    frames = "?" if one.frames is None else f"{one.frames:,}"
    index = "" if one.index == "none" else str(one.index)
    return f"  {state} {sequences_of(one):<23} {frames:>9} {size(one.bytes):>10} {index:<7} {bar}"


def _damages(found: Diagnosis) -> Iterator[str]:
    for damage in found.damages[:_DAMAGES_MAX]:
        name = damage.path.removeprefix(f"{found.path}/")
        yield f"{name} at offset {damage.offset:,}: {damage.reason}"
    left = len(found.damages) - _DAMAGES_MAX
    if left > 0:
        yield f"… {left:,} more: see --json"


def _repair(found: Diagnosis) -> Iterator[str]:
    if found.repair_refusal is not None:
        yield f"refuse: {found.repair_refusal}"
    for action in found.repair[:_DAMAGES_MAX]:
        yield _action(found, action)
    left = len(found.repair) - _DAMAGES_MAX
    if left > 0:
        yield f"… {left:,} more: see --json"


def _action(found: Diagnosis, action: RepairAction) -> str:
    name = action.path.removeprefix(f"{found.path}/")
    lost = (
        f"{counted(action.lost, 'record')} lost, from sequence {action.lost_from}"
        if action.lost
        else "no record is lost"
    )
    done = action.action.removesuffix(": no record is lost")
    kept = f"; {size(action.bytes)} kept aside" if action.bytes else ""
    return f"{name} at offset {action.offset:,}: {done}; {lost}{kept}"


def _opening(found: Diagnosis) -> Iterator[str]:
    yield from found.opening
    if found.refusal is not None:
        yield f"with {found.refusal}"


def _remarks(found: Diagnosis, paint: Paint, width: int) -> Iterator[str]:
    for remark in found.remarks:
        colour = {Weight.DAMAGE: _BAD, Weight.WARNING: _DOUBTFUL}.get(remark.weight, _FAINT)
        text = _folded(f"{remark.weight}: {remark.text}", width)
        yield text.replace(f"{remark.weight}:", paint(f"{remark.weight}:", colour), 1)
