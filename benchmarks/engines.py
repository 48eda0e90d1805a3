"""The ways to append that are set beside a saturated loop."""

from __future__ import annotations

from aquipu import Always
from benchmarks import peers
from benchmarks.contender import Opener, store_opener
from benchmarks.plainthread import open_plain_thread
from benchmarks.servers import LeftOut

AQUIPU = "aquipu"


def engines() -> tuple[dict[str, Opener], list[str]]:
    """By name; and a line for each that is left out."""
    found: dict[str, Opener] = {
        AQUIPU: store_opener(Always()),
        "plain worker thread": open_plain_thread,
    }
    left_out = []
    for peer in (peers.aiofiles_alone, peers.aiosqlite):
        try:
            there = peer()
            found[there.name] = there.opener
        except LeftOut as reason:
            left_out.append(f"{peer.__name__} left out: {reason}")
    return found, left_out
