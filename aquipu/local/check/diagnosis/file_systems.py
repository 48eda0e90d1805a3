"""Which kinds of file systems keep what they are told to keep, and which need a word. Pure."""

from __future__ import annotations

from aquipu.local.disk.system import NETWORK

_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "zram"})
_LAYERED = frozenset({"overlay", "overlayfs", "aufs", "unionfs", "fuse-overlayfs"})


def warning_about(kind: str | None) -> str | None:
    """Return what to know about a kind of file system; None where a store is at home."""
    if kind is None:
        return None
    if kind in _IN_MEMORY:
        return (
            f"{kind} is memory: whatever the policy, a power cut or a restart takes every record; "
            "put the store on a disk"
        )
    if kind in _LAYERED or kind == "fuse.fuse-overlayfs":
        return (
            f"{kind} is the layer of a container: it goes when the container is removed, and syncs "
            "of it are slow; mount a volume and put the store there"
        )
    if kind in NETWORK or kind == "virtiofs":
        return (
            f"{kind} is a file system of the network: how safe a synced record is, the server "
            "decides, and locks between machines may not hold; let one machine write, and ask how "
            "the server syncs"
        )
    if kind.startswith("fuse"):
        return (
            f"{kind} is a program's file system (FUSE): whether a sync reaches a disk is up to "
            "that program; put the store on a disk of this machine"
        )
    return None
