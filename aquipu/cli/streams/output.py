"""Where an export goes: a file that appears when it is whole, or something that takes a stream.

A regular file is written beside its place, under a name that nobody else has, and put into its
place when it is whole: an export that fails leaves what was there. What it replaces hands on its
mode and its owner; a symbolic link stays, and what it leads to is replaced. Where replacing would
take something away (other names of the file, rights beyond its mode, an owner that cannot be kept),
or nothing may be made in the directory, the whole export is copied into the file at the end
instead.

Devices, pipes and the descriptors of this process (``/dev/stdout``) are written at once, never
replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from errno import EBUSY, EISDIR, EROFS
from io import FileIO
from pathlib import Path
from secrets import token_hex
from shutil import chown
from stat import S_IMODE, S_ISDIR, S_ISREG
from tempfile import TemporaryFile
from threading import Timer
from typing import NamedTuple

from aquipu.cli.streams.console import PIECE_BYTES, naming, say, standard_output, write
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.rights import has_attributes

_LINKS_MAX = 40  # symbolic links in a row, as Linux follows them
_PATIENCE = 1.0  # seconds until it is said that something is waited for


class Output(NamedTuple):
    """What an export writes to."""

    file: FileIO
    name: str
    """As messages call it."""
    is_put_into_place: bool = False
    """At the end; before that there is something to be removed."""

    def write(self, data: bytes) -> None:
        """Write all of it."""
        write(self.file, data, self.name)


def to_standard_output() -> Output:
    """Standard output; OSError when the program was started without it."""
    return Output(standard_output(), "standard output")


def check_outside(path: str, store: str) -> None:
    """Raise ValueError for a path in the directory of the store, or another name of its files.

    The directory itself is refused as well.
    """
    target, directory = Path(path), Path(store)
    _mode(
        path
    )  # raises for links in a circle, which resolving does not do with every version of Python
    if target.resolve().is_relative_to(directory.resolve()):
        raise ValueError(
            f"{path} lies in the store {store}, which it would damage; give a file outside of it"
        )
    with suppress(OSError):  # one of the two is not there
        if target.stat().st_nlink > 1 and any(
            target.samefile(file) for file in directory.iterdir()
        ):
            raise ValueError(
                f"{path} is another name of a file of the store {store}; give another file"
            )


@contextmanager
def to_file(path: str) -> Iterator[Output]:
    """Open the file of this name, or whatever else has the name, for the time of the block.

    OSError names the path.
    """
    number = _own_descriptor(Path(path).absolute())
    if number is not None:
        with naming(path):
            file = FileIO(number, "wb", closefd=False)
        yield Output(file, path)
    elif (mode := _mode(path)) is None or S_ISREG(mode):
        with _put_into_place(Path(path).resolve(), is_there=mode is not None) as output:
            yield output
    elif S_ISDIR(mode):
        raise IsADirectoryError(EISDIR, "it is a directory", path)
    else:
        with _opened_at_once(path) as file:
            yield Output(file, path)


def _opened_at_once(path: str) -> FileIO:
    """Open a device or a pipe; as long as nobody reads a pipe, that waits, and says so."""
    waiting = Timer(_PATIENCE, say, [f"aquipu: nobody reads {path} yet; waiting for that"])
    waiting.daemon = True
    waiting.start()
    try:
        return FileIO(path, "wb")
    finally:
        waiting.cancel()


def _mode(path: str) -> int | None:
    """Return the kind and mode of what the path leads to; None when nothing is there."""
    try:
        return Path(path).stat().st_mode
    except FileNotFoundError:
        return None


def _own_descriptor(path: Path) -> int | None:
    """Return the descriptor of this process to which the path leads; None if there is none."""
    folders = {
        Path(name).resolve() for name in ("/dev/fd", "/proc/self/fd", "/proc/thread-self/fd")
    }
    for _ in range(_LINKS_MAX):
        if path.name.isdecimal() and path.parent.resolve() in folders:
            return int(path.name)
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    return None


@contextmanager
def _put_into_place(target: Path, *, is_there: bool) -> Iterator[Output]:
    with ExitStack() as held:
        with naming(str(target)):
            part = _begun_beside(target, is_there=is_there, held=held)
            into = None if part is not None else held.enter_context(FileIO(target, "rb+"))
            file = held.enter_context(_unnamed(target) if part is None else FileIO(part, "rb+"))
        yield Output(file, str(target), is_put_into_place=True)
        with naming(str(target)):
            Disk().sync(file.fileno())
            if part is not None and not _replaced(part, target):
                into = held.enter_context(FileIO(target, "rb+"))
            if into is not None:
                _copy(file, into, str(target))


def _begun_beside(target: Path, *, is_there: bool, held: ExitStack) -> Path | None:
    """Make a file that may take the place of the target, and remove it at the end.

    None when it must be copied.
    """
    part = target.parent / f".aquipu-{token_hex(8)}.part"
    try:
        FileIO(part, "xb").close()
    except OSError as error:
        if is_there and (isinstance(error, PermissionError) or error.errno == EROFS):
            return None
        raise
    held.callback(part.unlink, missing_ok=True)
    if not is_there or _is_like(part, target):
        return part
    return None


def _is_like(part: Path, target: Path) -> bool:
    """Give the file the owner and the mode of the target.

    False when more would be lost with that.
    """
    found, made = target.stat(), part.stat()
    if found.st_nlink > 1 or has_attributes(str(target)):
        return False
    try:
        if (made.st_uid, made.st_gid) != (found.st_uid, found.st_gid):
            chown(part, found.st_uid, found.st_gid)
        part.chmod(S_IMODE(found.st_mode))
    except PermissionError:
        return False
    return True


def _unnamed(target: Path) -> FileIO:
    """Open a file without a name, on the disk of the target if something may be made there."""
    try:
        return TemporaryFile(dir=target.parent, buffering=0)
    except OSError:
        return TemporaryFile(buffering=0)


def _replaced(part: Path, target: Path) -> bool:
    """Put it into its place; False when something is mounted there."""
    try:
        part.replace(target)
    except OSError as error:
        if error.errno != EBUSY:
            raise
        return False
    return True


def _copy(file: FileIO, into: FileIO, name: str) -> None:
    file.seek(0)
    try:
        while piece := file.read(PIECE_BYTES):
            write(into, piece, name)
        into.truncate()
        Disk().sync(into.fileno())
    except OSError:
        say(
            f"aquipu: {name} holds a part of the export only: "
            "it could not be replaced, and was written over"
        )
        raise
