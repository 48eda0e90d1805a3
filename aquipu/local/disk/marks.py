"""The mark that a process sets on a file, which others see without setting one.

It is a lock of the open file (OFD), so it ends with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import suppress
from struct import Struct

_FLOCK = Struct("@hhqqi0q")  # fcntl_locking(2): type, whence, start, length (0: to the end), pid
_MARK = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_MARKS = sys.platform == "linux" and sys.maxsize > 1 << 32


def mark(descriptor: int) -> None:
    """Mark a file for as long as it is open, where the system offers that."""
    if _MARKS:
        with suppress(OSError):  # a file system without such locks
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _MARK)


def is_marked(descriptor: int) -> bool:
    """Return whether a process has marked this file; True where the system cannot say."""
    if not _MARKS:
        return True
    try:
        found, *_ = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _MARK))
    except OSError:
        return True
    return bool(found != fcntl.F_UNLCK)
