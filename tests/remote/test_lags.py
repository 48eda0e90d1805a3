"""remote/lags: how far consumers are behind, as a daemon says it."""

from __future__ import annotations

import pytest

from aquipu.record import Lag
from aquipu.remote.lags import lags_in
from aquipu.remote.protocol import Message, WireError


def test_an_answer() -> None:
    """By the name of each cursor: its sequence, records and seconds."""
    message = Message({}, b'{"a": [4, 6, 0.5], "b": [10, 0, 0]}')
    assert lags_in(message) == {"a": Lag(4, 6, 0.5), "b": Lag(10, 0, 0.0)}


@pytest.mark.parametrize(
    "said", [b"", b"[]", b"1", b'{"a": 1}', b'{"a": [1, 2]}', b'{"a": ["x", 1, 2]}', b"{"]
)
def test_an_answer_that_says_something_else(said: bytes) -> None:
    """It is an error of the connection, whatever it is."""
    with pytest.raises(WireError):
        lags_in(Message({}, said))
