"""Bucket: the only door to the object store, and what its answers are worth. Blocking.

An object is put only where none is, and never changed. Of an answer that leaves open whether it is
there ("it exists already", a time-out, a cut connection, an error of the server) nothing is
believed: the object is read back.

Any store of ``obstore`` will do, and what has its five calls: ``put``, ``get``, ``get_range``,
``list`` and ``delete``. So do the files of a directory: see `places`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import uniform
from threading import Event
from time import monotonic
from typing import Any, TypeVar

from aquipu.archive.errors import ArchiveDamagedError, ArchiveError, ArchiveUnavailableError
from aquipu.archive.format.keys import ObjectKey
from aquipu.archive.places.hidden import hidden
from aquipu.local.backup.pace import Stopped
from aquipu.local.disk.durable import OutcomeUnknown
from aquipu.local.disk.system import process_id
from aquipu.runtime.calls import Left, call_until

READS = 5
"""How often an object that does not check is read: the answer may be what is damaged."""
PATIENCE = 60.0
"""Seconds that an object store may be away for those who wait for it."""
_PAUSE = 0.1  # seconds until it is asked again, doubling
_PAUSE_MAX = 20.0
_GROUP = 1000  # objects that S3 removes in one request

_REASON_MAX = 300
_QUERY = re.compile(r"(?<=[\w/])\?[^\s\"'<>]*")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"}
    | {"AuthorizationHeaderMalformed", "AuthenticationFailed", "InvalidAuthenticationInfo"}
)
_ROLE = "169.254.169.254"  # where the role of a machine is asked for
_DENIED = re.compile(r"code: 403|\(os error 13\)|\(code: AccessDenied\)")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist")


FORKED = (
    "this process was forked from one that had used an object store, whose threads are not here:"
    " start it by spawn, or use an archive only after the fork"
)

T = TypeVar("T")


class Doubt(Exception):
    """The object store did not do it, or that is not known; the text says why. Ask it again."""


class Unsynced(Doubt):
    """An object may have its name, and a power cut may take it: that it is found says nothing."""


class Different(Exception):
    """An object has the name, and holds other bytes."""

    def __init__(self, found: bytes) -> None:
        super().__init__(len(found))
        self.found = found


class Bucket:
    """The objects under one prefix.

    Each call raises Doubt for what may be different the next time, and ArchiveUnavailableError for
    what will not: no permission, or wrong credentials. Stopped, when it is one with a stop: see
    `until`.
    """

    def __init__(
        self,
        url: str,
        store: Any,
        secrets: Sequence[str] = (),
        process: int | None = None,
        stop: Event | None = None,
    ) -> None:
        """Take a store of obstore, or what has the same calls; ``secrets`` are never shown.

        Only the ``process`` of this number asks it; None: each, also one that was forked.
        """
        self.url = url
        self._process = process
        self._store = store
        self._secrets = tuple(secrets)
        self._stop = Event() if stop is None else stop
        self.said: Callable[[str | None], object] = lambda trouble: None
        self.requests = 0
        """Requests made, about: a listing counts as one."""

    def until(self, stop: Event) -> Bucket:
        """Return the same objects for one who may be told to stop.

        From then on no request is made. One that is under way is left behind, and may still have
        its effect.
        """
        made = Bucket(self.url, self._store, self._secrets, self._process, stop)
        return made.telling(self.said)

    def telling(self, said: Callable[[str | None], object]) -> Bucket:
        """Return it when ``said`` hears of it, as `insist` says, where nobody else does."""
        self.said = said
        return self

    def put_new(self, key: str, body: bytes) -> None:
        """Put an object that is there, with just these bytes, when this returns.

        Raises Different when there is another one.
        """
        answer = "there was no answer"
        try:
            self._ask(lambda: self._store.put(key, body, mode="create", use_multipart=False))
            return
        except Unsynced:
            raise
        except Doubt as doubt:
            answer = str(doubt)
        found = self.get(key)
        if found is None:
            raise Doubt(answer)
        if found != body:
            raise Different(found)

    def get(self, key: str) -> bytes | None:
        """Return the bytes of an object; None when there is none."""
        try:
            return self._ask(lambda: bytes(self._store.get(key).bytes()))
        except FileNotFoundError:
            return None

    def get_object(self, key: ObjectKey) -> bytes:
        """Return the bytes of an object, which are those that its name is of.

        Raises ArchiveDamagedError when it is missing, or holds others.
        """
        fault = "is missing"
        for _ in range(READS):
            found = self.get(str(key))
            if found is not None and key.fits(found):
                return found
            fault = "is missing" if found is None else "holds other bytes than were put"
        raise ArchiveDamagedError(self.url, f"{key} {fault}")

    def ranges(self, key: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes between these offsets, each in one request. Raises FileNotFoundError."""
        return [self._range(key, begin, end) for begin, end in spans]

    def _range(self, key: str, begin: int, end: int) -> bytes:
        found = self._ask(lambda: bytes(self._store.get_range(key, start=begin, end=end)))
        if len(found) != end - begin:
            raise Doubt(f"{key}: {len(found)} bytes came instead of {end - begin}")
        return found

    def list(self, prefix: str) -> dict[str, int]:
        """Return the names of the objects under a prefix, and their sizes."""
        return {one["path"]: one["size"] for one in self._listed(prefix)}

    def times(self, prefix: str) -> dict[str, float]:
        """Return the names of the objects under a prefix, and when each was put.

        In seconds, by the clock of the object store.
        """
        return {one["path"]: one["last_modified"].timestamp() for one in self._listed(prefix)}

    def _listed(self, prefix: str) -> Sequence[Any]:
        return self._ask(
            lambda: [one for some in self._store.list(prefix, chunk_size=1000) for one in some]
        )

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there are none.

        Many in one request, where the object store offers that, or else several at a time.
        """
        for begin in range(0, len(keys), _GROUP):
            group = keys[begin : begin + _GROUP]
            try:
                self._delete(group)
            except FileNotFoundError:  # one of them; what of the others, is not said
                for key in group:
                    with suppress(FileNotFoundError):
                        self._delete([key])

    def _delete(self, keys: Sequence[str]) -> None:
        self._ask(lambda: self._store.delete(list(keys)))

    def _ask(self, request: Callable[[], T]) -> T:
        """Make a request; translate what the store raises, but FileNotFoundError."""
        self.requests += 1
        if self._process not in (None, process_id()):
            raise ArchiveUnavailableError(self.url, FORKED)
        try:
            return call_until(self._stop, request)
        except Left:
            raise Stopped from None
        except FileNotFoundError as error:
            if _NO_BUCKET.search(str(error)):
                raise ArchiveUnavailableError(self.url, "there is no such bucket") from None
            raise
        except OutcomeUnknown as unknown:
            raise self._translated(unknown.error, Unsynced) from None
        except Exception as error:
            raise self._translated(error, Doubt) from None
        except BaseException as error:
            if type(error).__name__ != _PANIC:
                raise
            reason = f"it cannot be asked so: {shown(str(error), self._secrets)}"
            raise ArchiveUnavailableError(self.url, reason) from None

    def _translated(self, error: Exception, doubt: type[Doubt]) -> Exception:
        if _NO_BUCKET.search(str(error)):
            return ArchiveUnavailableError(self.url, "there is no such bucket")
        kind, reason = type(error).__name__, shown(_said(error), self._secrets)
        refusal = refusal_in(kind, str(error))
        if refusal is not None:
            return ArchiveUnavailableError(self.url, f"{refusal}: {reason}")
        is_final = kind in _NEVER or isinstance(error, (TypeError, ValueError))
        if is_final or _NO_REQUEST in reason:
            return ArchiveUnavailableError(self.url, reason)
        return doubt(f"{kind}: {reason}")


_NEVER = frozenset(
    {"UnknownConfigurationKeyError", "InvalidPathError", "NotSupportedError", "JoinError"}
    | {"NotADirectoryError"}  # the place itself is not there
)
_PANIC = "PanicException"
"""What obstore raises, which is no Exception, for an option that does not fit in a request."""
_NO_REQUEST = "builder error"  # of an address with which no request can be made


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


def refusal_in(kind: str, text: str) -> str | None:
    """Return what an error of the object store refuses; None: it may answer the next time.

    Not each request says so by the kind of its error: a listing, for one, does not.
    """
    code = _CODE.search(text)
    if _ROLE in text:
        return "no credentials: none are given, nor in the environment, and the machine has no role"
    if kind == "UnauthenticatedError" or "code: 401" in text or (code and code[1] in _CREDENTIALS):
        return "the credentials are not accepted"
    if kind in ("PermissionDeniedError", "PermissionError") or _DENIED.search(text):
        return "no permission"
    return None


def shown(text: str, secrets: Sequence[str]) -> str:
    """Return an error of the object store as it may be shown: short, and without any secret."""
    text = hidden(text, secrets)
    code = _CODE.search(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    text = _QUERY.sub("?…", lines[0] if lines else "no reason given")
    text = text if len(text) <= _REASON_MAX else text[:_REASON_MAX] + "…"
    return text if code is None else f"{text.partition(': <')[0]}: {code[1]}"


def insist(
    bucket: Bucket,
    call: Callable[[], T],
    stop: Event,
    *,
    patience: float | None = PATIENCE,
    said: Callable[[str | None], object] | None = None,
) -> T:
    """Ask until there is an answer, less and less often.

    For so many seconds; without bound when ``patience`` is None. ``said`` hears why there was none,
    and None when there is one. Raises ArchiveUnavailableError in the end, and Stopped.
    """
    began, pause = monotonic(), _PAUSE
    said = bucket.said if said is None else said
    while True:
        try:
            answer = call()
        except (Doubt, ArchiveUnavailableError) as error:
            reason = error.reason if isinstance(error, ArchiveError) else str(error)
            is_final = isinstance(error, ArchiveUnavailableError)
            if patience is not None and (is_final or monotonic() - began > patience):
                raise ArchiveUnavailableError(bucket.url, reason) from None
            said(reason)
        else:
            said(None)
            return answer
        if stop.wait(uniform(pause / 2, pause)):
            raise Stopped
        pause = min(2 * pause, _PAUSE_MAX)
