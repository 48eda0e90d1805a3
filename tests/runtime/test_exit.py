"""The ways in which a program ends or lets go of a store without `aclose`: what was accepted is
written all the same.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from aquipu import (
    Always,
    EveryN,
    OsManaged,
    Receipt,
    Record,
    RemoteStore,
    Stage,
    Store,
    StoreUnavailableError,
    SyncPolicy,
)
from aquipu.errors import WrongLoopError
from aquipu.local.disk.disk import Disk
from aquipu.local.write.worker import Worker, _living
from aquipu.remote.daemon.server import Daemon
from tests.disk import WRITES, FailingDisk, Hold
from tests.support import engine_of, remote_engine_of

PATIENCE = 20.0
"""Seconds until a test that waits in vain gives up. Nothing is measured with it."""

WARNING = "ResourceWarning: <Store"

PRELUDE = """
import asyncio, atexit, os, sys, time
from aquipu import *
from aquipu.local.write import worker
from aquipu.local.disk.disk import Disk

path = sys.argv[1]

def report(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # whole, from whatever thread

class HeldDisk(Disk):
    "Once `held` is set, each write waits for a byte on standard input; the first one says so."
    held = False
    def write(self, *call):
        self.wait()
        super().write(*call)
    def write_synced(self, *call):
        self.wait()
        return super().write_synced(*call)
    def wait(self):
        if self.held:
            report("held")
            os.read(0, 1)
            self.held = False
"""


class Program:
    """A program in a process of its own, with its reports on standard output."""

    def __init__(self, script: str, path: Path, warnings: str = "always") -> None:
        command = [sys.executable, "-W", warnings, "-c", PRELUDE + script, str(path)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def expect(self, *reports: str) -> None:
        """Wait for the next reports, which must be these; those of several threads come in any
        order.
        """
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline().rstrip("\n") for _ in reports]
        if sorted(lines) != sorted(reports):
            self.process.kill()
            _, errors = self.process.communicate()
            pytest.fail(f"reported {lines} instead of {reports}; {errors}")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def release(self) -> None:
        """Let the disk go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("x")
        self.process.stdin.flush()

    def end(self, code: int = 0) -> str:
        """Wait for the end, which must come with this exit code.

        Gives what stood on standard error.
        """
        _, errors = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == code, errors
        return errors


@contextmanager
def running(script: str, path: Path, warnings: str = "always") -> Iterator[Program]:
    program = Program(script, path, warnings)
    with program.process:
        try:
            yield program
        finally:
            program.process.kill()


def run(script: str, path: Path, code: int = 0, warnings: str = "always") -> str:
    """Run a program to its end. Gives what stood on standard error."""
    with running(script, path, warnings) as program:
        return program.end(code)


def stored(path: Path) -> list[bytes]:
    """The data of all records; the store must not be held by anybody."""
    return [record.data for record in asyncio.run(_records(path))]


async def _records(path: Path) -> list[Record]:
    async with Store.open(path, lock_timeout=0) as store:
        return [record async for record in store.scan()]


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


# the end of the interpreter


LEFT_OPEN = """
async def main():
    global store
    store = await Store.open(path, sync_policy=Always())
    for n in range(100):
        store.append_nowait(b"%d" % n)

asyncio.run(main())
"""


def test_interpreter_ends_with_an_open_store(tmp_path: Path) -> None:
    """What was accepted is there afterwards; a warning names the store; the exit is an ordinary
    one.
    """
    errors = run(LEFT_OPEN, tmp_path / "store")
    assert stored(tmp_path / "store") == numbers(100)
    assert WARNING in errors
    assert str(tmp_path / "store") in errors
    assert "Traceback" not in errors
    assert "Error" not in errors


@pytest.mark.parametrize("policy", ["Always()", "EveryN(1000, within=None)", "OsManaged()"])
def test_commit_is_under_way_when_the_interpreter_ends(tmp_path: Path, policy: str) -> None:
    """One commit is held by the disk, another has not even left: the exit waits for both."""
    script = f"""
async def main():
    global store
    disk = HeldDisk()
    store = await Store.open(path, sync_policy={policy}, disk=disk)
    disk.held = True
    for n in range(50):
        store.append_nowait(b"%d" % n)
    await asyncio.sleep(0)
    for n in range(50, 100):
        store.append_nowait(b"%d" % n)

asyncio.run(main())
atexit.register(report, "exit")  # runs before the exit of the engine
"""
    with running(script, tmp_path / "store") as program:
        program.expect("held", "exit")
        program.release()
        errors = program.end()
    assert stored(tmp_path / "store") == numbers(100)
    assert WARNING in errors


def test_exit_code_is_that_of_the_program(tmp_path: Path) -> None:
    """An exit code that the program has chosen is kept, and what was accepted is written."""
    errors = run(LEFT_OPEN + "sys.exit(42)\n", tmp_path / "store", code=42)
    assert stored(tmp_path / "store") == numbers(100)
    assert WARNING in errors


def test_disk_holds_up_the_exit(tmp_path: Path) -> None:
    """A disk that takes nothing holds up the exit only so long; standard error says what may be
    missing, and why.
    """
    script = """
worker.EXIT_SECONDS = 0.25

async def main():
    global store
    disk = HeldDisk()
    store = await Store.open(path, sync_policy=Always(), disk=disk)
    await store.append(b"told")
    disk.held = True
    store.append_nowait(b"not told")
    await asyncio.sleep(0)

asyncio.run(main())
sys.exit(3)
"""
    with running(script, tmp_path / "store") as program:
        program.expect("held")
        assert program.process.wait(PATIENCE) == 3  # nobody has released the disk
        errors = program.end(3)
    assert f"{tmp_path / 'store'} was not closed" in errors
    assert "within 0.25 s" in errors
    assert "aclose()" in errors
    assert "Traceback" not in errors
    assert stored(tmp_path / "store") == [b"told"]


def test_many_open_stores_at_the_exit(tmp_path: Path) -> None:
    """Every open store is written out and warned of."""
    script = """
async def main():
    for n in range(5):
        stores.append(await Store.open(f"{path}/{n}"))
        stores[-1].append_nowait(b"%d" % n)

stores = []
asyncio.run(main())
"""
    errors = run(script, tmp_path)
    assert errors.count(WARNING) == 5
    for number in range(5):
        assert stored(tmp_path / str(number)) == [b"%d" % number]


def test_warnings_are_errors_at_the_exit(tmp_path: Path) -> None:
    """Where warnings are errors, every store that was left open is written out all the same."""
    script = """
async def main():
    for n in range(3):
        stores.append(await Store.open(f"{path}/{n}", sync_policy=OsManaged(), disk=HeldDisk()))
    for store in stores:
        store._engine.disk.held = True
    for store in stores:
        store.append_nowait(b"under way")
    await asyncio.sleep(0)
    for store in stores:
        store.append_nowait(b"forming")

stores = []
asyncio.run(main())
atexit.register(report, "exit")
"""
    with running(script, tmp_path, warnings="error") as program:
        program.expect("held", "held", "held", "exit")
        for _ in range(3):
            program.release()
        program.end()
    for number in range(3):
        assert stored(tmp_path / str(number)) == [b"under way", b"forming"]


def test_closed_store_at_the_exit(tmp_path: Path) -> None:
    """A store that was closed leaves nothing to be said."""
    script = """
async def main():
    async with Store.open(path) as store:
        await store.append(b"one")

asyncio.run(main())
"""
    assert run(script, tmp_path / "store") == ""
    assert stored(tmp_path / "store") == [b"one"]


def test_exit_within_the_loop(tmp_path: Path) -> None:
    """sys.exit in a task, with the store left open, writes what was accepted."""
    script = LEFT_OPEN.replace("asyncio.run(main())", "    sys.exit(5)\n\nasyncio.run(main())")
    errors = run(script, tmp_path / "store", code=5)
    assert stored(tmp_path / "store") == numbers(100)
    assert WARNING in errors


@pytest.mark.parametrize("entered", [True, False], ids=["entered", "left open"])
def test_exception_in_the_main_task(tmp_path: Path, entered: bool) -> None:
    """A program that ends with an exception of its own shows that one, and what was accepted is
    written.
    """
    opening = (
        "async with Store.open(path) as store:"
        if entered
        else "store = await Store.open(path)\n    if True:"
    )
    script = f"""
async def main():
    {opening}
        for n in range(100):
            store.append_nowait(b"%d" % n)
        raise ZeroDivisionError("mine")

asyncio.run(main())
"""
    errors = run(script, tmp_path / "store", code=1)
    assert stored(tmp_path / "store") == numbers(100)
    assert errors.rstrip().endswith("ZeroDivisionError: mine") or not entered
    assert "ZeroDivisionError: mine" in errors
    assert (WARNING in errors) is not entered


# Ctrl-C


INTERRUPTED = """
async def main():
    disk = HeldDisk()
    async with Store.open(path, sync_policy=Always(), disk=disk) as store:
        await store.append(b"0")
        disk.held = True
        for n in range(1, 50):
            store.append_nowait(b"%d" % n)
        await asyncio.sleep(0)
        for n in range(50, 100):
            store.append_nowait(b"%d" % n)
        asyncio.get_running_loop().call_soon(report, "waiting")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # by then the task waits for the disk
            asyncio.get_running_loop().call_soon(report, "closing")
            raise

with asyncio.Runner() as runner:  # what asyncio.run does
    try:
        runner.run(main())
    except KeyboardInterrupt:
        report("interrupted")
        raise
"""


def test_interrupted_once(tmp_path: Path) -> None:
    """Ctrl-C cancels the program; the closing waits for the disk, and everything accepted is
    written.
    """
    with running(INTERRUPTED, tmp_path / "store") as program:
        program.expect("held", "waiting")
        program.interrupt()
        program.expect("closing")
        program.release()
        program.expect("interrupted")
        errors = program.end(-signal.SIGINT)
    assert stored(tmp_path / "store") == numbers(100)
    assert WARNING not in errors
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_interrupted_twice(tmp_path: Path) -> None:
    """A second Ctrl-C while the disk still holds what was accepted: it is written all the same."""
    with running(INTERRUPTED, tmp_path / "store") as program:
        program.expect("held", "waiting")
        program.interrupt()
        program.expect("closing")
        program.interrupt()
        program.expect("interrupted")
        program.release()
        errors = program.end(-signal.SIGINT)
    assert stored(tmp_path / "store") == numbers(100)
    assert WARNING not in errors  # it was closed, not left


def test_interrupted_until_it_ends(tmp_path: Path) -> None:
    """Who keeps on pressing Ctrl-C gets out, also when the disk never lets go; nothing acknowledged
    is lost.
    """
    with running("worker.EXIT_SECONDS = 0.25\n" + INTERRUPTED, tmp_path / "store") as program:
        program.expect("held", "waiting")
        program.interrupt()
        program.expect("closing")
        program.interrupt()
        program.expect("interrupted")
        while program.process.poll() is None:
            program.interrupt()
            try:
                program.process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
    assert stored(tmp_path / "store") == [b"0"]


def test_run_cancelled_without_entering_the_store(tmp_path: Path) -> None:
    """Ctrl-C in a program that left its store open: what was accepted is written at the exit."""
    script = """
async def main():
    global store
    store = await Store.open(path)
    for n in range(100):
        store.append_nowait(b"%d" % n)
    asyncio.get_running_loop().call_soon(report, "ready")
    await asyncio.Event().wait()

asyncio.run(main())
"""
    with running(script, tmp_path / "store") as program:
        program.expect("ready")
        program.interrupt()
        errors = program.end(-signal.SIGINT)
    assert stored(tmp_path / "store") == numbers(100)
    assert WARNING in errors


# a store that nobody holds any more


def let_go(held: list[Store]) -> None:
    """Let go of the store, and wait for the end of its worker: the last one to hold the store may
    be its thread.
    """
    worker = engine_of(held[0])._worker
    held.clear()
    assert worker.join(PATIENCE)


@pytest.mark.asyncio
async def test_idle_store_is_garbage_collected(tmp_path: Path) -> None:
    """An open store that nobody holds any more warns, ends its worker and frees the lock."""
    held = [await Store.open(tmp_path)]
    await held[0].append(b"one", durability=Stage.SYNCED)
    with pytest.warns(ResourceWarning, match="was never closed"):
        await asyncio.to_thread(let_go, held)
    async with Store.open(tmp_path, lock_timeout=PATIENCE) as again:
        assert again.next_sequence == 1
        assert again.recovery.clean


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "policy",
    [Always(), EveryN(1000, within=None), OsManaged()],
    ids=["Always", "EveryN", "OsManaged"],
)
async def test_store_is_let_go_of_with_records_under_way(
    tmp_path: Path, policy: SyncPolicy
) -> None:
    """Futures of accepted records still resolve; after that the store warns, ends its worker and
    frees the lock.
    """
    disk = FailingDisk()
    held = [await Store.open(tmp_path, sync_policy=policy, disk=disk)]
    hold = disk.hold(WRITES)
    futures = [held[0].append_nowait(b"one")]
    await asyncio.to_thread(hold.reached.wait)
    futures += [held[0].append_nowait(b"two"), held[0].append_nowait(b"three")]

    async def let_go_and_wait() -> list[Receipt]:
        worker = engine_of(held[0])._worker
        held.clear()
        gc.collect()
        assert not any(future.done() for future in futures)
        hold.released.set()
        receipts = await asyncio.gather(*futures)
        assert await asyncio.to_thread(worker.join, PATIENCE)
        return receipts

    with pytest.warns(ResourceWarning, match="was never closed"):
        receipts = await let_go_and_wait()
    assert [receipt.sequence for receipt in receipts] == [0, 1, 2]
    async with Store.open(tmp_path, lock_timeout=PATIENCE) as again:
        assert [record.data async for record in again.scan()] == [b"one", b"two", b"three"]


