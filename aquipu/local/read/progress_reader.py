"""The progress page as other processes see it: how far the writer has come. Blocking.

`progress_page` says what the page is for, and why it is read with plain calls. It stays open: each
look is one short read.
"""

from __future__ import annotations

from contextlib import suppress
from time import monotonic_ns

from aquipu.errors import UnsupportedFormatError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.system import machine_life
from aquipu.local.format.names import ACKNOWLEDGED
from aquipu.local.format.progress import (
    USED_BYTES,
    Copy,
    Head,
    Published,
    decode_head,
    failure_in,
    file_number_in,
    generation_in,
    latest_copy,
)
from aquipu.local.format.structure import Damage, Unsupported

_TRIES = 10  # to find a copy that is not just being written
_SOON = 25_000_000  # nanoseconds that a writer amid acknowledging is taken to be alive


class ProgressReader:
    """The reader's side of the progress page, whenever there is a writer.

    It has the file open for as long as it lives.
    """

    def __init__(
        self, disk: Disk, path: str, descriptor: int, identity: tuple[int, int], head: Head
    ) -> None:
        self.identity = identity
        """Identity of the file, to see whether it was replaced."""
        self.is_recent = head.life == machine_life()
        """Whether it was made since boot."""
        self.is_copied = False
        """Whether the file is a copy of the one that the writer had: there is none here."""
        self.generation = bytes(8)
        """Generation of the store, as its writer says; zeros when it says none."""
        self.acknowledged_before_failure = 0
        """One past the last record acknowledged when the store failed; 0 when it did not."""
        self.acknowledging = 0
        """One past the last record that was acknowledged, or was being, at the last read."""
        self._disk = disk
        self._path = path
        self._descriptor = descriptor
        self._seed = head.seed
        self._seen: Copy | None = None

    @property
    def is_live(self) -> bool:
        """Whether its writer lives, or has died since boot: all that it speaks of is there."""
        return self.is_recent and not self.is_copied

    @classmethod
    def open(cls, disk: Disk, path: str, store_id: bytes) -> ProgressReader | None:
        """Open the page of the store, if there is a sound one.

        Returns None when there is no such file, or one of another store, or one that does not
        check. Raises UnsupportedFormatError or OSError.
        """
        name = f"{path}/{ACKNOWLEDGED}"
        try:
            descriptor = disk.open(name)
        except FileNotFoundError:
            return None
        reader = None
        try:
            page = disk.read(descriptor, USED_BYTES, 0)
            head = decode_head(page)
            if head.store_id == store_id:
                reader = cls(disk, name, descriptor, disk.identity(descriptor), head)
                reader.is_copied = file_number_in(page, head.seed) not in (None, reader.identity[1])
        except Damage:
            pass
        except Unsupported as unsupported:
            raise UnsupportedFormatError(name, str(unsupported)) from None
        finally:
            if reader is None:
                disk.close(descriptor)
        return reader

    def read(self) -> Published | None:
        """Return what the writer published last, as far as it was seen.

        None when nothing of it has ever checked.
        """
        for _ in range(_TRIES):  # one whose reader is slow may find each copy being written
            copy = self._read()
            if copy is not None:
                self._seen = copy
                break
        return None if self._seen is None else self._published(self._seen)

    def _read(self) -> Copy | None:
        """Return the later copy of those that check.

        None when neither checks, or the file was cut off.
        """
        try:
            page = self._disk.look_into(self._descriptor, USED_BYTES)
        except OSError:
            return None
        if len(page) < USED_BYTES:
            return None
        self.generation = generation_in(page, self._seed)
        self.acknowledged_before_failure = failure_in(page, self._seed)
        return latest_copy(page, self._seed)

    def _published(self, copy: Copy) -> Published:
        acknowledged = copy.acknowledged
        self.acknowledging = max(acknowledged, copy.acknowledging)
        if (
            acknowledged < copy.acknowledging
            and abs(monotonic_ns() - copy.written_at) > _SOON
            and not self._has_writer()
        ):
            acknowledged = copy.acknowledging
        return Published(acknowledged, copy.active_first, copy.first_sequence)

    def _has_writer(self) -> bool:
        try:
            return self._disk.is_shared(self._path)
        except OSError:
            return True

    def __del__(self) -> None:
        # the last of several threads may be reading when its owner has dropped it
        with suppress(OSError):
            self._disk.close(self._descriptor)
