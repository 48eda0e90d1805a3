"""Any text as a label, and back. Pure.

`record` says what a label is. What comes from outside (a name in a request, a line of a log) may be
no label, and two texts that differ must not become one label, or one user passes for another. So a
text is escaped as in a URL, and only where it must be::

    text                     label
    user:7                   user:7                    a label already
    100 %                    100 %                     a percent sign that begins no escape stays
    ada\\n                    ada%0A                    what no label holds: each byte of its UTF-8
    ada%0A                   ada%250A                  what looks like an escape is none
    aquipu:lost              %61quipu:lost             what only the engine may say
    (nothing)                %FF
    (1,024 bytes and more)   its beginning, %FF, and the SHA-256 of the text in 64 hex digits

``%FF`` is the escape of no text, because UTF-8 has no such byte. So different texts have different
labels, but for those that are cut, which only SHA-256 tells apart; and all that were not cut can be
had back: see `label_text`.

Downsides: a text that is a label, but holds what looks like an escape, gets another label than
itself. So if you use `label` for a kind of labels, use it always for them, also when asking.
"""

from __future__ import annotations

from collections.abc import Iterator
from re import Match
from re import compile as pattern

from aquipu.record import LABEL_BYTES_MAX, NO_LABEL, RESERVED, checked_relations

_CUT = "%FF"
_DIGEST_CHARACTERS = 64
_ESCAPED = pattern(f"{NO_LABEL.pattern}|%(?=[0-9A-Fa-f]{{2}})|^{RESERVED[0]}(?={RESERVED[1:]})")
_IS_CUT = pattern(f"{_CUT}[0-9a-f]{{{_DIGEST_CHARACTERS}}}$")


def label(text: str) -> str:
    """Make a label of any text: ``relations=(label(f"user:{name}"),)``.

    Different texts have different labels. A text that is a label already stays as it is, unless it
    holds what looks like an escape (``%0A``) or begins with ``aquipu:``. Any other is escaped as in
    a URL, and `label_text` gives it back. What is then longer than a label may be (1,024 bytes) is
    cut, and ends with the SHA-256 of the text.
    """
    if not text:
        return _CUT
    escaped = _ESCAPED.sub(_escape, text)
    if len(escaped.encode()) <= LABEL_BYTES_MAX:
        return escaped
    return "".join(_beginning(text)) + _CUT + _digest(text)


def label_text(label: str) -> str:
    """Return the text of which `label` made this label.

    ValueError for one that was cut, whose text is not known.
    """
    if label == _CUT:
        return ""
    if _IS_CUT.search(label):
        raise ValueError(
            "this label was cut, and its text cannot be had back; "
            "its last 64 digits are the text's SHA-256"
        )
    from urllib.parse import unquote  # which `import aquipu` need not load

    return unquote(label, errors="surrogatepass")


def is_label(text: str) -> bool:
    """Return whether a record can be given this text as a label, as it is."""
    try:
        checked_relations((text,))
    except ValueError:
        return False
    return True


def _escape(found: Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


def _beginning(text: str) -> Iterator[str]:
    """Yield the escaped text, character by character, as far as its digest leaves room."""
    room = LABEL_BYTES_MAX - len(_CUT) - _DIGEST_CHARACTERS
    beginning = text[: LABEL_BYTES_MAX + 2]
    escapes = {found.start(): _escape(found) for found in _ESCAPED.finditer(beginning)}
    for index, character in enumerate(beginning):
        piece = escapes.get(index, character)
        room -= len(piece.encode())
        if room < 0:
            return
        yield piece


def _digest(text: str) -> str:
    from hashlib import sha256

    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
