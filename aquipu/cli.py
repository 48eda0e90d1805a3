"""The command line: append, cat, info, verify.

``append`` writes through a `Store`. The others read a store at rest: they hold its lock shared, examine it as opening
would, and never change a byte. Data goes to standard output, everything else to standard error. Every error becomes an
exit code in one place, `_exit_codes`.

Standard input and output are used without Python's buffers: what has come is there at once, and nothing is left that could
fail at exit.
"""

from __future__ import annotations

import json
import sys
from asyncio import get_running_loop
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from errno import EBADF
from io import BytesIO, FileIO
from pathlib import Path
from re import fullmatch
from select import select
from signal import SIG_DFL, SIG_IGN, SIGHUP, SIGINT, SIGTERM, default_int_handler, getsignal, signal
from socket import socketpair
from typing import Annotated, TextIO

import anyio
import typer
from anyio import to_thread
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, Task, TransferSpeedColumn
from rich.text import Text

from aquipu.disk import Disk, explained, opened
from aquipu.errors import AquipuError, CorruptionError, NotAStoreError, StoreLockedError
from aquipu.handoff import Handoff
from aquipu.journal import Extent
from aquipu.layout import VERSION, first_sequence_of, is_ours
from aquipu.lock import Lock, holder_of
from aquipu.manifest import read_manifest
from aquipu.options import MIB
from aquipu.policy import Always, EveryN, OsManaged, Stage, SyncPolicy
from aquipu.reader import Scan, View, get
from aquipu.recovery import Findings, RecoveryReport, check_place, examine, verify
from aquipu.segment import read_footer, read_header
from aquipu.store import Store

WELL, DAMAGED, USAGE, LOCKED, FAILED = range(5)
_SIGNALLED = 128  # and the number of the signal: what a shell reports

PIECE_BYTES = 256 * 1024
"""The most that is read from standard input, or written to standard output, at a time."""
LINE_BYTES_MAX = 16 * MIB

_EPILOG = """\b
Exit codes:
  0    well (also when whoever read the output has closed it)
  1    damage found in the store
  2    usage: a bad argument, no store there, a line that is too long
  3    locked: another process is using the store
  4    an input/output error, or a format that this version does not know
  130  stopped by Ctrl-C; 143 by SIGTERM; 129 by SIGHUP
"""

app = typer.Typer(
    help="A durable log. Data goes to standard output, everything else to standard error.",
    epilog=_EPILOG,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="The directory of the store.")]
_JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Advance = Callable[..., None]


def run() -> None:
    """Run the command that the arguments name; ends in SystemExit."""
    app(prog_name="aquipu")


# the commands


@app.command("append", epilog=_EPILOG)
def append_command(
    store: Annotated[str, typer.Argument(metavar="STORE", help="The directory of the store; made if it is missing.")],
    sync_policy: Annotated[
        str,
        typer.Option(
            metavar="always|every:N[/SECONDS]|os",
            help="When records are synced to the disk: each commit; after N records, or SECONDS ('none': whenever) at"
            " the latest; by the operating system. At the end everything is synced.",
        ),
    ] = "every:64",
    lock_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long to wait for another process that uses the store.")
    ] = 20.0,
) -> None:
    """Store standard input, a record per line.

    Each line is stored with its line end, as soon as it comes, so that `aquipu cat` gives back exactly what was read. At
    the end, one line on standard error says how many records were stored, the last sequence, and how safe they are.

    Ctrl-C, SIGTERM and SIGHUP end it as the end of the input does: what was read is stored and synced.
    """
    policy = sync_policy_of(sync_policy)
    if not lock_timeout >= 0:
        raise typer.BadParameter(f"{lock_timeout} is not 0 or more seconds", param_hint="--lock-timeout")
    with _exit_codes():
        stopped_by = anyio.run(_append, _absolute(store), policy, lock_timeout)
        if stopped_by is not None:
            raise typer.Exit(_SIGNALLED + stopped_by)


@app.command("cat", epilog=_EPILOG)
def cat_command(store: _StoreArgument) -> None:
    """Write all records to standard output as they were, one behind another with nothing in between.

    The store cannot be written meanwhile. A torn tail (see info) is not part of it.
    """
    if getsignal(SIGINT) is default_int_handler:
        signal(SIGINT, SIG_DFL)  # there is nothing to lose, and a write that blocks must not hold Ctrl-C up
    with _exit_codes():
        output = _standard(sys.stdout, "standard output", "wb")
        with _at_rest(_absolute(store)) as (disk, path):
            anyio.run(_cat, _view(disk, _examined(disk, path)), output)


