"""Paths from the root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aquipu.local.disk.paths import absolute


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("store", "/home/me/store"),
        ("./a//store/.", "/home/me/a/store"),
        ("../store", "/home/me/../store"),
        ("/store/", "/store"),
        (Path("store"), "/home/me/store"),
        ("/", "/"),
    ],
)
def test_an_absolute_path(monkeypatch: pytest.MonkeyPatch, path: str | Path, found: str) -> None:
    """It begins at the root, whatever directory the process changes to later;

    ``..`` is left to the system.
    """
    monkeypatch.setattr(os, "getcwd", lambda: "/home/me")
    assert absolute(path) == found


@pytest.mark.parametrize(
    "path", ["", "s3://bucket/x", "file:///x", "postgresql://localhost/x", "unix:/x", "http://x"]
)
def test_what_is_no_path_of_a_directory(path: str) -> None:
    """No text, or an address, is not taken for the name of a directory here."""
    with pytest.raises(ValueError, match="director"):
        absolute(path)


def test_an_absolute_path_of_bytes() -> None:
    """A path is text: an error names the type."""
    with pytest.raises(TypeError, match="bytes"):
        absolute(b"store")  # type: ignore[arg-type]
