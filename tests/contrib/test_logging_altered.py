"""Log calls that no record can hold as they are: they are stored all the same, and say what is
other than it was given.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aquipu import Record, Store
from aquipu.contrib.logging import StoreHandler

pytestmark = pytest.mark.asyncio


class Unspeakable:
    """Has no text."""

    def __str__(self) -> str:
        raise ValueError

    __repr__ = __str__


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger of the program, that hands nothing on."""
    logger = logging.getLogger("shop")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    logger.handlers.clear()
    logger.propagate = True


async def stored(
    path: Path, handler: StoreHandler, call: Callable[[], object], **options: Any
) -> list[Record]:
    """What is stored while this is called."""
    async with Store.open(path / "log", **options) as store:
        async with handler.into(store):
            call()
        assert handler.dropped == 0
        return [record async for record in store.scan()]


async def test_labels_from_outside(tmp_path: Path, log: logging.Logger) -> None:
    """A name that is no label is made one; a name that only looks strange is one."""
    log.addHandler(
        handler := StoreHandler(relations=lambda record: [f"user:{record.getMessage()}"])
    )

    def call() -> None:
        log.warning("ada")
        log.warning("eve\u200d")
        log.warning("mallory\nuser:ada")

    ada, eve, mallory = await stored(tmp_path, handler, call)
    assert [record.relations for record in (ada, eve, mallory)] == [
        ("user:ada",),
        ("user:eve\u200d",),
        ("user:mallory%0Auser:ada",),
    ]
    assert json.loads(mallory.data)["altered"] == ["relations"]
    assert b"altered" not in ada.data + eve.data


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        ([""], ("%FF",)),
        ([7], ("7",)),
        ((f"tag:{n}" for n in range(300)), tuple(f"tag:{n}" for n in range(255))),
    ],
)
async def test_labels_that_no_store_takes(
    tmp_path: Path, log: logging.Logger, given: Iterable[str], labels: tuple[str, ...]
) -> None:
    """They are altered until a record can carry them."""
    log.addHandler(handler := StoreHandler(relations=lambda record: given))
    (record,) = await stored(tmp_path, handler, lambda: log.info("one"))
    line = json.loads(record.data)
    assert record.relations == labels
    assert (line["message"], line["altered"]) == ("one", ["relations"])


@pytest.mark.parametrize("given", [None, "user:7", 7])
async def test_relations_that_raises(
    tmp_path: Path, log: logging.Logger, given: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record has no labels and says why; the program is told as logging tells such things."""

    def relations(record: logging.LogRecord) -> Iterable[str]:
        if given is None:
            raise KeyError("user")
        return given  # type: ignore[no-any-return]

    log.addHandler(handler := StoreHandler(relations=relations))
    (record,) = await stored(tmp_path, handler, lambda: log.info("one"))
    line = json.loads(record.data)
    error = "KeyError" if given is None else "TypeError"
    assert (line["message"], line["audit_error"]) == ("one", {"relations": error})
    assert record.relations == ()
    assert f"{error}: " in capsys.readouterr().err


async def test_other_handlers_see_the_record_as_it_was(tmp_path: Path, log: logging.Logger) -> None:
    """What this handler says of its record is not in the records of the others."""
    seen: list[logging.LogRecord] = []
    log.addHandler(handler := StoreHandler(relations=lambda record: [""]))

    class Other(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    log.addHandler(Other())
    await stored(tmp_path, handler, lambda: log.info("one"))
    assert not hasattr(seen[0], "altered")


@pytest.mark.parametrize("argument", ["no number", Unspeakable(), None])
async def test_a_message_that_cannot_be_made(
    tmp_path: Path, argument: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """The call is stored with its parts, and the program is told."""
    handler = StoreHandler(relations=lambda record: ["", "kept"])
    parts = {
        "name": "shop",
        "levelname": "ERROR",
        "msg": "%d of %s",
        "args": (argument,),
        "user": 7,
    }
    (record,) = await stored(
        tmp_path, handler, lambda: handler.handle(logging.makeLogRecord(parts))
    )
    line = json.loads(record.data)
    assert (line["message"], line["level"], line["logger"], line["user"]) == (
        "%d of %s",
        "ERROR",
        "shop",
        7,
    )
    assert line["altered"] == ["relations", "message"]
    assert line["audit_error"] == {"format": "TypeError"}
    assert record.relations == ("%FF", "kept")
    assert "--- Logging error ---" in capsys.readouterr().err


async def test_a_formatter_that_raises(
    tmp_path: Path, log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """The call is stored in the shape of JsonFormatter, whatever shape it was to have."""
    log.addHandler(handler := StoreHandler())
    handler.setFormatter(logging.Formatter("%(nowhere)s"))
    (record,) = await stored(tmp_path, handler, lambda: log.info("one"))
    line = json.loads(record.data)
    assert (line["message"], line["audit_error"]) == ("one", {"format": "ValueError"})
    assert "--- Logging error ---" in capsys.readouterr().err


async def test_an_extra_that_has_no_text(tmp_path: Path, log: logging.Logger) -> None:
    """It is named by its class."""
    log.addHandler(handler := StoreHandler())
    (record,) = await stored(
        tmp_path, handler, lambda: log.info("one", extra={"basket": Unspeakable()})
    )
    assert json.loads(record.data)["basket"] == "<Unspeakable>"


@pytest.mark.parametrize(
    "shape", [None, logging.Formatter("%(levelname)s %(message)s")], ids=["json", "text"]
)
@pytest.mark.parametrize("character", ["x", "\0", "é", "😀"])
async def test_a_line_larger_than_a_record(
    tmp_path: Path, log: logging.Logger, shape: logging.Formatter | None, character: str
) -> None:
    """It is cut, says so, and its neighbours are whole."""
    log.addHandler(handler := StoreHandler(relations=lambda record: ["kept"]))
    if shape is not None:
        handler.setFormatter(shape)

    def call() -> None:
        log.info("before")
        log.info(character * 5000)
        log.info("behind")

    before, record, behind = await stored(tmp_path, handler, call, max_record_bytes=500)
    assert b"before" in before.data
    assert b"behind" in behind.data
    assert record.relations == ("kept",)
    assert 400 < len(record.data) <= 500
    if shape is None:
        line = json.loads(record.data)
        assert (line["altered"], line["level"]) == (["message"], "INFO")
        assert set(line["message"]) == {character}
    else:
        text, _, said = record.data.decode().partition(" [cut: ")
        assert set(text) == {*"INFO ", character}
        assert said == f"{len(f'INFO {character * 5000}'.encode())} bytes]"


@pytest.mark.parametrize("shape", [None, logging.Formatter("%(message)s")], ids=["json", "text"])
async def test_a_record_that_holds_no_line_at_all(
    tmp_path: Path, log: logging.Logger, shape: logging.Formatter | None
) -> None:
    """What cannot be cut to its size is dropped, and counted."""
    log.addHandler(handler := StoreHandler())
    if shape is not None:
        handler.setFormatter(shape)
    async with Store.open(tmp_path / "log", max_record_bytes=10) as store:
        async with handler.into(store):
            log.info("x" * 100)
        assert (handler.dropped, store.next_sequence) == (1, 0)
