"""console: the standard streams, the progress bar, and signals.

What needs a whole process is in test_cli.
"""

from __future__ import annotations

import asyncio
import io
import os
import pty
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EBADF, ENOSPC
from pathlib import Path
from signal import SIG_DFL, SIG_IGN, SIGHUP, SIGINT, SIGTERM, Signals
from typing import TextIO

import pytest

from aquipu.cli.streams import console
from aquipu.cli.streams.console import (
    PIECE_BYTES,
    Input,
    bar,
    counted,
    let_interrupt_kill,
    say,
    standard_output,
    until_signalled,
    write,
    write_line,
)

NO_TEXT = os.fsdecode(b"st\xf6re")
"""A path that is no UTF-8."""


@contextmanager
def source_of(reading: int, patch: pytest.MonkeyPatch) -> Iterator[Input]:
    """Standard input out of this descriptor."""
    with open(reading) as stream:
        patch.setattr(sys, "stdin", stream)
        source = Input()
        try:
            yield source
        finally:
            source.close()


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Input, int]]:
    """Standard input out of a pipe, and the other end of it."""
    reading, writing = os.pipe()
    with source_of(reading, monkeypatch) as source:
        yield source, writing
    with suppress(OSError):  # a test may have closed it
        os.close(writing)


def shown_by(work: Callable[[], None]) -> str:
    """What stands on a terminal that is standard error during this work."""
    far, near = pty.openpty()
    with pytest.MonkeyPatch.context() as patch, open(near, "w") as stream:
        patch.setattr(sys, "stderr", stream)
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "200")
        work()
    text = b""
    with suppress(OSError):  # how Linux says that nobody is left who could write
        while piece := os.read(far, 65536):
            text += piece
    os.close(far)
    return text.decode()


# standard output and standard error


class Narrow(io.FileIO):
    """Takes three bytes at a time."""

    def write(self, data: object, /) -> int:
        assert isinstance(data, memoryview)
        return super().write(data[:3])


def test_all_of_it_is_written(tmp_path: Path) -> None:
    """An output may take less than it is given: what is left is written until nothing is."""
    with Narrow(tmp_path / "output", "wb") as output:
        write(output, b"a longer text")
        write(output, b"")
    assert (tmp_path / "output").read_bytes() == b"a longer text"


def test_a_line_goes_to_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is there at once, without a buffer; a name that is no UTF-8 comes out as the
    bytes that it is.
    """
    with (tmp_path / "output").open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with standard_output() as output:
            write_line(output, f"{NO_TEXT} ü")
        assert (tmp_path / "output").read_bytes() == b"st\xf6re \xc3\xbc\n"
        os.fstat(stream.fileno())  # it is not ours to close


def test_an_output_that_fails_names_the_stream() -> None:
    """An error of writing says that it was standard output; its number is kept."""
    with (
        io.FileIO("/dev/full", "wb") as output,
        pytest.raises(OSError, match="'standard output'") as caught,
    ):
        write(output, b"text")
    assert caught.value.errno == ENOSPC


def test_a_standard_stream_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may be started without it: an error of the stream says so."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stdin", None)
    for open_stream, name in ((standard_output, "standard output"), (Input, "standard input")):
        with pytest.raises(OSError, match=f"it is closed: '{name}'") as caught:
            open_stream()
        assert caught.value.errno == EBADF


def test_what_is_said_stands_on_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line each."""
    with (tmp_path / "errors").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        say("one")
        say(NO_TEXT)
    assert (tmp_path / "errors").read_bytes() == b"one\nst\xf6re\n"


def test_nobody_listens_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work goes on, whether it was never there, cannot be written, or was closed at the other
    end.
    """
    monkeypatch.setattr(sys, "stderr", None)
    say("one")
    reading, writing = os.pipe()
    os.close(reading)
    for descriptor in (writing, os.open(os.devnull, os.O_RDONLY)):
        with open(descriptor) as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            say("two")


# standard input


@pytest.mark.asyncio
async def test_input_is_read_as_it_comes(pipe: tuple[Input, int]) -> None:
    """A read gives what is there and waits for no more; nothing is given only at the end of the
    input.
    """
    source, writing = pipe
    os.write(writing, b"one\ntw")
    assert await source.read() == b"one\ntw"
    waiting = asyncio.ensure_future(source.read())
    os.write(writing, b"o\n")
    assert await waiting == b"o\n"
    os.close(writing)
    assert await source.read() == b""
    assert await source.read() == b""


@pytest.mark.asyncio
async def test_a_stop_ends_the_read_that_waits(pipe: tuple[Input, int]) -> None:
    """It ends as at the end of the input, and so do all later ones; the signal is remembered."""
    source, writing = pipe
    assert source.stopped_by is None
    waiting = asyncio.ensure_future(source.read())
    await asyncio.sleep(0)
    source.stop(SIGTERM)
    assert await waiting == b""
    os.write(writing, b"too late")
    assert await source.read() == b""
    assert source.stopped_by == SIGTERM


@pytest.mark.asyncio
async def test_a_wake_up_without_anything_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody else has read what was there, in a pipe that never blocks, that is no end of
    the input.
    """
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    asked = 0

    def spurious(reading: list[int], *others: list[int]) -> tuple[list[int], list[int], list[int]]:
        nonlocal asked
        asked += 1
        if asked == 2:
            os.write(writing, b"now")
        return reading[:1], [], []

    monkeypatch.setattr(console, "select", spurious)
    with source_of(reading, monkeypatch) as source:
        assert await source.read() == b"now"
    assert asked == 2
    os.close(writing)


