"""A process that shares a store: ``python -m tests.remote.shared.member PATH POLICY``.

It appends each line of its input, and answers with the sequence and the stage. After the line
``fork`` it forks a child that outlives it, and says which process that is. When the input ends it
closes the store; with a third argument, ``leaves``, it ends without doing so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from aquipu import Always, EveryN, OsManaged, Store, SyncPolicy

POLICIES: dict[str, SyncPolicy] = {
    "always": Always(),
    "every": EveryN(64, within=0.05),
    "os": OsManaged(),
}


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def forked() -> int:
    """Fork a child that does nothing until it is killed; return its process id."""
    child = os.fork()
    if not child:
        for descriptor in range(3):  # whoever waits for their end does not wait for the child
            os.close(descriptor)
        signal.pause()
    return child


async def main(path: str, policy: str, *more: str) -> None:
    """Be one."""
    loop = asyncio.get_running_loop()
    store = await Store.open(path, shared=True, sync_policy=POLICIES[policy])
    say("ready")
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        receipt = await store.append(line.rstrip(b"\n"))
        say(f"{receipt.sequence} {receipt.stage.name}")
        if line == b"fork\n":
            say(str(forked()))
    if "leaves" in more:
        for number in range(3):
            store.append_nowait(b"left %d" % number)
        globals().update(store=store)  # alive until the interpreter ends
    else:
        await store.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
