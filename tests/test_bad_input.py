"""Bad input: each is one clear error, raised before anything is written."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aquipu import (
    AquipuError,
    BatchTooLargeError,
    CorruptionError,
    EveryN,
    NotAStoreError,
    RecordNotWrittenError,
    RecordTooLargeError,
    Stage,
    Store,
    StoreClosedError,
    StoreUnavailableError,
    UnsupportedFormatError,
    WrongLoopError,
)
from aquipu.local.format.names import LOCK, MANIFEST, segment_name
from aquipu.local.format.structure import VERSION, extend
from tests.support import untimed

Call = Callable[[Store], Awaitable[object]]

ROOT = Path(__file__).parent.parent
"""Where a script of a test finds this package."""


def snapshot(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a path that a write would change: names, modes, times of modification and
    contents.
    """
    found = {}
    for item in [path, *sorted(path.rglob("*"))]:
        status = item.lstat()
        found[str(item)] = (
            status.st_mode,
            status.st_mtime_ns,
            item.read_bytes() if item.is_file() else b"",
        )
    return found


async def nowait(store: Store, data: Any, **options: Any) -> object:
    """`append_nowait`, so that it can stand in one list with those that wait."""
    return await store.append_nowait(data, **options)


async def first_of_scan(store: Store) -> object:
    async for record in store.scan():
        return record
    return None


async def check_refused(path: Path, call: Call, kind: type[Exception], **options: Any) -> Exception:
    """Make a call that must be refused on a store that holds one record, and see that the refusal
    left no trace.
    """
    async with Store.open(path, **options) as store:
        await store.append(b"before")
        before = snapshot(path), untimed(store.statistics())._replace(errors={})
        with pytest.raises(kind) as caught:
            await call(store)
        await store.flush()
        assert (snapshot(path), untimed(store.statistics())._replace(errors={})) == before
        assert (await store.append(b"after")).sequence == 1
    return caught.value