@app.command("info", epilog=_EPILOG)
def info_command(store: _StoreArgument, as_json: _JsonOption = False) -> None:
    """Say what a store holds.

    \b
    With --json, one object:
      path            the directory, absolute
      store_id        32 hexadecimal digits
      format_version  a number
      first_sequence  of the first record kept
      next_sequence   one past the last record
      records         their number
      segments        the number of segment files
      bytes           of all files of the store
      first_time      of the first record, ISO 8601 in UTC; null without any
      last_time       of the last record
      clean           whether it was closed, and nothing is to be mended
      torn_tail       null, or an object: path, offset, bytes, reason,
                      records (that it may hold), possibly_acknowledged
    """
    with _exit_codes():
        output = _standard(sys.stdout, "standard output", "wb")
        with _at_rest(_absolute(store)) as (disk, path):
            info = _info(disk, path, _examined(disk, path))
        _print(output, _as_json(info) if as_json else _info_text(info))


@app.command("verify", epilog=_EPILOG)
def verify_command(store: _StoreArgument, as_json: _JsonOption = False) -> None:
    """Read every byte of a store and check it. Exit code 1 when anything is damaged; a torn tail is no damage.

    \b
    With --json, one object:
      path       the directory, absolute
      records    their number; null when damage keeps them from being counted
      frames     commits and marks, as records
      segments   the number of segment files
      bytes      of the segment files
      damages    a list of objects: path, offset, reason
      torn_tail  null, or an object: path, offset, bytes, reason,
                 records (that it may hold), possibly_acknowledged
    """
    with _exit_codes():
        output = _standard(sys.stdout, "standard output", "wb")
        with _at_rest(_absolute(store)) as (disk, path):
            verdict = _verify(disk, path)
        with suppress(BrokenPipeError):  # the exit code says it all the same
            _print(output, _as_json(verdict) if as_json else _verdict_text(verdict))
        raise typer.Exit(DAMAGED if verdict.damages else WELL)


# errors and exit codes


class _NothingToReadError(NotAStoreError):
    """As its parent, for those who only read: its advice would lead them astray."""

    def __str__(self) -> str:
        return f"{self.path} is no store: {self.reason}"


class LineTooLongError(ValueError):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return (
            f"line {self.number} of standard input is longer than {LINE_BYTES_MAX:,} bytes; it was not stored; "
            "everything before it was"
        )


