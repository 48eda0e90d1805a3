"""The history of a store, read from its file. Blocking; `generation` writes it."""

from __future__ import annotations

from aquipu.errors import CorruptionError, UnsupportedFormatError
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.format.history import HISTORY_BYTES, History, Mark, decoded
from aquipu.local.format.names import HISTORY
from aquipu.local.format.structure import Damage, Unsupported

_TRIES = 5  # to read what is being written


def read_history(disk: Disk, path: str, store_id: bytes) -> History | None:
    """Read the history while another process may be writing it; None when there is none.

    Raises CorruptionError, UnsupportedFormatError or OSError.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            return read_mark_and_history(disk, path, store_id)[1]
        except FileNotFoundError:
            return None
        except Damage as damage:
            if not tries_left:
                raise CorruptionError(f"{path}/{HISTORY}", 0, str(damage)) from None
    raise AssertionError("the last try returns or raises")


def read_mark_and_history(disk: Disk, path: str, store_id: bytes) -> tuple[Mark | None, History]:
    """Read how the last writer left, if that checks, and the history.

    Raises Damage, UnsupportedFormatError or OSError.
    """
    with opened(disk, f"{path}/{HISTORY}") as descriptor:
        data = disk.read(descriptor, HISTORY_BYTES, 0)
    try:
        return decoded(data, store_id)
    except Unsupported as unsupported:
        raise UnsupportedFormatError(f"{path}/{HISTORY}", str(unsupported)) from None
