"""Where the command line meets the outside: the standard streams, the progress bar, and signals.

Data goes to standard output, everything else to standard error. The streams are used without
Python's buffers: what has come is there at once, and nothing is left that could fail at exit.
"""

from __future__ import annotations

import sys
from asyncio import get_running_loop
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EBADF
from io import FileIO
from select import select
from signal import SIG_DFL, SIG_IGN, SIGHUP, SIGINT, SIGTERM, default_int_handler, getsignal, signal
from socket import socketpair
from typing import TYPE_CHECKING, Protocol, TextIO

import rich  # noqa: F401 # so that a command that lacks it says so at once
from anyio import to_thread

from aquipu.local.disk.disk import Disk

if TYPE_CHECKING:
    from rich.progress import Progress, Task
    from rich.text import Text

PIECE_BYTES = 256 * 1024
"""The most that is read from standard input, or written to standard output, at a time."""


# the standard streams


def standard_output() -> FileIO:
    """Standard output; OSError when the program was started without it."""
    return _standard(sys.stdout, "standard output", "wb")


def write(output: FileIO, data: bytes, name: str = "standard output") -> None:
    """Write all of it to a file from `standard_output`, or one that errors call by this name."""
    left = memoryview(data)
    with naming(name):
        while left:
            left = left[output.write(left) or 0 :]


def readable(text: str) -> str:
    r"""Return text that any encoding of Unicode takes: a byte that is no UTF-8 is shown as \xff."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def is_coloured(output: FileIO) -> bool:
    """Return whether it is a terminal with colours, and NO_COLOR is not set."""
    if not output.isatty():
        return False
    from rich.console import Console

    console = Console()
    return console.color_system is not None and not console.no_color


def write_line(output: FileIO, text: str) -> None:
    """Write text with its line end; a path that is no UTF-8 comes out as the bytes that it is."""
    write(output, f"{text}\n".encode(errors="surrogateescape"))


def say(text: str) -> None:
    """Write a line to standard error; if that is closed, the work goes on."""
    with suppress(OSError):
        write_line(_standard(sys.stderr, "standard error", "wb"), text)


def say_to_people(text: str) -> None:
    """Write a line to standard error if that is a terminal."""
    if sys.stderr is not None and sys.stderr.isatty():
        say(text)


def show_passing(text: str) -> None:
    """Show a line on standard error that the next one takes the place of, if it is a terminal.

    An empty text takes the last one away.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        return
    with suppress(OSError):
        write(_standard(sys.stderr, "standard error", "wb"), f"\r\x1b[K{text}".encode())


def _standard(stream: TextIO | None, name: str, mode: str) -> FileIO:
    """Return a standard stream without its buffer."""
    if stream is None:
        raise OSError(EBADF, "it is closed", name)
    with naming(name):
        return FileIO(stream.fileno(), mode, closefd=False)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Have an OSError say which stream or file it is about."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error


class Input:
    """Standard input, or another file, as it comes.

    `stop` ends a read that waits, and all later ones; nothing that was read is dropped.
    """

    def __init__(self, file: FileIO | None = None) -> None:
        """Read this file, which `close` closes, or else standard input."""
        self.stopped_by: int | None = None
        """The signal."""
        self._file = _standard(sys.stdin, "standard input", "rb") if file is None else file
        self._ear, self._bell = socketpair()

    @property
    def size(self) -> int | None:
        """Bytes to come, where that can be told."""
        if not self._file.seekable():
            return None
        return max(Disk().size(self._file.fileno()) - self._file.tell(), 0) or None

    @property
    def is_terminal(self) -> bool:
        return self._file.isatty()

    async def read(self) -> bytes:
        """Return what has come, at least one byte; nothing at the end of input, or after `stop`."""
        with naming("standard input"):
            return await to_thread.run_sync(self._read)

    def _read(self) -> bytes:
        # A thread that waits in read() alone could not be called back, and would hold up the exit
        # of the interpreter.
        while True:
            ready, _, _ = select([self._file.fileno(), self._ear.fileno()], [], [])
            if self._ear.fileno() in ready:
                return b""
            piece = self._file.read(PIECE_BYTES)
            if piece is not None:
                return piece

    def stop(self, signal_number: int) -> None:
        self.stopped_by = signal_number
        self._bell.send(b"\0")

    def close(self) -> None:
        self._ear.close()
        self._bell.close()
        self._file.close()


# a question


def can_ask() -> bool:
    """Return whether a user can answer: standard input and standard error are terminals."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def confirmed(question: str) -> bool:
    """Return whether the user answers yes; anything else is no."""
    write(_standard(sys.stderr, "standard error", "wb"), f"{question} [y/N] ".encode())
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# signals


def let_interrupt_kill() -> None:
    """Have Ctrl-C end the program at once, as it does others: no blocking write may delay it."""
    if getsignal(SIGINT) is default_int_handler:
        signal(SIGINT, SIG_DFL)


@contextmanager
def until_signalled(stop: Callable[[int], None]) -> Iterator[None]:
    """Give the first signal that asks the program to end to ``stop``.

    A second one does what it would have done anyway.
    """
    loop = get_running_loop()
    heeded = [number for number in (SIGINT, SIGTERM, SIGHUP) if getsignal(number) is not SIG_IGN]

    def leave() -> None:
        for number in heeded:
            loop.remove_signal_handler(number)

    def first(number: int) -> None:
        leave()
        stop(number)

    for number in heeded:
        loop.add_signal_handler(number, first, number)
    try:
        yield
    finally:
        leave()


# the progress bar


class Advance(Protocol):
    """Updates a bar with the bytes, and the records, that were done since the last time."""

    def __call__(self, size: int, records: int = 0) -> None: ...


@contextmanager
def bar(
    total: int | None, *, counts_records: bool = False, shown: bool = True
) -> Iterator[Advance]:
    """Show a progress bar in bytes on standard error, if that is a terminal."""
    if not shown or sys.stderr is None or not sys.stderr.isatty():
        yield _unseen
        return
    with _progress(counts_records) as progress:
        task = progress.add_task("", total=total, records=0)
        records_done = 0

        def advance(size: int, records: int = 0) -> None:
            nonlocal records_done
            records_done += records
            progress.update(task, advance=size, records=records_done)

        yield advance


def _progress(counts_records: bool) -> Progress:
    """Make the bar: only for a terminal is what paints it loaded, a third of what a command loads.

    That rich is there at all is certain since this module was loaded.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TransferSpeedColumn,
    )
    from rich.text import Text

    class RecordsColumn(ProgressColumn):
        """How many records, and how many a second."""

        def render(self, task: Task) -> Text:
            records: int = task.fields["records"]
            speed = records / (task.elapsed or 1)
            return Text(f"{counted(records, 'record')} {speed:,.0f} records/s")

    return Progress(
        BarColumn(),
        DownloadColumn(),
        RecordsColumn() if counts_records else TransferSpeedColumn(),
        console=Console(stderr=True),
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _unseen(size: int, records: int = 0) -> None:
    """Ignore the progress: there is no terminal to show a bar on."""


def counted(number: int, noun: str) -> str:
    """1 record, 2,000 records."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
