"""protocol.py: messages as bytes and back, whole, in pieces, damaged; records and errors."""

from __future__ import annotations

import json
from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aquipu import errors
from aquipu.errors import AquipuError, StoreFailedError, StoreFullError, StoreUnavailableError
from aquipu.local.format.frame import encode
from aquipu.local.format.structure import extend
from aquipu.policy import Stage
from aquipu.record import Key, Record
from aquipu.remote.protocol import (
    HEAD_BYTES_MAX,
    Head,
    Message,
    Messages,
    Stored,
    Welcome,
    WireError,
    commit_in,
    encoded,
    error_head,
    error_in,
    number_in,
    page_in,
    page_of,
    progress_in,
    raise_if_error,
    records_of_commit,
    stage_in,
    stored_in,
    value_in,
    value_of,
    welcome_in,
)

TAIL_BYTES_MAX = 1 << 20
PROPERTY = settings(deadline=None)
ADDRESS = "unix:/run/audit.sock"
SOME = [
    Message({"hello": 1, "writer": "00" * 16}, b""),
    Message({"id": 1, "do": "commit", "number": 7, "stage": 3}, b"\0\xff" * 40),
    Message({}, b"x"),
    Message({"id": 2, "do": "page", "relation": ["märz:7", '"']}, b""),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
HEADS: st.SearchStrategy[Head] = st.dictionaries(st.text(), JSON, max_size=4)
LABELS = st.text("abcdefghijklmnopqrstuvwxyzäß:0123456789", min_size=1, max_size=12)
RECORDS = st.lists(
    st.builds(
        Record,
        st.integers(0, (1 << 64) - 1),
        st.integers(0, (1 << 64) - 1),
        st.binary(max_size=200),
        st.lists(LABELS, max_size=3).map(tuple),
    ),
    max_size=8,
)


def fed(*pieces: bytes) -> list[Message]:
    """The messages in these pieces, one piece after another."""
    messages = Messages(TAIL_BYTES_MAX)
    return [message for piece in pieces for message in messages.feed(piece)]


def written(messages: list[Message]) -> bytes:
    return b"".join(encoded(message.head, [message.tail]) for message in messages)


# messages


@PROPERTY
@given(st.lists(st.builds(Message, HEADS, st.binary(max_size=300)), max_size=4), st.data())
def test_messages_come_out_of_pieces_of_any_size(
    messages: list[Message], data: st.DataObject
) -> None:
    """Whatever was said is heard, however the bytes come."""
    whole = written(messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [
        whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)
    ]
    assert fed(*pieces) == messages


def test_messages_come_out_of_single_bytes() -> None:
    """A message is given with its last byte."""
    whole = written(SOME)
    assert fed(*(whole[at : at + 1] for at in range(len(whole)))) == SOME


def test_a_stream_that_is_cut_gives_the_messages_before() -> None:
    """At whatever offset: the whole messages are given, and the half one is neither given nor an
    error.
    """
    ends = [len(written(SOME[: count + 1])) for count in range(len(SOME))]
    whole = written(SOME)
    for cut in range(len(whole)):
        assert fed(whole[:cut]) == SOME[: sum(end <= cut for end in ends)]


def test_a_tail_of_several_pieces_is_one() -> None:
    """The bytes of a tail need not be joined before they are sent."""
    assert fed(encoded({"id": 1}, [b"ab", b"", b"c"])) == [Message({"id": 1}, b"abc")]


@pytest.mark.parametrize(
    "garbage",
    [b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", pack("<II", 3, 0) + b"[1]", pack("<II", 1, 0) + b"{"],
)
def test_garbage_behind_messages(garbage: bytes) -> None:
    """What came before it is given; and it is an error at once."""
    messages = Messages(TAIL_BYTES_MAX)
    heard: list[Message] = []
    with pytest.raises(WireError):
        heard.extend(messages.feed(written(SOME) + garbage))
    assert heard == SOME


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"{",
        b"nothing",
        b"7",
        b"[]",
        b"null",
        b'"a"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 10_000,
    ],
)
def test_a_head_that_is_no_object_of_json(head: bytes) -> None:
    """It is a WireError, also where the parser gives up for another reason than a wrong letter."""
    with pytest.raises(WireError):
        fed(pack("<II", len(head), 0) + head)


@pytest.mark.parametrize(
    ("head", "tail"), [(HEAD_BYTES_MAX + 1, 0), (0, TAIL_BYTES_MAX + 1), (0xFFFFFFFF, 0xFFFFFFFF)]
)
def test_a_size_that_no_message_has(head: int, tail: int) -> None:
    """It is refused by its eight bytes: nothing is kept in the hope of the rest."""
    with pytest.raises(WireError, match="larger than any"):
        fed(pack("<II", head, tail))


def test_a_tail_may_be_as_large_as_is_allowed() -> None:
    """The limit itself passes."""
    assert fed(encoded({}, [bytes(TAIL_BYTES_MAX)])) == [Message({}, bytes(TAIL_BYTES_MAX))]


def test_a_head_that_nobody_would_read_is_not_sent() -> None:
    """Whoever says too much is told, before anything is sent."""
    with pytest.raises(ValueError, match="more than a message takes"):
        encoded({"prefix": "x" * HEAD_BYTES_MAX})


def test_every_bit_flipped_of_a_message() -> None:
    """No error but a WireError comes of it, whatever else is understood then."""
    whole = encoded({"id": 1, "do": "page", "start": 5}, [b"tail"])
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            fed(bytes(changed))
        except WireError:
            continue


# records


@PROPERTY
@given(RECORDS)
def test_a_page_gives_the_records_with_their_sequences(records: list[Record]) -> None:
    """Sequences, times, data and labels, in their order."""
    assert page_in(b"".join(page_of(records))) == records


@PROPERTY
@given(RECORDS)
def test_a_commit_gives_data_and_labels(records: list[Record]) -> None:
    """Sequences and times are the daemon's to give."""
    labels = {index: record.relations for index, record in enumerate(records) if record.relations}
    payloads = [record.data for record in records]
    tail = b"".join(records_of_commit(payloads, [record.timestamp for record in records], labels))
    assert commit_in(tail) == (payloads, labels)


COMMIT = b"".join(records_of_commit([b"one", b"three"], [1, 2], {1: ("user:7",)}))
PAGE = b"".join(page_of([Record(3, 1, b"one", ("user:7",)), Record(9, 2, b"")]))


def test_every_bit_flipped_of_a_commit_is_noticed() -> None:
    """A commit that is not what was sent is refused."""
    for bit in range(8 * len(COMMIT)):
        changed = bytearray(COMMIT)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            commit_in(bytes(changed))


@pytest.mark.parametrize(("tail", "decode"), [(COMMIT, commit_in), (PAGE, page_in)])
def test_a_tail_cut_at_every_offset_is_noticed(tail: bytes, decode: Any) -> None:
    """Also one with more behind it."""
    for cut in range(len(tail)):
        with pytest.raises(WireError):
            decode(tail[:cut])
    with pytest.raises(WireError):
        decode(tail + b"\0")


def test_a_frame_whose_columns_do_not_fit() -> None:
    """A frame with sound checksums that no writer makes is refused as well."""
    seed = 0x77697265
    good = encode([b"x"], [1], first_sequence=0, time=0, watermark=0, link=0, seed=seed).buffers
    assert commit_in(b"".join(good)) == ([b"x"], {})
    keyed = encode(
        [],
        [],
        keys=[Key(bytes(16), 1, 0, 9)] * 2,
        first_sequence=0,
        time=0,
        watermark=0,
        link=0,
        seed=seed,
    )
    assert commit_in(b"".join(keyed.buffers)) == ([], {})  # a key says nothing here
    lying = encode(
        [b"abcd"], [2], labels={0: ("x",)}, first_sequence=0, time=0, watermark=0, link=0, seed=seed
    )
    header, body = bytearray(lying.buffers[0]), lying.buffers[1]
    header[4] = 0  # the flags without their column
    header[-4:] = pack("<I", extend(seed, bytes(header[:-4])))
    with pytest.raises(WireError, match="do not fill"):
        commit_in(bytes(header) + body)


# what is said


@PROPERTY
@given(st.integers(0, (1 << 64) - 1))
def test_numbers(number: int) -> None:
    """Every u64 is one."""
    assert number_in({"n": number}, "n") == number


@pytest.mark.parametrize("number", [-1, 1 << 64, True, None, 1.0, "1", []])
def test_what_is_no_number(number: object) -> None:
    with pytest.raises(WireError):
        number_in({"n": number}, "n")


@pytest.mark.parametrize(
    "head", [{}, {"stage": 0}, {"stage": 6}, {"stage": None}, {"stage": []}, {"stage": "SYNCED"}]
)
def test_what_is_no_stage(head: Head) -> None:
    with pytest.raises(WireError):
        stage_in(head)


@pytest.mark.parametrize(
    "standing", [None, [], [1, 2], [1, 2, 3, 4], [1, 2, "3"], "123", {"first": 1}]
)
def test_what_does_not_say_how_far_the_log_has_come(standing: object) -> None:
    with pytest.raises(WireError):
        progress_in({"standing": standing})


@pytest.mark.parametrize("outcome", [None, "absent", "unknown", Stored(7, 8, Stage.FLUSHED)])
def test_a_welcome_there_and_back(outcome: Stored | str | None) -> None:
    """What the daemon says of its store is what the client hears."""
    welcome = Welcome(Stage.SYNCED, 1, 2, 3, (4, 5, 6), outcome)
    (heard,) = fed(encoded(welcome._asdict()))
    assert welcome_in(heard.head) == welcome


@pytest.mark.parametrize(
    "change",
    [
        {"stage": 9},
        {"standing": 7},
        {"buffer_bytes": None},
        {"outcome": []},
        {"outcome": [1, 2]},
        {"outcome": "perhaps"},
        {"outcome": {}},
    ],
)
def test_a_welcome_that_makes_no_sense(change: Head) -> None:
    head = json.loads(json.dumps(Welcome(Stage.SYNCED, 1, 2, 3, (4, 5, 6), None)._asdict()))
    with pytest.raises(WireError):
        welcome_in(head | change)


def test_where_a_commit_is_there_and_back() -> None:
    stored = Stored(1 << 63, 5, Stage.SYNCED)
    assert stored_in(json.loads(json.dumps(stored._asdict()))) == stored


@PROPERTY
@given(JSON)
def test_values_there_and_back(value: object) -> None:
    """What a method gives, as JSON knows it."""
    assert value_in(b"".join(value_of(value))) == value


# errors


def sample(kind: type[AquipuError]) -> AquipuError:
    """One error of this class, with arguments of the types that it takes."""
    count = kind.__init__.__code__.co_argcount - 1 if kind is not AquipuError else 1
    types = {
        "pid": 7,
        "offset": 8,
        "sequence": 9,
        "records": 10,
        "bytes": 11,
        "size": 12,
        "limit": 13,
        "bound": 14,
    }
    names = (
        kind.__init__.__code__.co_varnames[1 : 1 + count] if kind is not AquipuError else ("text",)
    )
    return kind(*(types.get(name, f"the {name} \udc80") for name in names))


KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, AquipuError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_of_the_tree_there_and_back(kind: type[AquipuError]) -> None:
    """The same class, arguments and message."""
    error = sample(kind)
    (heard,) = fed(encoded({"error": error_head(error)}))
    back = error_in(heard.head["error"], ADDRESS)
    assert type(back) is kind
    assert (back.args, str(back), back.__cause__) == (error.args, str(error), None)


@pytest.mark.parametrize(
    ("cause", "back"),
    [
        (OSError(28, "No space left"), (28, "No space left")),
        (OSError("odd"), ("odd",)),
        (KeyError("k"), ("'k'",)),
    ],
)
def test_the_cause_of_an_error_there_and_back(cause: Exception, back: tuple[object, ...]) -> None:
    """It is an OSError with its number, so that a caller may look at it."""
    error = StoreFullError("path", 7, "full")
    error.__cause__ = cause
    heard = error_in(json.loads(json.dumps(error_head(error))), ADDRESS)
    assert type(heard.__cause__) is OSError
    assert heard.__cause__.args == back


@pytest.mark.parametrize(
    "error",
    [TypeError("no"), ValueError("neither"), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad")],
)
def test_an_argument_that_is_refused(error: Exception) -> None:
    """TypeError and ValueError stay what they are."""
    heard = error_in(json.loads(json.dumps(error_head(error))), ADDRESS)
    assert type(heard) is (TypeError if isinstance(error, TypeError) else ValueError)
    assert str(heard) == str(error)


@pytest.mark.parametrize(
    "head",
    [
        *(
            {},
            [],
            None,
            7,
            "text",
            {"kind": "AquipuError"},
            {"kind": [], "arguments": [], "cause": None},
        ),
        *(
            {"kind": "SystemExit", "arguments": [], "cause": None},
            {"kind": "StoreFailedError", "arguments": [], "cause": None},
        ),
        *(
            {"kind": "StoreFailedError", "arguments": 7, "cause": None},
            {"kind": "ValueError", "arguments": ["x"], "cause": 5},
        ),
        error_head(ZeroDivisionError("division")),
    ],
)
def test_an_error_that_is_none_of_ours(head: object) -> None:
    """It is a StoreUnavailableError with what can be understood of it."""
    error = error_in(head, ADDRESS)
    assert type(error) is StoreUnavailableError
    assert ADDRESS in str(error)


def test_a_long_reason_is_cut() -> None:
    """An error of any length fits into a message."""
    assert len(error_in(error_head(ValueError("x" * 10_000_000)), ADDRESS).args[0]) == 1000
    assert len(str(error_in(error_head(KeyError("x" * 10_000_000)), ADDRESS))) < 2000


def test_only_an_answer_with_an_error_raises() -> None:
    raise_if_error({"id": 1, "standing": [0, 0, 0]}, ADDRESS)
    with pytest.raises(StoreFailedError):
        raise_if_error({"error": error_head(StoreFailedError("path", "reason"))}, ADDRESS)