@pytest.mark.asyncio
async def test_waiting_caller_keeps_the_store(tmp_path: Path) -> None:
    """A task that appends keeps the store alive by itself, and is told."""

    async def write() -> tuple[Worker, Receipt]:
        store = await Store.open(tmp_path, sync_policy=Always())
        worker = engine_of(store)._worker
        appending = store.append(b"one")
        del store
        return worker, await appending

    async def write_and_wait() -> Receipt:
        worker, receipt = await write()
        assert await asyncio.to_thread(worker.join, PATIENCE)
        return receipt

    with pytest.warns(ResourceWarning, match="was never closed"):
        receipt = await write_and_wait()
    assert receipt.sequence == 0
    async with Store.open(tmp_path, lock_timeout=PATIENCE) as again:
        assert again.next_sequence == 1


@pytest.mark.asyncio
async def test_warning_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where warnings are errors, the store that was let go of is written out and unlocked all the
    same.
    """
    raised: list[object] = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda unraisable: raised.append(unraisable.exc_type)
    )
    held = [await Store.open(tmp_path, sync_policy=OsManaged())]
    await held[0].append(b"one")
    worker = engine_of(held[0])._worker
    try:
        await asyncio.to_thread(let_go, held)
        assert raised == [ResourceWarning]
    finally:
        worker.leave([])
    async with Store.open(tmp_path, lock_timeout=0) as again:
        assert again.next_sequence == 1


@pytest.mark.asyncio
async def test_closed_store_is_garbage_collected(tmp_path: Path) -> None:
    """A store that was closed goes in silence."""
    store = await Store.open(tmp_path)
    await store.append(b"one")
    await store.aclose()
    del store
    gc.collect()


# a loop that is gone


@pytest.fixture
def thread_errors(monkeypatch: pytest.MonkeyPatch) -> list[threading.ExceptHookArgs]:
    """What escapes from threads during the test."""
    escaped: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", escaped.append)
    return escaped


def test_loop_is_closed_under_the_store(
    tmp_path: Path, thread_errors: list[threading.ExceptHookArgs]
) -> None:
    """A closed loop raises nothing in the thread; when the store is let go of, all that was
    accepted is written.
    """
    disk = FailingDisk()

    async def begin() -> tuple[Store, Hold]:
        store = await Store.open(tmp_path, sync_policy=Always(), disk=disk)
        await store.append(b"0")
        hold = disk.hold(WRITES)
        store.append_nowait(b"1")
        await asyncio.to_thread(hold.reached.wait)
        store.append_nowait(b"2")
        return store, hold

    loop = asyncio.new_event_loop()
    store, hold = loop.run_until_complete(begin())
    held = [store]
    del store
    worker = engine_of(held[0])._worker
    loop.close()
    hold.released.set()
    with pytest.warns(ResourceWarning, match="was never closed"):
        let_go(held)
    assert worker not in _living
    assert thread_errors == []
    assert stored(tmp_path) == numbers(3)


def test_store_is_used_after_its_loop(tmp_path: Path) -> None:
    """In the next loop the store refuses every call with one clear error, and can still be let go
    of.
    """

    async def begin() -> Store:
        return await Store.open(tmp_path)

    async def go_on(store: Store) -> None:
        with pytest.raises(WrongLoopError):
            await store.append(b"one")
        with pytest.raises(WrongLoopError):
            await store.aclose()

    held = [asyncio.run(begin())]
    asyncio.run(go_on(held[0]))
    with pytest.warns(ResourceWarning, match="was never closed"):
        let_go(held)
    assert stored(tmp_path) == []


class LatePool(ThreadPoolExecutor):
    """A pool whose held call ends only when the loop is about to be closed."""

    def __init__(self, gate: threading.Event) -> None:
        super().__init__(1)
        self._gate = gate

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._gate.set()
        super().shutdown(wait, cancel_futures=cancel_futures)


def test_loop_ends_while_a_store_is_being_opened(tmp_path: Path) -> None:
    """An opening cut off by the end of its loop leaves neither a lock nor a worker behind."""
    disk = FailingDisk()
    hold = disk.hold(WRITES, forever=True)
    before = len(_living)

    async def begin() -> None:
        asyncio.get_running_loop().set_default_executor(LatePool(hold.released))
        opening = asyncio.create_task(_open(tmp_path, disk))
        await asyncio.wrap_future(other.submit(hold.reached.wait))
        opening.cancel()

    with ThreadPoolExecutor(1) as other:
        asyncio.run(begin())
    assert len(_living) == before
    assert stored(tmp_path) == []


async def _open(path: Path, disk: Disk) -> Store:
    return await Store.open(path, disk=disk)


# fork


FORK = """
import selectors

