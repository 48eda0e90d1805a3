"""What an error of the operating system means, and its translation."""

from __future__ import annotations

import errno
import os

import pytest

from aquipu.errors import StoreUnavailableError
from aquipu.local.disk.os_errors import is_no_space, translate_os_errors


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, True),
        (errno.EDQUOT, True),
        (errno.EFBIG, True),
        (errno.EIO, False),
        (errno.EROFS, False),
        (errno.EINTR, False),
    ],
)
def test_what_counts_as_no_space(number: int, expected: bool) -> None:
    """A full disk, a spent quota and the limit of a file's size are no space; nothing else is."""
    assert is_no_space(OSError(number, os.strerror(number))) is expected


def test_a_refusal_is_explained() -> None:
    """An OSError becomes one of the tree that names the file, what was tried and why not, and keeps
    its cause.
    """
    refusal = PermissionError(errno.EACCES, "Permission denied", "/store/manifest")
    with pytest.raises(StoreUnavailableError) as caught, translate_os_errors("/store", "open"):
        raise refusal
    error = caught.value
    assert (error.path, error.action, error.reason) == (
        "/store/manifest",
        "open",
        "Permission denied",
    )
    assert error.__cause__ is refusal


def test_a_refusal_that_names_no_file_is_explained() -> None:
    """Without a file in the OSError the path at hand is named; without a reason, the error itself
    is.
    """
    with pytest.raises(StoreUnavailableError) as caught, translate_os_errors("/store", "lock"):
        raise OSError("no locks here")
    assert (caught.value.path, caught.value.reason) == ("/store", "no locks here")


def test_what_is_no_refusal_passes_unexplained() -> None:
    """Only an OSError is turned into something else."""
    with pytest.raises(KeyError), translate_os_errors("/store", "open"):
        raise KeyError("a defect")
