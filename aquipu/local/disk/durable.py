"""What is certain to be on the disk, and the error for when that is no longer known. Blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count

from aquipu.errors import StoreUnavailableError
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.os_errors import is_no_space, is_passing, translate_os_errors
from aquipu.local.format.names import UNNAMED, Reserve


class OutcomeUnknown(Exception):
    """A sync failed, or undoing a failed write did: what the disk holds now is not known."""

    def __init__(self, doing: str, error: OSError, *, is_begun: bool = True) -> None:
        super().__init__(doing, error)
        self.doing, self.error = doing, error
        self.is_begun = is_begun
        """Whether the sync may have reached the disk.

        If not, it took no page for clean, and all that is uncertain is the name of one file.
        """


@contextmanager
def reported(path: str, action: str) -> Iterator[None]:
    """Turn an OSError or OutcomeUnknown into a StoreUnavailableError."""
    try:
        with translate_os_errors(path, action):
            yield
    except OutcomeUnknown as unknown:
        reason = f"{unknown.doing}: {unknown.error.strerror}"
        raise StoreUnavailableError(path, action, reason) from unknown.error


def sync(disk: Disk, descriptor: int) -> None:
    """Make a file durable.

    Raises OutcomeUnknown; the sync is never repeated: it might report success for lost pages.
    """
    try:
        disk.sync(descriptor)
    except OSError as error:
        raise OutcomeUnknown("fdatasync", error) from error


def sync_directory(disk: Disk, path: str) -> None:
    """Make the names in a directory durable.

    Raises OSError when it was not even begun, or OutcomeUnknown.
    """
    try:
        disk.sync_directory(path)
    except OSError as error:
        if is_passing(error):
            raise
        raise OutcomeUnknown("fsync of the directory", error) from error


def put_aside(disk: Disk, path: str, name_of: Callable[[int], str], data: bytes) -> str:
    """Keep damaged bytes durably in a file of their own; return its path.

    It is called ``name_of(number)``, and older ones stay beside it.

    Raises OSError or OutcomeUnknown.
    """
    for number in count(1):
        name = f"{path}/{name_of(number)}"
        if not disk.exists(name):
            break
        with opened(disk, name) as descriptor:
            if disk.read(descriptor, len(data) + 1, 0) == data:
                break
    try:
        write_whole(disk, name, data, reserve=Reserve.TAIL)
    except OSError:
        with suppress(OSError):  # it would keep the last space that there is
            disk.remove(name + UNNAMED)
        raise
    return name


def move_aside(
    disk: Disk, path: str, name_of: Callable[[int], str], descriptor: int, offset: int, size: int
) -> str:
    """Keep the last bytes of an open file as `put_aside`, and cut them off, on a full disk.

    They are moved piece by piece, the last one first, each durably before it is cut off, so that
    the space of one serves the next; the first needs a reserve. What lies behind them is cut off as
    well. After a crash, the rest of the bytes is still there, to be moved into another file.

    Raises OSError or OutcomeUnknown.
    """
    _cut(disk, descriptor, offset + size)
    starts = range(0, size, Reserve.TAIL.bytes // 2)  # the rest is for what a file system notes
    last = disk.read(descriptor, size - starts[-1], offset + starts[-1])
    with _beside(disk, path, name_of, starts[-1], last) as (name, kept):
        for start in reversed(starts):
            piece = disk.read(descriptor, min(starts.step, size - start), offset + start)
            disk.write(kept, [piece], start)
            sync(disk, kept)
            _cut(disk, descriptor, offset + start)
    return name


@contextmanager
def _beside(
    disk: Disk, path: str, name_of: Callable[[int], str], start: int, last: bytes
) -> Iterator[tuple[str, int]]:
    """Open the file to which bytes are moved: a new one, made of the reserve if there is one.

    But if the last of them were moved and not yet cut off, it is the file that holds them.
    """
    made = f"{path}/{Reserve.TAIL}"
    descriptor = disk.open(made, writable=True) if disk.exists(made) else disk.create(made)
    try:
        for number in count(1):
            name = f"{path}/{name_of(number)}"
            if not disk.exists(name):
                break
            with opened(disk, name, writable=True) as before:
                if disk.read(before, len(last) + 1, start) == last:
                    yield name, before
                    return
        disk.truncate(descriptor, 0)
        disk.rename(made, name)
        sync_directory(disk, path)
        yield name, descriptor
    finally:
        _close(disk, descriptor)


def _cut(disk: Disk, descriptor: int, size: int) -> None:
    disk.truncate(descriptor, size)
    sync(disk, descriptor)


def write_whole(
    disk: Disk,
    path: str,
    data: bytes,
    *,
    unnamed: str | None = None,
    reserve: Reserve | None = None,
) -> None:
    """Write a file that has its name with all its bytes, or is as it was before.

    Raises OSError or OutcomeUnknown. Until it is whole it is called ``unnamed`` and held, where
    several processes may write it; usually one at a time does. Without space for it, it is made of
    the ``reserve`` in its directory, if there is one and it is large enough.
    """
    made = path + UNNAMED if unnamed is None else unnamed
    try:
        descriptor = _written(disk, disk.create(made), data, hold=unnamed is not None)
    except OSError as error:
        if reserve is None or not is_no_space(error) or len(data) > reserve.bytes:
            raise
        try:
            descriptor = _taken(disk, f"{path.rpartition('/')[0]}/{reserve}", made)
        except OSError:
            raise error from None
        _written(disk, descriptor, data, hold=unnamed is not None, cut=True)
    try:
        disk.rename(made, path)
    finally:
        _close(disk, descriptor)
    try:
        sync_directory(disk, path.rpartition("/")[0])
    except OSError as error:  # it has its name now, and may lose it
        raise OutcomeUnknown("fsync of the directory", error, is_begun=False) from error


def write_over(disk: Disk, path: str, data: bytes) -> bool:
    """Write over the bytes of a small file of just this size, durably: that needs no space.

    False, and the old bytes are there, when there is none that can be written, or when it needs
    space all the same. Until this returns, the disk holds the old bytes or the new ones, as they
    lie in one sector. Raises OSError or OutcomeUnknown.
    """
    try:
        with opened(disk, path, writable=True) as descriptor:
            before = disk.read(descriptor, len(data) + 1, 0)
            if len(before) != len(data):
                return False
            try:
                disk.write(descriptor, [data], 0)
            except OSError as error:
                _write_back(disk, descriptor, before, error)
                raise
            sync(disk, descriptor)
    except OSError as error:
        if isinstance(error, (FileNotFoundError, PermissionError)) or is_no_space(error):
            return False
        raise
    return True


def _write_back(disk: Disk, descriptor: int, before: bytes, error: OSError) -> None:
    """Undo what a failed write has written over; OutcomeUnknown if that cannot be done."""
    if disk.read(descriptor, len(before), 0) == before:
        return
    with suppress(OSError):
        disk.write(descriptor, [before], 0)
    if disk.read(descriptor, len(before), 0) != before:
        raise OutcomeUnknown("writing over a file, and undoing that,", error)
    sync(disk, descriptor)


def _written(disk: Disk, descriptor: int, data: bytes, *, hold: bool, cut: bool = False) -> int:
    """Write the bytes durably and return the descriptor; close it after an error.

    With ``cut``, the file holds no others.
    """
    try:
        if hold:
            disk.try_hold(descriptor)
        disk.write(descriptor, [data], 0)
        if cut:
            disk.truncate(descriptor, len(data))
        sync(disk, descriptor)
    except BaseException:
        _close(disk, descriptor)
        raise
    return descriptor


def _taken(disk: Disk, reserve: str, made: str) -> int:
    """Rename the reserve to ``made`` and return a descriptor of it."""
    descriptor = disk.open(reserve, writable=True)
    try:
        disk.rename(reserve, made)
    except BaseException:
        _close(disk, descriptor)
        raise
    return descriptor


def _close(disk: Disk, descriptor: int) -> None:
    with suppress(OSError):  # says nothing of what is on the disk: what matters was synced
        disk.close(descriptor)


def keep_reserves(disk: Disk, path: str) -> bool:
    """Reserve the space in the directory that a full disk needs; return whether all is there.

    Nothing of it is synced, and nothing depends on it: what a power cut takes is made again, when
    there is space.
    """
    try:
        for reserve in Reserve:
            _keep_reserve(disk, f"{path}/{reserve}", reserve.bytes)
    except OSError:
        return False
    return True


def has_reserves(disk: Disk, path: str) -> bool:
    """Return whether all reserves in the directory have their names; no file is opened.

    A name that cannot be asked for is none: nothing depends on a reserve.
    """
    try:
        return all(disk.exists(f"{path}/{reserve}") for reserve in Reserve)
    except OSError:
        return False


def _keep_reserve(disk: Disk, path: str, size: int) -> None:
    """Make the file, or the rest of it: after a power cut it may be empty."""
    is_there = disk.exists(path)
    descriptor = disk.open(path, writable=True) if is_there else disk.create(path)
    try:
        has = disk.size(descriptor)
        if has < size:
            disk.write(descriptor, [bytes(size - has)], has)
    except OSError:
        with suppress(OSError):
            if not is_there:
                disk.remove(path)
        raise
    finally:
        _close(disk, descriptor)


def replace_file(disk: Disk, path: str, pieces: Iterable[list[bytes]]) -> None:
    """Write a file, which gets its name when all of it is on the disk, in place of any other.

    After an error nothing of it is left. The name is not made durable: after a power cut the file
    that had it before, or none, has it again. And a sync of the directory that failed here would be
    one that the journal must know of. Raises OSError, OutcomeUnknown and what the pieces raise.
    """
    unnamed = path + UNNAMED
    descriptor = disk.create(unnamed)
    try:
        try:
            offset = 0
            for piece in pieces:
                disk.write(descriptor, piece, offset)
                sync(disk, descriptor)
                offset += sum(map(len, piece))
        finally:
            disk.close(descriptor)
        disk.rename(unnamed, path)
    except BaseException:
        with suppress(OSError):
            disk.remove(unnamed)
        raise
