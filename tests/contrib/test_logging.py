"""Log calls as records of a store: nothing is lost without being counted, and no log call ever
waits for the disk.
"""

from __future__ import annotations

import asyncio
import json
import logging
import logging.config
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

import pytest
import structlog

from aquipu import OsManaged, Receipt, Stage, Store, StoreFailedError
from aquipu.contrib import logging as contrib
from aquipu.contrib.logging import BATCH_RECORDS, JsonFormatter, StoreHandler
from aquipu.contrib.shared.log_queue import Entry, Gap, Outlet, Queue
from tests.callers import held
from tests.disk import FailingDisk

pytestmark = pytest.mark.asyncio

user: ContextVar[str] = ContextVar("user", default="nobody")


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger of the program, that hands nothing on."""
    logger = logging.getLogger("shop")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    logger.handlers.clear()
    logger.propagate = True


class Heard(logging.Handler):
    """Another handler of the program."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What the handler has to say to the other handlers."""
    other = Heard()
    logging.getLogger("aquipu").addHandler(other)
    yield other
    logging.getLogger("aquipu").removeHandler(other)


async def messages_in(store: Store) -> list[str]:
    """The message of every record."""
    return [json.loads(record.data)["message"] async for record in store.scan()]


async def line_of(
    tmp_path: Path, handler: StoreHandler, call: Callable[[], object]
) -> dict[str, Any]:
    """What is stored of one log call."""
    async with Store.open(tmp_path / "log") as store:
        async with handler.into(store):
            call()
        [record] = [record async for record in store.scan()]
        line: dict[str, Any] = json.loads(record.data)
        return line


@pytest.mark.parametrize("calls", [1_250, pytest.param(12_500, marks=pytest.mark.proof)])
async def test_many_calls_from_eight_threads(
    tmp_path: Path, log: logging.Logger, calls: int
) -> None:
    """All are stored, those of each thread in their order, and nothing is dropped."""
    handler = StoreHandler()
    log.addHandler(handler)

    def work(name: int) -> None:
        for number in range(calls):
            log.info("%d %d", name, number)

    async with Store.open(tmp_path) as store:
        async with handler.into(store):
            await asyncio.gather(*(asyncio.to_thread(work, name) for name in range(8)))
        stored: dict[str, list[int]] = {}
        for message in await messages_in(store):
            name, _, number = message.partition(" ")
            stored.setdefault(name, []).append(int(number))
    assert stored == {str(name): list(range(calls)) for name in range(8)}
    assert (handler.dropped, handler.waiting) == (0, 0)


async def test_a_disk_that_stands_still(tmp_path: Path, log: logging.Logger, heard: Heard) -> None:
    """No caller is blocked, in the loop or in a thread; what finds no room is counted, and said in
    its place.
    """
    disk = FailingDisk()
    handler = StoreHandler(queue_records=50)
    log.addHandler(handler)
    async with (
        Store.open(tmp_path, disk=disk, sync_policy=OsManaged()) as store,
        handler.into(store),
    ):
        with held(disk, "write") as write:
            log.info("under way")
            await write.reached()
            for number in range(60):
                log.info("in the loop %d", number)
            await asyncio.to_thread(log.info, "in a thread")
            assert (handler.waiting, handler.dropped) == (50, 11)
            assert heard.messages == []
        await asyncio.to_thread(handler.flush)
        log.info("afterwards")
        await asyncio.to_thread(handler.flush)
        gap = "11 log records were dropped: the queue was full"
        expected = [
            "under way",
            *(f"in the loop {number}" for number in range(50)),
            gap,
            "afterwards",
        ]
        assert await messages_in(store) == expected
        assert heard.messages == [gap]
        assert handler.dropped == 11


async def test_the_place_of_what_is_missing(log: logging.Logger, tmp_path: Path) -> None:
    """Each gap is said where it is, before what was logged after it, and none is said twice."""
    handler = StoreHandler(queue_records=2)
    log.addHandler(handler)
    async with Store.open(tmp_path) as store:
        for number in range(5):
            log.info("%d", number)
        for number in range(5, 8):
            async with handler.into(store):
                pass
            log.info("%d", number)
        async with handler.into(store):
            pass
        gap = "3 log records were dropped: the queue was full"
        assert await messages_in(store) == ["0", "1", gap, "5", "6", "7"]


