"""Which policy for so many requests a second, by what was measured. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from aquipu.cli.bench.plan import POLICIES
from aquipu.cli.bench.results import Run

_ROOM = 2.0
"""A policy must be able to do so many times the rate: requests come in bursts."""
_RISKS = {
    "Always()": "a power cut takes nothing that was acknowledged",
    "EveryN(64)": "a power cut takes at most 63 records, none older than 1 s",
    "OsManaged()": "a power cut takes what the kernel has not yet written, half a minute or so",
}


def advice_for(rate: float, runs: Sequence[Run]) -> str:
    """Return a sentence: the safest policy that keeps up, what it costs, and what is at risk."""
    for policy, _ in POLICIES:
        fit = _fitting(rate, [run for run in runs if run.policy == policy])
        if fit is not None:
            plain = policy.removesuffix("()")
            return (
                f"At {rate:,g}/s `{plain}` adds {_time(fit.p50)} to each (99 of 100: at most "
                f"{_time(fit.p99)}), and {_RISKS[policy]}: choose it"
            )
    most = max((run.appends_per_second for run in runs), default=0.0)
    return (
        f"{rate:,g}/s is more than half of what this machine can do, {most:,.0f}/s: appends would "
        "wait for each other; gather several in one append_many, or use more than one store"
    )


def _fitting(rate: float, runs: Sequence[Run]) -> Run | None:
    """Return the run with the fewest callers that can do the rate with room for bursts."""
    able = [run for run in runs if run.appends_per_second >= _ROOM * rate]
    return min(able, key=lambda run: run.callers, default=None)


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e3:.2f} ms"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"
