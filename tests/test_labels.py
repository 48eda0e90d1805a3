"""labels.py: any text as a label, and back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aquipu.labels import is_label, label, label_text
from aquipu.record import LABEL_BYTES_MAX

awkward = st.text(st.sampled_from("a%0AFf2\n\x00\x85\u2028\ud83d\ude00é😀"), max_size=12)
texts = st.text(st.characters(), max_size=40) | awkward | awkward.map(lambda text: f"aquipu:{text}")
unhurried = settings(deadline=None)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("user:7", "user:7"),
        ("علی\u200cرضا", "علی\u200cرضا"),
        ("100 %", "100 %"),
        ("%", "%"),
        ("%zz", "%zz"),
        ("ada\n", "ada%0A"),
        ("ada%0A", "ada%250A"),
        ("ada%0a", "ada%250a"),
        ("%%41", "%%2541"),
        ("\x85", "%C2%85"),
        ("\u2028", "%E2%80%A8"),
        ("\ud800", "%ED%A0%80"),
        ("aquipu:lost", "%61quipu:lost"),
        ("user:aquipu:lost", "user:aquipu:lost"),
        ("aquipu", "aquipu"),
        ("", "%FF"),
        ("%FF", "%25FF"),
        ("x" * LABEL_BYTES_MAX, "x" * LABEL_BYTES_MAX),
    ],
)
def test_a_text_and_its_label(text: str, made: str) -> None:
    """A text is escaped where it must be, and only there."""
    assert label(text) == made
    assert label_text(made) == text


@unhurried
@given(texts)
def test_any_text_is_a_label_and_comes_back(text: str) -> None:
    """What `label` gives can be stored, and `label_text` gives the text back."""
    made = label(text)
    assert is_label(made)
    assert label_text(made) == text


@unhurried
@given(texts)
def test_a_label_that_needs_no_escape_stays(text: str) -> None:
    """What is a label and holds no escape is its own label, so labels that were stored before are
    found.
    """
    if is_label(text) and "%" not in text:
        assert label(text) == text


@unhurried
@given(
    st.text(st.sampled_from("a\n%é😀\ud800"), min_size=LABEL_BYTES_MAX + 1, max_size=3000),
    st.integers(0, 1_000),
)
def test_a_long_text_is_cut(text: str, at: int) -> None:
    """Its label is as long as labels may be, begins as the text does, and is of no other text."""
    made = label(text)
    assert is_label(made)
    assert len(made.encode()) > LABEL_BYTES_MAX - 12
    assert made != label(text[:-1])
    assert made != label(f"{text}x")
    assert made != label(f"{text[:at]}b{text[at + 1 :]}")
    with pytest.raises(ValueError, match="was cut"):
        label_text(made)


@pytest.mark.parametrize(
    "text", ["x" * 1025, "é" * 513, "x" * 1022 + "\n", "\n" * 342, "aquipu:" + "x" * 1016]
)
def test_the_shortest_texts_that_are_cut(text: str) -> None:
    """A text is cut when its label would be over the limit, of which the escapes count as they are
    written.
    """
    with pytest.raises(ValueError, match="was cut"):
        label_text(label(text))
    assert label_text(label(text[:-1])) == text[:-1]


def test_a_cut_label_is_made_of_no_other_text() -> None:
    """Who knows how labels are cut cannot write the label of somebody else's text."""
    cut = label("x" * 5000)
    assert label(cut) != cut
    assert label(cut[:-1]) != cut[:-1]


@pytest.mark.parametrize("text", ["", "\n", "x" * 1025, "aquipu:x", "\ud800"])
def test_what_is_no_label(text: str) -> None:
    """It is said beforehand, without an error."""
    assert not is_label(text)
