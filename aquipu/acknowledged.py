"""How far the writer has told its callers, for readers in other processes: one page of memory that they share. Blocking.

The writer maps a small file, `acknowledged`, and after each commit whose callers have been told it stores a few numbers
there. That is no system call. Whoever maps the same file sees them at once, and they stay when the writer is killed: the
page is the operating system's. What is in the file is never used for recovery; after a power cut it may say anything.

A caller who has been told may end the process before the others have been. So the writer also says, before it begins, how
far it is going to tell them, and when. As long as it lives, readers wait for it to come to the end of that. When it is dead
(the operating system keeps a mark in the file while its memory is there), all of those records count as acknowledged.

The file has 4096 bytes, and these mean something. All numbers are little-endian, both checks CRC32C::

    head                                      a copy, at 64 and at 128
    0   8  magic "aquipuAC"                   0   8  turn: one more each time
    8   4  format version                     8   8  told: every record below is acknowledged
    12  4  flags                              16  8  telling: the callers of those below it have been, or are being, told
    16 16  store id                           24  8  first sequence of the segment that is being written
    32 16  life of the machine                32  8  first sequence kept
    48  4  check of the above                 40  8  when this was written: nanoseconds since the machine was started
                                              48  4  check of the above, from that of the head

The two copies are written by turns, so while one is being written the other is whole: a reader takes the one with the later
turn of those that check. A file from before the machine was started anew (`life`) tells of pages that may be lost.

A store whose file cannot be made (no space, for instance) works without one, and says so in the log of the program. Readers
in other processes then see what the frames prove.
"""

from __future__ import annotations

from logging import getLogger
from struct import Struct
from time import monotonic_ns, time_ns
from typing import NamedTuple

from aquipu.checksum import extend
from aquipu.disk import Disk, Shared, machine_life
from aquipu.errors import UnsupportedFormatError
from aquipu.layout import ACKNOWLEDGED, VERSION

BOARD_BYTES = 4096
_MAGIC = b"aquipuAC"
_HEAD = Struct("<8sII16s16sI")
_COPY = Struct("<QQQQQQI")
_NUMBERS = Struct("<QQQQQQ")
_LOOKS = 10
_SOON = 25_000_000  # nanoseconds: as long as this a writer that tells its callers is taken to be alive
_PLACES = (slice(64, 64 + _COPY.size), slice(128, 128 + _COPY.size))

_log = getLogger(__name__)


class Standing(NamedTuple):
    """Where a log stands, as its writer says."""

    told: int
    """Every record below has been acknowledged, and its caller told."""
    active_first: int
    """First sequence of the segment that holds, or will hold, the last of them."""
    first_sequence: int
    """Of the first record kept."""


class Board:
    """The writer's side. Does nothing where the file cannot be had, and after `close`."""

    def __init__(self, shared: Shared | None, seed: int, turn: int, *, is_marked: bool) -> None:
        self._shared = shared
        self._is_marked = is_marked  # others can see whether this process lives
        self._seed = seed
        self._turn = turn

    @classmethod
    def put_up(cls, disk: Disk, path: str, store_id: bytes, standing: Standing) -> Board:
        """The board of the store in the directory ``path``, which the caller alone writes. Never raises OSError."""
        head = _head(store_id)
        seed = extend(0, head)
        turn = time_ns()  # beyond those of an earlier life
        page = bytearray(BOARD_BYTES)
        page[: len(head)] = head
        for place in _PLACES:
            page[place] = _copy(seed, turn, standing.told, *standing)
        name = f"{path}/{ACKNOWLEDGED}"
        try:
            return cls(disk.share(name, bytes(page)), seed, turn, is_marked=disk.is_shared(name))
        except (OSError, ValueError) as error:
            _log.warning("%s: readers in other processes will not see each commit at once: %s", path, error)
            return cls(None, seed, turn, is_marked=False)

    def show(self, told: int, telling: int, active_first: int, first_sequence: int) -> None:
        """Say where the log stands now. ``telling``: the callers below it have been told, or are being told."""
        if self._shared is not None:
            self._turn = turn = self._turn + 1
            telling = telling if self._is_marked else told
            self._shared[_PLACES[turn & 1]] = _copy(self._seed, turn, told, telling, active_first, first_sequence)

    def close(self) -> None:
        """Let go of the memory. What was last said stays."""
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()


class Glass:
    """The reader's side: sees what the writer says, whenever there is one."""

    def __init__(self, disk: Disk, path: str, shared: Shared, seed: int, identity: tuple[int, int], is_live: bool) -> None:
        self.identity = identity
        """Of the file, to tell whether it was replaced."""
        self.is_live = is_live
        """It was made since the machine was started: all that it tells of is there."""
        self._disk = disk
        self._path = path
        self._shared = shared
        self._seed = seed

    @classmethod
    def put_on(cls, disk: Disk, path: str, store_id: bytes) -> Glass | None:
        """None when there is no such file, or one of another store, or one that does not check.

        Raises UnsupportedFormatError or OSError.
        """
        name = f"{path}/{ACKNOWLEDGED}"
        try:
            descriptor = disk.open(name)
        except FileNotFoundError:
            return None
        try:
            head = disk.read(descriptor, _HEAD.size, 0)
            if disk.size(descriptor) < BOARD_BYTES or not head.startswith(_MAGIC):
                return None
            version = int.from_bytes(head[8:12], "little")
            if version != VERSION:
                raise UnsupportedFormatError(
                    name, f"format version {version} is not known here (this is version {VERSION})"
                )
            *_, its_store, life, check = _HEAD.unpack(head)
            if its_store != store_id or extend(0, head[:-4]) != check:
                return None
            shared = disk.look_into(descriptor, BOARD_BYTES)
            return cls(disk, name, shared, extend(0, head), disk.identity(descriptor), life == machine_life())
        finally:
            disk.close(descriptor)

    def look(self) -> Standing | None:
        """What the writer said last; None when nothing of it checks."""
        for _ in range(_LOOKS):  # one whose reader is slow may find each copy being written
            numbers, latest = None, -1
            for place in _PLACES:
                copy = self._shared[place]
                turn, *said, check = _COPY.unpack(copy)
                if turn > latest and extend(self._seed, copy[:-4]) == check:
                    numbers, latest = said, turn
            if numbers is not None:
                return self._standing(*numbers)
        return None

    def _standing(self, told: int, telling: int, active_first: int, first_sequence: int, since: int) -> Standing:
        if told < telling and abs(monotonic_ns() - since) > _SOON and not self._has_writer():
            told = telling
        return Standing(told, active_first, first_sequence)

    def _has_writer(self) -> bool:
        try:
            return self._disk.is_shared(self._path)
        except OSError:
            return True


def _head(store_id: bytes) -> bytes:
    fields = _HEAD.pack(_MAGIC, VERSION, 0, store_id, machine_life(), 0)[:-4]
    return fields + extend(0, fields).to_bytes(4, "little")


def _copy(seed: int, turn: int, told: int, telling: int, active_first: int, first_sequence: int) -> bytes:
    numbers = _NUMBERS.pack(turn, told, telling, active_first, first_sequence, monotonic_ns())
    return numbers + extend(seed, numbers).to_bytes(4, "little")
