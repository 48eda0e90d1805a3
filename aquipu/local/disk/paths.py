"""Paths of stores, and addresses of daemons in the place of paths."""

from __future__ import annotations

import os
from re import match

from aquipu.local.format.names import SOCKET

StrPath = str | os.PathLike[str]

ARCHIVES = ("s3://", "gs://", "az://", "file://")
"""Beginnings of the places of archives."""
SCHEME = "unix:"
"""Beginning of the address of a daemon."""
DATABASES = ("postgresql:", "postgres:")
"""Beginnings of the address of a log in a database."""


def absolute(path: StrPath) -> str:
    """Return the path of a file or directory from the root.

    ``..`` stays: only the system knows what it means. TypeError for what is no text; ValueError for
    no path, and for an address: a directory of such a name is called ``./s3:...``.
    """
    path = os.fspath(path)
    if not isinstance(path, str):
        raise TypeError(f"a path is a str or an os.PathLike of str, not {type(path).__name__}")
    if not path or "\0" in path:
        raise ValueError(f"{path!r} is no path of a directory")
    address = _address_kind(path)
    if address is not None:
        raise ValueError(address)
    parts = os.path.join(os.getcwd(), path).split("/")
    return "/" + "/".join(part for part in parts if part not in ("", "."))


def _address_kind(path: str) -> str | None:
    """Return what an address is of, which may hold a password; None for the path of a directory."""
    if path.startswith(SCHEME):
        return f"{path} is the address of a daemon, and a backup goes to a directory, as a store is"
    if path.startswith(DATABASES):
        return "a log in a database is no directory: `aquipu copy` brings one into it"
    if path.startswith(ARCHIVES):
        return (
            f"{path.partition('://')[0]}:// is the place of an archive, and no directory: "
            "`aquipu archive STORE URL` carries a store there"
        )
    if (scheme := _scheme_in(path)) is not None:
        return f"{scheme}:// is no place of a store: give a directory"
    return None


def _scheme_in(path: str) -> str | None:
    found = match(r"([A-Za-z][A-Za-z0-9+.-]*)://", path)
    return None if found is None else found[1]


def checked_place(path: StrPath) -> str:
    """Return the path of a directory to be made from the root; TypeError or ValueError if none."""
    place = absolute(path)
    if os.path.islink(place) and not os.path.exists(place):
        raise ValueError(f"{place} is a link to nothing: make its target, or remove it")
    return place


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
    if (scheme := _scheme_in(text)) is not None and not text.startswith(SCHEME):
        places = (
            "a directory, unix:PATH for a daemon, or postgresql://HOST/DATABASE?log=NAME for a"
            " database"
        )
        if text.startswith(ARCHIVES):
            raise ValueError(
                f"{scheme}:// is the place of an archive: it is read, and a store is carried there"
                f" by archive=Archive('{scheme}://...'); for this, give {places}"
            )
        raise ValueError(
            f"{scheme}:// is no place of a store: give {places}; to read, also an archive:"
            f" {', '.join(ARCHIVES)}"
        )
    return None


def is_archive(path: object) -> bool:
    """Return whether this is an `Archive`, or the text of its place, in the place of a path."""
    if not isinstance(path, (str, os.PathLike)):
        return hasattr(path, "bucket_for")
    return isinstance(path, str) and path.startswith(ARCHIVES)
