"""The progress page: one small file that publishes to other processes what is acknowledged.

Blocking, but for a moment only. After each commit that was acknowledged the writer stores a few
numbers in the file `acknowledged`. A process that has the file open sees them at once, and they
stay when the writer is killed: the page is the operating system's. What is in the file is never
used for recovery; after a power cut it may say anything.

Both sides use plain calls, ``pwrite`` and ``pread``, and no mapped memory. A process that may write
to the directory can cut the file off, as logrotate's copytruncate does, and to touch a mapped page
that the file no longer has ends the process (SIGBUS). Each write puts down all that the file says,
so a file that was cut off is whole again with the next commit. Until then a reader goes by what it
saw last. ``os.pwrite`` is called on the thread of the event loop, twice a commit, and takes about a
microsecond; through ctypes, with the interpreter's lock kept, it took longer, and a disk that hangs
would have stopped every thread of the program.

A caller that was acknowledged may end the process before the others are. So the writer also says,
before it begins, how far it is going to acknowledge, and when. As long as it lives, readers wait
for it to come to the end of that. When it is dead (the operating system keeps a mark in the file
while the writer has it open), all of those records count as acknowledged.

The page also names the file that it stands in. In a copy of the directory it stands in another one:
then there is no writer, and what it says is what held when it was copied (`copied`).

`format/progress` is the layout of the file, `progress_reader` the readers' side. A store whose file
cannot be made (no space, for instance) works without one, and says so in the log of the program.
Readers in other processes then see what the frames prove.
"""

from __future__ import annotations

from contextlib import suppress
from logging import getLogger
from time import monotonic_ns, time_ns

from aquipu.local.disk.disk import Disk
from aquipu.local.disk.system import machine_life
from aquipu.local.format.names import ACKNOWLEDGED
from aquipu.local.format.progress import (
    USED_BYTES,
    Published,
    encode_page,
    seed_of_page,
    write_copy,
    write_failure,
    write_file_number,
)

_log = getLogger(__name__)


class ProgressPage:
    """The writer's side. Does nothing where the file cannot be had, and after `close`."""

    def __init__(
        self,
        disk: Disk,
        path: str,
        descriptor: int | None,
        page: bytes,
        turn: int,
        *,
        is_marked: bool,
    ) -> None:
        self._disk = disk
        self._path = path
        self._descriptor = descriptor
        self._page = bytearray(page)
        self._is_marked = is_marked  # others can see whether this process lives
        self._seed = seed_of_page(page)
        self._turn = turn
        self._warned = False

    @classmethod
    def create(
        cls,
        disk: Disk,
        path: str,
        store_id: bytes,
        published: Published,
        generation: bytes = bytes(8),
    ) -> ProgressPage:
        """Make the page of the store in the directory ``path``, which the caller alone writes.

        Never raises OSError.
        """
        turn = time_ns()  # beyond those of an earlier life
        page = encode_page(store_id, machine_life(), turn, published, monotonic_ns(), generation)
        name, used = f"{path}/{ACKNOWLEDGED}", bytearray(page[:USED_BYTES])
        descriptor, is_marked = None, False
        try:
            descriptor = disk.share(name, page)
            is_marked = _is_marked(disk, name)
            write_file_number(used, seed_of_page(page), disk.identity(descriptor)[1])
            disk.publish(descriptor, used)
        except (OSError, ValueError) as error:
            _warn(path, error)
        return cls(disk, path, descriptor, bytes(used), turn, is_marked=is_marked)

    @property
    def has_file(self) -> bool:
        """Whether the file could be had."""
        return self._descriptor is not None

    def note_failure(self, acknowledged: int) -> None:
        """Note that less may be read from now on than was acknowledged.

        The next opening wants to know how much that was.
        """
        write_failure(self._page, self._seed, acknowledged)

    def publish(
        self, acknowledged: int, acknowledging: int, active_first: int, first_sequence: int
    ) -> None:
        """Publish how far the log has come.

        ``acknowledging``: the callers of the records below it are acknowledged, or are being
        acknowledged.
        """
        if self._descriptor is None:
            return
        self._turn = turn = self._turn + 1
        acknowledging = acknowledging if self._is_marked else acknowledged
        numbers = (acknowledged, acknowledging, active_first, first_sequence)
        write_copy(self._page, self._seed, turn, numbers, monotonic_ns())
        try:
            self._disk.publish(self._descriptor, self._page)
        except OSError as error:
            # the file was cut off, and the disk is full: tried again with each commit
            if not self._warned:
                self._warned = True
                _warn(self._path, error)

    def close(self) -> None:
        """Close the file. What was last published stays in it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                self._disk.close(descriptor)


def _warn(path: str, error: Exception) -> None:
    _log.warning("%s: readers in other processes will not see each commit at once: %s", path, error)


def _is_marked(disk: Disk, name: str) -> bool:
    try:
        return disk.is_shared(name)
    except OSError:
        return False