NO_DATA = [
    pytest.param("text", id="a str"),
    pytest.param(None, id="None"),
    pytest.param([b"a"], id="a list"),
    pytest.param((1, 2), id="a tuple"),
    pytest.param(7, id="an int"),
    pytest.param(array("b", [1]), id="an array"),
    pytest.param(Path("x"), id="a path"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize("data", NO_DATA)
async def test_data_that_is_not_bytes(tmp_path: Path, data: Any) -> None:
    """What is not bytes, bytearray or memoryview is a TypeError, and nothing else happens."""
    await check_refused(tmp_path, lambda store: store.append(data), TypeError)
    await check_refused(tmp_path / "nowait", lambda store: nowait(store, data), TypeError)


@pytest.mark.asyncio
@pytest.mark.parametrize("data", NO_DATA)
async def test_one_bad_record_in_a_batch(tmp_path: Path, data: Any) -> None:
    """One record of a batch that is no bytes refuses the whole batch."""
    await check_refused(
        tmp_path, lambda store: store.append_many([b"good", data, b"good"]), TypeError
    )


@pytest.mark.asyncio
@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc"), "abc", None, 7])
async def test_a_batch_that_is_no_collection_of_records(tmp_path: Path, data: Any) -> None:
    """`append_many` refuses one record in the place of a collection: iterating it would give
    numbers.
    """
    await check_refused(tmp_path, lambda store: store.append_many(data), TypeError)


@pytest.mark.asyncio
async def test_a_batch_whose_generator_raises(tmp_path: Path) -> None:
    """The error of a generator comes out of `append_many`, and none of its records was taken."""

    def records() -> Iterator[bytes]:
        yield b"one"
        raise ZeroDivisionError

    await check_refused(tmp_path, lambda store: store.append_many(records()), ZeroDivisionError)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_a_record_one_byte_too_large(tmp_path: Path, kind: Callable[[bytes], Any]) -> None:
    """A record of `max_record_bytes` is stored; one byte more is RecordTooLargeError, also as a
    ValueError.
    """
    largest, larger = kind(bytes(100)), kind(bytes(101))
    calls: list[Call] = [
        lambda store: store.append(larger),
        lambda store: nowait(store, larger),
        lambda store: store.append_many([largest, larger]),
    ]
    for number, call in enumerate(calls):
        error = await check_refused(
            tmp_path / str(number), call, RecordTooLargeError, max_record_bytes=100
        )
        assert isinstance(error, ValueError)
        assert isinstance(error, RecordTooLargeError)
        assert (error.size, error.limit) == (101, 100)
    async with Store.open(tmp_path / "large", max_record_bytes=100) as store:
        await store.append(largest)
        assert (await store.get(0)).data == bytes(100)


@pytest.mark.asyncio
@pytest.mark.parametrize("batch", [[b"x"] * 5, [b"x" * 30, b"x" * 31]], ids=["records", "bytes"])
async def test_a_batch_larger_than_the_buffer(tmp_path: Path, batch: list[bytes]) -> None:
    """A batch that the buffer can never hold is refused at once: it would wait for ever."""
    limits = {"buffer_records": 4, "buffer_bytes": 60, "max_record_bytes": 60}
    error = await check_refused(
        tmp_path, lambda store: store.append_many(batch), BatchTooLargeError, **limits
    )
    assert isinstance(error, ValueError)


BAD_RELATIONS = [
    pytest.param(("",), ValueError, id="an empty label"),
    pytest.param(("good", ""), ValueError, id="an empty label behind a good one"),
    pytest.param((7,), TypeError, id="an int"),
    pytest.param((None,), TypeError, id="None"),
    pytest.param((b"user:7",), TypeError, id="bytes"),
    pytest.param((("user", "7"),), TypeError, id="a tuple in the tuple"),
    pytest.param("user:7", TypeError, id="a str instead of a tuple"),
    pytest.param("", TypeError, id="an empty str instead of a tuple"),
    pytest.param(b"user:7", TypeError, id="bytes instead of a tuple"),
    pytest.param(7, TypeError, id="an int instead of a tuple"),
    pytest.param(("a\tb",), ValueError, id="a tab"),
    pytest.param(("a\x00b",), ValueError, id="a zero byte"),
    pytest.param(("\ud800",), ValueError, id="half a surrogate pair"),
    pytest.param(("x" * 1025,), ValueError, id="1025 bytes"),
    pytest.param(("é" * 513,), ValueError, id="1026 bytes of UTF-8 in 513 characters"),
    pytest.param(("x",) * 256, ValueError, id="256 labels"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("relations", "kind"), BAD_RELATIONS)
async def test_a_label_that_cannot_be_stored(
    tmp_path: Path, relations: Any, kind: type[Exception]
) -> None:
    """A label that is not a non-empty, printable str of at most 1,024 bytes is refused."""
    await check_refused(tmp_path / "1", lambda store: store.append(b"x", relations=relations), kind)
    await check_refused(
        tmp_path / "2", lambda store: nowait(store, b"x", relations=relations), kind
    )
    await check_refused(
        tmp_path / "3", lambda store: store.append_many([b"x"], relations=relations), kind
    )


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("durability", "kind"),
    [(Stage.BUFFERED, ValueError), (3, TypeError), ("synced", TypeError), (True, TypeError)],
)
async def test_a_durability_that_is_no_stage_to_wait_for(
    tmp_path: Path, durability: Any, kind: type[Exception]
) -> None:
    """`durability` is FLUSHED or SYNCED: nobody waits for BUFFERED."""
    await check_refused(
        tmp_path / "1", lambda store: store.append(b"x", durability=durability), kind
    )
    await check_refused(
        tmp_path / "2", lambda store: nowait(store, b"x", durability=durability), kind
    )
    await check_refused(
        tmp_path / "3", lambda store: store.append_many([b"x"], durability=durability), kind
    )


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda store: store.get(-1), ValueError),
        (lambda store: store.get("0"), TypeError),
        (lambda store: store.get(0.0), TypeError),
        (lambda store: store.get(True), TypeError),
        (lambda store: store.get(None), TypeError),
        (lambda store: store.get(1), RecordNotWrittenError),
        (lambda store: store.get(2**64), LookupError),
        (lambda store: store.scan(-1), ValueError),
        (lambda store: store.scan(0, -1), ValueError),
        (lambda store: store.scan(2, 1), ValueError),
        (lambda store: store.scan("0"), TypeError),
        (lambda store: store.scan(0, 1.0), TypeError),
    ],
)
async def test_a_sequence_that_cannot_be(tmp_path: Path, call: Call, kind: type[Exception]) -> None:
    """A sequence is a whole number from 0 on, below the next one, and a scan's start is not after
    its stop.
    """
    await check_refused(tmp_path, call, kind)


