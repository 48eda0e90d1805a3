"""Many threads with one store: they share its commits, and none waits for ever."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

import pytest

import aquipu.sync
from aquipu import Always, OsManaged, StoreClosedError
from aquipu.sync import appends
from tests.callers import open_descriptors
from tests.disk import WRITES, FailingDisk
from tests.sync.support import PATIENCE, begun, data_of, program


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def threads_of(name: str = "aquipu.sync") -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait for what other threads are about to do."""
    for _ in range(int(PATIENCE / 0.005)):
        if is_so():
            return
        threading.Event().wait(0.005)
    pytest.fail("it never came to that")


def test_who_comes_while_the_disk_is_busy_shares_the_next_commit(path: Path) -> None:
    """Many threads wait for one sync, and each has the receipt of its own record."""
    disk = FailingDisk()
    with aquipu.sync.open(path, sync_policy=Always(), disk=disk) as store:
        hold = disk.hold(WRITES)
        first = begun(lambda: store.append(b"first"))
        assert hold.reached.wait(PATIENCE)
        data = [b"%d" % number for number in range(30)]
        others = [begun(partial(store.append, one)) for one in data]
        wait_until(lambda: len(store._appends._entries) == 30)
        hold.released.set()
        assert first.result(PATIENCE).sequence == 0
        for one, other in zip(data, others, strict=True):
            assert store.get(other.result(PATIENCE).sequence).data == one
        assert store.statistics().commits == 2


def test_who_comes_back_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a commit of two callers the first that comes again leaves with the second."""
    monkeypatch.setattr(appends, "_GATHER", PATIENCE)
    with aquipu.sync.open(path, sync_policy=Always()) as store:
        store._appends._released = 2
        first = begun(lambda: store.append(b"first"))
        wait_until(lambda: store._appends._wanted == 2)
        monkeypatch.setattr(appends, "_GATHER", 0)  # the next time; this one is under way
        assert store.append(b"second").sequence == 1
        assert first.result(PATIENCE).sequence == 0
        assert store.statistics().commits == 1


def test_who_does_not_come_back_is_waited_for_less_and_less(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a wait in vain commits leave without one, and about twice as many after the next."""
    monkeypatch.setattr(appends, "_GATHER", 0)
    with aquipu.sync.open(path) as store:
        skipped = []
        for _ in range(190):
            store._appends._released = 1  # has its receipt, and appends nothing more
            store._appends._gather([])
            skipped.append(store._appends._skip)
    waits = [skip for before, skip in pairwise([0, *skipped]) if skip >= before]
    assert waits == [1, 3, 7, 15, 31, 63, 64]


