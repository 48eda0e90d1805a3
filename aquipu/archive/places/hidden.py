"""What is never shown of how an object store is reached. Pure.

Errors of an object store are shown to people, and they may repeat what they were given. So whatever
was given is hidden in them, but what names a place: options, and what is in the environment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

_PLACES = (
    *("endpoint", "region", "url", "bucket", "container", "account_name", "profile"),
    *("_file", "application_credentials", "service_account"),  # paths of files
)
_OF_STORES = ("AWS_", "AZURE_", "GOOGLE_")
_SECRET = re.compile(r"key|secret|token|password|sas|authorization", re.IGNORECASE)
_USER = re.compile(r"(?<=//)[^/\s]*@")
_USER_GIVEN = re.compile(r"//(.+)@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LENGTH = 8  # of a text that is hidden whatever its name; shorter ones are words as well
_LENGTH_OF_SECRET = 4


def secrets_in(options: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the texts that must not be shown, the longest first."""
    found = set(_texts(options))
    found.update(_texts({n: v for n, v in environment.items() if n.startswith(_OF_STORES)}))
    found |= {quoted for text in found for quoted in (quote(text), quote(text, safe=""))}
    return tuple(sorted(found, key=len, reverse=True))


def unusable(options: Mapping[str, Any], environment: Mapping[str, str]) -> str | None:
    """Return what is wrong with what was given, without repeating it; None: nothing that is known.

    With such a text no request can be made: a secret that was read from a file with its line end.
    """
    given = {n: v for n, v in environment.items() if n.startswith(_OF_STORES)} | dict(options)
    for name, value in given.items():
        if isinstance(value, Mapping):
            continue
        text = str(value)
        if _CONTROL.search(text) and not _document(text):
            return f"{name} holds a line end, or another control character: take that away"
        if name.lower().endswith("endpoint") or name.lower().endswith("endpoint_url"):
            try:
                _ = urlsplit(text).port
            except ValueError:
                return f"{name} has no number as its port"
    return None


def hidden(text: str, secrets: Sequence[str]) -> str:
    """Return the text without these secrets, and without what is before the host of any URL."""
    for secret in secrets:
        text = text.replace(secret, "…")
    return _USER.sub("…@", text)


def _texts(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield all texts but those that name places; of these, users and passwords."""
    for name, value in options.items():
        text = value.decode(errors="replace") if isinstance(value, bytes) else value
        if isinstance(text, Mapping):
            yield from _texts(text)
        elif isinstance(text, str):
            for user in _USER_GIVEN.findall(text):
                yield from _texts({"secret": user, "password": user.partition(":")[2]})
            least = _LENGTH_OF_SECRET if _SECRET.search(name) else _LENGTH
            if len(text) >= least and not name.lower().endswith(_PLACES):
                yield text
                yield from _texts(_document(text))


def _document(text: str) -> Mapping[str, Any]:
    """Return what a text holds that is a JSON document, as a key of Google is."""
    if not text.lstrip().startswith("{"):
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
