"""The URL of an archive, and the directory that one of files is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aquipu import Archive, ArchiveRefusedError
from aquipu.archive.places.address import checked_url, directory_of

DIRECTORIES = [
    ("file:///dir/a%20b", "/dir/a b"),
    ("file:///dir/a b", "/dir/a b"),
    ("file:///dir/a%2520b", "/dir/a%20b"),
    ("file:///dir/100%", "/dir/100%"),
    ("file:///dir/%C3%BC", "/dir/ü"),
    ("file:///dir/ü", "/dir/ü"),
    ("file:///dir/a%2Fb", "/dir/a/b"),
    ("file:///dir/a%3Fb%23", "/dir/a?b#"),
    ("file:///dir/", "/dir"),
    ("file:////dir//a///b", "/dir/a/b"),
    ("file:///dir/./a/../b", "/dir/b"),
    ("file:///dir/%2E%2E/b", "/b"),
    ("file://localhost/dir/a", "/dir/a"),
]


@pytest.mark.parametrize(("url", "path"), DIRECTORIES)
def test_the_directory_of_a_url(url: str, path: str) -> None:
    """There is one rule, that of file URLs: what is percent-encoded is decoded, once."""
    assert directory_of(checked_url(url)) == path


@pytest.mark.parametrize("url", [url for url, path in DIRECTORIES if "//a" not in url])
def test_it_is_where_earlier_versions_had_it(url: str, tmp_path: Path) -> None:
    """They left it to obstore, which follows the same rule, and refuses doubled slashes."""
    from obstore.store import from_url

    beside = url.replace("///", f"//{tmp_path}/", 1).replace("localhost", f"localhost{tmp_path}")
    there = Path(directory_of(beside) or "")
    there.mkdir(parents=True, exist_ok=True)
    (there / "entries").mkdir()
    (there / "entries" / "0").write_bytes(b"entry")
    assert from_url(beside).get("entries/0").bytes() == b"entry"


def test_a_name_that_is_no_text() -> None:
    """A file name of other bytes than UTF-8 can be given, too."""
    assert os.fsencode(directory_of("file:///dir/%FF") or "") == b"/dir/\xff"


def test_the_same_directory_for_all_that_is_done(tmp_path: Path) -> None:
    """It is made where the objects go, and looked for within the store there."""
    archive = Archive(f"file://{tmp_path}/a%20b")
    archive.bucket_for(str(tmp_path / "store")).put_new("entries/0", b"entry")
    assert (tmp_path / "a b" / "entries" / "0").read_bytes() == b"entry"
    assert os.listdir(tmp_path) == ["a b"]
    for within in ("st%6Fre/in", "elsewhere/../store/in", "store"):
        with pytest.raises(ArchiveRefusedError, match="lies within the store"):
            Archive(f"file://{tmp_path}/{within}").bucket_for(str(tmp_path / "store"))
    assert os.listdir(tmp_path) == ["a b"]


@pytest.mark.parametrize(
    "url",
    ["file://", "file:///", "file:///..", "file:////", "file://localhost", "file:///a%00b"]
    + [f"file://{path}" for path in ("relative/x", "./x", "~/x", "other-host/x", "me@host/x")],
)
def test_what_is_no_directory(url: str) -> None:
    """The path is one from the root, of this machine."""
    with pytest.raises(ValueError, match="an archive in files is at file:///DIRECTORY, the path"):
        Archive(url)
