"""Fuzz targets: any bytes at all, given to the frame decoder and to opening.

`decode` and `open_store` take bytes and make something of them that gets beyond the checksums:
whole frames and files that are sound and lie. They return when all is well and raise when it is
not. The tests feed them through hypothesis. Where atheris is installed, ``python -m
tests.faults.fuzz decode`` (or ``open_store``) lets it look for what hypothesis missed, with the
options that stand behind.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from struct import Struct
from typing import TypeVar

from aquipu.local.format.frame import (
    HEADER_BYTES,
    MAGIC,
    Header,
    encode,
    is_sound,
    keys_of,
    records,
)
from aquipu.local.format.manifest import MANIFEST_BYTES
from aquipu.local.format.names import MANIFEST, cut_name, first_sequence_of, segment_name
from aquipu.local.format.segment import (
    FOOTER_BYTES,
    SEGMENT_HEADER_BYTES,
    footer_bytes,
    is_sealed,
    seed_of,
)
from aquipu.local.format.structure import extend
from aquipu.local.format.walk import Walk, search
from tests.faults.fixture import Fixture, fixtures
from tests.faults.image import Bench, Image, fast_directory
from tests.faults.index import carried
from tests.faults.outcome import NOTICED, observe

T = TypeVar("T")

_HEADER = Struct("<4sIIIQQQIII")
_SEQUENCES_MAX = 1 << 64
_EXTREMES = (
    0,
    1,
    2,
    3,
    0x7F,
    0xFF,
    0xFFFF,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)
_EDITS_MAX = 6


class Source:
    """Decisions out of arbitrary bytes; zeros when they have run out."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._data)

    def bytes(self, count: int) -> bytes:
        """As many as are left, at most ``count``."""
        piece = self._data[self._at : self._at + count]
        self._at += count
        return piece

    def number(self, below: int) -> int:
        size = (max(below - 1, 1).bit_length() + 7) // 8
        return int.from_bytes(self.bytes(size), "little") % max(below, 1)

    def extreme(self) -> int:
        return self.choice(_EXTREMES)

    def choice(self, some: Sequence[T]) -> T:
        return some[self.number(len(some))]


# the decoder


def decode(data: bytes) -> None:
    """Sound frames, lying frames and noise, one behind another, decoded whole and in pieces: both
    must agree.
    """
    source = Source(data)
    seed = source.number(1 << 32)
    stream = b""
    link = first = source.number(1 << 32)
    sequence = start = source.number(16)
    while not source.is_empty:
        frame = _frame(source, seed, sequence, link)
        if frame.startswith(MAGIC) and len(frame) >= HEADER_BYTES:
            fields = _HEADER.unpack_from(frame)
            sequence, link = fields[4] + fields[2], fields[9]
        stream += frame
    whole = Walk(seed=seed, offset=0, sequence=start, link=first)
    whole.feed(stream)
    frames = list(whole)
    pieces = Walk(seed=seed, offset=0, sequence=start, link=first)
    assert _in_pieces(pieces, stream, 1 + source.number(97)) == frames
    assert (pieces.offset, pieces.sequence, pieces.fault) == (
        whole.offset,
        whole.sequence,
        whole.fault,
    )
    for _, header, body in frames:
        assert is_sound(header, body, seed)
        _read(header, body)
    for offset, header in search(stream, 0, seed):
        assert stream.startswith(MAGIC, offset)
        _read(header, stream[offset + HEADER_BYTES : offset + header.size])


def _in_pieces(walk: Walk, stream: bytes, size: int) -> list[tuple[int, Header, bytes]]:
    found = []
    for at in range(0, len(stream), size):
        walk.feed(stream[at : at + size])
        found += list(walk)
    return found


def _read(header: Header, body: bytes) -> None:
    """The only error that a body may raise is the one that `records` tells of."""
    try:
        found = records(header, body)
    except ValueError:
        return
    assert [record.sequence for record in found] == list(
        range(header.first_sequence, header.next_sequence)
    )
    assert sum(len(record.data) for record in found) <= len(body)
    with suppress(ValueError):
        assert all(key.first + key.records <= header.records for key in keys_of(header, body))


def _frame(source: Source, seed: int, sequence: int, link: int) -> bytes:
    """Noise, an honest frame, or one that lies."""
    kind = source.number(4)
    if kind == 0:
        return source.bytes(source.number(80))
    if kind == 1:
        return _sealed_frame(
            _fields(source, sequence, link), source.bytes(source.number(200)), seed
        )
    honest = _honest(source, seed, sequence, link)
    if kind == 2:
        return honest
    body = bytearray(honest[HEADER_BYTES:])
    for _ in range(1 + source.number(3)):
        at = source.number(len(body) + 1)
        body[at : at + 1 + source.number(4)] = source.bytes(source.number(5))
    fields = list(_HEADER.unpack_from(honest))
    if source.number(2):
        fields[1 + source.number(2)] = source.number(256)  # the flags, or the count of the records
    return _sealed_frame(fields, bytes(body), seed)


def _fields(source: Source, sequence: int, link: int) -> list[int | bytes]:
    """Of a header: mostly what would follow, now and then anything."""
    first = sequence if source.number(4) else source.extreme()
    return [
        MAGIC,
        source.number(16),
        source.number(20),
        0,
        first % _SEQUENCES_MAX,
        source.extreme(),
        source.extreme(),
        link,
        0,
        0,
    ]


