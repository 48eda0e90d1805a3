"""A power cut for a server that runs: what it had not synced is rolled back.

Its files are written as ever. A small library, preloaded into its processes (`unsynced.c`, compiled
here), notes before each write what stood there, and when a sync had begun and ended. After the
processes were killed, `roll_back` reads the notes, and each sector of 512 bytes that was written
since the last sync of its file gets what it held before one of these writes, or keeps the last:
drawn for each sector, or all of a file at once. A file that has grown may get its size back.

What this does not show: names. A file that was made, renamed or removed stays so, as on a file
system that journals them in order; and what libraries write by themselves (stdio) counts as synced.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from struct import Struct
from tempfile import mkdtemp
from typing import NamedTuple

_SOURCE = Path(__file__).with_name("unsynced.c")
_NOTE = Struct("<IIQQQQ")
_SECTOR = 512


_places: list[Path] = []


def for_this_process(prefix: str) -> Path:
    """A new directory, which is removed at the end of this process."""
    place = Path(mkdtemp(prefix=prefix, dir="/tmp"))
    _places.append(place)
    return place


@atexit.register
def end_process() -> None:
    """Remove these directories."""
    while _places:
        shutil.rmtree(_places.pop(), ignore_errors=True)


@cache
def library() -> Path:
    """The library, compiled; any user may load it."""
    place = for_this_process("aquipu-unsynced-")
    place.chmod(0o755)
    made = place / "unsynced.so"
    command = ["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(made), str(_SOURCE)]
    subprocess.run([*command, "-ldl"], check=True)
    return made


class Write(NamedTuple):
    """One write that no sync has covered."""

    number: int
    """Its place among the notes."""
    at: int
    size: int
    file_size: int
    """Of the file before."""
    old: bytes
    """What stood there, as far as the file reached."""


class _Note(NamedTuple):
    kind: str
    inode: int
    at: int
    size: int
    more: int
    old: bytes


def _notes_in(data: bytes) -> Iterator[_Note]:
    at = 0
    while at + _NOTE.size <= len(data):
        kind, kept, inode, place, size, more = _NOTE.unpack_from(data, at)
        at += _NOTE.size
        yield _Note(chr(kind), inode, place, size, more, data[at : at + kept])
        at += kept


def unsynced_in(data: bytes) -> dict[int, list[Write]]:
    """The writes that no sync has covered, by the inode of their file, in their order."""
    found: dict[int, list[Write]] = {}
    begun: dict[tuple[int, int], int] = {}
    for number, note in enumerate(_notes_in(data)):
        inode, writes = note.inode, found.get(note.inode, [])
        if note.kind == "W":
            write = Write(number, note.at, note.more, note.size, note.old)
            found.setdefault(inode, []).append(write)
        elif note.kind == "S":
            begun[inode, note.more] = number
        elif note.kind == "E":  # what was written before it began
            since = begun.pop((inode, note.more))
            found[inode] = [write for write in writes if write.number > since]
        elif note.kind == "T":
            found[inode] = [_cut(write, note.more) for write in writes if write.at < note.more]
        else:  # the file is gone, and its number may be another's
            found.pop(inode, None)
            begun = {key: since for key, since in begun.items() if key[0] != inode}
    return {inode: writes for inode, writes in found.items() if writes}


def _cut(write: Write, size: int) -> Write:
    """What is left of a write when its file is cut to this size."""
    left = min(write.size, size - write.at)
    return write._replace(size=left, old=write.old[:left], file_size=min(write.file_size, size))


def rolled_back(data: bytearray, writes: list[Write], random: Random) -> None:
    """Take from the contents of a file what a power cut might take."""
    versions: dict[int, int] = {}
    for write in writes:
        for sector in _sectors(write):
            versions[sector] = versions.get(sector, 0) + 1
    if random.random() < 0.5:
        kept = dict.fromkeys(versions, 0)
    else:
        kept = {sector: random.randint(0, count) for sector, count in versions.items()}
    for write in reversed(writes):
        old = write.old.ljust(write.size, b"\0")
        for sector in _sectors(write):
            versions[sector] -= 1
            if versions[sector] >= kept[sector]:
                begin = max(sector * _SECTOR, write.at)
                end = min((sector + 1) * _SECTOR, write.at + write.size)
                data[begin:end] = old[begin - write.at : end - write.at]
    if not any(kept.values()):
        del data[writes[0].file_size :]


def _sectors(write: Write) -> range:
    return range(write.at // _SECTOR, (write.at + write.size - 1) // _SECTOR + 1)


def roll_back(files: Path, notes: Path, random: Random) -> int:
    """Have a power cut take what these notes say was not synced; return how many files it was."""
    unsynced = unsynced_in(notes.read_bytes())
    count = 0
    for path in files.rglob("*"):
        if not path.is_file() or path.is_symlink():
            continue
        writes = unsynced.get(path.stat().st_ino)
        if writes:
            data = bytearray(path.read_bytes())
            end = max(write.at + write.size for write in writes)
            data.extend(bytes(max(end - len(data), 0)))  # killed between the note and the write
            rolled_back(data, writes, random)
            with path.open("r+b") as file:
                file.write(data)
                file.truncate(len(data))
            count += 1
    notes.unlink()
    return count