def files():
    return {name: open(f"{path}/{name}", "rb").read() for name in sorted(os.listdir(path))}

async def begin():
    store = await Store.open(path, sync_policy=Always(), disk=disk)
    await store.append(b"0")
    return store

async def name_of(call):
    try:
        await call()
    except Exception as error:
        return type(error).__name__
    return "nothing"

async def use(store):
    async def scan():
        async for record in store.scan():
            pass
    async def append_nowait():
        store.append_nowait(b"child")
    return [await name_of(call) for call in (
        lambda: store.append(b"child"),
        append_nowait,
        lambda: store.append_many([b"child"]),
        store.flush,
        store.sync,
        lambda: store.get(0),
        scan,
        store.aclose,
    )]

disk = HeldDisk()
# a loop whose selector keeps nothing in the kernel: a child that closes its copy of an epoll
# breaks the parent's
loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
store = loop.run_until_complete(begin())
"""


def test_fork_and_use(tmp_path: Path) -> None:
    """In a forked child every call is ForkedStoreError, also in a loop of its own; the parent goes
    on.
    """
    script = (
        FORK
        + """
if (child := os.fork()) == 0:
    report(*asyncio.run(use(store)))
    sys.exit(0)
os.waitpid(child, 0)
loop.run_until_complete(store.append(b"1"))
loop.run_until_complete(store.aclose())
report("closed")
"""
    )
    with running(script, tmp_path / "store") as program:
        program.expect(" ".join(["ForkedStoreError"] * 8))
        program.expect("closed")
        errors = program.end()
    assert stored(tmp_path / "store") == numbers(2)
    assert WARNING not in errors


def test_forked_child_exits(tmp_path: Path) -> None:
    """The exit of a child neither writes nor closes: accepted records are written once, by the
    parent, which goes on.
    """
    script = (
        FORK
        + """
