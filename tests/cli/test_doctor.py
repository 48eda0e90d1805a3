"""doctor: a diagnosis as text, as JSON, and as a page for a browser."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from aquipu.cli.forms.diagnosis.words import bar_of, notable
from aquipu.local.check.diagnosis.diagnose import diagnose
from aquipu.local.check.diagnosis.facts import IndexState, Kind, SegmentFacts, State, Stretch
from aquipu.local.disk.disk import Disk
from tests.cli.support import run, well
from tests.support import flip, segments_in, snapshot

HOSTILE = "<script>alert(1)</script>&\x1b[31m\u202ename\udcff"


class Reading(HTMLParser):
    """What a browser would make of a page: its elements, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(path: Path, store: Path) -> Reading:
    """The page of a store, which is whole in itself: nothing of it is anywhere else."""
    run("doctor", store, "--html", path)
    text = path.read_text("utf-8")
    read = Reading()
    read.feed(text)
    assert read.open == []
    assert not {tag for tag, _ in read.elements} & {"script", "link", "img", "iframe", "a"}
    assert not {
        name for _, found in read.elements for name in found if name in ("src", "href", "onclick")
    }
    assert "http:" not in text
    assert "https:" not in text
    return read


def test_a_sound_store(segments: Path) -> None:
    """In words for people, with a map of the segments; exit code 0."""
    words = well("doctor", segments).decode()
    lines = words.splitlines()
    assert lines[0] == "sound"
    assert re.search(r"^records +40, sequences 0 to 39$", words, re.MULTILINE)
    assert re.search(r"^written by +nobody; the last writer closed it$", words, re.MULTILINE)
    assert len([line for line in lines if line.endswith("=" * 24)]) == len(segments_in(segments))
    assert "OPENING WOULD\n  go on where the log ends: there is nothing to mend\n" in words


def test_a_damaged_store(segments: Path, tmp_path: Path) -> None:
    """Exit code 1; what is damaged and what repair would do is in each form, the map included."""
    flip(segments_in(segments)[1], 1000)
    before = snapshot(segments)
    done = run("doctor", segments, "--html", tmp_path / "report.html")
    assert done.returncode == 1
    assert done.stdout.startswith(b"damaged\n")
    assert b"X" in done.stdout.partition(b"SEGMENTS")[2].partition(b"X damage")[0]
    assert b"REPAIR WOULD" in done.stdout
    assert f"the report is in {tmp_path / 'report.html'}\n".encode() in done.stderr
    answer = json.loads(run("doctor", segments, "--json").stdout)
    (damage,) = answer["damages"]
    assert damage["path"] == str(segments_in(segments)[1])
    kinds = [part["kind"] for part in answer["segments"][1]["stretches"]]
    assert "damage" in kinds
    assert answer["remarks"][0]["weight"] == "damage"
    assert snapshot(segments) == before
    read = page(tmp_path / "report.html", segments)
    assert ("damage", "10") in [(a.get("class"), a.get("height")) for _, a in read.elements]
    assert damage["reason"] in read.text


def test_a_quick_look_reads_no_more_than_an_opening(segments: Path) -> None:
    """So it does not find damage within a full segment, and says what it has read."""
    flip(segments_in(segments)[1], 1000)
    words = well("doctor", segments, "--quick").decode()
    assert re.search(r"^checked +what opening reads$", words, re.MULTILINE)


def test_hostile_names_are_data(segments: Path, tmp_path: Path) -> None:
    """Neither a terminal nor a browser takes the name of a file for more than a name."""
    (segments / HOSTILE.replace("/", "\u2215")).write_bytes(b"")
    words = well("doctor", segments)
    assert b"\x1b" not in words
    assert "\\u202e" in words.decode()
    read = page(tmp_path / "report.html", segments)
    assert "<script>alert(1)" in read.text
    assert "\u202e" not in read.text
    assert json.loads(well("doctor", segments, "--json"))["others"][0]["what"] == "unknown"


@pytest.mark.parametrize("where", ["report.html", "../store/report.html"])
def test_a_report_is_not_written_into_the_store(segments: Path, where: str) -> None:
    """That would make it a file that no store has."""
    before = snapshot(segments)
    assert run("doctor", segments, "--html", segments / where).returncode == 2
    assert snapshot(segments) == before


def test_the_address_of_a_log_in_a_database() -> None:
    """Its server is asked, and here is none; its password is not shown."""
    done = run("doctor", "postgresql://ada:secret@127.0.0.1:1/db?log=audit")
    assert done.returncode == 4
    assert b"secret" not in done.stderr


# the map


def segment(
    number: int, *stretches: Stretch, state: State = State.SEALED, index: str = "there"
) -> SegmentFacts:
    size = sum(part.bytes for part in stretches)
    return SegmentFacts(
        f"{number:020d}.segment",
        state,
        number,
        number + 1,
        1,
        size,
        None,
        None,
        0,
        IndexState(index),
        0,
        "0600",
        stretches,
    )


def test_a_small_damage_shows_in_the_map() -> None:
    """However little of a segment it is."""
    parts = (
        Stretch(Kind.FRAMES, 0, 5_000_000),
        Stretch(Kind.DAMAGE, 5_000_000, 1),
        Stretch(Kind.FRAMES, 5_000_001, 5_000_000),
    )
    assert bar_of(segment(0, *parts), 9) == "====X===="


def test_of_many_segments_those_that_matter_are_listed() -> None:
    """The newest, and any that is not whole; the others are counted."""
    many = [segment(number, Stretch(Kind.FRAMES, 0, 100)) for number in range(1000)]
    many[500] = segment(500, Stretch(Kind.DAMAGE, 0, 100), state=State.DAMAGED)
    listed = notable(many, 10, 10)
    assert [one if isinstance(one, int) else one.first_sequence for one in listed] == [
        500,
        500,
        489,
        *range(990, 1000),
    ]


def test_a_thousand_segments_are_a_page_that_can_be_read(segments: Path) -> None:
    """Each has a square, and the list only the newest."""
    from dataclasses import replace

    from aquipu.cli.forms.diagnosis.page import page_of

    found = diagnose(Disk(), str(segments))
    many = tuple(segment(number, Stretch(Kind.FRAMES, 0, 100)) for number in range(1000))
    text = page_of(replace(found, segments=many))
    assert text.count('<i class="sealed"') == 1000
    assert text.count("<svg") == 12