def test_a_caller_that_was_interrupted_holds_up_nobody(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers wake each other, and those behind one that is gone are woken all the same."""
    monkeypatch.setattr(appends, "_GATHER", 0)
    with aquipu.sync.open(path) as store:
        gone, *others = [appends._Entry(b"x", {}) for _ in range(3)]
        for entry in others:
            entry.receipt = store.append(b"x")
        store._appends._released = 3
        store._appends._gather([gone, *others])
        for entry in others:
            assert begun(entry.wait).result(PATIENCE) is entry.receipt


def test_many_threads(path: Path) -> None:
    """Every append of every thread has a sequence of its own, in the order of its thread; that the
    buffer is small refuses nobody.
    """
    with aquipu.sync.open(path, sync_policy=OsManaged(), buffer_records=3) as store:

        def work(name: int) -> list[int]:
            return [store.append(b"%d %d" % (name, n)).sequence for n in range(200)]

        several = [begun(partial(work, name)) for name in range(8)]
        sequences = [outcome.result(PATIENCE) for outcome in several]
        assert sorted(chain(*sequences)) == list(range(8 * 200))
        assert not any(store.statistics().errors.values())
        for name, given in enumerate(sequences):
            assert given == sorted(given)
            assert store.get(given[7]).data == b"%d 7" % name


def test_the_thread_ends_with_its_store(path: Path) -> None:
    """Nothing is left when a store or a reader was closed, or could not be opened."""
    before = set(threads_of())
    with aquipu.sync.open(path), aquipu.sync.read(path):
        assert len(set(threads_of()) - before) == 2
    with pytest.raises(ValueError, match="is a daemon"):
        aquipu.sync.read("unix:x")
    with pytest.raises(aquipu.NotAStoreError):
        aquipu.sync.read(path.parent / "nowhere")
    for thread in set(threads_of()) - before:
        thread.join(PATIENCE)
    assert set(threads_of()) <= before


def test_closing_while_others_append(path: Path) -> None:
    """Each of them gets a receipt, and its record is there, or StoreClosedError."""
    disk = FailingDisk()
    store = aquipu.sync.open(path, sync_policy=Always(), disk=disk)
    hold = disk.hold(WRITES)
    first = begun(lambda: store.append(b"first"))
    assert hold.reached.wait(PATIENCE)
    late = [begun(lambda: store.append(b"late")) for _ in range(5)]
    wait_until(lambda: len(store._appends._entries) == 5)
    closing = begun(store.close)
    wait_until(lambda: store._thread._is_left)
    hold.released.set()
    closing.result(PATIENCE)
    assert first.result(PATIENCE).sequence == 0
    assert {type(one.exception(PATIENCE)) for one in late} == {StoreClosedError}
    with aquipu.sync.open(path, lock_timeout=0) as again:
        assert data_of(again.scan()) == [b"first"]


def test_an_event_loop_is_not_blocked(path: Path) -> None:
    """In its thread every call is refused, and names what to write instead."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"async with Store.open"):
            aquipu.sync.open(path)
        for call in (lambda: store.append(b"x"), lambda: store.get(0), store.flush, store.scan):
            with pytest.raises(RuntimeError, match=r"await store.append\(data\)"):
                call()
        assert (await asyncio.to_thread(store.append, b"x")).sequence == 0

    with aquipu.sync.open(path) as store:
        asyncio.run(main())


def test_a_callback_of_a_receipt_cannot_wait(path: Path) -> None:
    """It runs on the thread that would have to answer."""
    raised: list[str] = []

    def callback(_: object) -> None:
        try:
            store.append(b"y")
        except RuntimeError as error:
            raised.append(str(error))

    disk = FailingDisk()
    with aquipu.sync.open(path, disk=disk) as store:
        hold = disk.hold(WRITES)
        store.append_nowait(b"x").add_done_callback(callback)
        hold.released.set()
    assert len(raised) == 1


# Ctrl-C

INTERRUPTED = """
disk = FailingDisk()
store = aquipu.sync.open(path, sync_policy=Always(), disk=disk)
hold = disk.hold(WRITES)

def interrupt():
    hold.reached.wait()
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
"""


@pytest.mark.parametrize(
    "call", ['append(b"x")', 'append_many([b"x"])', 'append(b"x", relations=["a"])']
)
def test_an_append_that_is_interrupted(path: Path, call: str) -> None:
    """Its caller has the interrupt, the record is stored, and the store goes on."""
    script = f"""
try:
    store.{call}
except KeyboardInterrupt:
    print("interrupted")
hold.released.set()
print(store.append(b"y").sequence)
store.close()
"""
    ended = program(INTERRUPTED + script, path)
    assert (ended.stdout, ended.stderr) == ("interrupted\n1\n", "")
    with aquipu.sync.open(path) as store:
        assert data_of(store.scan()) == [b"x", b"y"]


def test_a_close_that_is_interrupted(path: Path) -> None:
    """It is done all the same."""
    script = """
try:
    store.append_nowait(b"x")
    store.close()
except KeyboardInterrupt:
    print("interrupted")
hold.released.set()
store.close()
print(store.health().state)
"""
    ended = program(INTERRUPTED + script, path)
    assert (ended.stdout, ended.stderr) == ("interrupted\nclosed\n", "")


def test_an_opening_that_is_interrupted(path: Path) -> None:
    """It ends, and lets go of what it may have had by then."""
    script = """
other = aquipu.sync.open(path)
if not os.fork():
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        aquipu.sync.open(path, lock_timeout=60)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    for thread in threading.enumerate():
        if thread.name == "aquipu.sync":
            thread.join()  # it would wait for the lock for a minute
    os._exit(0)
os.wait()
print(other.append(b"x").sequence)
other.close()
"""
    assert program(script, path).stdout == "interrupted\n0\n"


def test_a_follower_that_is_interrupted_goes_on(path: Path) -> None:
    """A wait that was interrupted has lost no record: the next step has it."""
    script = """
store = aquipu.sync.open(path)
records = store.follow("earliest")
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    next(records)
except KeyboardInterrupt:
    print("interrupted")
store.append(b"x")
print(next(records).data)
store.close()
"""
    assert program(script, path).stdout == "interrupted\nb'x'\n"


# scans and followers


def test_a_scan_that_is_left_early_closes_its_files(path: Path) -> None:
    """By `close`, at the end of ``with``, and when it is dropped."""
    with aquipu.sync.open(path) as store:
        store.append_many([bytes(1000)] * 2000)
        store.sync()
        before = len(open_descriptors(path))
        scan = store.scan()
        next(scan)
        assert len(open_descriptors(path)) > before
        scan.close()
        assert len(open_descriptors(path)) == before
        assert list(scan) == []
        with store.scan() as scan:
            next(scan)
        assert len(open_descriptors(path)) == before
        for _ in store.scan():
            break
        gc.collect()
        store.get(0)  # behind what the loop does about the dropped one
        assert len(open_descriptors(path)) == before


def test_a_follower_waits_for_the_next_record(path: Path) -> None:
    """It gives each as soon as it is acknowledged, and ends when its store is closed elsewhere."""
    with aquipu.sync.open(path) as store:
        store.append(b"a")
        seen: list[bytes] = []
        came = threading.Semaphore(0)

        def follow() -> None:
            for record in store.follow("earliest"):
                seen.append(record.data)
                came.release()

        following = begun(follow)
        assert came.acquire(timeout=PATIENCE)
        store.append(b"b")
        assert came.acquire(timeout=PATIENCE)
    following.result(PATIENCE)
    assert seen == [b"a", b"b"]


def test_a_follower_that_is_late_when_its_store_is_closed(path: Path) -> None:
    """It still gives everything that was acknowledged, and then ends."""
    store = aquipu.sync.open(path)
    records = store.follow("earliest")
    store.append_many([b"a", b"b"])
    store.close()
    for _ in range(3):
        store._thread.do(lambda: None)  # the loop has had the time to end
    assert not store._thread._over.is_set()
    position = [str(records.position_after(record)) for record in records]
    assert [text.rpartition("-")[2] for text in position] == ["1", "2"]
    assert records.skipped == 0


def test_a_follower_that_is_closed_by_another_thread(path: Path) -> None:
    """It ends, and the store goes on."""
    with aquipu.sync.open(path) as store:
        records = store.follow()
        following = begun(lambda: list(records))
        wait_until(lambda: records._step is not None)
        records.close()
        assert following.result(PATIENCE) == []
        store.append(b"x")
