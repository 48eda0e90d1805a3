"""What is stored in place of what cannot be."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from aquipu import label, label_text
from aquipu.contrib.shared.altered import LABELS_MAX, Labels, as_record, labels_of
from aquipu.contrib.shared.entry import Entry
from aquipu.record import LABELS_MAX as OF_A_RECORD
from aquipu.record import checked_relations


class Unspeakable:
    """Has no text."""

    def __str__(self) -> str:
        raise ValueError


def of(given: Any) -> Labels:
    return labels_of(lambda subject: given, None)


# labels


@pytest.mark.parametrize(
    "given", [(), ("user:7", "a b"), ["user:7"], ("x%0A",), ("علی\u200cرضا",), ("x" * 1024,)]
)
def test_labels_as_they_are(given: Any) -> None:
    """What is a label stays what it is, also if it looks escaped: whoever called `label` is not
    escaped again.
    """
    assert of(given) == (tuple(given), False, None)


@pytest.mark.parametrize(
    "text", ["", "two\nlines", "\x00", "\ud800", "\u2028", "x" * 1025, "é" * 513, "aquipu:lost"]
)
def test_a_text_that_is_no_label(text: str) -> None:
    """It is made one as by `label`, beside the others."""
    found = of(("before", text, "behind"))
    assert checked_relations(found.labels) == found.labels
    assert found == (("before", label(text), "behind"), True, None)


@pytest.mark.parametrize(
    ("given", "text"), [(7, "7"), (None, "None"), (b"x", "b'x'"), (Unspeakable(), "<Unspeakable>")]
)
def test_what_is_no_text_among_labels(given: object, text: str) -> None:
    """It is written as its str, and that is said."""
    assert of([given]) == ((text,), True, None)


@pytest.mark.parametrize(
    ("number", "is_altered"), [(254, False), (255, False), (256, True), (300, True)]
)
def test_more_labels_than_a_record_carries(number: int, is_altered: bool) -> None:
    """The first 255 are kept."""
    found = of(f"tag:{each}" for each in range(number))
    assert found == (
        tuple(f"tag:{each}" for each in range(min(number, OF_A_RECORD))),
        is_altered,
        None,
    )


def test_labels_without_an_end() -> None:
    """No more are asked for than are kept, and one to see that there are more."""
    numbers = count()
    found = labels_of(lambda subject: (f"{number}" for number in numbers), None)
    assert len(found.labels) == LABELS_MAX == OF_A_RECORD
    assert next(numbers) == LABELS_MAX + 1


def test_labels_that_break_off() -> None:
    """What was given before the function raised is kept, and the error with it."""

    def two(subject: None) -> Iterator[str]:
        yield from ("user:7", "document:42")
        raise KeyError("third")

    labels, is_altered, error = labels_of(two, None)
    assert (labels, is_altered, type(error)) == (("user:7", "document:42"), True, KeyError)


@pytest.mark.parametrize("given", ["user:7", b"user:7", None, 7])
def test_what_is_no_collection_of_labels(given: object) -> None:
    """That is a mistake of the program, and named as one; a text is not taken for the labels u, s,
    e, r.
    """
    labels, is_altered, error = of(given)
    assert (labels, is_altered, type(error)) == ((), True, TypeError)


# entries


def stored(entry: Entry, bytes_max: int | None = None) -> Any:
    """What a reader finds; it must be JSON as everybody understands it."""
    data = as_record(entry, bytes_max)
    assert bytes_max is None or len(data) <= bytes_max
    return json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def nested() -> Any:
    """Holds itself."""
    inner: list[Any] = []
    inner.append(inner)
    return inner


def deep() -> Any:
    """Deeper than the interpreter can follow."""
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        {(1, 2): 3},
        nested(),
        deep(),
        Unspeakable(),
        [Unspeakable()],
        10**5000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_json_does_not_know(value: object) -> None:
    """It is written as text, the others stay, and it is named."""
    found = stored({"id": "1", "actor": value, "status": 200})
    assert isinstance(found.pop("actor"), str)
    assert found == {"id": "1", "status": 200, "altered": ["actor"]}


def test_a_name_that_json_does_not_know() -> None:
    """It is written as text too."""
    assert stored({"id": "1", (1, 2): 3}) == {"id": "1", "(1, 2)": 3, "altered": ["(1, 2)"]}  # type: ignore[dict-item]


def test_an_entry_that_fits() -> None:
    """Nothing is altered at exactly the limit."""
    entry = {"id": "1", "path": "/" + "a" * 100}
    size = len(as_record(entry))
    assert stored(entry, size) == entry
    assert stored(entry, size - 1)["altered"] == ["path"]


@pytest.mark.parametrize("character", ["a", "\0", "é", "😀", "\ud800", '"'])
def test_a_text_is_cut(character: str) -> None:
    """The entry holds as much of it as fits, or nearly, whatever JSON makes of its characters."""
    text = character * 10_000
    found = stored({"id": "1", "path": text, "status": 200}, 2000)
    assert text.startswith(found["path"])
    assert len(as_record(found)) > 1800
    assert (found["id"], found["status"], found["altered"]) == ("1", 200, ["path"])


def test_the_largest_is_cut_first() -> None:
    """A body gives way to the limit before a path, and a path before the rest."""
    body = {"bytes": 9000, "truncated": False, "text": "b" * 9000}
    entry = {
        "id": "1",
        "path": "p" * 900,
        "request_headers": {"host": "h" * 100},
        "request_body": body,
    }
    found = stored(entry, 3000)
    assert found["altered"] == ["request_body"]
    assert (found["request_body"]["bytes"], found["request_body"]["truncated"]) == (9000, True)
    assert found["path"] == entry["path"]
    assert stored(entry, 400)["altered"] == ["request_body", "path"]
    assert stored(entry, 110) == {"id": "1", "altered": ["request_body", "path", "request_headers"]}


@pytest.mark.parametrize("limit", range(300, 330))
def test_a_body_in_base64_is_cut(limit: int) -> None:
    """What is left can still be decoded, and is the beginning."""
    data = bytes(range(256)) * 10
    found = stored(
        {
            "id": "1",
            "response_body": {
                "bytes": 2560,
                "truncated": False,
                "base64": b64encode(data).decode(),
            },
        },
        limit,
    )
    left = b64decode(found["response_body"]["base64"], validate=True)
    assert len(left) > 80
    assert data.startswith(left)


def test_a_record_that_holds_no_entry_at_all() -> None:
    """By what an entry is known is never cut: the store says what it thinks of that."""
    assert json.loads(as_record({"id": "1", "method": "POST", "path": "/"}, 10))["id"] == "1"


def test_what_was_altered_before() -> None:
    """Is still said, once."""
    entry = {"id": "1", "path": "p" * 900, "altered": ["relations", "path"]}
    assert stored(entry, 300)["altered"] == ["relations", "path"]


def test_labels_of_hostile_texts_can_be_read_back() -> None:
    """The text of an altered label is not lost."""
    assert [label_text(each) for each in of(["a\nb", "aquipu:lost"]).labels] == [
        "a\nb",
        "aquipu:lost",
    ]