_CODES: tuple[tuple[type[Exception], int], ...] = (
    (CorruptionError, DAMAGED),
    (NotAStoreError, USAGE),
    (LineTooLongError, USAGE),
    (StoreLockedError, LOCKED),
)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turn whatever goes wrong into a line on standard error and an exit code."""
    try:
        yield
    except BrokenPipeError:  # whoever read the output has had enough
        raise typer.Exit(WELL) from None
    except KeyboardInterrupt:
        raise typer.Exit(_SIGNALLED + SIGINT) from None
    except (AquipuError, OSError, LineTooLongError) as error:
        _say(f"aquipu: {error}")
        raise typer.Exit(next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)) from None


# the arguments


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def sync_policy_of(text: str) -> SyncPolicy:
    """always, os, every:N, every:N/SECONDS or every:N/none; a usage error for anything else."""
    if text in ("always", "os"):
        return Always() if text == "always" else OsManaged()
    match = fullmatch(r"every:([0-9]+)(?:/(none|[0-9]*\.?[0-9]+))?", text)
    try:
        if match is None:
            raise ValueError(f"{text!r} is not one of always, every:N, every:N/SECONDS, os")
        if match[2] is None:
            return EveryN(int(match[1]))
        return EveryN(int(match[1]), within=None if match[2] == "none" else float(match[2]))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--sync-policy") from None


# standard input, output and error


def _standard(stream: TextIO | None, name: str, mode: str) -> FileIO:
    """A standard stream without its buffer; OSError when the program was started without it."""
    if stream is None:
        raise OSError(EBADF, "it is closed", name)
    with _naming(name):
        return FileIO(stream.fileno(), mode, closefd=False)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Have an OSError say which stream it is about."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error


def _write(output: FileIO, data: bytes) -> None:
    left = memoryview(data)
    with _naming("standard output"):
        while left:
            left = left[output.write(left) or 0 :]


def _print(output: FileIO, text: str) -> None:
    """Text with its line end; a path that is no UTF-8 comes out as the bytes that it is."""
    _write(output, f"{text}\n".encode(errors="surrogateescape"))


def _say(text: str) -> None:
    """A line on standard error. When nobody listens there, the work goes on."""
    with suppress(OSError):
        _print(_standard(sys.stderr, "standard error", "wb"), text)


class _Input:
    """Standard input, as it comes. `stop` ends a read that waits, and all later ones; nothing that was read is dropped."""

    def __init__(self) -> None:
        self.stopped_by: int | None = None
        """The signal."""
        self._file = _standard(sys.stdin, "standard input", "rb")
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
        """What has come, at least one byte; nothing at the end of the input, or after `stop`."""
        with _naming("standard input"):
            return await to_thread.run_sync(self._read)

    def _read(self) -> bytes:
        # A thread that waits in read() alone could not be called back, and would hold up the exit of the interpreter.
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


@contextmanager
def _until_signalled(stop: Callable[[int], None]) -> Iterator[None]:
    """Give the first signal that asks the program to end to ``stop``; a second one does what it would have done anyway."""
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


class _RecordsColumn(ProgressColumn):
    """How many records, and how many a second."""

    def render(self, task: Task) -> Text:
        records: int = task.fields["records"]
        return Text(f"{_counted(records, 'record')} {records / (task.elapsed or 1):,.0f} records/s")


@contextmanager
def _bar(column: ProgressColumn, total: int | None, *, shown: bool = True) -> Iterator[_Advance]:
    """A progress bar in bytes on standard error, if that is a terminal. Gives ``advance(size, records=0)``."""
    if not shown or sys.stderr is None or not sys.stderr.isatty():
        yield lambda size, records=0: None
        return
    progress = Progress(
        BarColumn(), DownloadColumn(), column, console=Console(stderr=True), redirect_stdout=False, redirect_stderr=False
    )
    counted = 0
    with progress:
        task = progress.add_task("", total=total, records=counted)

        def advance(size: int, records: int = 0) -> None:
            nonlocal counted
            counted += records
            progress.update(task, advance=size, records=counted)

        yield advance


# append


class Lines:
    """Lines out of pieces of any size, each with its line end. A line ends at a line feed and nowhere else."""

    def __init__(self) -> None:
        self._number = 1  # of the line at hand
        self._held: list[bytes] = []  # what has come of it
        self._held_bytes = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that this piece completes."""
        first, end, behind = piece.partition(b"\n")
        self._hold(first + end)
        if not end:
            return []
        lines = [self.rest(), *BytesIO(behind).readlines()]
        if behind and not behind.endswith(b"\n"):
            self._hold(lines.pop())
        self._number += len(lines)
        return lines

    def rest(self) -> bytes:
        """What has come of a line that is not complete; nothing is left of it here."""
        line = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        return line

    def _hold(self, part: bytes) -> None:
        self._held_bytes += len(part)
        if self._held_bytes > LINE_BYTES_MAX:
            raise LineTooLongError(self._number)
        self._held.append(part)


async def _append(path: str, policy: SyncPolicy, lock_timeout: float) -> int | None:
    """Append standard input. The signal that ended it, if one did."""
    source = _Input()
    try:
        store = await Store.open(
            path,
            sync_policy=policy,
            max_record_bytes=LINE_BYTES_MAX,
            buffer_records=PIECE_BYTES,  # a piece holds no more lines than bytes, so each can be one commit
            lock_timeout=lock_timeout,
        )
        with _until_signalled(source.stop):
            try:
                _say_what_was_cut(store.recovery)
                with _bar(_RecordsColumn(), source.size, shown=not source.is_terminal) as advance:
                    await _append_lines(store, source, advance)
            finally:
                await _close(store)
    finally:
        source.close()
    return source.stopped_by


async def _append_lines(store: Store, source: _Input, advance: _Advance) -> None:
    lines = Lines()
    while piece := await source.read():
        records = lines.feed(piece)
        await store.append_many(records)
        advance(len(piece), len(records))
    rest = lines.rest()
    if rest:
        await store.append(rest)
        advance(0, 1)


async def _close(store: Store) -> None:
    """Close it, and say how far its records have come, whatever happens."""
    try:
        await store.aclose()
    finally:
        records, next_sequence = store.statistics().records, store.next_sequence
        last = f"last sequence {next_sequence - 1}" if next_sequence else "no sequence yet"
        stage = Stage.SYNCED if store.synced_sequence == next_sequence else Stage.FLUSHED
        _say(f"{_counted(records, 'record')} appended, {last}, {stage.name}")


def _say_what_was_cut(report: RecoveryReport) -> None:
    if report.cut_bytes:
        _say(
            f"aquipu: a torn tail of {_counted(report.cut_bytes, 'byte')} was cut from {report.cut_from} at offset "
            f"{report.cut_offset}: {report.cut_reason}; it is kept in {report.cut_kept_in}"
        )


