"""What the answers of an object store are worth, and what is shown of them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from threading import Event

import pytest

from aquipu.archive.bucket import Bucket, Different, Doubt, insist, refusal_in, shown
from aquipu.archive.errors import ArchiveDamagedError, ArchiveUnavailableError
from aquipu.archive.format.keys import Kind, ObjectKey
from aquipu.local.backup.pace import Stopped
from tests.archive.faulty import DeniedBucket, FaultyBucket, MemoryBucket
from tests.archive.made import URL, impatient

KEY = ObjectKey.of(bytes(16), 0, 3, b"bytes", Kind.SEGMENT)


@pytest.mark.parametrize("fault", ["lost behind", "said to be there"])
def test_an_answer_that_was_lost_is_looked_for(fault: str) -> None:
    """What was put is found, whatever the answer was: it is put once."""
    store = FaultyBucket(Random(1), 1.0, (fault,))
    Bucket(URL, store).put_new("a", b"mine")
    assert store.puts == {"a": [b"mine"]}


@pytest.mark.parametrize("fault", ["lost before", "refused"])
def test_what_is_not_there_was_not_put(fault: str) -> None:
    """An error that left nothing behind is in doubt: it is to be put again."""
    store = FaultyBucket(Random(1), 1.0, (fault,))
    with pytest.raises(Doubt):
        Bucket(URL, store).put_new("a", b"mine")
    assert store.objects == {}


def test_another_object_has_the_name() -> None:
    """Nothing is ever put in place of another object."""
    store = MemoryBucket()
    store.objects["a"] = b"another's"
    with pytest.raises(Different):
        Bucket(URL, store).put_new("a", b"mine")
    assert store.objects == {"a": b"another's"}


def test_an_object_that_does_not_check() -> None:
    """Bytes that are not those of the name are asked for again, and then called damaged."""
    store = FaultyBucket(Random(3), 0.5, ("truncated", "swapped"))
    store.objects = {str(KEY): b"bytes", "other": b"other bytes"}
    bucket = Bucket(URL, store)
    found = [bucket.get_object(KEY) for _ in range(3)]
    assert set(found) == {b"bytes"}
    assert store.counts
    store.objects[str(KEY)] = b"other"
    with pytest.raises(ArchiveDamagedError, match="holds other bytes"):
        bucket.get_object(KEY)
    del store.objects[str(KEY)]
    with pytest.raises(ArchiveDamagedError, match="is missing"):
        bucket.get_object(KEY)


class PanicException(BaseException):
    """What a library that is not written in Python raises when it is at its wit's end."""


@pytest.mark.parametrize(
    "error",
    [
        PanicException("called `Result::unwrap()` on an `Err` value: InvalidPort"),
        OSError("HTTP error: builder error"),
    ],
)
def test_what_will_be_no_different_the_next_time(error: BaseException) -> None:
    """Nobody who has patience for a minute waits for it; the archive of a store goes on asking."""
    store = MemoryBucket()
    bucket, asked = Bucket(URL, store), 0

    def get(key: str) -> bytes:
        nonlocal asked
        asked += 1
        raise error

    store.get = get  # type: ignore[method-assign,assignment]
    with pytest.raises(ArchiveUnavailableError):
        insist(bucket, lambda: bucket.get("a"), Event())
    assert asked == 1


class OneByOne(MemoryBucket):
    """Ends at the first object that is not there, as a store without bulk deletion does."""

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            super().delete([key])
            if key.startswith("missing"):
                raise FileNotFoundError(key)


@pytest.mark.parametrize("kind", [MemoryBucket, OneByOne])
def test_many_are_removed_at_a_time(kind: type[MemoryBucket]) -> None:
    """In few requests, and also behind one that is not there."""
    store = kind()
    keys = [f"{number}" for number in range(2_500)]
    store.objects = dict.fromkeys([*keys, "other"], b"body")
    bucket = Bucket(URL, store)
    bucket.remove(keys)
    assert bucket.requests == 3
    assert store.objects == {"other": b"body"}
    store.objects |= dict.fromkeys(keys, b"body")
    bucket.remove(["missing", *keys[:10], "missing, too", *keys[10:]])
    assert store.objects == {"other": b"body"}
    bucket.remove([])


def test_what_was_removed_in_part() -> None:
    """After a request in doubt nothing is taken for removed: asked again, the rest goes."""
    store = FaultyBucket(Random(1), 1.0, ("refused",))
    store.objects = dict.fromkeys("abcdef", b"body")
    with pytest.raises(Doubt):
        Bucket(URL, store).remove("abcdef")
    assert store.objects
    store.share = 0.0
    Bucket(URL, store).remove("abcdef")
    assert store.objects == {}


def test_no_permission() -> None:
    """It is said at once, and without a word of what was secret."""
    bucket = Bucket(URL, DeniedBucket(), ["secret-of-the-bucket"])
    with pytest.raises(ArchiveUnavailableError, match="no permission") as raised:
        bucket.put_new("a", b"mine")
    assert "AKIAEXAMPLE" not in str(raised.value)
    assert "secret-of" not in str(raised.value)
    assert raised.value.__cause__ is None


GENERIC = "Error performing list request: - Server returned non-2xx status code: "


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("GenericError", f"{GENERIC}403 Forbidden: <Code>AccessDenied</Code>", "no permission"),
        ("PermissionDeniedError", "whatever", "no permission"),
        ("GenericError", "Unable to walk dir: Permission denied (os error 13)", "no permission"),
        ("GenericError", f"{GENERIC}403 Forbidden: <Code>InvalidAccessKeyId</Code>", "credentials"),
        ("GenericError", f"{GENERIC}400 Bad Request: <Code>ExpiredToken</Code>", "credentials"),
        ("GenericError", f"{GENERIC}401 Unauthorized", "credentials"),
        ("GenericError", "DeleteObjects failed for key b: Denied (code: AccessDenied)", "no perm"),
        ("UnauthenticatedError", "whatever", "the credentials are not accepted"),
        ("GenericError", "PUT http://169.254.169.254/latest/api/token", "no credentials: none"),
        ("GenericError", f"{GENERIC}503 Slow Down: <Code>SlowDown</Code>", None),
        ("GenericError", "operation timed out", None),
    ],
)
def test_refusals(kind: str, text: str, words: str | None) -> None:
    """What will be refused the next time as well is not asked again, whichever request it was."""
    said = refusal_in(kind, text)
    assert (said is None) == (words is None)
    assert words is None or (said is not None and words in said)


def test_what_is_shown_of_an_error() -> None:
    """The first line, without queries of addresses and without secrets, and not too long."""
    said = shown("at https://host/key?sig=abc: the-key is wrong\n\nDebug", ["the-key"])
    assert said == "at https://host/key?… … is wrong"
    assert len(shown("x" * 1000, [])) == 301


def test_an_object_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked until it answers, or until patience ends, or until all is to stop."""
    impatient(monkeypatch)
    bucket, answers = Bucket(URL, MemoryBucket()), iter([Doubt("503"), Doubt("503")])
    said: list[str | None] = []

    def call() -> str:
        for error in answers:
            raise error
        return "well"

    assert insist(bucket, call, Event(), patience=None, said=said.append) == "well"
    assert said == ["503", "503", None]

    def away() -> None:
        raise Doubt("503")

    with pytest.raises(ArchiveUnavailableError, match="503"):
        insist(bucket, away, Event(), patience=0.0)
    stop = Event()
    stop.set()
    with pytest.raises(Stopped):
        insist(bucket, away, stop, patience=None)