async def test_a_queue_bounded_in_bytes(log: logging.Logger) -> None:
    """Few large records fill the queue as well as many small ones."""
    handler = StoreHandler(queue_bytes=1000)
    log.addHandler(handler)
    for _ in range(5):
        log.info("x" * 300)
    assert (handler.waiting, handler.dropped) == (2, 3)


async def test_context_variables(tmp_path: Path, log: logging.Logger) -> None:
    """``relations``, filters and the formatter see the context of the log call, also that of
    another thread.
    """

    class Asked(JsonFormatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"{super().format(record)[:-1]}, {json.dumps('by')}: {json.dumps(user.get())}}}"

    handler = StoreHandler(
        relations=lambda record: (f"user:{user.get()}", f"level:{record.levelname}")
    )
    handler.setFormatter(Asked())
    log.addHandler(handler)

    async def request(name: str) -> None:
        user.set(name)
        log.info("asked")
        await asyncio.to_thread(log.warning, "also asked")

    async with Store.open(tmp_path) as store:
        async with handler.into(store):
            await asyncio.gather(request("ada"), request("grace"))
        found = {
            (*record.relations, json.loads(record.data)["by"]) async for record in store.scan()
        }
    both = {"level:INFO", "level:WARNING"}
    assert found == {(f"user:{name}", level, name) for name in ("ada", "grace") for level in both}


async def test_before_there_is_a_store(tmp_path: Path) -> None:
    """A handler that the logging configuration makes keeps what is logged until there is a loop and
    a store.
    """
    handlers = {
        "store": {
            "class": "aquipu.contrib.logging.StoreHandler",
            "level": "INFO",
            "queue_records": 10,
        }
    }
    logger = {"handlers": ["store"], "level": "DEBUG", "propagate": False}
    configuration = {"version": 1, "disable_existing_loggers": False, "incremental": False}
    logging.config.dictConfig({**configuration, "handlers": handlers, "loggers": {"shop": logger}})
    log = logging.getLogger("shop")
    try:
        log.debug("below the level")
        log.info("early")
        [handler] = log.handlers
        assert isinstance(handler, StoreHandler)
        async with Store.open(tmp_path) as store:
            async with handler.into(store):
                log.info("meanwhile")
            log.info("between two stores")
        async with Store.open(tmp_path) as store, handler.into(store):
            log.info("again")
            await asyncio.to_thread(handler.flush)
            assert await messages_in(store) == ["early", "meanwhile", "between two stores", "again"]
    finally:
        log.handlers.clear()
        log.propagate = True


async def test_one_store_at_a_time(tmp_path: Path) -> None:
    """A handler that is at a store refuses another one, and goes on."""
    handler = StoreHandler()
    async with Store.open(tmp_path) as store, handler.into(store):
        with pytest.raises(RuntimeError, match="into a store already"):
            async with handler.into(store):
                pass
        handler.handle(logging.makeLogRecord({"name": "shop", "msg": "still here"}))
        await asyncio.to_thread(handler.flush)
        assert await messages_in(store) == ["still here"]


async def test_its_own_loggers(tmp_path: Path) -> None:
    """On the root logger too, what aquipu logs is not stored: to store it could log again."""
    root, handler = logging.getLogger(), StoreHandler()
    root.addHandler(handler)
    try:
        async with Store.open(tmp_path) as store:
            async with handler.into(store):
                logging.getLogger("aquipu").error("of the package")
                logging.getLogger("aquipu.local.write.journal").error("of a room")
                logging.getLogger("aquipus").error("of somebody else")
            assert await messages_in(store) == ["of somebody else"]
    finally:
        root.removeHandler(handler)


async def test_a_full_disk(tmp_path: Path, log: logging.Logger, heard: Heard) -> None:
    """What finds no space is counted; the next call is stored again, behind a record that says what
    is missing.
    """
    disk = FailingDisk()
    handler = StoreHandler()
    log.addHandler(handler)
    async with (
        Store.open(tmp_path, disk=disk, sync_policy=OsManaged()) as store,
        handler.into(store),
    ):
        log.info("before")
        await asyncio.to_thread(handler.flush)
        disk.fail("write", ENOSPC, forever=True)
        for number in range(3):
            log.info("lost %d", number)
            await asyncio.to_thread(handler.flush)
        disk.mend()
        assert (handler.dropped, heard.messages) == (3, [])
        log.info("after")
        await asyncio.to_thread(handler.flush)
        before, gap, after = await messages_in(store)
    assert (before, after) == ("before", "after")
    assert gap.startswith("3 log records were dropped: ")
    assert "no space" in gap
    assert heard.messages == [gap]


async def test_a_full_disk_is_not_asked_again_and_again(
    tmp_path: Path, log: logging.Logger
) -> None:
    """While nothing new is logged, nothing is written: not even that something is missing."""
    disk = FailingDisk()
    handler = StoreHandler()
    log.addHandler(handler)
    async with (
        Store.open(tmp_path, disk=disk, sync_policy=OsManaged()) as store,
        handler.into(store),
    ):
        disk.fail("write", ENOSPC, forever=True)
        log.info("lost")
        await asyncio.to_thread(handler.flush)
        tried = disk.count("write")
        for _ in range(20):
            await asyncio.to_thread(store.statistics)
        assert disk.count("write") == tried
        disk.mend()


async def test_a_failed_store(tmp_path: Path, log: logging.Logger, heard: Heard) -> None:
    """It is said once, to the others; what is logged from then on waits for another store, and
    leaving does not hang.
    """
    disk = FailingDisk()
    handler = StoreHandler()
    log.addHandler(handler)
    store = await Store.open(tmp_path, disk=disk, sync_policy=OsManaged())
    async with handler.into(store):
        disk.fail("write", EIO)
        log.info("unknown")
        await asyncio.to_thread(handler.flush)
        log.info("later")
        await asyncio.to_thread(handler.flush)
    with pytest.raises(StoreFailedError):
        await store.aclose()
    [said] = heard.messages
    assert said.startswith("log records are no longer stored (1 were dropped so far): ")
    assert handler.waiting == 1
    async with Store.open(tmp_path) as again:
        async with handler.into(again):
            pass
        assert "later" in await messages_in(again)


async def test_flushing_into_a_store_that_fails(
    tmp_path: Path, log: logging.Logger, heard: Heard
) -> None:
    """A call that waits for records that come to nothing ends at once, not at its timeout."""
    disk = FailingDisk()
    handler = StoreHandler()
    log.addHandler(handler)
    store = await Store.open(tmp_path, disk=disk, sync_policy=OsManaged())
    async with handler.into(store):
        disk.fail("write", EIO)
        log.info("unknown")
        flushing = threading.Thread(target=handler.flush)
        flushing.start()
        while len(handler._queue._items) < 2:  # in the loop thread: both will be taken together
            flushing.join(0.001)
        await asyncio.to_thread(flushing.join)
    with pytest.raises(StoreFailedError):
        await store.aclose()
    assert len(heard.messages) == 1


async def test_a_store_that_was_closed_first(
    tmp_path: Path, log: logging.Logger, heard: Heard
) -> None:
    """Closed inside of ``into``: said, and nothing hangs."""
    handler = StoreHandler()
    log.addHandler(handler)
    store = await Store.open(tmp_path)
    async with handler.into(store):
        await store.aclose()
        log.info("too late")
    assert handler.dropped == 1
    assert "is closed" in heard.messages[0]


async def test_more_than_the_buffer_of_the_store(tmp_path: Path, log: logging.Logger) -> None:
    """A store with little room makes the handler wait, and others who append as well: nothing is
    lost or out of order.
    """
    handler = StoreHandler()
    log.addHandler(handler)
    async with Store.open(tmp_path, buffer_records=3) as store:
        async with handler.into(store):
            for number in range(500):
                log.info("%d", number)
            await asyncio.gather(*(store.append(b'{"message": "x"}') for _ in range(20)))
        messages = await messages_in(store)
    assert [message for message in messages if message != "x"] == [
        str(number) for number in range(500)
    ]
    assert handler.dropped == 0


async def test_leaving_while_cancelled(tmp_path: Path, log: logging.Logger) -> None:
    """What was logged is stored, and the cancellation goes on."""
    disk = FailingDisk()
    handler = StoreHandler()
    log.addHandler(handler)
    async with Store.open(tmp_path, disk=disk, sync_policy=OsManaged()) as store:

        async def serve() -> None:
            async with handler.into(store):
                log.info("one")
                await asyncio.Event().wait()

        with held(disk, "write") as write:
            serving = asyncio.create_task(serve())
            await write.reached()
            log.info("two")
            serving.cancel()
            await asyncio.sleep(0)
            serving.cancel()
            await asyncio.sleep(0)
            assert not serving.done()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert await messages_in(store) == ["one", "two"]


async def test_one_wake_for_a_burst(
    tmp_path: Path, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is woken once for all that gathers, and one commit carries what one batch holds."""
    handler = StoreHandler()
    log.addHandler(handler)
    loop = asyncio.get_running_loop()
    wakes: list[object] = []
    call = loop.call_soon_threadsafe

    def counted(function: Callable[..., object], *arguments: Any, **options: Any) -> asyncio.Handle:
        if getattr(function, "__self__", None).__class__ is asyncio.Event:
            wakes.append(function)
        return call(function, *arguments, **options)

    async with Store.open(tmp_path) as store:
        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        async with handler.into(store):
            for number in range(4 * BATCH_RECORDS):
                log.info("%d", number)
            assert len(wakes) == 1
        assert store.statistics().commits == 4


async def test_flushing_in_the_loop(
    tmp_path: Path, log: logging.Logger, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait at all: the loop that would have to store is the one that waits."""
    monkeypatch.setattr(contrib, "FLUSH_SECONDS", 0)  # who waits at all says so
    handler = StoreHandler()
    log.addHandler(handler)
    async with Store.open(tmp_path) as store, handler.into(store):
        log.info("here")
        handler.flush()
        assert (handler.waiting, heard.messages) == (1, [])


async def test_what_waits_is_stored_at_once(tmp_path: Path, log: logging.Logger) -> None:
    """What was logged before there was a store comes into it without another call, or a flush."""
    handler = StoreHandler()
    log.addHandler(handler)
    log.info("early")
    async with Store.open(tmp_path) as store, handler.into(store), store.follow(0) as records:
        record = await asyncio.wait_for(anext(records), 60)
        assert json.loads(record.data)["message"] == "early"


async def test_closing_without_a_store(log: logging.Logger, heard: Heard) -> None:
    """What was never stored is said once, with what had been dropped."""
    handler = StoreHandler(queue_records=2)
    log.addHandler(handler)
    for _ in range(3):
        log.info("in vain")
    handler.flush()
    handler.close()
    handler.close()
    assert (handler.dropped, handler.waiting) == (3, 0)
    assert heard.messages == ["3 log records were never stored: no store took them before the end"]


async def test_closing_a_full_queue(log: logging.Logger, heard: Heard) -> None:
    """Those for which there was no room, and of which nothing was said yet, were never stored
    either.
    """
    handler = StoreHandler(queue_records=2)
    log.addHandler(handler)
    for _ in range(7):
        log.info("in vain")
    handler.close()
    assert heard.messages == ["7 log records were never stored: no store took them before the end"]


async def test_what_was_dropped_at_the_end_of_what_was_logged() -> None:
    """The gap is said when all before it is taken, also if nothing comes behind it; and once."""
    queue = Queue(2, 100)
    for data in (b"0", b"1", b"dropped", b"dropped"):
        queue.put(Entry(data))
    assert queue.take() == [Entry(b"0"), Entry(b"1")]
    assert queue.take() == [Gap(2, "the queue was full")]
    assert queue.take() == []


async def test_closing_with_a_gap_in_the_queue(log: logging.Logger, heard: Heard) -> None:
    """A gap that waits in its place counts for those that it stands for."""
    handler = StoreHandler(queue_bytes=1000)
    log.addHandler(handler)
    for size in (300, 2000, 2000, 300):
        log.info("x" * size)
    handler.close()
    assert heard.messages == ["4 log records were never stored: no store took them before the end"]


async def test_closing_after_the_loop(log: logging.Logger, heard: Heard) -> None:
    """Where the loop was closed and its task never ended, the next log call finds out, and a close
    says what is left.
    """
    handler = StoreHandler()
    log.addHandler(handler)
    loop = asyncio.new_event_loop()
    assert handler._queue.open(Outlet(loop, lambda: None))
    assert handler._queue.take() == []
    loop.close()
    log.info("too late")
    handler.close()
    assert heard.messages == ["1 log records were never stored: no store took them before the end"]


@pytest.mark.parametrize("options", [{"queue_records": 0}, {"queue_bytes": 0}, {"level": "LOUD"}])
async def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    """They are refused when the handler is made."""
    with pytest.raises(ValueError, match=r"."):
        StoreHandler(**options)


async def test_durability(tmp_path: Path, log: logging.Logger) -> None:
    """Each record is as safe as the handler was told."""
    handler = StoreHandler(durability=Stage.SYNCED)
    log.addHandler(handler)
    async with Store.open(tmp_path, sync_policy=OsManaged()) as store:
        async with handler.into(store):
            log.info("important")
        assert store.synced_sequence == 1


class Elsewhere:
    """A store of another kind, with the same calls: it has never room at once, and loses its
    connection now and then.
    """

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        self._calls = 0

    async def append(
        self, data: bytes, *, relations: Iterable[str] = (), durability: Stage | None = None
    ) -> Receipt:
        self._calls += 1
        if self._calls == 2:
            raise ConnectionResetError("gone")
        self.stored.append(data)
        return Receipt(len(self.stored), 0, Stage.SYNCED)

    def append_nowait(
        self, data: bytes, *, relations: Iterable[str] = (), durability: Stage | None = None
    ) -> asyncio.Future[Receipt]:
        future: asyncio.Future[Receipt] = asyncio.ensure_future(self.append(data))
        return future


async def test_a_store_of_another_kind(log: logging.Logger) -> None:
    """Whatever has the calls can be written to; what it raises is counted and said."""
    handler = StoreHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    elsewhere = Elsewhere()
    async with handler.into(elsewhere):
        for number in range(4):
            log.info("%d", number)
        await asyncio.to_thread(handler.flush)
        log.info("4")
    assert elsewhere.stored == [b"0", b"2", b"3", b"1 log records were dropped: gone", b"4"]


# what is stored of a log call


async def test_the_shape_of_a_line(tmp_path: Path, log: logging.Logger) -> None:
    """Time, level, logger, message; what was given as extra under its own name; an exception as
    text.
    """
    log.addHandler(handler := StoreHandler())

    def call() -> None:
        try:
            raise ValueError("no such order")
        except ValueError:
            log.exception(
                "order %d",
                7,
                extra={"order": 7, "items": [1, 2], "time": "noon", "path": Path("/x")},
            )

    line = await line_of(tmp_path, handler, call)
    assert list(line)[:4] == ["time", "level", "logger", "message"]
    assert line["time"].endswith("+00:00")
    assert (line["level"], line["logger"], line["message"]) == ("ERROR", "shop", "order 7")
    assert (line["order"], line["items"], line["time_"], line["path"]) == (7, [1, 2], "noon", "/x")
    assert line["exception"].endswith("ValueError: no such order")


async def test_a_stack(tmp_path: Path, log: logging.Logger) -> None:
    """``stack_info`` is kept."""
    log.addHandler(handler := StoreHandler())
    line = await line_of(tmp_path, handler, lambda: log.info("here", stack_info=True))
    assert "test_a_stack" in line["stack"]


def loop_in_itself() -> list[object]:
    ring: list[object] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize("value", [math.nan, math.inf, loop_in_itself(), {("a", "key"): 1}])
async def test_values_that_json_does_not_know(
    tmp_path: Path, log: logging.Logger, value: object
) -> None:
    """They are given as text: every line is JSON that any reader takes."""
    log.addHandler(handler := StoreHandler())

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    async with Store.open(tmp_path) as store:
        async with handler.into(store):
            log.info("odd", extra={"value": value})
        [record] = [record async for record in store.scan()]
    assert json.loads(record.data, parse_constant=refuse)["value"] == str(value)


async def test_half_a_surrogate_pair(tmp_path: Path, log: logging.Logger) -> None:
    """A file name that is no UTF-8 comes back as it was."""
    log.addHandler(handler := StoreHandler())
    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x90\x8d")
    line = await line_of(tmp_path, handler, lambda: log.info("%s", name))
    assert line["message"] == name


# structlog


@pytest.fixture
def _plain_structlog() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("_plain_structlog")
async def test_structlog_through_its_formatter(tmp_path: Path, log: logging.Logger) -> None:
    """Its own renderer makes the record, with what is bound to the context of the call."""
    formatter = structlog.stdlib.ProcessorFormatter(processor=structlog.processors.JSONRenderer())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = StoreHandler()
    handler.setFormatter(formatter)
    log.addHandler(handler)

    def call() -> None:
        with structlog.contextvars.bound_contextvars(user="ada"):
            structlog.get_logger("shop").info("asked", order=7)

    assert await line_of(tmp_path, handler, call) == {"event": "asked", "order": 7, "user": "ada"}


@pytest.mark.usefixtures("_plain_structlog")
async def test_structlog_through_extra(tmp_path: Path, log: logging.Logger) -> None:
    """Its fields stand beside those of the handler's own shape."""
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    log.addHandler(handler := StoreHandler())
    line = await line_of(
        tmp_path, handler, lambda: structlog.get_logger("shop").warning("asked", order=7)
    )
    assert (line["message"], line["level"], line["order"]) == ("asked", "WARNING", 7)


# at the end of the program


def run(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    """A program that imports what it needs and gets the path of its store."""
    whole = "import asyncio, logging, os, sys, threading, time\nfrom aquipu import *\n"
    whole += (
        "from aquipu.contrib.logging import StoreHandler\nfrom tests.support import "
        f"FailingDisk\n{code}"
    )
    command = [sys.executable, "-c", whole, str(path)]
    root = Path(__file__).parents[2]
    return subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=60, check=False
    )


IN_A_THREAD = """
handler = StoreHandler()
log = logging.getLogger("shop")
log.addHandler(handler)
disk = FailingDisk()
ready = threading.Event()

async def serve():
    async with Store.open(sys.argv[1], disk=disk) as store, handler.into(store):
        ready.set()
        await asyncio.Event().wait()

threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
ready.wait()
"""


async def test_the_end_of_a_program_whose_loop_is_in_a_thread(tmp_path: Path) -> None:
    """What was logged up to the end of the program is stored, though nobody left ``into`` and the
    disk is slow.
    """
    code = """
import atexit
hold = disk.hold("write")
for number in range(1000):
    log.warning("%d", number)
hold.reached.wait()
atexit.register(hold.released.set)
"""
    done = run(IN_A_THREAD + code, tmp_path)
    assert done.returncode == 0, done.stderr
    async with Store.open(tmp_path) as store:
        assert await messages_in(store) == [str(number) for number in range(1000)]


async def test_the_end_of_a_program_whose_disk_stands_still(tmp_path: Path) -> None:
    """The program ends, and says what it leaves behind."""
    done = run(
        "from aquipu.contrib import logging as contrib\ncontrib.FLUSH_SECONDS = 0.2\n"
        "import aquipu.local.write.worker\naquipu.local.write.worker.EXIT_SECONDS = 0.2\n"
        + IN_A_THREAD
        + "disk.hold('write'); disk.hold('write_synced'); disk.hold('sync')\n"
        "log.warning('one')\nwhile handler.waiting: time.sleep(0.001)\nlog.warning('two')",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "1 log records were not stored within 0.2 s and still wait" in done.stderr


async def test_the_end_of_a_program_without_a_store(tmp_path: Path) -> None:
    """What nobody stored is said."""
    done = run(
        "logging.getLogger().addHandler(StoreHandler()); logging.warning('in vain')", tmp_path
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "1 log records were never stored" in done.stderr


async def test_a_forked_child(tmp_path: Path) -> None:
    """What waits in the queue is the parent's; the child's own calls wait for its own store."""
    done = run(
        """
handler = StoreHandler()
log = logging.getLogger("shop")
log.addHandler(handler)

async def main(name, first):
    async with Store.open(sys.argv[1] + "/" + name) as store, handler.into(store):
        log.warning("%s", name)

async def parent():
    async with Store.open(sys.argv[1] + "/parent") as store, handler.into(store):
        log.warning("before")
        child = os.fork()
        if not child:
            os._exit(handler.waiting)
        assert os.waitpid(child, 0)[1] == 0
asyncio.run(parent())
log.warning("waits")
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
    asyncio.run(main("later", 0))
else:
    asyncio.run(main("child", 0))
    handler.close()
    os._exit(0)
""",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    expected = {"parent": ["before"], "child": ["child"], "later": ["waits", "later"]}
    for name, messages in expected.items():
        async with Store.open(tmp_path / name) as store:
            assert await messages_in(store) == messages


async def test_a_handler_whose_loop_was_closed(tmp_path: Path, log: logging.Logger) -> None:
    """A loop that ended without leaving ``into`` is no obstacle: the calls wait, and another loop
    can take them.
    """
    handler = StoreHandler()
    log.addHandler(handler)
    done = threading.Event()

    def abandon() -> None:
        loop = asyncio.new_event_loop()
        store = loop.run_until_complete(Store.open(tmp_path / "first").__aenter__())
        loop.run_until_complete(handler.into(store).__aenter__())
        log.info("first")
        loop.run_until_complete(asyncio.sleep(0))
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(store.aclose())
        loop.close()
        done.set()

    await asyncio.to_thread(abandon)
    log.info("second")
    async with Store.open(tmp_path / "second") as store:
        async with handler.into(store):
            pass
        assert await messages_in(store) == ["second"]


async def test_the_public_names_of_the_room() -> None:
    """Everything that a program uses has a docstring."""
    for name in (contrib.StoreHandler, contrib.JsonFormatter, contrib.Appending):
        assert name.__doc__
