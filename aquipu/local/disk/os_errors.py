"""What an error of the operating system means, and its translation into one of the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import (
    EACCES,
    EAGAIN,
    EDQUOT,
    EFBIG,
    EINTR,
    ELOOP,
    EMFILE,
    ENAMETOOLONG,
    ENFILE,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ENOTDIR,
    EPERM,
)

from aquipu.errors import StoreUnavailableError

_NO_SPACE = frozenset({ENOSPC, EDQUOT, EFBIG})
_PASSING = frozenset({EMFILE, ENFILE, ENOMEM, EACCES, EPERM, EINTR, EAGAIN})
_NOWHERE = frozenset({ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG})


def is_no_space(error: OSError) -> bool:
    """Return whether the error says that there was no space.

    The disk is full, or a quota or the limit of a file's size is reached.
    """
    return error.errno in _NO_SPACE


def is_passing(error: OSError) -> bool:
    """Return whether the error says that the call was not begun, for a passing reason.

    No descriptors or no memory were left, the permission had been taken away, or a signal came.
    """
    return error.errno in _PASSING


def is_nowhere(error: OSError) -> bool:
    """Return whether the error says that a path leads nowhere."""
    return error.errno in _NOWHERE


@contextmanager
def translate_os_errors(path: str, action: str) -> Iterator[None]:
    """Turn an OSError into a StoreUnavailableError."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailableError(
            str(error.filename or path), action, error.strerror or str(error)
        ) from error
