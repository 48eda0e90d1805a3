"""The end of a program, of a store that was dropped, and of a child that was forked."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import aquipu.sync
from aquipu import Store, StoreClosedError
from aquipu.sync.appends import Appends
from aquipu.sync.loop import LoopThread
from tests.sync.support import data_of, program


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def stored(path: Path) -> tuple[list[bytes], bool]:
    """The data in a store that can be opened at once, and whether it was closed."""

    async def read() -> tuple[list[bytes], bool]:
        async with Store.open(path, lock_timeout=0) as store:
            return [record.data async for record in store.scan()], store.recovery.clean

    return asyncio.run(read())


NEVER_CLOSED = """
store = aquipu.sync.open(path, sync_policy=OsManaged())
for n in range(100):
    store.append_nowait(b"%d" % n)
"""
NUMBERS = [b"%d" % number for number in range(100)]


@pytest.mark.parametrize(
    ("end", "code"),
    [("", 0), ("sys.exit(3)", 3), ("raise ValueError", 1)],
    ids=["end", "exit", "error"],
)
def test_a_store_that_was_never_closed(path: Path, end: str, code: int) -> None:
    """What was accepted is written, the store is closed, and a warning names it, once."""
    errors = program(NEVER_CLOSED + end, path, code=code).stderr
    assert stored(path) == (NUMBERS, True)
    assert errors.count("ResourceWarning: <SyncStore") == 1
    assert str(path) in errors
    assert "<Store" not in errors
    assert ("Traceback" in errors) == (end == "raise ValueError")


def test_a_warning_that_is_an_error(path: Path) -> None:
    """Everything is closed all the same."""
    script = NEVER_CLOSED.replace("path,", 'path + "2",') + NEVER_CLOSED
    program(script, path, "-W", "error")
    assert stored(path) == (NUMBERS, True)
    assert stored(path.with_name("store2")) == (NUMBERS, True)


def test_threads_that_still_wait_at_the_end(path: Path) -> None:
    """Daemon threads hold up nothing, whatever they wait for, nor does what was not read on."""
    script = """
from aquipu.sync import loop
loop.EXIT_SECONDS = 1000
store, reader = aquipu.sync.open(path), aquipu.sync.read(path)
begun = threading.Barrier(3)
store.append(b"x")
left = store.scan()
next(left)

def follow(log):
    records = log.follow("earliest")
    next(records)
    begun.wait()
    for record in records:
        pass

for log in (store, reader):
    threading.Thread(target=follow, args=(log,), daemon=True).start()
begun.wait()
"""
    errors = program(script, path).stderr
    assert "Traceback" not in errors
    assert stored(path) == ([b"x"], True)


def test_a_disk_that_hangs_at_the_end(path: Path) -> None:
    """It holds up the exit only so long, and what may be missing is said."""
    script = """
from aquipu.local.write import worker
from aquipu.sync import loop
worker.EXIT_SECONDS = loop.EXIT_SECONDS = 0.2
disk = FailingDisk()
store = aquipu.sync.open(path, sync_policy=Always(), disk=disk)
hold = disk.hold(WRITES)
store.append_nowait(b"x")
hold.reached.wait()
"""
    errors = program(script, path).stderr
    assert "ResourceWarning: <SyncStore" in errors
    assert "was not closed" in errors


def test_a_store_that_is_used_at_the_exit(path: Path) -> None:
    """What a program does at its exit comes before the store is closed."""
    script = NEVER_CLOSED + "import atexit\natexit.register(lambda: store.append(b'last'))\n"
    program(script, path)
    assert stored(path) == ([*NUMBERS, b"last"], True)


def test_a_store_that_is_dropped(path: Path) -> None:
    """It is closed in the background, with a warning; what was accepted is written."""
    store = aquipu.sync.open(path)
    store.append_nowait(b"x")
    thread = store._thread
    with pytest.warns(ResourceWarning, match="SyncStore.* was never closed"):
        del store
    thread.join(20)
    assert stored(path) == ([b"x"], True)


def test_a_scan_keeps_its_store_open(path: Path) -> None:
    """The store is dropped with the last of them that is in use."""
    with aquipu.sync.open(path) as store:
        store.append_many([b"x"] * 3)
    records = aquipu.sync.read(path).scan()
    gc.collect()
    assert data_of(records) == [b"x"] * 3


FORKED = """
store = aquipu.sync.open(path, sync_policy=Always())
reader, records = aquipu.sync.read(path), store.scan()
store.append(b"parent")
if not os.fork():
    for call in (
        lambda: store.append(b"x"),
        lambda: store.append_nowait(b"x"),
        lambda: store.append_many([b"x"]),
        lambda: store.get(0),
        lambda: next(records),
        lambda: reader.relations(),
        store.flush,
        store.scan,
        store.close,
    ):
        try:
            call()
            print("done")
        except ForkedStoreError as error:
            assert path in str(error)
    records.close()
    with aquipu.sync.open(path + ".child") as own:
        own.append(b"child")