@pytest.mark.parametrize(
    ("n", "within", "kind"),
    [
        (0, None, ValueError),
        (-1, None, ValueError),
        (1.0, None, TypeError),
        ("64", None, TypeError),
        (True, None, TypeError),
        (64, 0, ValueError),
        (64, -1.0, ValueError),
        (64, float("nan"), ValueError),
        (64, float("inf"), ValueError),
        (64, "1", TypeError),
        (64, True, TypeError),
    ],
)
def test_a_policy_that_cannot_be(n: Any, within: Any, kind: type[Exception]) -> None:
    """`EveryN` wants at least one record, and a positive number of seconds or None."""
    with pytest.raises(kind):
        EveryN(n, within=within)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"sync_policy": "always"}, TypeError),
        ({"sync_policy": None}, TypeError),
        ({"sync_policy": EveryN}, TypeError),
        ({"max_segment_bytes": 4095}, ValueError),
        ({"max_segment_bytes": 1e6}, TypeError),
        ({"max_record_bytes": 0}, ValueError),
        ({"max_record_bytes": "16M"}, TypeError),
        ({"max_record_bytes": 101, "buffer_bytes": 100}, ValueError),
        ({"buffer_records": 0}, ValueError),
        ({"buffer_records": True}, TypeError),
        ({"buffer_bytes": 0}, ValueError),
        ({"buffer_bytes": 2**32}, ValueError),
        ({"lock_timeout": -0.1}, ValueError),
        ({"lock_timeout": float("nan")}, ValueError),
        ({"lock_timeout": None}, TypeError),
        ({"lock_timeout": True}, TypeError),
    ],
    ids=str,
)
def test_an_option_that_cannot_be(
    tmp_path: Path, options: dict[str, Any], kind: type[Exception]
) -> None:
    """An option that cannot be is refused by `Store.open` at once, before it is awaited, and no
    directory is made.
    """
    with pytest.raises(kind):
        Store.open(tmp_path / "store", **options)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("path", [None, 7, b"store", ["store"]])
def test_a_path_that_is_no_path(path: Any) -> None:
    """A path is a str or an os.PathLike of str."""
    with pytest.raises(TypeError):
        Store.open(path)


# what stands at the path


async def check_not_opened(
    path: Path, kind: type[AquipuError] | tuple[type[AquipuError], ...], *but: Path
) -> None:
    """Opening fails with an error that names the path, and leaves everything as it was."""

    def state() -> dict[str, object]:
        return {
            name: found for name, found in snapshot(path.parent).items() if Path(name) not in but
        }

    before = state()
    with pytest.raises(kind) as caught:
        await Store.open(path, lock_timeout=0)
    assert str(path) in str(caught.value)
    assert state() == before


@pytest.mark.asyncio
@pytest.mark.parametrize("content", [b"", b"a list of things to do"])
async def test_a_path_that_is_a_file(tmp_path: Path, content: bytes) -> None:
    """A file is no store, whether it is empty or not."""
    path = tmp_path / "file"
    path.write_bytes(content)
    await check_not_opened(path, NotAStoreError)


@pytest.mark.asyncio
async def test_a_path_below_a_file(tmp_path: Path) -> None:
    """A directory cannot be made below a file."""
    file = tmp_path / "file"
    file.write_bytes(b"content")
    before = snapshot(tmp_path)
    with pytest.raises(AquipuError) as caught:
        await Store.open(file / "store")
    assert str(file) in str(caught.value)
    assert snapshot(tmp_path) == before


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["notes.txt", "1.segment", "lock.old"])
async def test_a_directory_that_holds_something_else(tmp_path: Path, name: str) -> None:
    """A directory with a file that no store has is left alone."""
    path = tmp_path / "home"
    path.mkdir()
    (path / name).write_bytes(b"content")
    await check_not_opened(path, NotAStoreError)


@pytest.mark.asyncio
async def test_a_directory_that_holds_a_directory(tmp_path: Path) -> None:
    """A directory with another directory in it is left alone."""
    path = tmp_path / "home"
    (path / "within").mkdir(parents=True)
    await check_not_opened(path, NotAStoreError)


@pytest.mark.asyncio
async def test_a_directory_with_a_manifest_of_something_else(tmp_path: Path) -> None:
    """A file that is called manifest and is none of ours does not make a directory a store: nothing
    is written there.
    """
    path = tmp_path / "home"
    path.mkdir()
    (path / MANIFEST).write_bytes(b'{"name": "a web application"}')
    (path / "index.html").write_bytes(b"<html>")
    await check_not_opened(path, (NotAStoreError, CorruptionError))