# a store at rest


@contextmanager
def _at_rest(path: str) -> Iterator[tuple[Disk, str]]:
    """The store in the directory ``path``, that nobody writes meanwhile. Nothing of it is changed."""
    disk = Disk()
    if not disk.exists(path):
        raise _NothingToReadError(path, "there is nothing of this name")
    try:
        check_place(disk, path)
    except NotAStoreError as error:
        raise _NothingToReadError(error.path, error.reason) from None
    lock = _take_shared(disk, path)
    try:
        yield disk, path
    finally:
        if lock is not None:
            lock.release()


def _take_shared(disk: Disk, path: str) -> Lock | None:
    with explained(path, "lock"):
        try:
            lock = Lock.take(disk, path, shared=True)
        except FileNotFoundError:  # a copy, without the file that a writer would have made
            return None
    if lock is None:
        raise StoreLockedError(path, holder_of(disk, path))
    return lock


def _examined(disk: Disk, path: str) -> Findings:
    with explained(path, "read"):
        findings = examine(disk, path)
    if findings is None:
        raise _NothingToReadError(path, "the directory holds none")
    return findings


def _view(disk: Disk, findings: Findings) -> View:
    """All records. What stands behind the last sound frame is not part of it."""
    return View(disk, tuple(findings.extents), findings.manifest.first_sequence, findings.contents.next_sequence)


async def _cat(view: View, output: FileIO) -> None:
    pieces: list[bytes] = []
    size = 0
    async with Scan(lambda: view, Handoff(get_running_loop())) as scan:
        try:
            async for record in scan:
                pieces.append(record.data)
                size += len(record.data)
                if size >= PIECE_BYTES:
                    _write_pieces(output, pieces)
                    size = 0
        finally:  # what stands before a damage is sound
            _write_pieces(output, pieces)


def _write_pieces(output: FileIO, pieces: list[bytes]) -> None:
    """Write and forget them, also when writing fails: they must not be written twice."""
    data = b"".join(pieces)
    pieces.clear()
    _write(output, data)


# info


@dataclass(frozen=True, slots=True)
class _TornTail:
    """Bytes behind the last record of which nothing proves that they were ever synced."""

    path: str
    offset: int
    bytes: int
    reason: str
    records: int
    possibly_acknowledged: bool


@dataclass(frozen=True, slots=True)
class _Info:
    path: str
    store_id: str
    format_version: int
    first_sequence: int
    next_sequence: int
    records: int
    segments: int
    bytes: int
    first_time: str | None
    last_time: str | None
    clean: bool
    torn_tail: _TornTail | None


def _info(disk: Disk, path: str, findings: Findings) -> _Info:
    view = _view(disk, findings)
    first_time, last_time = anyio.run(_times, view)
    with explained(path, "read"):
        size = sum(_sizes(disk, path, is_ours).values())
    return _Info(
        path=path,
        store_id=findings.manifest.store_id.hex(),
        format_version=VERSION,
        first_sequence=view.start,
        next_sequence=view.stop,
        records=view.stop - view.start,
        segments=len(findings.extents),
        bytes=size,
        first_time=first_time,
        last_time=last_time,
        clean=findings.is_clean,
        torn_tail=_torn_tail(findings),
    )


async def _times(view: View) -> tuple[str | None, str | None]:
    """Of the first and the last record."""
    if view.start == view.stop:
        return None, None
    handoff = Handoff(get_running_loop())
    first = await get(view, handoff)
    last = await get(view._replace(start=view.stop - 1), handoff)
    return _iso(first.timestamp), _iso(last.timestamp)


def _torn_tail(findings: Findings) -> _TornTail | None:
    torn = findings.torn
    if torn is None:
        return None
    return _TornTail(findings.active.path, torn.offset, torn.size, torn.reason, torn.records, torn.possibly_acknowledged)


def _sizes(disk: Disk, path: str, wanted: Callable[[str], bool]) -> dict[str, int]:
    """The sizes of the files in the directory whose names are wanted."""
    sizes: dict[str, int] = {}
    for name in sorted(filter(wanted, disk.list(path))):
        with opened(disk, f"{path}/{name}") as descriptor:
            sizes[name] = disk.size(descriptor)
    return sizes