"""


@pytest.mark.parametrize(
    "end", ["sys.exit(0)", "del store, reader, records; sys.exit(0)", "os._exit(0)"]
)
def test_a_forked_child(path: Path, end: str) -> None:
    """Every call says at once that the store stays with the parent; the child's own works, and
    neither end hangs.
    """
    script = f"""{FORKED}
    {end}
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
store.append(b"after")
assert [record.data for record in records] == [b"parent", b"after"]
reader.close()
store.close()
"""
    ended = program(script, path)
    assert (ended.stdout, ended.stderr) == ("", "")
    assert stored(path) == ([b"parent", b"after"], True)
    assert stored(path.with_name("store.child")) == ([b"child"], True)


def test_a_fork_while_others_append(path: Path) -> None:
    """Neither the parent nor a child waits for ever, wherever the threads were at the fork."""
    script = """
store = aquipu.sync.open(path, sync_policy=OsManaged())
over = []

def work():
    while not over:
        store.append(b"x")

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(20):
    if not os.fork():
        try:
            store.append(b"y")
        except ForkedStoreError:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
over.append(1)
for thread in threads:
    thread.join()
store.close()
"""
    assert program(script, path).stderr == ""
    assert set(stored(path)[0]) == {b"x"}


class Woken(LoopThread):
    """Says when somebody has woken its loop."""

    def __init__(self) -> None:
        super().__init__("store")
        self.woken = threading.Event()

    def wake(self, function: Callable[..., object], *arguments: object) -> None:
        super().wake(function, *arguments)
        self.woken.set()


class Nothing:
    """A log that is closed at once."""

    path = "store"

    async def aclose(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("way", ["a call", "an append"])
def test_a_call_that_comes_while_the_loop_is_ending(way: str) -> None:
    """It is refused, and nothing of it is begun: the loop would not carry it to its end."""
    thread, begun, refused = Woken(), list[object](), list[BaseException]()

    async def begin(*_: object, **__: object) -> Any:
        begun.append(way)

    appends = Appends(thread, Mock(append=begin, append_nowait=begin))

    def call() -> None:
        try:
            appends.append(b"x", {}) if way == "an append" else thread.call(begin)
        except StoreClosedError as error:
            refused.append(error)

    caller = threading.Thread(target=call, daemon=True)

    async def last() -> AsyncGenerator[None]:
        try:
            yield
        finally:  # the loop ends what still generates
            thread.woken.clear()
            caller.start()
            thread.woken.wait()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    generator = last()

    async def opening() -> Nothing:
        await anext(generator)
        return Nothing()

    thread.open(opening)
    thread.close()
    caller.join(20)
    assert (begun, len(refused)) == ([], 1)


def test_a_call_that_comes_when_the_loop_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is StoreClosedError, also while the thread has not come to its end: nothing was forked."""
    closed, looked = threading.Event(), threading.Event()
    end = LoopThread._end

    def wait_and_end(thread: LoopThread) -> None:
        closed.set()
        looked.wait(20)
        end(thread)

    monkeypatch.setattr(LoopThread, "_end", wait_and_end)

    async def opening() -> Nothing:
        return Nothing()

    thread = LoopThread("store")
    thread.open(opening)
    closing = threading.Thread(target=thread.close, daemon=True)
    closing.start()
    assert closed.wait(20)
    try:
        with pytest.raises(StoreClosedError):
            thread.wake(print)
    finally:
        looked.set()
    closing.join(20)


def test_an_append_that_is_never_answered(path: Path) -> None:
    """Its caller gets StoreClosedError when the loop is at its end, and does not wait for ever."""
    thread, taken, refused = LoopThread("store"), threading.Event(), list[BaseException]()

    def take(*_: object, **__: object) -> asyncio.Future[None]:
        taken.set()
        return thread.loop.create_future()

    appends = Appends(thread, Mock(append_nowait=take))

    def call() -> None:
        try:
            appends.append(b"x", {})
        except StoreClosedError as error:
            refused.append(error)

    async def opening() -> Nothing:
        return Nothing()

    caller = threading.Thread(target=call, daemon=True)
    thread.open(opening)
    caller.start()
    assert taken.wait(20)
    thread.close()
    caller.join(20)
    assert len(refused) == 1