async def accept():
    disk.held = True
    futures.append(store.append_nowait(b"1"))
    await asyncio.sleep(0)
    futures.append(store.append_nowait(b"2"))  # has not even left

async def finish():
    await asyncio.gather(*futures)
    await store.append(b"3")
    await store.aclose()

futures = []
loop.run_until_complete(accept())
before = files()
if (child := os.fork()) == 0:
    sys.exit(9)
status = os.waitpid(child, 0)[1]
report("child", os.waitstatus_to_exitcode(status), files() == before)
loop.run_until_complete(finish())
"""
    )
    with running(script, tmp_path / "store") as program:
        program.expect("held", "child 9 True")
        program.release()
        errors = program.end()
    assert stored(tmp_path / "store") == numbers(4)
    assert WARNING not in errors


def test_forked_child_lets_go_of_the_store(tmp_path: Path) -> None:
    """A child that collects its copy of the store changes nothing and says nothing."""
    script = (
        FORK
        + """
before = files()
if (child := os.fork()) == 0:
    del store
    import gc
    gc.collect()
    sys.exit(0)
status = os.waitpid(child, 0)[1]
report("child", os.waitstatus_to_exitcode(status), files() == before)
loop.run_until_complete(store.append(b"1"))
loop.run_until_complete(store.aclose())
"""
    )
    with running(script, tmp_path / "store") as program:
        program.expect("child 0 True")
        errors = program.end()
    assert stored(tmp_path / "store") == numbers(2)
    assert WARNING not in errors


def test_forked_child_outlives_the_store(tmp_path: Path) -> None:
    """A child that is still there keeps no lock: when the parent has closed the store, it can be
    opened at once.
    """
    script = (
        FORK
        + """
