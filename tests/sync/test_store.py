"""The calls of a store without ``await`` give what those of a `Store` give."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from datetime import UTC, datetime, timedelta
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

import pytest

import aquipu.sync
from aquipu import (
    Always,
    ConflictError,
    EveryN,
    NotAStoreError,
    OsManaged,
    Reader,
    Receipt,
    RecordNotWrittenError,
    RecordTooLargeError,
    Stage,
    StaleKeyError,
    Store,
    StoreAlreadyOpenError,
    StoreClosedError,
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
)
from aquipu.sync import SyncReader, SyncStore
from tests.disk import WRITES, FailingDisk
from tests.support import data_in
from tests.sync.support import PATIENCE, data_of

OF_THE_LOOP = {"aclose", "open", "connect"}
FOR_DAEMONS = {"append_commit", "find_commit", "append_guarded", "append_dated"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize(("face", "kind"), [(SyncStore, Store), (SyncReader, Reader)])
def test_every_call_is_there(face: type, kind: type) -> None:
    """What a Store or a Reader offers, its synchronous face does, and what is new must be added."""
    assert public(kind) - OF_THE_LOOP - FOR_DAEMONS == public(face) - {"close"}


@pytest.mark.parametrize("name", sorted(public(SyncStore) - {"close"}))
def test_a_call_is_explained_as_that_of_the_store(name: str) -> None:
    """Its signature and its docstring are those of the call that it stands for."""
    face, kind = getattr(SyncStore, name), getattr(Store, name)
    assert inspect.getdoc(face) == inspect.getdoc(kind)
    if callable(face):
        assert inspect.signature(face) == inspect.signature(kind)


def test_the_names_of_the_module() -> None:
    """`open`, `connect` and `read` take what `Store` and `Reader` take."""
    for call, of in (
        (aquipu.sync.open, Store.open),
        (aquipu.sync.connect, Store.connect),
        (aquipu.sync.read, Reader.open),
    ):
        assert inspect.signature(call) == inspect.signature(of)
        assert call.__doc__ == inspect.getdoc(of)


@pytest.mark.parametrize("policy", [Always(), EveryN(2, within=None), OsManaged()], ids=str)
def test_a_receipt_is_that_of_the_record(path: Path, policy: Any) -> None:
    """Sequence, time and stage, by the policy and as one append asks for."""
    with aquipu.sync.open(path, sync_policy=policy) as store:
        receipt = store.append(b"signed", relations=("user:7", "märz"))
        assert store.append(b"synced", durability=Stage.SYNCED).stage is Stage.SYNCED
        assert store.append_many([b"a", bytearray(b"b")])[1].sequence == 3
        record = store.get(0)
        assert receipt == Receipt(0, record.timestamp, receipt.stage)
        assert receipt.stage is (Stage.SYNCED if policy == Always() else Stage.FLUSHED)
        assert (record.data, record.relations) == (b"signed", ("user:7", "märz"))
        assert (store.first_sequence, store.next_sequence) == (0, 4)
        store.sync()
        assert store.synced_sequence == 4
    assert data_in(path) == [b"signed", b"synced", b"a", b"b"]


def test_a_key_and_an_expected_sequence(path: Path) -> None:
    """A key that is given again, by any thread, gives the first receipt; a wrong sequence is told
    the right one.
    """
    with aquipu.sync.open(path, sync_policy=Always()) as store:
        with ThreadPoolExecutor(8) as threads:
            receipts = set(threads.map(lambda _: store.append(b"a", key=("p", 1)), range(32)))
        assert [receipt.sequence for receipt in receipts] == [0]
        assert store.append_many([b"b", b"c"], key=("p", 2))[1].sequence == 2
        assert store.append_json(["d"], expect=3).sequence == 3
        with pytest.raises(ConflictError) as conflict:
            store.append(b"e", expect=3)
        assert conflict.value.next_sequence == 4
        with pytest.raises(StaleKeyError):
            store.append(b"f", key=("p", 0))
    assert data_in(path) == [b"a", b"b", b"c", b'["d"]']


def test_an_append_that_does_not_wait(path: Path) -> None:
    """What is wrong is raised at once; what was accepted cannot be taken back, and ends in a
    receipt.
    """
    disk = FailingDisk()
    with aquipu.sync.open(path, sync_policy=Always(), disk=disk) as store:
        hold = disk.hold(WRITES)
        receipt = store.append_nowait(b"x", relations=iter(["a"]))
        with pytest.raises(TypeError):
            store.append_nowait("x")  # type: ignore[arg-type]
        assert not receipt.done()
        assert not receipt.cancel()
        hold.released.set()
        assert receipt.result().sequence == 0


def test_every_way_to_read(path: Path) -> None:
    """Ranges, times, labels, and the newest first; records that do not fit in one step."""
    with aquipu.sync.open(path) as store:
        store.append_many([b"%d" % number for number in range(3000)], relations=("all",))
        store.append(bytes(300_000), relations=("large",))
        hour = timedelta(hours=1)
        assert len(list(store.scan(since=datetime.now(UTC) - hour))) == 3001
        assert data_of(store.scan(5, 7)) == [b"5", b"6"]
        assert data_of(store.scan(stop=2, reverse=True)) == [b"1", b"0"]
        assert [record.sequence for record in store.scan(relation="large")] == [3000]
        assert store.relations("l") == {"large": 1}
        with aquipu.sync.read(path) as reader:
            assert data_of(reader.scan()) == data_of(store.scan())
            assert (reader.first_sequence, reader.next_sequence) == (0, 3001)
            assert (reader.path, reader.generation) == (store.path, store.generation)


def test_keeping_and_letting_go(path: Path) -> None:
    """Holds, a purge, and the place of a consumer."""
    with aquipu.sync.open(path, max_segment_bytes=4096) as store:
        for _ in range(10):
            store.append(bytes(2000))
        store.hold("backup", 3)
        assert store.holds() == {"backup": 3}
        assert store.release("backup")
        assert store.purge(before=4).first_sequence == store.first_sequence > 0
        cursor = store.cursor("billing")
        assert (cursor.name, cursor.load()) == ("billing", None)
        cursor.save(7)
        assert store.cursor("billing").load() == 7
        with pytest.raises(RecordNotWrittenError):
            cursor.save(100)


def test_what_a_store_says_of_itself(path: Path) -> None:
    """Counts, health, limits and what opening found; and that it is closed."""
    with aquipu.sync.open(path, max_record_bytes=100) as store:
        store.append(b"x")
        assert (store.statistics().records, store.health().state) == (1, "ok")
        assert store.limits.record_bytes == 100
        assert store.recovery.clean
        assert repr(store).startswith(f"<SyncStore of <Store {str(path)!r} open")
    assert (store.statistics().state, store.health().state) == ("closed", "closed")


WRONG: dict[str, tuple[type[Exception], Callable[[SyncStore], object]]] = {
    "no bytes": (TypeError, lambda store: store.append("text")),  # type: ignore[arg-type]
    "no label": (ValueError, lambda store: store.append(b"x", relations=("",))),
    "a label as text": (TypeError, lambda store: store.append(b"x", relations="user:7")),
    "too large": (RecordTooLargeError, lambda store: store.append(bytes(101))),
    "no such option": (
        TypeError,
        lambda store: store.append(b"x", colour="red"),  # type: ignore[call-arg]
    ),
    "not yet there": (RecordNotWrittenError, lambda store: store.get(5)),
    "a range that is none": (ValueError, lambda store: store.scan(2, 1)),
    "no start": (TypeError, lambda store: store.follow(1.5)),  # type: ignore[arg-type]
    "no name": (ValueError, lambda store: store.cursor("../x")),
    "purge of nothing": (TypeError, lambda store: store.purge()),
}


@pytest.mark.parametrize(("error", "call"), WRONG.values(), ids=WRONG)
def test_what_is_refused(path: Path, error: type[Exception], call: Callable[..., object]) -> None:
    """The error is the one of the store, raised where the call is, and nothing is stored."""
    with aquipu.sync.open(path, max_record_bytes=100) as store:
        with pytest.raises(error):
            call(store)
        assert store.append(b"x").sequence == 0


CALLS: dict[str, Callable[[SyncStore], object]] = {
    "append": lambda store: store.append(b"x"),
    "append_nowait": lambda store: store.append_nowait(b"x"),
    "append_many": lambda store: store.append_many([b"x"]),
    "flush": lambda store: store.flush(),
    "get": lambda store: store.get(0),
    "scan": lambda store: store.scan(),
    "follow": lambda store: store.follow(),
    "relations": lambda store: store.relations(),
    "cursor": lambda store: store.cursor("a").save(0),
    "holds": lambda store: store.holds(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_is_asked_of_a_closed_store(path: Path, call: Callable[..., object]) -> None:
    """StoreClosedError, at once; to close it again does nothing."""
    store = aquipu.sync.open(path)
    store.append(b"x")
    store.close()
    store.close()
    with pytest.raises(StoreClosedError, match=str(path)):
        call(store)


def test_a_full_disk(path: Path) -> None:
    """StoreFullError for that append; the next one works."""
    disk = FailingDisk()
    with aquipu.sync.open(path, sync_policy=Always(), disk=disk) as store:
        store.append(b"before")
        disk.fail("write_synced", ENOSPC)
        with pytest.raises(StoreFullError) as full:
            store.append(b"x")
        assert isinstance(full.value.__cause__, OSError)
        assert store.append(b"y").sequence == 1


def test_a_failed_sync(path: Path) -> None:
    """StoreFailedError for the append, for every later one, and for closing, which closes."""
    disk = FailingDisk()
    store = aquipu.sync.open(path, sync_policy=Always(), disk=disk)
    disk.fail(WRITES, EIO)
    for _ in range(2):
        with pytest.raises(StoreFailedError):
            store.append(b"x")
    for _ in range(2):
        with pytest.raises(StoreFailedError):
            store.close()
        store._thread.join(PATIENCE)
    with aquipu.sync.open(path, lock_timeout=0) as again:
        again.append(b"y")


def test_what_cannot_be_opened(path: Path) -> None:
    """The error of opening, also of options, and of a store that is open here already."""
    with pytest.raises(TypeError):
        aquipu.sync.open(path, sync_policy=3)  # type: ignore[arg-type]
    with pytest.raises(NotAStoreError):
        aquipu.sync.read(path)
    with pytest.raises(StoreUnavailableError):
        aquipu.sync.connect(f"unix:{path}.socket", timeout=0.01)
    with aquipu.sync.open(path), pytest.raises(StoreAlreadyOpenError):
        aquipu.sync.open(path)


def test_what_is_given_is_asked_for_by_its_caller(path: Path) -> None:
    """Records and labels may come from generators that use the store themselves."""
    with aquipu.sync.open(path) as store:
        store.append_many([b"a", b"b"])
        store.append_many(record.data for record in store.scan())
        store.append(b"c", relations=(f"of:{record.sequence}" for record in store.scan(stop=2)))
        assert data_of(store.scan()) == [b"a", b"b", b"a", b"b", b"c"]
        assert store.get(4).relations == ("of:0", "of:1")


def test_it_cannot_be_copied(path: Path) -> None:
    """A copy would write and close without the knowledge of the first; nor can a scan be copied."""
    with aquipu.sync.open(path) as store:
        for one in (store, store.scan(), store.follow(), store.cursor("a")):
            with pytest.raises(TypeError, match="cannot be copied or pickled"):
                copy(one)
