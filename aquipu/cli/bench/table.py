"""The results as text: a table, and a bar for each row. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from aquipu.cli.bench.results import Results, Run
from aquipu.cli.forms.shown import Paint, escaped

_WIDTH, _BAR = 80, 18
_AT_RISK = (
    "AT RISK: acknowledged records that a power cut can take. None with Always, at",
    "most n - 1 with EveryN(n), and with OsManaged all that was not yet synced here.",
)
_EIGHTHS = " ▏▎▍▌▋▊▉"
_FAINT, _BOLD, _DOUBTFUL, _BAR_COLOUR = "2", "1", "33", "32"


def text_of(results: Results, paint: Paint) -> str:
    """Return the results in lines of 80 characters."""
    return "\n".join(_lines(results, paint))


def _lines(results: Results, paint: Paint) -> Iterator[str]:
    sync = results.sync
    place = f"{escaped(results.directory)} ({results.file_system or 'file system not known'})"
    yield f"{paint('directory', _FAINT)}      {place}"
    yield (
        f"{paint('one fdatasync', _FAINT)}  median {time_of(sync.median)}, "
        f"p99 {time_of(sync.p99)}  ({sync.count:,} measured)"
    )
    what = f"of {results.record_bytes} bytes; each caller waits for its own"
    yield f"{paint('records', _FAINT)}        {what}"
    yield ""
    head = f"{'POLICY':<12} {'CALLERS':>7} {'APPENDS/S':>10} {'p50':>9} {'p99':>9}  {'AT RISK':>7}"
    yield paint(head, _BOLD)
    most = max((run.appends_per_second for run in results.runs), default=0.0)
    before = ""
    for run in results.runs:
        if before and run.policy != before:
            yield ""
        before = run.policy
        yield _row(run, most, paint)
    yield ""
    for line in _AT_RISK:
        yield paint(line, _FAINT)
    for warning in results.warnings:
        yield ""
        head, *rest = wrap(f"warning: {warning}", _WIDTH, subsequent_indent="  ")
        yield head.replace("warning:", paint("warning:", _DOUBTFUL), 1)
        yield from rest
    yield ""
    advice = results.advice or "--rate N says which policy fits N requests a second."
    yield from (paint(line, _BOLD) for line in wrap(advice, _WIDTH))


def _row(run: Run, most: float, paint: Paint) -> str:
    risk = run.risk if run.risk is not None else run.risk_seen
    bar = bar_of(run.appends_per_second / most if most else 0.0)
    return (
        f"{run.policy:<12} {run.callers:>7} {run.appends_per_second:>10,.0f} "
        f"{time_of(run.p50):>9} {time_of(run.p99):>9}  {risk:>7,}  {paint(bar, _BAR_COLOUR)}"
    )


def bar_of(share: float) -> str:
    """Return a bar of this share of the whole width, in eighths of a character."""
    eighths = max(round(min(max(share, 0.0), 1.0) * _BAR * 8), 1)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def time_of(seconds: float) -> str:
    """Return a time with its unit: 85 us, 0.31 ms, 12.0 ms, 1.5 s."""
    if seconds < 1e-4:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.2f} ms" if seconds < 1e-2 else f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.2f} s"