async def reopen():
    async with Store.open(path, lock_timeout=0) as store:
        await store.append(b"1")

end, begin_of_end = os.pipe()
begun, begin = os.pipe()
if (child := os.fork()) == 0:
    os.write(begin, b"x")
    os.close(begin_of_end)
    os.read(end, 1)  # until the parent ends
    os._exit(0)
os.read(begun, 1)  # it runs
loop.run_until_complete(store.aclose())
loop.run_until_complete(reopen())
report("reopened")
os.close(begin_of_end)
os.waitpid(child, 0)
"""
    )
    with running(script, tmp_path / "store") as program:
        program.expect("reopened")
        errors = program.end()
    assert stored(tmp_path / "store") == numbers(2)
    assert WARNING not in errors


def test_forked_child_opens_a_store_of_its_own(tmp_path: Path) -> None:
    """After a fork the child can open other stores, and waits at its own exit for these alone."""
    script = (
        FORK
        + """
async def other():
    global mine
    mine = await Store.open(path + "-child")
    mine.append_nowait(b"0")

if (child := os.fork()) == 0:
    asyncio.run(other())
    sys.exit(0)
os.waitpid(child, 0)
loop.run_until_complete(store.aclose())
"""
    )
    errors = run(script, tmp_path / "store")
    assert stored(tmp_path / "store") == numbers(1)
    assert stored(tmp_path / "store-child") == numbers(1)
    assert errors.count(WARNING) == 1


def test_callers_behind_one_that_interrupts_the_program(tmp_path: Path) -> None:
    """When the task of one caller ends the loop, the others of its commit are told as soon as the
    loop runs again.
    """
    callers, interrupting = 1024, {3, 700}  # one in each half of a large commit

    async def caller(store: Store, number: int) -> int:
        receipt = await store.append(b"%d" % number)
        if number in interrupting:
            raise KeyboardInterrupt
        return receipt.sequence

    async def main() -> Store:
        store = await Store.open(tmp_path, sync_policy=Always())
        tasks.extend(loop.create_task(caller(store, number)) for number in range(callers))
        return store

    tasks: list[asyncio.Task[int]] = []
    loop = asyncio.new_event_loop()
    try:
        store = loop.run_until_complete(main())
        for _ in interrupting:
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(asyncio.wait(tasks))
        told = [task.result() for task in tasks if task.exception() is None]
        loop.run_until_complete(store.aclose())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    assert told == [number for number in range(callers) if number not in interrupting]


# a store that a daemon writes


def test_everything_is_cancelled_while_the_daemon_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio.run cancels all tasks at its end, also the one that looks for the daemon: whoever
    waits is told, and for what is still accepted then it is looked for no longer than a program
    waits at its exit.
    """
    monkeypatch.setattr("aquipu.remote.connection.EXIT_SECONDS", 0.01)
    last: list[asyncio.Future[Receipt]] = []

    async def live(store: RemoteStore) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            last.append(store.append_nowait(b"at the end"))
            with pytest.raises(StoreUnavailableError):
                await store.aclose()

    async def main() -> tuple[asyncio.Future[Receipt], asyncio.Task[None]]:
        async with Store.open(tmp_path / "store") as log, Daemon.open(log, tmp_path / "socket"):
            store = await Store.connect(f"unix:{tmp_path}/socket", timeout=3600)
        living = asyncio.create_task(live(store))
        accepted = store.append_nowait(b"accepted")
        while remote_engine_of(store).connection._reaching is None:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0)
        return accepted, living

    accepted, living = asyncio.run(main())
    assert [type(future.exception()) for future in (accepted, *last)] == [StoreUnavailableError] * 2
    assert living.cancelled()
