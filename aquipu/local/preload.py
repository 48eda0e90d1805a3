"""What an open log needs and ``import aquipu`` leaves out, imported when it is opened."""

from __future__ import annotations

from contextlib import suppress

import anyio

from aquipu.runtime.handoff import Handoff


async def load(handoff: Handoff) -> None:
    """Import what an open log will need later.

    An import needs a file descriptor, and a process that has none left must still be able to close
    its log, and to hear what is wrong with it.
    """
    await handoff.run(_load)
    with suppress(ImportError, OSError):
        anyio.CancelScope()  # brings in what anyio needs for this kind of loop


def _load() -> None:
    with suppress(ImportError, OSError):  # what needs it later says so
        import datetime  # noqa: F401

        import aiofiles.threadpool  # noqa: F401

        from aquipu import statistics  # noqa: F401
        from aquipu.local.index import finder as finding  # noqa: F401
        from aquipu.local.index import table as relations  # noqa: F401
        from aquipu.local.index import throttle as rest  # noqa: F401