def _honest(source: Source, seed: int, sequence: int, link: int) -> bytes:
    data = [source.bytes(source.number(20)) for _ in range(source.number(5))]
    labels = {n: ("user:7", "ü") for n in range(len(data)) if source.number(2)}
    first = sequence % _SEQUENCES_MAX
    frame = encode(
        data,
        [7] * len(data),
        labels=labels,
        first_sequence=first,
        time=7,
        watermark=first,
        link=link,
        seed=seed,
    )
    return b"".join(frame.buffers)


def _sealed_frame(fields: list[int | bytes], body: bytes, seed: int) -> bytes:
    """With the body's size and both checksums as they should be."""
    head = _HEADER.pack(*fields[:3], len(body), *fields[4:8], extend(seed, body), 0)[:-4]
    return head + extend(seed, head).to_bytes(4, "little") + body


# opening


def open_store(data: bytes) -> None:
    """A store whose files were edited, with checksums that are right all the same, or files that
    are nothing but noise.

    It opens and is read, or an error of the tree says why not; refused, it is left as it was;
    opened once more, it gives the same.
    """
    source = Source(data)
    image = dict(source.choice(_stores()).image)
    is_mended = source.number(4) > 0
    for _ in range(source.number(_EDITS_MAX)):
        _edit(source, image)
    if is_mended:
        image = {name: _sealed(name, content, image) for name, content in image.items()}
    with fast_directory() as directory:
        bench = Bench(Path(directory, "store"))
        bench.lay(image)
        outcome = observe(str(bench.path))
        if outcome.error is not None and not isinstance(outcome.error, NOTICED):
            raise outcome.error
        left = bench.read()
        if outcome.report is None:
            assert left == image, "refused, but the directory is changed"
        again = observe(str(bench.path))
        assert type(again.error) is type(outcome.error), (
            f"once {outcome.error!r}, and then {again.error!r}"
        )
        assert again.records == outcome.records, "the second opening gives other records"
        assert outcome.found in (None, carried(outcome.records)), (
            "other records are found by relation than carry it"
        )
        assert again.found == outcome.found


@cache
def _stores() -> list[Fixture]:
    return fixtures()


def _edit(source: Source, image: Image) -> None:
    name = source.choice(sorted(image))
    content = image[name]
    at = source.number(len(content) + 1)
    kind = source.number(8)
    if kind < 4:
        number = source.extreme().to_bytes(8, "little")[: source.choice((1, 2, 4, 8))]
        at = _structured(source, content) if source.number(4) else at
        image[name] = content[:at] + number + content[at + len(number) :]
    elif kind == 4:
        image[name] = (
            content[:at] + source.bytes(source.number(64)) + content[at + source.number(64) :]
        )
    elif kind == 5:
        image[name] = content[:at]
    elif kind == 6:
        image[name] = source.bytes(source.number(256))
    else:
        image[_new_name(source)] = image.pop(name)


def _structured(source: Source, content: bytes) -> int:
    """The offset of some field: of a frame's header or columns, of the beginning, of the end."""
    fields = [4 * n for n in range(HEADER_BYTES // 4 + 8)]
    starts = [0, max(len(content) - FOOTER_BYTES, 0)]
    at = content.find(MAGIC)
    while at >= 0:
        starts.append(at)
        at = content.find(MAGIC, at + 1)
    return min(source.choice(starts) + source.choice(fields), len(content))


def _new_name(source: Source) -> str:
    sequence = source.choice((source.number(200), source.extreme(), 10**20 - 1))
    return source.choice(
        (
            segment_name(sequence),
            cut_name(sequence, 7),
            f"{segment_name(sequence)}.unnamed",
            "other",
        )
    )


def _sealed(name: str, content: bytes, image: Image) -> bytes:
    """The file with all its checksums and links as they should be for what it says now."""
    if name == MANIFEST and len(content) >= MANIFEST_BYTES:
        return _with_check(content[:MANIFEST_BYTES], 0)
    first = first_sequence_of(name)
    if first is None or first >= _SEQUENCES_MAX or len(content) < SEGMENT_HEADER_BYTES:
        return content
    seed = seed_of(image.get(MANIFEST, b"")[16:32], first)
    return _sealed_segment(content, seed)


def _sealed_segment(content: bytes, seed: int) -> bytes:
    done = _with_check(content[:SEGMENT_HEADER_BYTES], seed)
    link = int.from_bytes(done[48:52], "little")
    while content.startswith(MAGIC, len(done)) and len(content) - len(done) >= HEADER_BYTES:
        fields = list(_HEADER.unpack_from(content, len(done)))
        start = len(done) + HEADER_BYTES
        body = content[start : start + fields[3]]
        if len(body) < fields[3]:
            break
        frame = _sealed_frame([*fields[:7], link, 0, 0], body, seed)
        link = int.from_bytes(frame[HEADER_BYTES - 4 : HEADER_BYTES], "little")
        done += frame
    rest = content[len(done) :]
    if is_sealed(rest) and len(rest) == footer_bytes(rest):
        rest = _with_check(rest[:-52] + link.to_bytes(4, "little") + rest[-48:], seed)
    return done + rest


def _with_check(structure: bytes, seed: int) -> bytes:
    return structure[:-4] + extend(seed, structure[:-4]).to_bytes(4, "little")


def main() -> None:
    """Let atheris choose the bytes, for as long as its options say."""
    target: Callable[[bytes], None] = {"decode": decode, "open_store": open_store}[sys.argv.pop(1)]
    atheris = import_module("atheris")
    atheris.instrument_all()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
