"""lines: lines out of pieces, however the input is cut."""

from __future__ import annotations

import io
import pickle

import pytest

from aquipu.cli.streams.lines import LINE_BYTES_MAX, Lines, LineTooLongError
from tests.cli.support import SAMPLE

ODD = b"\n\none\rstill one\x0b\x0c\x1c\x85\r\ntwo\n\rthree\n\n"
"""Every byte that somebody takes for the end of a line."""


def lines_of(*pieces: bytes) -> list[bytes]:
    """All lines of an input that comes in these pieces, also one without an end."""
    lines = Lines()
    found = [line for piece in pieces for line in lines.feed(piece)]
    rest = lines.rest()
    return [*found, rest] if rest else found


def cut(text: bytes, size: int) -> list[bytes]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, len(SAMPLE)])
def test_real_log_lines_are_the_same_however_the_input_is_cut(size: int) -> None:
    """Where the pieces of the input begin and end is nothing that a line could show."""
    assert lines_of(*cut(SAMPLE, size)) == io.BytesIO(SAMPLE).readlines()


@pytest.mark.parametrize("at", range(len(ODD) + 1))
def test_only_a_line_feed_ends_a_line(at: int) -> None:
    """Every other byte is part of the line, wherever the input is cut."""
    expected = [b"\n", b"\n", b"one\rstill one\x0b\x0c\x1c\x85\r\n", b"two\n", b"\rthree\n", b"\n"]
    assert lines_of(ODD[:at], ODD[at:]) == expected


def test_a_line_is_given_by_the_piece_that_completes_it() -> None:
    """Nothing waits for a piece that it does not need, and nothing is given before it is whole."""
    lines = Lines()
    assert lines.feed(b"one\ntwo\nth") == [b"one\n", b"two\n"]
    assert lines.feed(b"re") == []
    assert lines.feed(b"e\n") == [b"three\n"]
    assert lines.feed(b"") == []


def test_the_rest_is_given_once() -> None:
    """A last line without an end is what is left; after that nothing is, and a next line starts
    afresh.
    """
    lines = Lines()
    lines.feed(b"one\nhalf")
    assert lines.rest() == b"half"
    assert lines.rest() == b""
    assert lines.feed(b"two\n") == [b"two\n"]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_line_as_long_as_the_limit(size: int) -> None:
    """The limit counts the line end; a line of just that length passes, however it comes, and so
    does the next.
    """
    lines = Lines(line_bytes_max=5)
    text = b"1234\n" * 3
    assert [line for piece in cut(text, size) for line in lines.feed(piece)] == [b"1234\n"] * 3


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("text", [b"1\n2\n123456\n4\n", b"1\n2\n12345\n4\n", b"1\n2\n123456"])
def test_a_line_that_is_too_long(text: bytes, size: int) -> None:
    """It is refused by its number, however it comes, after all lines before it were given."""
    lines = Lines(line_bytes_max=5)
    found: list[bytes] = []
    with pytest.raises(LineTooLongError) as caught:
        found.extend(line for piece in cut(text, size) for line in lines.feed(piece))
    assert found == [b"1\n", b"2\n"]
    assert (caught.value.number, caught.value.limit) == (3, 5)


def test_a_line_that_is_too_long_is_not_gathered_for_ever() -> None:
    """A line without an end is refused as soon as it is over the limit: memory has one."""
    lines = Lines()
    assert lines.feed(b"one\n") == [b"one\n"]
    assert lines.feed(b"x" * LINE_BYTES_MAX) == []
    with pytest.raises(LineTooLongError):
        lines.feed(b"x")


def test_the_error_says_which_line_and_what_was_lost() -> None:
    """It names the line and the limit, says what was stored, and can be pickled."""
    error = pickle.loads(pickle.dumps(LineTooLongError(2000, 16_000_000)))
    assert str(error) == (
        "line 2000 of standard input is longer than 16,000,000 bytes; it was not stored; "
        "everything before it was"
    )
