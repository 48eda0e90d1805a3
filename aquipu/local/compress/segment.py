"""A sealed segment that is replaced by a compressed one. Blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from logging import getLogger

from aquipu.errors import AquipuError
from aquipu.local.compress.blocks import compressed
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.durable import OutcomeUnknown, replace_file
from aquipu.local.read.segment_reader import SegmentRef

_PIECE_BYTES = 1024 * 1024
"""That are written and synced in one go: a long sync would hold up the log's own."""


_log = getLogger(__name__)


class Compressor:
    """Compresses the sealed segments of a log that is written, on a thread that does that alone."""

    def __init__(
        self, disk: Disk, first_kept: Callable[[], int], resized: Callable[[int, int], None]
    ) -> None:
        """Take two calls: for the first sequence kept, and for what has another size now."""
        self._disk = disk
        self._first_kept = first_kept
        self._resized = resized

    def __call__(self, segment: SegmentRef, pause: Callable[[], None]) -> None:
        """Compress a segment, if it is not; one for which that fails stays as it is.

        Raises FileNotFoundError for one that was purged, and what ``pause`` raises.
        """
        first, reason = segment.first_sequence, ""
        try:
            size = compress(self._disk, segment, pause)
        except FileNotFoundError:
            raise
        except (AquipuError, OSError) as error:
            reason = str(error)
        except OutcomeUnknown as unknown:
            reason = f"{unknown.doing}: {unknown.error}"
        else:
            if size is not None and first >= self._first_kept():
                self._resized(first, size)
            elif size is not None:  # a purge has removed it just before it was there again
                with suppress(FileNotFoundError):
                    self._disk.remove(segment.path)
        if reason:
            _log.warning(
                "%s could not be compressed, and stays as it is; no record is lost: %s",
                segment.path,
                reason,
            )


def compress(disk: Disk, segment: SegmentRef, pause: Callable[[], None]) -> int | None:
    """Put a compressed segment in the place of a sealed one; return the size of its file.

    None: it was compressed before, or holds no record. (One whose sealing was undone by a crash,
    and that has grown since, has been compressed in part, and stays so.) ``pause`` is called behind
    each block; what it raises ends the work, and the segment stays as it was. So it does after any
    error.

    Raises CorruptionError or UnsupportedFormatError where the segment does not check, or without
    the package zstandard; OSError or OutcomeUnknown.
    """
    with segment.open(disk) as reader:
        contents = reader.footer()
        if reader.plain_bytes or contents.next_sequence == segment.first_sequence:
            return None
        header = segment.header._replace(plain_bytes=reader.size)
        pieces = compressed(reader.all_frames(contents), header, contents)
        replace_file(disk, segment.path, _gathered(pieces, pause))
    with segment.open(disk) as reader:
        return reader.size


def _gathered(pieces: Iterable[bytes], pause: Callable[[], None]) -> Iterator[list[bytes]]:
    """Yield pieces of about a mebibyte."""
    gathered: list[bytes] = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= _PIECE_BYTES:
            yield gathered
            gathered, size = [], 0
        pause()
    yield gathered
