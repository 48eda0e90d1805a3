"""The same log without ``await``: for scripts, Flask, Django, Celery, and any thread.

::

    import aquipu.sync

    with aquipu.sync.open("audit") as store:
        receipt = store.append(b"signed", relations=["user:7"])
        for record in store.scan(relation="user:7"):
            ...

There is no second engine. A `Store` is open in an event loop on a thread of its own, one for each
that is opened here, and a call is carried out there while its caller waits. So the calls are those
of `Store` and `Reader`, with the same options, receipts and errors, from any thread; and what many
threads append in the same moment shares a commit, and a sync: see `appends`.

* **Ctrl-C** in a call that waits reaches its caller at once. What was begun is done all the same.
* **The end of the program.** A store that was never closed is closed then, for at most 4 seconds,
  and a ResourceWarning says so. A thread that waits for `follow` holds up no exit if it is a daemon
  thread; any other is waited for, as Python does.
* **A fork.** The store stays with the parent: in the child each call raises `ForkedStoreError`.
  Open it there anew, in all of them with ``shared=True``.
* **In an event loop** these calls would block it, and are refused: use `Store` there.
"""

from aquipu.sync.records import SyncFollow, SyncScan
from aquipu.sync.store import SyncCursor, SyncReader, SyncStore, connect, open, read  # noqa: A004

__all__ = [
    "SyncCursor",
    "SyncFollow",
    "SyncReader",
    "SyncScan",
    "SyncStore",
    "connect",
    "open",
    "read",
]
