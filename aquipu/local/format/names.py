"""The names of the files in a store. Pure::

    audit/
    ├── lock                            locked by the one process that writes, as is the directory
    ├── holds.lock                      locked for a moment, to set a hold or decide on a purge
    ├── manifest                        which store this is
    ├── history                         its generations: see `history`
    ├── socket                          where the writer serves those that share the store
    ├── acknowledged                    how far the writer has come, for readers: `progress_page`
    ├── 00000000000000000000.segment    sealed: header, frames, footer
    ├── 00000000000000000000.relations  label index of the sealed segment: see `postings`
    ├── 00000000000000262144.segment    active: header, frames, perhaps zeros: space written ahead
    ├── ….unnamed                       being made, the next segment for example: not yet in use
    ├── 00000000000000262144.cut-4711   a torn tail that recovery cut off at that offset, kept
    ├── manifest.reserve                space for a manifest on a full disk; also hold, cursor, tail
    ├── nightly-backup.hold             a bookmark: from its sequence on nothing is purged
    └── billing.cursor                  a bookmark: the sequence at which a consumer goes on

The file `lock` holds the pid of the writer. A segment is named by the sequence of its first record
in twenty digits, so that a listing is the log in order. A bookmark is called by 1 to 100 of A-Z a-z
0-9 . _ - of which the first is no dot and no dash.
"""

from __future__ import annotations

import re
from enum import StrEnum

LOCK = "lock"
HOLDS_LOCK = "holds.lock"
MANIFEST = "manifest"
ACKNOWLEDGED = "acknowledged"
HISTORY = "history"
SOCKET = "socket"
UNNAMED = ".unnamed"
"""Ending of the name of a file that is being made and is not yet part of the store."""
_BLOCK = 4096  # of most file systems

# patterns as text: compiled when they are first asked for, and kept by `re`
_SEGMENT_NAME = r"([0-9]{20})\.segment"
_SEQUENCE_MAX = 2**64 - 1
_RELATIONS_NAME = r"[0-9]{20}\.relations"
BOOKMARK_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}"
"""Pattern of the names that a user may give a bookmark."""
_BOOKMARK_FILE_NAME = rf"({BOOKMARK_NAME})\.(hold|cursor)"
_CUT_NAME = rf"([0-9]{{20}}|{MANIFEST}|{HISTORY}|{_BOOKMARK_FILE_NAME})\.cut-[0-9]+(-[0-9]+)?"
_BOOKMARK_IN_THE_MAKING = rf"{_BOOKMARK_FILE_NAME}\.[0-9]+-[0-9]+{re.escape(UNNAMED)}"


def segment_name(first_sequence: int) -> str:
    return f"{first_sequence:020d}.segment"


def relations_name(first_sequence: int) -> str:
    """Return the name of the file that holds the label index of a segment."""
    return f"{first_sequence:020d}.relations"


def cut_name(first_sequence: int, offset: int, number: int = 1) -> str:
    """Return the name of the file that keeps a torn tail, or damaged bytes.

    A second one, cut at the same offset, has the number 2.
    """
    return whole_cut_name(f"{first_sequence:020d}", number, offset)


def whole_cut_name(name: str, number: int = 1, offset: int = 0) -> str:
    """Return the name of the file that keeps a damaged manifest or bookmark of this file name."""
    return f"{name}.cut-{offset}" + (f"-{number}" if number > 1 else "")


def first_sequence_of(name: str) -> int | None:
    """Return the first sequence that a segment's file name holds; None for any other name."""
    match = re.fullmatch(_SEGMENT_NAME, name)
    first = int(match[1]) if match else _SEQUENCE_MAX + 1
    return first if first <= _SEQUENCE_MAX else None


def segment_of(name: str) -> int | None:
    """Return the first sequence of the segment that a file is, or is the label index of.

    None for another file.
    """
    if re.fullmatch(_RELATIONS_NAME, name):
        name = segment_name(int(name.removesuffix(".relations")))
    return first_sequence_of(name)


class BookmarkKind(StrEnum):
    """What a bookmark is for: a hold or a cursor; the ending of its file name."""

    HOLD = "hold"
    CURSOR = "cursor"


class Reserve(StrEnum):
    """What space is reserved for, one file each: the name of the file.

    It holds zeros, and may be missing.
    """

    MANIFEST = "manifest.reserve"
    HOLD = "hold.reserve"
    CURSOR = "cursor.reserve"
    TAIL = "tail.reserve"

    @property
    def bytes(self) -> int:
        """Size of the file: a block for a small one, several to move a torn tail by pieces."""
        return 16 * _BLOCK if self is Reserve.TAIL else _BLOCK


def bookmark_name(kind: BookmarkKind, name: str) -> str:
    return f"{name}.{kind}"


def bookmark_of(name: str) -> tuple[BookmarkKind, str] | None:
    """Return the kind and the name of the bookmark with this file name; None for any other name."""
    match = re.fullmatch(_BOOKMARK_FILE_NAME, name)
    return (BookmarkKind(match[2]), match[1]) if match else None


def bookmark_in_the_making(file_name: str, process: int, number: int) -> str:
    """Return the name of a bookmark's file until it is whole.

    Each of several writers has a file of its own.
    """
    return f"{file_name}.{process}-{number}{UNNAMED}"


def is_bookmark_in_the_making(name: str) -> bool:
    """Return whether a file of this name is, or was, a bookmark in the making."""
    return re.fullmatch(_BOOKMARK_IN_THE_MAKING, name) is not None


def is_unnamed(name: str) -> bool:
    """Return whether a file of this name is one that the writer did not finish.

    Not so for a bookmark: other processes write those, without the lock, perhaps at this moment.
    """
    made = name.removesuffix(UNNAMED)
    return made != name and is_ours(made) and bookmark_of(made) is None


def is_ours(name: str) -> bool:
    """Return whether a store may hold a file of this name."""
    return (
        name in (LOCK, HOLDS_LOCK, MANIFEST, ACKNOWLEDGED, HISTORY, SOCKET, *Reserve)
        or is_unnamed(name)
        or first_sequence_of(name) is not None
        or re.fullmatch(_RELATIONS_NAME, name) is not None
        or re.fullmatch(_CUT_NAME, name) is not None
        or bookmark_of(name) is not None
        or is_bookmark_in_the_making(name)
    )


def is_of_the_volume(name: str) -> bool:
    """Return whether a file of this name is often there in a directory that is otherwise empty.

    These are the files of a file system's root, of snapshots, and other hidden ones.
    """
    return name == "lost+found" or name.startswith(".")
