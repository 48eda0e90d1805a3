"""How callers go on when their commit has come back: all of them at once.

A future that is resolved wakes its task through the queue of the loop: a handle, a place in it and a turn of the loop for
each append. But a commit comes back for hundreds of callers together, in a callback of the loop, where nothing stops it
from running their tasks one after another, and that saves a third of the time. So `resume` takes the task's wake-up out
of the future (``_callbacks``: both implementations of asyncio's future have it), resolves the future, and calls it itself.

Only futures that never left `Store.append` are treated so: one task awaits each, and nobody else can have seen it. What
`append_nowait` gives away is a `Kept`, and is resolved as any future is; so is everything that ends in an error.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Iterable
from typing import Any

from aquipu.record import Receipt


class Kept(Future[Receipt]):
    """A future that its owner may keep, pass on and add callbacks to."""


def resume(told: Iterable[tuple[Future[Any] | None, Receipt]]) -> int:
    """Resolve futures and run the tasks that await them, one after another; one that was cancelled is left as it is.

    How many of those were given away and cancelled by their owners.

    Only from a callback of the loop, where no task is running. What ends the program (KeyboardInterrupt) passes, and an
    iterator then still holds those who were not yet told.
    """
    cancelled = 0
    for future, receipt in told:
        if future is None or future.done():
            cancelled += type(future) is Kept
            continue
        callbacks = future._callbacks if type(future) is Future else None
        if callbacks is None or len(callbacks) != 1:
            future.set_result(receipt)
            continue
        wake, context = callbacks[0]
        future.remove_done_callback(wake)
        future.set_result(receipt)
        context.run(wake, future)
    return cancelled
