"""The URL of an archive, and the directory that one of ``file://`` is. Pure.

A text that is no such URL is never repeated: it may hold a credential.
"""

from __future__ import annotations

from urllib.parse import unquote

from aquipu.local.disk.paths import ARCHIVES

SCHEMES = tuple(one.removesuffix("://") for one in ARCHIVES)
_HERE = "localhost"  # the only host whose files are meant: RFC 8089
_SHOWN = 10  # letters of a scheme that is not known here


def checked_url(url: object) -> str:
    """Return the place of an archive; TypeError or ValueError for what is none."""
    if not isinstance(url, str):
        raise TypeError(f"the place of an archive is a URL, a str, not {type(url).__name__}")
    scheme, colon, rest = url.partition("://")
    place = rest.partition("/")[0]
    if not colon or scheme not in SCHEMES:
        raise ValueError(f"an archive is at one of {_known()}{_instead(scheme) if colon else ''}")
    if scheme != "file" and ("@" in place or ":" in place):  # also of a key that holds a slash
        raise ValueError("credentials do not belong into the URL of an archive: give them apart")
    if "?" in rest or "#" in rest:
        raise ValueError("the URL of an archive ends with its prefix: options are given apart")
    if scheme == "file":
        directory_of(url)
    elif not place:
        raise ValueError(f"an archive is at {scheme}://BUCKET/PREFIX")
    return url.rstrip("/")


def directory_of(url: str) -> str | None:
    """Return the path of an archive in files; None for one in an object store.

    As RFC 8089 and RFC 3986 say: what is percent-encoded is decoded, and ``..`` takes away the part
    before it, wherever that leads. ValueError for what is no directory.
    """
    scheme, _, rest = url.partition("://")
    if scheme != "file":
        return None
    host, slash, path = rest.partition("/")
    parts: list[str] = []
    for part in path.split("/"):
        name = unquote(part, errors="surrogateescape")
        if name == "..":
            del parts[-1:]
        elif name != ".":
            parts.append(name)
    found = "/" + "/".join(part for part in parts if part)
    if host not in ("", _HERE) or not slash or found.strip("/") == "" or "\0" in found:
        raise ValueError(
            "an archive in files is at file:///DIRECTORY, the path from the root, in which %20 is"
            " a space and %25 a percent sign"
        )
    return found


def _known() -> str:
    return ", ".join(f"{name}://" for name in SCHEMES)


def _instead(scheme: str) -> str:
    return f", not at {scheme}://" if scheme.isalpha() and len(scheme) <= _SHOWN else ""
