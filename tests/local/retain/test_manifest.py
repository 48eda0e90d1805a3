"""The manifest as a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from aquipu.errors import CorruptionError, UnsupportedFormatError
from aquipu.local.disk.disk import Disk
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import MANIFEST
from aquipu.local.retain.manifest import read_manifest, write_manifest

SOME = Manifest(bytes(range(16)), 3, 5)


def test_a_manifest_is_replaced(tmp_path: Path) -> None:
    """What was written last is read back, and nothing else is left in the directory."""
    write_manifest(Disk(), str(tmp_path), SOME._replace(synced_sequence=4))
    write_manifest(Disk(), str(tmp_path), SOME)
    assert read_manifest(Disk(), str(tmp_path)) == SOME
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


def test_a_damaged_manifest(tmp_path: Path) -> None:
    """CorruptionError, with the path of the file."""
    (tmp_path / MANIFEST).write_bytes(SOME.encode()[:-1])
    with pytest.raises(CorruptionError) as caught:
        read_manifest(Disk(), str(tmp_path))
    assert (caught.value.path, caught.value.offset) == (str(tmp_path / MANIFEST), 0)


def test_a_manifest_with_something_behind_it(tmp_path: Path) -> None:
    """A manifest is exactly as long as it is: more is damage too."""
    (tmp_path / MANIFEST).write_bytes(SOME.encode() + b"\0")
    with pytest.raises(CorruptionError):
        read_manifest(Disk(), str(tmp_path))


def test_a_manifest_of_a_later_version(tmp_path: Path) -> None:
    """UnsupportedFormatError, which says that a newer aquipu is needed."""
    data = bytearray(SOME.encode())
    data[8] += 1
    (tmp_path / MANIFEST).write_bytes(data)
    with pytest.raises(UnsupportedFormatError, match="newer"):
        read_manifest(Disk(), str(tmp_path))
