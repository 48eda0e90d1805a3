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
        ("", "/home/me"),
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


def test_an_absolute_path_of_bytes() -> None:
    """A path is text: an error names the type."""
    with pytest.raises(TypeError, match="bytes"):
        absolute(b"store")  # type: ignore[arg-type]