@pytest.mark.asyncio
async def test_a_stray_file_beside_a_store(tmp_path: Path) -> None:
    """A file that someone has put beside the files of a store does not keep it from opening, and is
    left alone.
    """
    async with Store.open(tmp_path) as store:
        await store.append(b"x")
    (tmp_path / "notes.txt").write_bytes(b"content")
    async with Store.open(tmp_path) as store:
        assert store.next_sequence == 1
    assert (tmp_path / "notes.txt").read_bytes() == b"content"


def later_version(structure: bytes, seed: int) -> bytes:
    """The same structure with the next format version, and a checksum that fits."""
    data = structure[:8] + (VERSION + 1).to_bytes(4, "little") + structure[12:-4]
    return data + extend(seed, data).to_bytes(4, "little")


@pytest.mark.asyncio
async def test_a_store_of_a_later_format_version(tmp_path: Path) -> None:
    """A store of a later version is UnsupportedFormatError before anything is written: not even a
    lock file is made.
    """
    path = tmp_path / "store"
    async with Store.open(path) as store:
        await store.append(b"x")
    manifest = path / MANIFEST
    manifest.write_bytes(later_version(manifest.read_bytes(), 0))
    await check_not_opened(path, UnsupportedFormatError)
    (path / LOCK).unlink()  # a later version may lock in another way
    await check_not_opened(path, UnsupportedFormatError)


@pytest.mark.asyncio
async def test_a_segment_of_a_later_format_version(tmp_path: Path) -> None:
    """One segment of a later version is enough to leave the whole store as it is, but for the lock
    that examining takes.
    """
    path = tmp_path / "store"
    async with Store.open(path) as store:
        await store.append(b"x")
    segment = path / segment_name(0)
    content = segment.read_bytes()
    segment.write_bytes(
        later_version(content[:64], 0) + content[64:]
    )  # the version is looked at before the checksum
    await check_not_opened(path, UnsupportedFormatError, path / LOCK)


READ_ONLY = """
import asyncio, os, sys
from concurrent.futures import ThreadPoolExecutor  # imported while everything can still be read
from aquipu import Store

if os.geteuid() == 0:  # root may write everywhere: be nobody
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

async def main():
    try:
        await Store.open(sys.argv[1], lock_timeout=0)
    except Exception as error:
        print(type(error).__name__, type(error.__cause__).__name__)
        print(error)

asyncio.run(main())
"""


