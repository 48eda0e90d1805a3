"""record.py: what may be stored, and what comes back."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aquipu.labels import is_label
from aquipu.policy import Stage
from aquipu.record import (
    LABEL_BYTES_MAX,
    LABELS_MAX,
    Receipt,
    Record,
    checked_data,
    checked_labels,
    checked_relations,
    labels_size,
    plain_size,
)

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@unhurried
@given(st.binary(max_size=64))
def test_bytes_and_what_is_like_them(data: bytes) -> None:
    """bytes, bytearray and memoryview are taken, and become the same plain bytes."""
    for given_data in (data, bytearray(data), memoryview(data), memoryview(bytearray(data))):
        checked = checked_data(given_data)
        assert type(checked) is bytes
        assert checked == data


def test_bytes_are_not_copied() -> None:
    """bytes cannot change, so they are kept as they are."""
    data = b"one" * 100
    assert checked_data(data) is data


def test_a_buffer_is_used_again() -> None:
    """What was taken stays as it was when the caller writes into its buffer."""
    buffer = bytearray(b"first")
    taken = [checked_data(buffer), checked_data(memoryview(buffer))]
    buffer[:] = b"later"
    assert taken == [b"first", b"first"]


def test_a_view_with_gaps_or_wide_items() -> None:
    """A memoryview is taken by its bytes, whatever its strides and its items are."""
    assert checked_data(memoryview(b"a-b-c-")[::2]) == b"abc"
    wide = array("I", [1, 2])
    assert checked_data(memoryview(wide)) == wide.tobytes()


@pytest.mark.parametrize(
    "data", ["secret", None, ["secret"], [115, 101], 7, 0.5, array("B", b"secret"), object()]
)
def test_data_that_is_no_bytes(data: object) -> None:
    """Anything else is a TypeError that names the type and tells nothing of the data."""
    with pytest.raises(TypeError, match=type(data).__name__) as caught:
        checked_data(data)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "relations",
    [
        (),
        ("user:7",),
        ("user:7", "document:42", "user:7"),
        ("with space", "schlüssel", "鍵", "🔑"),
        ("x" * LABEL_BYTES_MAX,),
        ("é" * (LABEL_BYTES_MAX // 2),),
        tuple(f"label {number}" for number in range(LABELS_MAX)),
    ],
)
def test_labels_as_any_collection(relations: tuple[str, ...]) -> None:
    """Labels come as any iterable and are kept in their order, twice where they are given twice."""
    for collection in (relations, list(relations), (label for label in relations)):
        assert checked_relations(collection) == relations


@pytest.mark.parametrize(
    ("relations", "error", "words"),
    [
        ("user:7", TypeError, "written as a tuple"),
        (b"user:7", TypeError, "written as a tuple"),
        (None, TypeError, "not iterable"),
        (7, TypeError, "not iterable"),
        ((b"user:7",), TypeError, "not bytes"),
        (("user:7", None), TypeError, "not NoneType"),
        (("user:7", 7), TypeError, "not int"),
        (("user:7", ""), ValueError, "not empty"),
        (("two\nlines",), ValueError, "control character"),
        (("\x00",), ValueError, "control character"),
        (("half \ud800",), ValueError, "lone surrogate"),
        (("x" * (LABEL_BYTES_MAX + 1),), ValueError, "at most 1024 bytes"),
        (("é" * (LABEL_BYTES_MAX // 2) + "x",), ValueError, "at most 1024 bytes"),
        (("😀" * (LABEL_BYTES_MAX // 4) + "x",), ValueError, "at most 1024 bytes"),
        (("x",) * (LABELS_MAX + 1), ValueError, "at most 255 labels"),
        (("aquipu:lost",), ValueError, "does not begin with 'aquipu:'"),
        (("user:7", "aquipu:"), ValueError, "does not begin with 'aquipu:'"),
    ],
)
def test_labels_that_cannot_be_stored(
    relations: object, error: type[Exception], words: str
) -> None:
    """A label is a non-empty str of at most 1,024 bytes, on one line and without control
    characters; a record has at most 255 of them, and none that only the engine gives.
    """
    with pytest.raises(error, match=words):
        checked_relations(cast("Iterable[str]", relations))


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", max_codepoint=0x2FF), max_size=3)
        | st.sampled_from(["aquipu:", "aquipu", ":lost", "user:7", "x" * 128, "x" * 256, "\n"]),
        max_size=4,
    )
    | st.integers(250, 260).map(lambda count: ["x"] * count)
)
def test_labels_that_need_no_closer_look(labels: list[str]) -> None:
    """What is taken for plain at the first look is allowed, and has as many bytes as was said."""
    size = plain_size(tuple(labels))
    if size:
        assert checked_labels(labels) == tuple(labels)
        assert not any(label.startswith("aquipu:") for label in labels)
        assert size == labels_size(tuple(labels))


@pytest.mark.parametrize("labels", [("user:7",), ("user:7", "route:/orders", "status:201")])
def test_most_labels_need_no_closer_look(labels: tuple[str, ...]) -> None:
    """Labels of ASCII as services give them are plain."""
    assert plain_size(labels) == sum(map(len, labels))


def test_labels_that_are_no_text_need_a_closer_look() -> None:
    """It is the closer look that says what is wrong with them."""
    assert plain_size(cast("tuple[str, ...]", ("user:7", 7))) == 0


def test_what_is_a_label_is_the_same_everywhere() -> None:
    """Of all code points, those that stand in no label are a fixed list, whatever the interpreter's
    Unicode knows.
    """
    refused: set[int] = set()
    for block in range(0, sys.maxunicode + 1, 64):
        points = range(block, block + 64)
        if not is_label("".join(map(chr, points))):
            refused.update(point for point in points if not is_label(f"x{chr(point)}"))
    assert refused == {*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0xD800, 0xE000)}


def test_what_was_a_label_is_one() -> None:
    """Earlier versions took what is printable: a store that holds such labels can still be asked
    for them.
    """
    points = [*range(0x110), *range(0x2000, 0x2070), *range(0xFE00, 0xFF00), 0xE0001, 0x1FAE8]
    assert [p for p in points if chr(p).isprintable() and not is_label(chr(p))] == []


@pytest.mark.parametrize(
    "label",
    [
        "علی\u200cرضا",  # ZWNJ, without which it is another name
        "👩\u200d💻",  # ZWJ
        "10\u00a0km",  # NBSP
        "\ufeffmarked",  # BOM
        "\u202eright to left",
        "\u00adsoft",
        "e\u0301",
        "\u0378",  # assigned to nothing
        "\U0010ffff",
        "\ue000",  # private use
        "mood:\U0001fae8",  # since Unicode 15
        "Aquipu:lost",
        "aquipu",
    ],
)
def test_names_are_labels(label: str) -> None:
    """What people and things are called needs no printable characters of a version of Unicode."""
    assert checked_relations((label,)) == (label,)


def test_labels_of_the_engine_can_be_asked_for() -> None:
    """Nobody gives them to a record, and everybody may look for the records that carry them."""
    assert checked_labels(("aquipu:lost",)) == ("aquipu:lost",)


@pytest.mark.parametrize("label", ["secret\n", "secret" * 200, "aquipu:secret"])
def test_a_refused_label_is_not_repeated(label: str) -> None:
    """The message about a label does not hold it: it belongs to the record."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        checked_relations((label,))
    assert "secret" not in str(caught.value)


def test_the_fields_in_their_order() -> None:
    """Receipt and Record are tuples whose fields have a fixed order; a record has no relations
    unless it was given some.
    """
    assert Receipt(7, 8, Stage.SYNCED)._asdict() == {
        "sequence": 7,
        "timestamp": 8,
        "stage": Stage.SYNCED,
    }
    assert Record(7, 8, b"one")._asdict() == {
        "sequence": 7,
        "timestamp": 8,
        "data": b"one",
        "relations": (),
    }
    fields: dict[str, Any] = Record(7, 8, b"one", ("user:7",))._asdict()
    assert fields["relations"] == ("user:7",)