@pytest.mark.asyncio
async def test_a_file_as_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes in pieces of a bounded size, and tells how much is still to come."""
    (tmp_path / "input").write_bytes(b"x" * (PIECE_BYTES + 10))
    with source_of(os.open(tmp_path / "input", os.O_RDONLY), monkeypatch) as source:
        assert source.size == PIECE_BYTES + 10
        assert not source.is_terminal
        assert len(await source.read()) == PIECE_BYTES
        assert source.size == 10
        assert await source.read() == b"x" * 10
        assert await source.read() == b""
        assert source.size is None


def test_a_pipe_does_not_tell_how_much_there_is(pipe: tuple[Input, int]) -> None:
    """What will come through it is not known, and it is no terminal."""
    source, writing = pipe
    os.write(writing, b"something")
    assert source.size is None
    assert not source.is_terminal


def test_a_terminal_as_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told from a pipe, and has no size either."""
    far, near = pty.openpty()
    with source_of(near, monkeypatch) as source:
        assert source.is_terminal
        assert source.size is None
    os.close(far)


@pytest.mark.asyncio
async def test_an_input_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of reading says that it was standard input; its number is kept."""
    with source_of(os.open(os.devnull, os.O_WRONLY), monkeypatch) as source:
        with pytest.raises(OSError, match="'standard input'") as caught:
            await source.read()
    assert caught.value.errno == EBADF


# signals


@contextmanager
def handled(number: Signals, handler: signal.Handlers | Callable[..., object]) -> Iterator[None]:
    """Have the signal handled so, until the end."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.asyncio
@pytest.mark.parametrize("number", [SIGINT, SIGTERM, SIGHUP])
async def test_the_first_signal_asks(number: Signals) -> None:
    """It is given to who can stop in order; a second one would do what it always does."""
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    plain = signal.default_int_handler if number is SIGINT else SIG_DFL
    with handled(number, plain), until_signalled(told.set_result):
        assert signal.getsignal(number) is not plain
        signal.raise_signal(number)
        assert await told == number
        assert [signal.getsignal(each) for each in (SIGTERM, SIGHUP)] == [SIG_DFL, SIG_DFL]
        assert signal.getsignal(SIGINT) is signal.default_int_handler


@pytest.mark.asyncio
async def test_without_a_signal_nothing_is_left_behind() -> None:
    """At the end the signals do again what they always do, also after an error."""

    def never(number: int) -> None:
        pytest.fail(f"signal {number} was never sent")

    with pytest.raises(ZeroDivisionError), until_signalled(never):
        raise ZeroDivisionError
    assert [signal.getsignal(each) for each in (SIGTERM, SIGHUP)] == [SIG_DFL, SIG_DFL]
    assert signal.getsignal(SIGINT) is signal.default_int_handler


@pytest.mark.asyncio
async def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """Who started the program in the background has said so; the others are heeded all the same."""
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    with handled(SIGHUP, SIG_IGN):
        with until_signalled(told.set_result):
            signal.raise_signal(SIGHUP)
            assert signal.getsignal(SIGHUP) is SIG_IGN
            signal.raise_signal(SIGTERM)
            assert await told == SIGTERM
        assert signal.getsignal(SIGHUP) is SIG_IGN


def test_an_interrupt_may_kill() -> None:
    """Ctrl-C then ends the program at once, unless it was to be ignored, or somebody else handles
    it.
    """

    def handler(*arguments: object) -> None: ...

    for before, after in (
        (signal.default_int_handler, SIG_DFL),
        (SIG_IGN, SIG_IGN),
        (handler, handler),
    ):
        with handled(SIGINT, before):
            let_interrupt_kill()
            assert signal.getsignal(SIGINT) is after


# the progress bar


def test_a_bar_of_bytes() -> None:
    """On a terminal it shows how much of how much is done, and how fast."""

    def work() -> None:
        with bar(3000) as advance:
            advance(1000)
            advance(2000)

    text = shown_by(work)
    assert "3.0/3.0 kB" in text
    assert "B/s" in text
    assert "records" not in text


def test_a_bar_of_records() -> None:
    """It counts records as well, and shows that nobody knows how much is to come."""

    def work() -> None:
        with bar(None, counts_records=True) as advance:
            advance(1000, 1999)
            advance(1000, 1)
            advance(10)

    text = shown_by(work)
    assert "2.0/? kB" in text
    assert "2,000 records " in text
    assert "records/s" in text


def test_a_bar_that_is_not_wanted() -> None:
    """Nothing is painted over what is typed on the same terminal."""

    def work() -> None:
        with bar(1000, shown=False) as advance:
            advance(1000)

    assert shown_by(work) == ""


@pytest.mark.parametrize("there", [False, True])
def test_no_bar_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """A file gets no bar; without standard error there is none either, and the work is the same."""
    with (tmp_path / "errors").open("w") as stream:
        errors: TextIO | None = stream if there else None
        monkeypatch.setattr(sys, "stderr", errors)
        with bar(1000) as advance:
            advance(500)
            advance(500, 3)
    assert (tmp_path / "errors").read_bytes() == b""


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 records"), (1, "1 record"), (2, "2 records"), (1_234_567, "1,234,567 records")],
)
def test_numbers_are_written_so_that_people_can_read_them(number: int, text: str) -> None:
    """Thousands are set apart, and one is not many."""
    assert counted(number, "record") == text
