"""The terminal of a live view: drawn on, asked for keys, and given back as it was.

rich draws, on the terminal's other screen, and gives that back. Keys are read without Enter as long
as the view is shown; what the terminal was like before is put back, however this ends.
"""

from __future__ import annotations

import sys
import termios
import tty
from asyncio import Event, get_running_loop
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from io import FileIO

from anyio import move_on_after, sleep
from rich.console import Console
from rich.live import Live
from rich.text import Text

from aquipu.cli.top.drawing import Frame, Row, rows
from aquipu.cli.top.sources import Source
from aquipu.cli.top.view import History, View

_STYLES = {
    "title": "bold",
    "name": "cyan",
    "good": "green",
    "doubt": "yellow",
    "bad": "bold red",
    "faint": "dim",
}


def drawn(lines: Sequence[Row]) -> Text:
    """Return the lines in their colours; nothing in them is read as markup."""
    text = Text(no_wrap=True, overflow="crop")
    for number, row in enumerate(lines):
        if number:
            text.append("\n")
        for part in row:
            text.append(part.text, _STYLES.get(part.role))
    return text


async def watch(source: Source, interval: float) -> None:
    """Show a store until q is pressed; a sample is taken every so many seconds."""
    console, history = Console(), History()
    history.add(await source.sample())  # whatever is wrong from the beginning is said plainly
    with (
        _quitting() as quitted,
        Live(console=console, screen=True, auto_refresh=False, transient=True) as live,
    ):
        live.update(_shown(source.name, history.view(), console), refresh=True)
        while not quitted.is_set():
            with move_on_after(interval):
                await quitted.wait()
                return
            history.add(await source.sample())
            live.update(_shown(source.name, history.view(), console), refresh=True)


def _shown(name: str, view: View, console: Console) -> Text:
    width, height = console.size
    unicode = console.encoding.lower().startswith("utf")
    frame = Frame(width, height, unicode, f"{datetime.now():%H:%M:%S}")
    return drawn(rows(name, view, frame))


@contextmanager
def _quitting() -> Iterator[Event]:
    """Give what is set when q is pressed; where nobody can press a key, never."""
    quitted = Event()
    if sys.stdin is None or not sys.stdin.isatty():
        yield quitted
        return
    descriptor, loop = sys.stdin.fileno(), get_running_loop()
    before = termios.tcgetattr(descriptor)

    def read() -> None:
        with FileIO(descriptor, "rb", closefd=False) as file:
            typed = file.read(64)
        if not typed or b"q" in typed.lower():
            quitted.set()

    try:
        tty.setcbreak(descriptor)  # Ctrl-C stays a signal
        loop.add_reader(descriptor, read)
        yield quitted
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


async def once(source: Source, seconds: float) -> View:
    """Return the view of two samples: rates need a stretch of time."""
    history = History()
    history.add(await source.sample())
    await sleep(seconds)
    history.add(await source.sample())
    return history.view()
