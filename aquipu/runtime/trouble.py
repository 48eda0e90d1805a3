"""What is in the way of an open store just now, by its cause, and its health. Pure.

`Store.health` gives it as reasons. A trouble is no failure: the store goes on, and tries again what
did not go. Each cause has one sentence at a time, which stays until the same thing has worked
again. Where a trouble begins, a warning is logged, once.
"""

from __future__ import annotations

from collections.abc import Iterable

from aquipu.options import MIB
from aquipu.statistics import Health, Statistics


class Troubles:
    """The troubles of one store. Any thread may begin, end and read them."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence for each cause, the one that began first before the others."""
        return tuple(self._reasons.values())

    def begin(self, cause: str, reason: str) -> bool:
        """Note that something did not go, for this reason.

        Return whether that is new for this cause: then it belongs into the log.
        """
        is_new = cause not in self._reasons
        self._reasons[cause] = reason
        return is_new

    def end(self, cause: str) -> None:
        """Forget a cause: the same thing has gone now, or is not to be done any more."""
        self._reasons.pop(cause, None)


def judge(
    seen: Statistics,
    failure: str | None,
    *,
    troubles: Iterable[str] = (),
    min_free_bytes: int,
    max_sync_seconds: float,
    behind: str = "disk",
) -> Health:
    """Judge by the numbers, and by what the store knows to be in its way.

    ``failure`` says why the store takes nothing more, ``troubles`` are reasons that no number shows
    (see `Troubles`), and ``behind`` is what the store waits for.
    """
    if failure is not None:
        return Health("failed", (failure,))
    if seen.state != "open":
        return Health("closed", (f"the store is {seen.state}",))
    reasons = [*troubles]
    if seen.free_bytes is not None and seen.free_bytes < min_free_bytes:
        reasons.append(
            f"the disk is nearly full: {_mib(seen.free_bytes)} are free, "
            f"less than {_mib(min_free_bytes)}"
        )
    if seen.under_way_seconds > max_sync_seconds:
        reasons.append(f"the {behind} has not answered for {seen.under_way_seconds:.1f} s")
    if seen.slowest_sync_seconds > max_sync_seconds:
        reasons.append(f"a sync took {seen.slowest_sync_seconds:.1f} s within the last minute")
    return Health("degraded" if reasons else "ok", tuple(reasons))


def _mib(bytes: int) -> str:
    return f"{bytes / MIB:,.0f} MiB"
