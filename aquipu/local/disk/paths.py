"""Paths of stores, and addresses of daemons in the place of paths."""

from __future__ import annotations

import os

from aquipu.local.format.names import SOCKET

StrPath = str | os.PathLike[str]

ARCHIVES = ("s3://", "gs://", "az://", "file://")
"""Beginnings of the places of archives."""
SCHEME = "unix:"
"""Beginning of the address of a daemon."""
DATABASES = ("postgresql:", "postgres:")
"""Beginnings of the address of a log in a database."""


def absolute(path: StrPath) -> str:
    """Return the path from the root.

    ``..`` stays: only the system knows what it means. TypeError for what is no text.
    """
    path = os.fspath(path)
    if not isinstance(path, str):
        raise TypeError(f"a path is a str or an os.PathLike of str, not {type(path).__name__}")
    parts = os.path.join(os.getcwd(), path).split("/")
    return "/" + "/".join(part for part in parts if part not in ("", "."))


def checked_place(path: StrPath) -> str:
    """Return the path of a directory from the root; TypeError or ValueError for what is none."""
    if address_in(path) is not None:
        raise ValueError(f"{path} is the address of a daemon, and a backup goes to a directory")
    if not os.fspath(path) or "\0" in os.fspath(path):
        raise ValueError(f"{path!r} is no path of a directory")
    return absolute(path)


def is_within(path: str, other: str) -> bool:
    """Return whether a path leads to the directory ``other``, or into it, also by links."""
    real, outer = os.path.realpath(path), os.path.realpath(other)
    return real == outer or real.startswith(outer.rstrip("/") + "/")


def is_shared(path: str) -> bool:
    """Return whether processes share the store in a directory, or did until they were killed."""
    return os.path.lexists(f"{path}/{SOCKET}")


def address_in(path: StrPath) -> str | None:
    """Return the address of a daemon, ``unix:PATH``, given in the place of a path; otherwise None.

    A directory of such a name is called ``./unix:...``.
    """
    text = os.fspath(path)
    return text if isinstance(text, str) and text.startswith(SCHEME) else None


def database_in(path: StrPath) -> str | None:
    """Return the address of a log in a database, given in the place of a path; otherwise None.

    ValueError for an address of any other kind: a directory of such a name is called ``./s3://``.
    """
    text = os.fspath(path)
    if not isinstance(text, str):
        return None
    if text.startswith(DATABASES):
        return text
    scheme, found, _ = text.partition("://")
    if found and scheme.isalnum() and not text.startswith(SCHEME):
        raise ValueError(
            f"{scheme}:// is no place of a store: give a directory, unix:PATH for a daemon, or"
            " postgresql://HOST/DATABASE?log=NAME for a database"
        )
    return None


def is_archive(path: object) -> bool:
    """Return whether this is an `Archive`, or the text of its place, in the place of a path."""
    if not isinstance(path, (str, os.PathLike)):
        return hasattr(path, "bucket_for")
    return isinstance(path, str) and path.startswith(ARCHIVES)