def _info_text(info: _Info) -> str:
    lines = {
        "path": info.path,
        "store id": info.store_id,
        "format version": info.format_version,
        "records": f"{info.records:,}",
        "sequences": f"{info.first_sequence} to {info.next_sequence - 1}" if info.records else "none",
        "next sequence": info.next_sequence,
        "segments": f"{info.segments:,}",
        "bytes": f"{info.bytes:,}",
        "first record": info.first_time or "none",
        "last record": info.last_time or "none",
        "closed cleanly": "yes" if info.clean else "no",
        "torn tail": _torn_text(info.torn_tail) if info.torn_tail else "none",
    }
    return "\n".join(f"{name:<16}{value}" for name, value in lines.items())


# verify


@dataclass(frozen=True, slots=True)
class _Damage:
    path: str
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Verdict:
    path: str
    records: int | None
    frames: int | None
    segments: int
    bytes: int
    damages: list[_Damage]
    torn_tail: _TornTail | None


def _verify(disk: Disk, path: str) -> _Verdict:
    with explained(path, "read"):
        sizes = _sizes(disk, path, _is_segment)
        total = sum(sizes.values())
        with _bar(TransferSpeedColumn(), total) as advance:
            findings, errors, size = _check(disk, path, advance)
            advance(total - size)  # headers and footers
    damages = [_Damage(error.path, error.offset, error.reason) for error in errors]
    if findings is None:
        return _Verdict(path, None, None, len(sizes), total, damages, None)
    view = _view(disk, findings)
    with explained(path, "read"):
        frames = _frames(disk, findings)
    return _Verdict(path, view.stop - view.start, frames, len(sizes), total, damages, _torn_tail(findings))


def _check(disk: Disk, path: str, advance: _Advance) -> tuple[Findings | None, list[CorruptionError], int]:
    """Everything that is damaged, and the bytes told to ``advance``; no findings when the store could not be opened."""
    findings: Findings | None = None
    errors: list[CorruptionError] = []
    size = 0

    def read(piece: int) -> None:
        nonlocal size
        size += piece
        advance(piece)

    try:
        findings = _examined(disk, path)
        read(findings.size)  # the last segment was read whole
        sealed = findings.sealed
    except CorruptionError as error:
        errors.append(error)
        sealed = list(_readable(disk, path, errors))
    for found in verify(disk, path, sealed, read):
        _note(errors, found)
    return findings, errors, size


def _readable(disk: Disk, path: str, errors: list[CorruptionError]) -> Iterator[Extent]:
    """The segments with a sound header, in a store that cannot be opened; the damage of the others is noted."""
    try:
        manifest = read_manifest(disk, path)
    except (CorruptionError, FileNotFoundError):  # noted by who examined it; without the store's id nothing can be checked
        return
    for name in sorted(filter(_is_segment, disk.list(path))):
        file, first = f"{path}/{name}", first_sequence_of(name) or 0
        try:
            with opened(disk, file) as descriptor:
                yield Extent(first, file, read_header(disk, descriptor, file, manifest.store_id, first), None)
        except CorruptionError as error:
            _note(errors, error)


def _note(errors: list[CorruptionError], error: CorruptionError) -> None:
    """Take it in, unless the same was found before."""
    if all(error.args != known.args for known in errors):
        errors.append(error)


def _frames(disk: Disk, findings: Findings) -> int:
    """How many frames the store has."""
    frames = findings.contents.frames
    for extent in findings.sealed:
        with opened(disk, extent.path) as descriptor:
            footer = read_footer(disk, descriptor, extent.path, extent.header.seed)
        frames += footer.frames if footer is not None else 0
    return frames


def _is_segment(name: str) -> bool:
    return first_sequence_of(name) is not None


def _verdict_text(verdict: _Verdict) -> str:
    where = f"{_counted(verdict.segments, 'segment')}, {_counted(verdict.bytes, 'byte')}"
    if verdict.records is None or verdict.frames is None:
        lines = [f"the records cannot be counted; {where}"]
    else:
        lines = [f"{_counted(verdict.records, 'record')} in {_counted(verdict.frames, 'frame')}, {where}"]
    if verdict.torn_tail is not None:
        lines.append(f"torn tail: {_torn_text(verdict.torn_tail)}")
    lines += [f"damaged: {damage.path} at offset {damage.offset}: {damage.reason}" for damage in verdict.damages]
    return "\n".join(lines if verdict.damages else [*lines, "no damage"])


# texts


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _torn_text(torn: _TornTail) -> str:
    return (
        f"{_counted(torn.bytes, 'byte')} of {torn.path} from offset {torn.offset}: {torn.reason}; "
        "the next append cuts them off and keeps them aside"
    )


def _iso(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _as_json(answer: _Info | _Verdict) -> str:
    return json.dumps(asdict(answer), indent=2)
