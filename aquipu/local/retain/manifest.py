"""The manifest of a store: read, and replaced as a whole. Blocking."""

from __future__ import annotations

from aquipu.errors import CorruptionError, NotAStoreError, UnsupportedFormatError
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.durable import write_whole
from aquipu.local.format.manifest import MANIFEST_BYTES, Manifest
from aquipu.local.format.names import MANIFEST, Reserve
from aquipu.local.format.structure import Damage, Unsupported


def read_manifest(disk: Disk, path: str) -> Manifest:
    """Read the manifest of the store in the directory ``path``.

    Raises CorruptionError or UnsupportedFormatError.
    """
    name = f"{path}/{MANIFEST}"
    with opened(disk, name) as descriptor:
        data = disk.read(descriptor, MANIFEST_BYTES + 1, 0)
    try:
        return Manifest.decode(data)
    except Damage as damage:
        raise CorruptionError(name, 0, str(damage)) from None
    except Unsupported as unsupported:
        raise UnsupportedFormatError(name, str(unsupported)) from None


def read_finished(disk: Disk, path: str) -> Manifest:
    """Read the manifest of a store that is to be opened or read; see `read_manifest`.

    Raises NotAStoreError as well, for what is a part of a store still: a restore was cut short.
    """
    manifest = read_manifest(disk, path)
    if manifest.is_unfinished:
        raise NotAStoreError(
            path,
            "it holds the beginning of one, of which a restore has not finished: do that again"
            " (`aquipu restore URL DIR`), and it goes on",
        )
    return manifest


def write_manifest(disk: Disk, path: str, manifest: Manifest) -> None:
    """Replace the manifest durably: after a crash it is the old one or the new one.

    Raises OSError or OutcomeUnknown.
    """
    write_whole(disk, f"{path}/{MANIFEST}", manifest.encode(), reserve=Reserve.MANIFEST)
