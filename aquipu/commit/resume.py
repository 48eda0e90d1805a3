"""How callers go on when their commit is complete: all of them at once.

A future that is resolved wakes its task through the queue of the loop: a handle, a place in it and
a turn of the loop for each append. But a commit completes for hundreds of callers together, in a
callback of the loop, where nothing stops it from running their tasks one after another, and that
saves a third of the time. So `resume` takes the task's wake-up out of the future (``_callbacks``:
both implementations of asyncio's future have it), resolves the future, and calls it itself.

Only futures that never left `Store.append` are treated so: one task awaits each, and nothing else
can have seen it. What `append_nowait` gives away is a `Kept`, and is resolved as any future is; so
is everything that ends in an error.

A Ctrl-C may come between any two of these steps, and a caller that goes on may run the loop
(nest_asyncio), which may come back to the same futures. So it may be begun anew with all of them at
any time: those that are resolved are left out.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from typing import Any

from aquipu.record import Receipt


class Kept(Future[Receipt]):
    """A future that its owner may keep, pass on and add callbacks to."""


Resumable = Iterator[tuple[int, tuple[Future[Any] | None, Receipt]]]


def resumable(waiters: list[Any], receipts: Iterable[Receipt]) -> Resumable:
    """Return what `resume` is given: the waiters, their places, and what they get."""
    return enumerate(zip(waiters, receipts, strict=True))


def resume(waiters: list[Any], pairs: Resumable) -> int:
    """Resolve futures and run the tasks that await them, one after another.

    One that was cancelled is left as it is. Return how many of those were given away and cancelled
    by their owners. Each leaves its place in ``waiters`` as soon as its task was run: a thousand
    that are let go of together would have called the garbage collector twice before, at an eighth
    of the time of all.

    Only from a callback of the loop, where no task is running. What ends the program
    (KeyboardInterrupt) passes; the one at hand still goes on then, if its task was not run yet.
    """
    cancelled = 0
    future, wake, context = None, None, None
    try:
        for place, (future, receipt) in pairs:
            if future is None or future.done():
                cancelled += type(future) is Kept and future.cancelled()
                continue
            callbacks = future._callbacks if type(future) is Future else None
            if callbacks is None or len(callbacks) != 1:
                future.set_result(receipt)
                continue
            wake, context = callbacks[0]
            future.remove_done_callback(wake)
            future.set_result(receipt)
            context.run(wake, future)
            waiters[place] = None
    except BaseException:
        if future is not None and wake is not None and context is not None:
            _give_back(future, wake, context)
        raise
    return cancelled


def _give_back(
    future: Future[Any], wake: Callable[[Future[Any]], object], context: Context
) -> None:
    """Have the loop wake a task that still waits for this future, if nothing else would."""
    task = getattr(wake, "__self__", None)
    if getattr(task, "_fut_waiter", None) is future and not future._callbacks:
        future.add_done_callback(wake, context=context)