@pytest.fixture
def open_to_all(tmp_path: Path) -> Iterator[Path]:
    """A directory that every user may enter; to `tmp_path` root lets nobody in."""
    if os.geteuid() != 0:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="aquipu-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def check_cannot_be_written(path: Path) -> None:
    """An opening by a user who may not write there fails, saying so, and changes nothing."""
    top = path.parent
    before = snapshot(top)
    command = [sys.executable, "-c", READ_ONLY, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    kinds, message = done.stdout.splitlines()
    assert kinds == f"{StoreUnavailableError.__name__} PermissionError"
    assert str(path) in message
    assert snapshot(top) == before


def test_a_read_only_directory(open_to_all: Path) -> None:
    """A directory in which nothing can be made is StoreUnavailableError, with the reason of the
    operating system.
    """
    path = open_to_all / "empty"
    path.mkdir()
    path.chmod(0o555)
    check_cannot_be_written(path)


def test_a_missing_directory_in_a_read_only_one(open_to_all: Path) -> None:
    """A directory that cannot be made is StoreUnavailableError."""
    above = open_to_all / "above"
    above.mkdir()
    above.chmod(0o555)
    check_cannot_be_written(above / "store")


@pytest.mark.asyncio
async def test_a_store_that_may_only_be_read(open_to_all: Path) -> None:
    """A store whose files may not be written is StoreUnavailableError to the one who wants to write
    it.
    """
    path = open_to_all / "store"
    async with Store.open(path) as store:
        await store.append(b"x")
    for item in path.iterdir():
        item.chmod(0o444)
    path.chmod(0o555)
    await asyncio.to_thread(check_cannot_be_written, path)


# a store that is not there for the caller any more, or never was


def all_calls(store: Store) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
    """Everything that a user can ask a store for, except to close it."""
    return [
        ("append", lambda: store.append(b"x")),
        ("append_nowait", lambda: nowait(store, b"x")),
        ("append_many", lambda: store.append_many([b"x"])),
        ("append_many of nothing", lambda: store.append_many([])),
        ("flush", store.flush),
        ("sync", store.sync),
        ("get", lambda: store.get(0)),
        ("scan", lambda: first_of_scan(store)),
    ]


async def refusals(store: Store) -> dict[str, str]:
    """What each call says."""
    said = {}
    for name, call in all_calls(store):
        try:
            await call()
        except Exception as error:
            said[name] = type(error).__name__
        else:
            said[name] = "nothing"
    return said


async def opened(path: Path) -> Store:
    store = await Store.open(path)
    await store.append(b"before")
    return store


@pytest.mark.asyncio
async def test_any_call_after_the_close(tmp_path: Path) -> None:
    """After `aclose` a call is StoreClosedError and writes nothing; closing again does nothing."""
    store = await opened(tmp_path)
    scan = store.scan()
    await store.aclose()
    before = snapshot(tmp_path)
    assert set((await refusals(store)).values()) == {StoreClosedError.__name__}
    with pytest.raises(StoreClosedError):
        await anext(scan)
    await store.aclose()
    assert snapshot(tmp_path) == before


def test_any_call_from_another_loop_in_the_same_thread(tmp_path: Path) -> None:
    """A store belongs to one loop: from another one every call, also `aclose`, is WrongLoopError
    and does nothing.
    """
    with asyncio.Runner() as home, asyncio.Runner() as other:
        store = home.run(opened(tmp_path))
        before = snapshot(tmp_path)
        assert set(other.run(refusals(store)).values()) == {WrongLoopError.__name__}
        with pytest.raises(WrongLoopError):
            other.run(store.aclose())
        assert snapshot(tmp_path) == before
        assert home.run(store.append(b"after")).sequence == 1
        home.run(store.aclose())


@pytest.mark.asyncio
async def test_any_call_from_another_loop_in_another_thread(tmp_path: Path) -> None:
    """From a loop of another thread every call is WrongLoopError, while its own loop goes on."""
    async with Store.open(tmp_path) as store:
        await store.append(b"before")
        await asyncio.sleep(0)  # now readers in other processes have been told, too
        before = snapshot(tmp_path)
        said = await asyncio.to_thread(lambda: asyncio.run(refusals(store)))
        assert set(said.values()) == {WrongLoopError.__name__}
        assert snapshot(tmp_path) == before
        assert (await store.append(b"after")).sequence == 1


@pytest.mark.asyncio
async def test_a_call_from_a_thread_without_a_loop(tmp_path: Path) -> None:
    """A call that needs no `await` can come from a thread without any loop: that too is
    WrongLoopError.
    """
    async with Store.open(tmp_path) as store:
        with pytest.raises(WrongLoopError):
            await asyncio.to_thread(store.append_nowait, b"x")
        with pytest.raises(WrongLoopError):
            await asyncio.to_thread(store.scan)
        assert store.statistics().buffered_records == 0


FORK = """
import asyncio, json, os, sys
from aquipu import Store
from tests.test_bad_input import refusals

async def opened(path):
    store = await Store.open(path)
    await store.append(b"before")
    return store

async def in_child(store):
    said = await refusals(store)
    try:
        await store.aclose()
    except Exception as error:
        said["aclose"] = type(error).__name__
    return said

loop = asyncio.new_event_loop()
store = loop.run_until_complete(opened(sys.argv[1]))
waiting = loop.create_task(store.append(b"accepted before the fork"))
child = os.fork()
if child == 0:
    print(json.dumps(asyncio.run(in_child(store))))
    sys.exit(0)  # through everything that runs at exit
_, status = os.waitpid(child, 0)
assert status == 0
sequences = [
    loop.run_until_complete(waiting).sequence,
    loop.run_until_complete(store.append(b"after")).sequence,
]
loop.run_until_complete(store.aclose())
print(json.dumps(sequences))
"""


@pytest.mark.asyncio
async def test_any_call_after_a_fork(tmp_path: Path) -> None:
    """In a forked child every call, also `aclose`, is ForkedStoreError; the parent's store goes on
    undisturbed.
    """
    command = [sys.executable, "-c", FORK, str(tmp_path)]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    child, parent = map(json.loads, done.stdout.splitlines())
    assert set(child.values()) == {"ForkedStoreError"}
    assert "aclose" in child
    assert parent == [1, 2]
    async with Store.open(tmp_path) as store:
        assert store.recovery.clean
        assert [record.data async for record in store.scan()] == [
            b"before",
            b"accepted before the fork",
            b"after",
        ]
