"""The key of an append, from the ``Idempotency-Key`` header of a request.

A client gives a request a text of its own making, and gives it again when it sends the request
again. A key of the log is a producer with a number that grows; a header is neither. So each text is
a producer of its own, made of it by BLAKE2b, with the single number 0. What it costs is said in
"The way of one append with a key" of the package's README: a text that is new is looked for in the
index of each segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Protocol

HEADER = "Idempotency-Key"
TEXT_MAX = 255
"""The longest text of a header that is taken, in characters."""


class Request(Protocol):
    """A request of any framework."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, by names in any case."""


def idempotency_key(request: Request, *, producer: str) -> tuple[str, int] | None:
    """Return the ``key`` for an append, from the header; None when the request has none.

    ::

        key = idempotency_key(request, producer=f"orders:{user}")
        receipt = await store.append(order, key=key)

    The same text of another ``producer`` is another key: name what is appended, and whose request
    it is, so that no client can give the key of another. The quotation marks around the text that
    the draft of the standard asks for are taken off, if they are there.

    Raises ValueError for a text that is empty or longer than 255 characters: the request is to be
    answered with 400.
    """
    text = request.headers.get(HEADER)
    if text is None:
        return None
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if not 0 < len(text) <= TEXT_MAX:
        raise ValueError(f"an {HEADER} has 1 to {TEXT_MAX} characters, not {len(text)}")
    named = f"{len(producer)}:{producer}:{text}".encode("utf-8", "surrogatepass")
    return blake2b(named, digest_size=32, person=b"Idempotency-Key").hexdigest(), 0
